"""Search for models by what they do, accept and cost; synonyms and typing errors are handled."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from itertools import pairwise
from typing import Literal, get_args

from rh_prefect.catalog.model import Model, Output
from rh_prefect.catalog.registry import models
from rh_prefect.catalog.tags import TAGS, Input, Tag, inputs_of, spelled, split, tags_of
from rh_prefect.errors import InputError

_WORD = re.compile(r"[^\W_]+")
_ARTICLES = frozenset({"a", "an", "the", "my", "some", "any"})
_FILLERS = frozenset(
    re.findall(
        r"\w+",
        """
        ai and by can create creates do does for from generate generates generator generation i in into it make makes
        maker making model models of on or out please that to tool use using want which with
        """,
    )
)
"""Words that say nothing about a model, unless they stand in a known phrase."""

_LONGEST = 4
"""The most words that are looked up together; no phrase of the vocabulary has more."""

_ALIKE = 0.72
"""How like a known word an unknown one must be to be taken for it, from 0 to 1."""

_TYPO_RATIO = 0.5
"""How like a word must be to be offered where nothing is found."""


@dataclass(frozen=True, slots=True)
class Term:
    """One search term of a query: its words as typed, and its meaning if the vocabulary has it."""

    phrase: str
    tag: Tag | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed search; `taken_for` pairs each misspelt word with its replacement."""

    terms: tuple[Term, ...]
    words: tuple[str, ...]
    taken_for: tuple[tuple[str, str], ...]
    unknown: tuple[str, ...]


def read_query(text: str, names: frozenset[str]) -> Query:
    """Parses the text of a search; `names` are all words of the models' names, in lower case."""
    typed = [word.lower() for word in _WORD.findall(text)]
    without_articles = [word for word in typed if word not in _ARTICLES] or typed
    known = [(word, _known(word, names)) for word in without_articles]
    terms = list(_terms([as_ for _, as_ in known if as_]))
    query_terms = [term for term in terms if term.phrase not in _FILLERS] or terms
    return Query(
        terms=tuple(query_terms),
        words=tuple(word for term in query_terms for word in term.phrase.split()),
        taken_for=tuple((word, _shown(as_)) for word, as_ in known if as_ and as_ not in _forms(word)),
        unknown=tuple(word for word, as_ in known if not as_),
    )


def nearest_words(word: str, names: frozenset[str], *, limit: int = 3) -> list[str]:
    """Returns the known words and phrases that are most similar to an unknown word."""
    from difflib import get_close_matches  # most searches do not need it

    return list(dict.fromkeys(map(_shown, get_close_matches(word, _candidates(names), n=limit, cutoff=_TYPO_RATIO))))


def _terms(words: list[str]) -> Iterator[Term]:
    """Splits words into the longest known phrases, from left to right."""
    while words:
        size = next((size for size in range(_LONGEST, 1, -1) if "".join(words[:size]) in _phrases()), 1)
        head, words = words[:size], words[size:]
        _, tag = _phrases().get("".join(head), ("", None))
        yield Term(" ".join(head), tag)


@cache
def _phrases() -> dict[str, tuple[str, Tag]]:
    """Maps each name and synonym, without spaces, to its spelling and tag; a name takes precedence over a synonym."""
    named = {_joined(tag.name): (tag.name, tag) for tag in TAGS}
    synonyms = {_joined(phrase): (phrase, tag) for tag in TAGS for phrase in split(tag.synonyms)}
    return synonyms | named


@cache
def _phrase_words() -> frozenset[str]:
    return frozenset(word for phrase, _ in _phrases().values() for word in phrase.split())


def _joined(phrase: str) -> str:
    return phrase.replace(" ", "")


def _shown(word: str) -> str:
    return _phrases()[word][0] if word in _phrases() else word


def _known(word: str, names: frozenset[str]) -> str:
    """The nearest known word; empty if there is none."""
    for one in _forms(word):
        if one in _phrases() or one in _phrase_words() or one in names or one in _FILLERS:
            return one
    if len(word) >= 3 and any(word in name for name in names):
        return word
    return _alike(word, names) if len(word) > 3 else ""


def _alike(word: str, names: frozenset[str]) -> str:
    from difflib import get_close_matches  # most searches do not need it

    # A typing error is seldom in the first letter, and without this "relight" would be "starlight".
    begin_alike = [one for one in _candidates(names) if one[0] == word[0]]
    return next(iter(get_close_matches(word, begin_alike, n=1, cutoff=_ALIKE)), "")


def _candidates(names: frozenset[str]) -> list[str]:
    """Returns the words in a fixed order, so that the choice between two equally similar words is always the same."""
    return sorted({*_phrases(), *_phrase_words(), *(name for name in names if name.isalpha() and len(name) > 2)})


def _forms(word: str) -> tuple[str, str]:
    return word, word.removesuffix("s")


Sort = Literal["relevance", "price", "date", "name"]

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_STATUS = {"current": 0, "deprecated": 1, "gone": 2}

# The points of a term in a model, by the kind of the match; `_NEXT` less for each further near tag.
_DOES, _SAYS, _ENDPOINT, _PART, _ELSEWHERE = 10, 8, 8, 6, 4
_NEAR, _NEXT, _LEAST = 6, 1, 3
_ALSO_SAYS, _PAIR, _PHRASE, _INCOMPLETE = 2, 3, 8, -1


@dataclass(frozen=True, slots=True)
class Filter:
    """The conditions that limit which models a search considers; see `find`."""

    output: Output | None = None
    takes: Input | None = None
    family: str | None = None
    in_docs: bool | None = None
    with_old: bool = False
    max_price: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The models that a search has found, in order, and notes on replaced words and omitted models."""

    models: tuple[Model, ...]
    notes: tuple[str, ...] = ()


def find(
    query: str = "",
    *,
    output: Output | None = None,
    takes: Input | None = None,
    family: str | None = None,
    in_docs: bool | None = None,
    with_old: bool = False,
    max_price: Decimal | float | None = None,
    sort: Sort = "relevance",
) -> list[Model]:
    """Searches for models by what they do.

    Args:
        query: What the model does, as in "lip sync" or "kling image to video": synonyms, parts of words and small
            typing errors are understood.
        output: Only models that make this.
        takes: Only models that take this.
        family: Only models of this line.
        in_docs: Only models that the documentation lists, or only the others.
        with_old: Also models that are deprecated, or gone from RunningHub's newest lists.
        max_price: Only models of which one unit (a call, a second, ...) costs at least this or less; models without a
            known price are left out.
        sort: By relevance, and then the newest first; or by the least price of a unit, by the date of the newest list
            that has it, or by name.

    Returns:
        The models that do all that is asked for. Where none does, those that do most of it; where none does a thing,
        those that come nearest.

    Raises:
        InputError: The order does not exist.
    """
    price = None if max_price is None else Decimal(str(max_price))
    filters = Filter(output, takes, family, in_docs, with_old, price)
    return list(search(query, filters, sort=sort).models)


def search(text: str, filters: Filter, *, sort: Sort = "relevance") -> Found:
    """Searches like `find`, and also returns how the search text was interpreted."""
    if sort not in _ORDERS:
        raise InputError(f"Models cannot be sorted by {sort!r}; choose one of {', '.join(_ORDERS)}.")
    query = read_query(text, _names())
    cards = [card for card in _cards() if _matches_filters(card, filters)]
    matches = _matches(cards, query, is_all=not text.strip())
    unlisted = _about_unlisted(query)
    if not matches:
        return Found((), (_no_match(text, query), *unlisted))
    hits = max(match.hits for match in matches)
    best = [match for match in matches if match.hits == hits]
    shown, about_hidden = _without_near(best) if sort != "relevance" else (best, [])
    ranked, about_price = _affordable(sorted(shown, key=_ORDERS[sort]), filters.max_price)
    notes = (*_about(query, hits), *_about_near(query, ranked), *about_hidden, *about_price, *unlisted)
    return Found(tuple(match.card.model for match in ranked), notes)


@dataclass(frozen=True, slots=True)
class _Card:
    """The searchable data of one model: its texts in lower case, its tags and its inputs."""

    model: Model
    name: str
    endpoint: str
    more: str
    tags: frozenset[str]
    inputs: tuple[Input, ...]


@dataclass(frozen=True, slots=True)
class _Match:
    """The match of a model with a query: the weight of the matching terms, its points, and whether it is only near."""

    card: _Card
    hits: int
    score: int
    is_near: bool = False


@cache
def _cards() -> tuple[_Card, ...]:
    return tuple(
        _Card(
            model,
            spelled(model.name),
            spelled(model.endpoint),
            spelled(model.family, *model.groups),
            frozenset(tags_of(model)),
            inputs_of(model),
        )
        for model in models()
    )


@cache
def _names() -> frozenset[str]:
    return frozenset(
        word for card in _cards() for text in (card.name, card.endpoint, card.more) for word in text.split()
    )


def _matches_filters(card: _Card, filters: Filter) -> bool:
    model = card.model
    return (
        (filters.output is None or model.output == filters.output)
        and (filters.takes is None or filters.takes in card.inputs)
        and (filters.family is None or model.family == filters.family.lower())
        and (filters.in_docs is None or model.in_docs is filters.in_docs)
        and (filters.with_old or model.status == "current")
    )


def _matches(cards: Iterable[_Card], query: Query, *, is_all: bool) -> list[_Match]:
    if is_all:
        return [_Match(card, 0, 0) for card in cards]
    found = (_match(card, query) for card in cards)
    return [match for match in found if match.hits]


def _match(card: _Card, query: Query) -> _Match:
    points = [(term, _points(card, term)) for term in query.terms]
    had = [term for term, worth in points if worth]
    return _Match(
        card,
        hits=sum(map(_weight, had)),
        score=sum(worth for _, worth in points) + _bonus(card, query),
        is_near=any(term.tag is not None and term.tag.name not in card.tags for term in had),
    )


def _weight(term: Term) -> int:
    """Ranks what a model does above what it makes: "music for a video" finds music before videos."""
    return 1 if term.tag is not None and term.tag.name in get_args(Output) else 2


def _points(card: _Card, term: Term) -> int:
    """Returns the points of one model for one term; zero if it does not match."""
    if term.tag is None:
        return _points_of_word(card, term.phrase)
    says = f" {term.phrase} " in card.name or f" {term.tag.name} " in card.name
    if term.tag.name in card.tags:
        return _DOES + _ALSO_SAYS * says
    if says:
        return _SAYS
    near = (place for place, name in enumerate(split(term.tag.near)) if name in card.tags)
    return max((max(_NEAR - _NEXT * place, _LEAST) for place in near), default=0)


def _points_of_word(card: _Card, word: str) -> int:
    whole = f" {word} "
    if whole in card.name:
        return _DOES
    if whole in card.endpoint:
        return _ENDPOINT
    if len(word) > 2 and (word in card.name or word in card.endpoint):
        return _PART
    return _ELSEWHERE if whole in card.more else 0


def _bonus(card: _Card, query: Query) -> int:
    """Returns the points for adjacent words, less a deduction for a model with incompletely known parameters."""
    words = query.words
    together = sum(f" {left} {right} " in card.name for left, right in pairwise(words))
    is_phrase = len(words) > 1 and f" {' '.join(words)} " in card.name
    return _PAIR * together + _PHRASE * is_phrase + _INCOMPLETE * card.model.incomplete


def _relevance(match: _Match) -> tuple[object, ...]:
    model = match.card.model
    version = tuple(-float(number) for number in _NUMBER.findall(model.name)[:1])
    return (
        -match.score,
        _age(model),
        _STATUS[model.status],
        not model.in_docs,
        version,
        len(model.name),
        model.name,
    )


def _age(model: Model) -> int:
    """Returns a sort key that places models of newer lists before models that only older lists have."""
    return -int(model.seen.replace("-", "") or 0)


def _least_price(match: _Match) -> tuple[object, ...]:
    price = match.card.model.price
    return (price is None, price.least if price else Decimal(0), *_relevance(match))


_ORDERS: dict[str, Callable[[_Match], tuple[object, ...]]] = {
    "relevance": _relevance,
    "price": _least_price,
    "date": lambda match: (_age(match.card.model), *_relevance(match)),
    "name": lambda match: (match.card.model.name.lower(),),
}


def _without_near(best: list[_Match]) -> tuple[list[_Match], list[str]]:
    """Removes near matches, which only the order by relevance puts last."""
    exact = [match for match in best if not match.is_near]
    near = len(best) - len(exact)
    if not exact or not near:
        return best, []
    return exact, [f"Not shown, because they match only in part: {_count(near)}; sort by relevance to see them."]


def _affordable(ranked: list[_Match], most: Decimal | None) -> tuple[list[_Match], list[str]]:
    if most is None:
        return ranked, []
    unknown = sum(match.card.model.price is None for match in ranked)
    affordable = [match for match in ranked if (price := match.card.model.price) is not None and price.least <= most]
    notes = [] if affordable else [f"Of the models that match, none has a known price of {most} or less."]
    if unknown:
        notes.append(f"Not shown, because no price is known: {_count(unknown)}.")
    return affordable, notes


def _count(number: int) -> str:
    return f"{number} model{'s' if number > 1 else ''}"


def _about(query: Query, hits: int) -> list[str]:
    notes = [f'"{typed}" is interpreted as "{meaning}".' for typed, meaning in query.taken_for]
    notes += [f'"{word}" is unknown and is ignored.' for word in query.unknown]
    if hits < sum(map(_weight, query.terms)):
        phrases = ", ".join(f'"{term.phrase}"' for term in query.terms)
        notes.append(f"No model has all of {phrases}; these have most of them.")
    return notes


def _about_near(query: Query, ranked: Sequence[_Match]) -> list[str]:
    """Returns a note for each search term that the shown models match only nearly."""
    notes = []
    for term in query.terms:
        tag = term.tag
        if not ranked or tag is None or not tag.near or any(tag.name in match.card.tags for match in ranked):
            continue
        near = ", ".join(name for name in split(tag.near) if any(name in match.card.tags for match in ranked))
        which = "None of these" if any(tag.name in card.tags for card in _cards()) else "No model"
        notes.append(f'{which} is known to do "{term.phrase}"' + (f"; the nearest do: {near}." if near else "."))
    return notes


UNLISTED = ("rhart-video/minimax-h3-rh-enhanced/i2va", "rhart-video/minimax-h3-rh-enhanced/t2va")
"""Endpoints that RunningHub has and whose parameters no public source shows."""


def _about_unlisted(query: Query) -> list[str]:
    found = [one for one in UNLISTED if query.words and {*query.words} <= {*spelled(one).split()}]
    if not found:
        return []
    return [f"Not in the catalogue, because the parameters are not known: {', '.join(found)}; call with models.custom."]


def _no_match(text: str, query: Query) -> str:
    if _matches(_cards(), query, is_all=not text.strip()):
        return f'No model matches "{text}" with these options; remove an option, or search old models too.'
    near = [near for word in query.unknown or query.words for near in nearest_words(word, _names())]
    known = ", ".join(tag.name for tag in TAGS)
    words = f"Similar words: {', '.join(near)}." if near else f"Words that are known: {known}."
    return f'No model matches "{text}". {words}'

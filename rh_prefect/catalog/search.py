"""Searches for models by what they do, accept and cost; understands synonyms and typing errors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from functools import cache
from itertools import pairwise
from typing import Any, Literal, get_args

from rh_prefect.catalog.model import Model, Output
from rh_prefect.catalog.registry import models
from rh_prefect.catalog.tags import ARTICLES, FILLERS, TAGS, Input, Tag, inputs_of, spelled, tags_of
from rh_prefect.display_texts import counted
from rh_prefect.errors import InputError

Sort = Literal["relevance", "price", "date", "name"]

_WORD = re.compile(r"[^\W_]+")
_LONGEST = 4
"""Maximum number of words in a phrase of the vocabulary."""

_ALIKE = 0.72
"""Minimum similarity, from 0 to 1, of an unknown word to the known word that replaces it."""

_TYPO_RATIO = 0.5
"""Minimum similarity for a word to be suggested if nothing is found."""


class Found(list[Model]):
    """The models that a search has found, in order; `notes` lists replaced words and the number of omitted models."""

    def __init__(self, models: Iterable[Model], notes: Iterable[str]) -> None:
        super().__init__(models)
        self.notes = tuple(notes)


def find(
    query: str = "",
    *,
    output: Output | None = None,
    takes: Input | None = None,
    family: str | None = None,
    with_old: bool = False,
    max_price: Decimal | float | None = None,
    sort: Sort = "relevance",
) -> Found:
    """Searches for models by what they do.

    Args:
        query: What the model does, as in "lip sync" or "kling image to video"; synonyms, parts of words and small
            typing errors also match.
        output: Only models with this kind of output.
        takes: Only models with this kind of input.
        family: Only models of this family.
        with_old: Whether to include models that are deprecated, or no longer in RunningHub's newest lists.
        max_price: Only models whose cheapest unit (a call, a second, ...) costs at most this; models without a
            known price are omitted.
        sort: The order: by relevance, and then the newest first; by the lowest price of a unit; by the date of the
            newest list that has the model; or by name.

    Returns:
        The models that match the whole query; if there are none, the models that match most of the query, or the most
        similar models. `notes` says how the query was understood.

    Raises:
        InputError: `sort` is not a known order.
    """
    if sort not in get_args(Sort):
        raise InputError(f"Models cannot be sorted by {sort!r}. What to do: choose one of {', '.join(get_args(Sort))}.")
    asked = _Query(query)
    cards = [
        card
        for card in _cards()
        if (output is None or card.model.output == output)
        and (takes is None or takes in card.inputs)
        and (family is None or card.model.family == family.lower())
        and (with_old or card.model.status == "current")
    ]
    matches = asked.matches(cards)
    if not matches:
        return Found((), [_no_match(asked)])
    hits = max(match.hits for match in matches)
    best = [match for match in matches if match.hits == hits]
    shown = best if sort == "relevance" else [match for match in best if not match.is_near] or best
    shown.sort(key=lambda match: match.order(sort))
    most = None if max_price is None else Decimal(str(max_price))
    ranked = [match for match in shown if most is None or match.costs(most)]
    notes = [*_about(asked, hits), *_about_near(asked, ranked)]
    if near := len(best) - len(shown):
        notes.append(
            f"Not shown, because they match only in part: {counted(near, 'model')}; sort by relevance to see them."
        )
    if most is not None and not ranked:
        notes.append(f"Of the models that match, none has a known price of {most} or less.")
    if most is not None and (unknown := sum(match.card.model.price is None for match in shown)):
        notes.append(f"Not shown, because no price is known: {counted(unknown, 'model')}.")
    return Found([match.card.model for match in ranked], notes)


class _Card:
    """The searchable data of one model: its strings in lower case, its tags and its inputs."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.name = spelled(model.name)
        self.endpoint = spelled(model.endpoint)
        self.more = spelled(model.family, *model.groups)
        self.tags = frozenset(tags_of(model))
        self.inputs = inputs_of(model)


@cache
def _cards() -> tuple[_Card, ...]:
    return tuple(map(_Card, models()))


@cache
def _names() -> frozenset[str]:
    """Returns all words of the models' names."""
    return frozenset(
        word for card in _cards() for text in (card.name, card.endpoint, card.more) for word in text.split()
    )


@cache
def _phrases() -> Mapping[str, tuple[str, Tag]]:
    """Maps names and synonyms, without spaces, to their spelling and tag; a name has priority over a synonym."""
    known = [*((phrase, tag) for tag in TAGS for phrase in tag.synonyms), *((tag.name, tag) for tag in TAGS)]
    return {phrase.replace(" ", ""): (phrase, tag) for phrase, tag in known}


@cache
def _vocabulary() -> frozenset[str]:
    return frozenset({*_phrases(), *(word for phrase, _ in _phrases().values() for word in phrase.split())})


@dataclass(frozen=True, slots=True)
class _Term:
    """One search term of a query: the words as typed, and their meaning if the vocabulary contains the term."""

    phrase: str
    tag: Tag | None

    @property
    def weight(self) -> int:
        """Ranks the model's task above its output: "music for a video" finds music before videos."""
        return 1 if self.tag is not None and self.tag.name in get_args(Output) else 2

    def points(self, card: _Card) -> int:
        """Returns one model's points for this term; zero if the model does not match."""
        whole = f" {self.phrase} "
        if self.tag is None:
            is_part = len(self.phrase) > 2 and (self.phrase in card.name or self.phrase in card.endpoint)
            return 10 * (whole in card.name) or 8 * (whole in card.endpoint) or 6 * is_part or 4 * (whole in card.more)
        says = whole in card.name or f" {self.tag.name} " in card.name
        if self.tag.name in card.tags or says:
            return 10 + 2 * says if self.tag.name in card.tags else 8
        place = next((place for place, name in enumerate(self.tag.near) if name in card.tags), None)
        return 0 if place is None else max(6 - place, 3)


class _Match:
    """A model's match with a query: the weight of the matching terms, the score, and whether the match is partial."""

    def __init__(self, card: _Card, query: _Query) -> None:
        found = [(term, points) for term in query.terms if (points := term.points(card))]
        self.card = card
        self.hits = sum(term.weight for term, _ in found)
        self.score = sum(points for _, points in found) + query.bonus(card)
        self.is_near = any(term.tag is not None and term.tag.name not in card.tags for term, _ in found)

    def order(self, sort: Sort) -> tuple[Any, ...]:
        """Returns the sort key of the match."""
        model = self.card.model
        age = -int(model.seen.replace("-", "") or 0)
        status = ("current", "deprecated", "gone").index(model.status)
        version = tuple(-float(number) for number in re.findall(r"\d+(?:\.\d+)?", model.name)[:1])
        relevance = (-self.score, age, status, not model.in_docs, version, len(model.name), model.name)
        keys: dict[Sort, tuple[Any, ...]] = {
            "relevance": relevance,
            "price": (model.price is None, model.price.least if model.price else 0, *relevance),
            "date": (age, *relevance),
            "name": (model.name.lower(),),
        }
        return keys[sort]

    def costs(self, most: Decimal) -> bool:
        """Returns whether the cheapest unit costs at most this amount; False if the price is not known."""
        return self.card.model.price is not None and self.card.model.price.least <= most


class _Query:
    """A parsed search; `taken_for` pairs each misspelt word with its replacement."""

    def __init__(self, text: str) -> None:
        self.text = text
        typed = [word.lower() for word in _WORD.findall(text)]
        without_articles = [word for word in typed if word not in ARTICLES] or typed
        known = [(word, _known(word)) for word in without_articles]
        terms = list(_terms([as_ for _, as_ in known if as_]))
        self.terms = [term for term in terms if term.phrase not in FILLERS] or terms
        self.words = [word for term in self.terms for word in term.phrase.split()]
        self.taken_for = [(word, _shown(as_)) for word, as_ in known if as_ and as_ not in _forms(word)]
        self.unknown = [word for word, as_ in known if not as_]

    def matches(self, cards: Iterable[_Card]) -> list[_Match]:
        """Returns the models that match at least in part; all models for an empty query."""
        found = [_Match(card, self) for card in cards]
        return [match for match in found if match.hits or not self.text.strip()]

    def bonus(self, card: _Card) -> int:
        """Returns the points for adjacent words, minus a deduction if some parameters of the model are not known."""
        if not self.words:
            return 0
        together = sum(f" {left} {right} " in card.name for left, right in pairwise(self.words))
        is_phrase = len(self.words) > 1 and f" {' '.join(self.words)} " in card.name
        return 3 * together + 8 * is_phrase - card.model.incomplete


def _terms(words: list[str]) -> Iterator[_Term]:
    """Splits words into the longest known phrases, from left to right."""
    while words:
        size = next((size for size in range(_LONGEST, 1, -1) if "".join(words[:size]) in _phrases()), 1)
        head, words = words[:size], words[size:]
        _, tag = _phrases().get("".join(head), ("", None))
        yield _Term(" ".join(head), tag)


def _known(word: str) -> str:
    """Returns the nearest known word; empty if there is none."""
    for one in _forms(word):
        if one in _vocabulary() or one in _names() or one in FILLERS:
            return one
    if len(word) >= 3 and any(word in name for name in _names()):
        return word
    # A typing error is seldom in the first letter, and without this check "relight" would become "starlight".
    begin_alike = [one for one in _candidates() if one[0] == word[0]]
    return next(iter(get_close_matches(word, begin_alike, n=1, cutoff=_ALIKE)), "") if len(word) > 3 else ""


def _forms(word: str) -> tuple[str, str]:
    return word, word.removesuffix("s")


def _shown(word: str) -> str:
    return _phrases()[word][0] if word in _phrases() else word


def _candidates() -> list[str]:
    """Returns the words in a fixed order, so that the choice between equally similar words is always the same."""
    return sorted({*_vocabulary(), *(name for name in _names() if name.isalpha() and len(name) > 2)})


def _about(query: _Query, hits: int) -> Iterator[str]:
    yield from (f'"{typed}" is interpreted as "{meaning}".' for typed, meaning in query.taken_for)
    yield from (f'"{word}" is unknown and is ignored.' for word in query.unknown)
    if hits < sum(term.weight for term in query.terms):
        phrases = ", ".join(f'"{term.phrase}"' for term in query.terms)
        yield f"No model has all of {phrases}; these models have most of them."


def _about_near(query: _Query, ranked: list[_Match]) -> Iterator[str]:
    """Yields a note for each search term that the shown models match only in part."""
    shown = {name for match in ranked for name in match.card.tags}
    for term in query.terms:
        tag = term.tag
        if not ranked or tag is None or not tag.near or tag.name in shown:
            continue
        near = ", ".join(name for name in tag.near if name in shown)
        which = "None of these models" if any(tag.name in card.tags for card in _cards()) else "No model"
        yield f'{which} is known to do "{term.phrase}"' + (f"; the most similar models do: {near}." if near else ".")


def _no_match(query: _Query) -> str:
    if query.matches(_cards()):
        return f'No model matches "{query.text}" with these options; remove an option, or search old models too.'
    like = (get_close_matches(word, _candidates(), n=3, cutoff=_TYPO_RATIO) for word in query.unknown or query.words)
    similar = dict.fromkeys(_shown(word) for words in like for word in words)
    known = f"Known words: {', '.join(tag.name for tag in TAGS)}."
    return f'No model matches "{query.text}". ' + (f"Similar words: {', '.join(similar)}." if similar else known)

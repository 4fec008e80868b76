"""Reads what a person types into a search: known phrases, their synonyms, and words with typing errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from rh_prefect.catalog.tag_table import TAGS, Tag, split

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

_NEAR = 0.5
"""How like a word must be to be offered where nothing is found."""


@dataclass(frozen=True, slots=True)
class Term:
    """One thing that is asked for.

    Attributes:
        phrase: The words for it, as they were typed.
        tag: What they mean, where the vocabulary has it.
    """

    phrase: str
    tag: Tag | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """What a search asks for.

    Attributes:
        terms: All of it.
        words: The words of the terms, in order.
        taken_for: Words with typing errors, and what they are taken for.
        unknown: Words that are like nothing known.
    """

    terms: tuple[Term, ...]
    words: tuple[str, ...]
    taken_for: tuple[tuple[str, str], ...]
    unknown: tuple[str, ...]


def read_query(text: str, names: frozenset[str]) -> Query:
    """Reads a search.

    Args:
        text: What was typed.
        names: All words of the models' names, in lower case.
    """
    typed = [word.lower() for word in _WORD.findall(text)]
    known = [(word, _known(word, names)) for word in _without(typed, _ARTICLES)]
    terms = list(_terms([as_ for _, as_ in known if as_]))
    asked = [term for term in terms if term.phrase not in _FILLERS] or terms
    return Query(
        terms=tuple(asked),
        words=tuple(word for term in asked for word in term.phrase.split()),
        taken_for=tuple((word, _shown(as_)) for word, as_ in known if as_ and not _is_like(word, as_)),
        unknown=tuple(word for word, as_ in known if not as_),
    )


def nearest_words(word: str, names: frozenset[str], *, limit: int = 3) -> list[str]:
    """Names the known words and phrases that are most like an unknown word.

    Args:
        word: The unknown word.
        names: All words of the models' names, in lower case.
        limit: The most of them.
    """
    from difflib import get_close_matches  # most searches do not need it

    return list(dict.fromkeys(map(_shown, get_close_matches(word, _candidates(names), n=limit, cutoff=_NEAR))))


def _without(words: list[str], dropped: frozenset[str]) -> list[str]:
    return [word for word in words if word not in dropped] or words


def _terms(words: list[str]) -> Iterator[Term]:
    """Takes the longest phrases that are known, from left to right."""
    while words:
        size = next((size for size in range(_LONGEST, 1, -1) if "".join(words[:size]) in _phrases()), 1)
        head, words = words[:size], words[size:]
        _, tag = _phrases().get("".join(head), ("", None))
        yield Term(" ".join(head), tag)


@cache
def _phrases() -> dict[str, tuple[str, Tag]]:
    """Every name and synonym without its spaces, with its spelling and its tag; names go before synonyms."""
    named = {_joined(tag.name): (tag.name, tag) for tag in TAGS}
    asked = {_joined(phrase): (phrase, tag) for tag in TAGS for phrase in split(tag.asked)}
    return asked | named


@cache
def _phrase_words() -> frozenset[str]:
    return frozenset(word for phrase, _ in _phrases().values() for word in phrase.split())


def _joined(phrase: str) -> str:
    return phrase.replace(" ", "")


def _shown(word: str) -> str:
    return _phrases()[word][0] if word in _phrases() else word


def _known(word: str, names: frozenset[str]) -> str:
    """The known word that is meant; nothing where there is none."""
    for one in (word, word.removesuffix("s")):
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
    """In order, so that of two that are equally like a word it is always the same one that is taken."""
    return sorted({*_phrases(), *_phrase_words(), *(name for name in names if name.isalpha() and len(name) > 2)})


def _is_like(word: str, as_: str) -> bool:
    return as_ in (word, word.removesuffix("s"))

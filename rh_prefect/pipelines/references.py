"""Parses references, `$(name.field or other)`, in the strings of a file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

Names: TypeAlias = tuple[str, ...]
"""One option of a reference: a name and its fields."""

_PATH = re.compile(r"[^\W]\w*(?:-\w+)*(?:\.\w+(?:-\w+)*)*")
_MARK = re.compile(r"""\$\$\(|\$\((?:(?:"[^"\n]*"|'[^'\n]*'|[^)"'])*\)|[^)]*\))?""")
"""`$$(`, or a reference, which a bracket in correct quotes does not end; only `$(` if it does not end."""

_LITERAL = re.compile(r"""(?P<quoted>"[^"\n]*"|'[^'\n]*')|(?P<number>-?\d+(?:\.\d+)?)""")
_OR = re.compile(r"""\s+or\s+(?=(?:[^"']|"[^"]*"|'[^']*')*$)""")


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference, such as `$(clip or params.clip)`."""

    text: str  # As it is written, with `$(` and `)`
    options: tuple[Names, ...]  # The ways to the value; the first that exists counts
    fallback: str | float | None = None  # The literal value behind the last `or`; None if there is none


@dataclass(frozen=True, slots=True)
class Template:
    """A string, split into references and the text between them."""

    parts: tuple[str | Reference, ...]  # Texts and references, in order
    references: tuple[Reference, ...]  # The references alone
    only: Reference | None  # The reference, if it is the whole text, so that its type is kept
    literal: str | None  # The text, if there is no reference in it


class WrongReferenceError(ValueError):
    """A string contains an invalid reference."""

    def __init__(self, message: str, needle: str) -> None:
        super().__init__(message)
        self.needle = needle  # The wrong part of the text


@lru_cache(maxsize=8192)
def parse(text: str) -> Template:
    """Splits a string into its references and the text between them."""
    parts: list[str | Reference] = []
    plain, at = "", 0
    for mark in _MARK.finditer(text):
        plain += text[at : mark.start()]
        at = mark.end()
        if mark.group() == "$(":
            raise WrongReferenceError(f"'{text[mark.start() :][:30]}' has no closing )", "$(")
        if mark.group() == "$$(":
            plain += "$("
        else:
            parts += [plain, _reference(mark.group())]
            plain = ""
    joined = tuple(part for part in (*parts, plain + text[at:]) if part)
    references = tuple(part for part in joined if isinstance(part, Reference))
    only = references[0] if references and len(joined) == 1 else None
    return Template(joined, references, only, None if references else "".join(map(str, joined)))


def _reference(text: str) -> Reference:
    inner = text[2:-1].strip()
    options = _OR.split(inner)
    literal = _LITERAL.fullmatch(options[-1]) if len(options) > 1 else None
    for option in options[:-1] if literal is not None else options:
        if not _PATH.fullmatch(option):
            raise WrongReferenceError(_unquoted(text, option, options) or _why(text, inner, option), text)
    names = tuple(tuple(option.split(".")) for option in options)
    return Reference(text, names) if literal is None else Reference(text, names[:-1], _value_of(literal))


def _value_of(literal: re.Match[str]) -> str | float:
    if literal["quoted"] is not None:
        return literal["quoted"][1:-1]
    return float(literal["number"]) if "." in literal["number"] else int(literal["number"])


def in_quotes(text: str, option: str) -> str:
    """Returns a corrected reference for a message: its last option is a literal in straight quotes."""
    literal = option.strip("\"'“”„‘’«» ")
    quote = '"' if "'" in literal else "'"
    return f"{text[:-1].rstrip().removesuffix(option).rstrip()} {quote}{literal}{quote})"


def _unquoted(text: str, option: str, options: Sequence[str]) -> str:
    """Returns a message if a string after the last `or` has no quotes or wrong quotes; empty otherwise."""
    is_last = len(options) > 1 and option is options[-1]
    if not is_last or not re.fullmatch(r"""["'“”„‘’«»\w ]*\w["'“”„‘’«»\w ]*""", option):
        return ""
    return f"{text}: a string after 'or' needs straight quotes, as in {in_quotes(text, option)}"


def _why(text: str, inner: str, option: str) -> str:
    if not inner:
        return "$() is empty; write $(params.name), $(item.column) or $(step)"
    if _LITERAL.fullmatch(option):
        return f"{text}: a literal is allowed only after the last 'or', as in $(name or {option})"
    if "[" in option:
        return (
            f"{text} has an index, but references have none; in a fan-out, $(item…) and the steps' names refer to the "
            "current item"
        )
    if re.search(r"[-+*/<>=|?&!\"'({]|\s(and|if|else)\s", option):
        return f"{text} is an expression, but a reference only names a value: $(name.field), or $(first or second)"
    return f"{text} is not a reference: a reference consists of names separated by dots, with 'or' between alternatives"


def texts_in(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yields all strings in a value, with their paths, which begin with `path`."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from texts_in(one, (*path, key))


def references_in(value: Any) -> Iterator[tuple[tuple[str | int, ...], Reference]]:
    """Yields all references in a value, with their paths in the value; skips strings with an invalid reference."""
    for path, text in texts_in(value):
        if "$(" in text and (template := _parsed(text)) is not None:
            yield from ((path, reference) for reference in template.references)


def _parsed(text: str) -> Template | None:
    try:
        return parse(text)
    except WrongReferenceError:
        return None


def is_reference(value: Any) -> bool:
    """Returns whether a value is exactly one reference."""
    return isinstance(value, str) and (template := _parsed(value)) is not None and template.only is not None


def has_reference(value: Any) -> bool:
    """Returns whether a value contains a reference."""
    return next(iter(references_in(value)), None) is not None


def shown(value: Any) -> str:
    """Returns a value for messages: a reference unchanged, other strings in quotes."""
    if isinstance(value, str):
        return value if "$(" in value else f"'{value}'"
    return str(value).lower() if isinstance(value, bool) else str(value)

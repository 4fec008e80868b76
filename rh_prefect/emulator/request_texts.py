"""Collects the strings of a JSON request, and separates links from words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

_SCHEMES: Final = ("http://", "https://", "data:", "asset://")


def texts(value: object) -> Iterable[str]:
    """Finds every string in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)


def is_link(value: object) -> bool:
    """Returns whether a value is a link to a file."""
    return isinstance(value, str) and value.startswith(_SCHEMES)


def words(payload: Mapping[str, object]) -> Iterable[str]:
    """Finds the strings that are not links, because ids and digests in links can contain any short word."""
    return (text for text in texts(payload) if not is_link(text))


def spelled(value: object) -> str:
    """Returns a JSON value as a string: `true` for true, `5` for 5 and for 5.0."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)

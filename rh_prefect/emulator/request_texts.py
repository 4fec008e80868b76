"""What a request says: its texts, and which of them are somebody's words and which are links."""

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
    """Tells whether a value can stand for a file in a request."""
    return isinstance(value, str) and value.startswith(_SCHEMES)


def words(payload: Mapping[str, object]) -> Iterable[str]:
    """Finds what a person wrote: links carry ids and digests, in which any short word turns up by chance."""
    return (text for text in texts(payload) if not is_link(text))


def spelled(value: object) -> str:
    """Writes a JSON value as text: `true` for true, `5` for 5 and for 5.0."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)

"""Copies and converts JSON-like values, and explains why a value cannot be written as JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

DEEPEST = 100
"""Maximum depth of nested lists and objects."""

_MOST_DIGITS = 300
_MOST = 10**_MOST_DIGITS


def snapshot(value: Any, *, depth: int = 0) -> Any:
    """Returns a copy of lists, tuples and objects, so that later changes by the caller have no effect."""
    if depth > DEEPEST:
        return value
    if type(value) is dict:
        return {name: snapshot(one, depth=depth + 1) for name, one in value.items()}
    if type(value) is list:
        return [snapshot(one, depth=depth + 1) for one in value]
    if type(value) is tuple:
        return tuple(snapshot(one, depth=depth + 1) for one in value)
    return bytes(value) if isinstance(value, bytearray) else value


def converted(value: Any, convert: Callable[[Any], Any], *, depth: int = 0) -> Any:
    """Returns lists and objects with each value in them converted; a part that is nested too deeply becomes None."""
    if depth > DEEPEST:
        return None
    if isinstance(value, Mapping):
        return {str(name): converted(one, convert, depth=depth + 1) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [converted(one, convert, depth=depth + 1) for one in value]
    return convert(value)


def flaw_of(value: Any, *, depth: int = 0) -> str:
    """Returns a clause that says why a value cannot be sent or recorded; empty if the value has no flaw.

    Files and other objects are not checked here; the code that uses them reports their problems.
    """
    if isinstance(value, str):
        return "" if is_text(value) else "contains an incomplete character (a lone surrogate), which is not valid text"
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"contains {value}, which is not a number that can be sent"
    if isinstance(value, int):
        return "" if -_MOST < value < _MOST else f"contains a number of more than {_MOST_DIGITS} digits"
    if isinstance(value, dict | list | tuple):
        return _flaw_within(value, depth)
    return ""


def _flaw_within(value: dict[Any, Any] | list[Any] | tuple[Any, ...], depth: int) -> str:
    if depth >= DEEPEST:
        return f"contains lists or objects that are nested more than {DEEPEST} levels deep"
    parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
    return next((flaw for flaw in (flaw_of(one, depth=depth + 1) for one in parts) if flaw), "")


def is_text(text: str) -> bool:
    """Returns whether a string can be written as UTF-8, which is impossible for half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

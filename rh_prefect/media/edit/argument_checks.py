"""Checks for the arguments of edits; each check raises an `InputError` for an argument that is not valid."""

from __future__ import annotations

import math
from typing import get_args

from rh_prefect.errors import InputError

_LARGEST = 16384
"""Maximum width and height, in pixels, that H.264 allows."""


def check_number(name: str, value: float | None, least: float, most: float) -> None:
    """Raises an `InputError` if a number is not from `least` to `most`; None is allowed."""
    if value is not None and not least <= value <= most:
        raise InputError(
            f"`{name}` must be from {least:g} to {most:g}, not {value:g}. What to do: pass a number in this range."
        )


def check_size(width: int | None, height: int | None) -> None:
    """Raises an `InputError` if a width or a height in pixels is not possible; None is allowed."""
    check_number("width", width, 1, _LARGEST)
    check_number("height", height, 1, _LARGEST)


def check_word(name: str, word: str, words: object) -> None:
    """Raises an `InputError` if a word is not one of the words in a `Literal`."""
    if word not in get_args(words):
        raise InputError(f"`{name}` must be {' or '.join(get_args(words))}, not {word}. What to do: use one of these.")


def check_time(name: str, seconds: float | None) -> None:
    """Raises an `InputError` if a time is negative, infinite or not a number; None is allowed."""
    if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
        raise InputError(
            f"`{name}` must be 0 or more seconds, not {seconds:g}. What to do: pass a time of 0 or more seconds."
        )

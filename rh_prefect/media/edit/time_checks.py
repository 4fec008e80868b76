"""Checks of the times that the edits take."""

from __future__ import annotations

import math

from rh_prefect.errors import InputError


def check_time(name: str, seconds: float | None) -> None:
    """Raises an `InputError` for a time that is negative, infinite or no number; None is no time."""
    if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
        raise InputError(f"`{name}` must be 0 or more seconds, not {seconds:g}. What to do: pass another time.")

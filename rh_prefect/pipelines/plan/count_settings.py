"""Evaluates the settings `limit`, `takes` and `at_most` of a step, which the plan's prices depend on."""

from __future__ import annotations

from typing import Any

from rh_prefect.catalog.model import text_of
from rh_prefect.pipelines.evaluation import evaluate
from rh_prefect.pipelines.planning_values import ABSENT, Frame, Unknown


def count_of(key: str, written: int | str | None, frame: Frame) -> tuple[int | None, str]:
    """Evaluates a count.

    Args:
        key: `limit`, `takes` or `at_most`.
        written: As it stands in the file; None where it is left out.
        frame: The names at its place.

    Returns:
        The count, None if there is none that can be used; and what is wrong.
    """
    if written is None:
        return None, ""
    value = evaluate(written, frame)
    if isinstance(value, Unknown):
        return None, f"{key} must be a whole number that is known before the run, and {written} is made by a step"
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or value < 1:
        return None, f"{key} must be a whole number from 1 on, and {written} {_shown(value)}"
    return int(value), ""


def _shown(value: Any) -> str:
    if value is ABSENT:
        return "is absent"
    return f"is {text_of(value)}" if isinstance(value, int | float) else "is none"

"""Evaluates the counts of a step, and limits the size of a plan before it is expanded.

A count can come from a form, so a wrong count must not exhaust the memory of a worker.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rh_prefect.catalog.model import text_of
from rh_prefect.pipelines.evaluation import evaluate
from rh_prefect.pipelines.parsed_document import Path
from rh_prefect.pipelines.planning_values import ABSENT, Frame, Unknown, certain

MOST_WORKS = 200_000
"""Maximum paid jobs of a run: the takes of all steps."""

MOST_AT_ONCE = 8000
"""Maximum takes of one step, and maximum items of one answer."""

MOST_STEPS = 400_000
"""Maximum steps of all items in a plan, and maximum items of one fan-out before `where` and `limit`."""


@dataclass(slots=True)
class Size:
    """The counted size of a plan."""

    # Items of each fan-out before `where` and `limit` select some, by its path
    items: Counter[str] = field(default_factory=Counter)
    steps: int = 0  # Steps of items
    works: int = 0  # Paid works, equal ones once


class PlanTooLarge(Exception):
    """A plan would have more steps or items than `MOST_STEPS`, or more paid jobs than `MOST_WORKS`."""

    def __init__(self, at: Path, message: str) -> None:
        """Takes the position in the file, and a message with the number, its limit and the remedy."""
        super().__init__(message)
        self.at, self.message = at, message


def count_of(key: str, written: int | str | None, frame: Frame) -> tuple[int | None, str]:
    """Evaluates `takes`, `limit` or `at_most`: returns the number, or None and a clause if the value is wrong."""
    if written is None:
        return None, ""
    value = certain(evaluate(written, frame))
    if isinstance(value, Unknown):
        return None, f"{key} must be a whole number that is known before the run, but {written} is made by a step"
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or value < 1:
        return None, f"{key} must be a whole number from 1 on, but {written} {_shown(value)}"
    if value > MOST_AT_ONCE and key != "limit":
        which = "" if written == value else f"{written} is "
        return (
            None,
            f"{key} must be at most {MOST_AT_ONCE}, but {which or 'this is '}{text_of(value)}; use a smaller number",
        )
    return int(value), ""


def _shown(value: Any) -> str:
    if value is ABSENT:
        return "is absent"
    return f"is {text_of(value)}" if isinstance(value, int | float) else "is none"

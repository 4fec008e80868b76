"""Evaluates the counts of a step, and limits the size of a plan before it is expanded.

A count can come from a form, so a wrong count must not exhaust the memory of a worker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rh_prefect.catalog.model import text_of
from rh_prefect.pipelines.evaluation import evaluate
from rh_prefect.pipelines.file_model import GroupStep, PaidStep, Step
from rh_prefect.pipelines.parsed_document import Path
from rh_prefect.pipelines.planning_values import ABSENT, Frame, Unknown, certain

MOST_WORKS = 200_000
"""Maximum number of paid jobs in a run: the takes of all steps."""

MOST_AT_ONCE = 8000
"""Maximum number of takes of one step, and of items in one answer."""

MOST_STEPS = 400_000
"""Maximum number of steps of all items in a plan, and of items of one fan-out before `where` and `limit`."""


@dataclass(slots=True)
class Size:
    """The counted size of a plan. Its methods raise `PlanTooLarge` if a limit is exceeded."""

    # Items of each fan-out before `where` and `limit` select some, by its path
    items: Counter[str] = field(default_factory=Counter)
    steps: int = 0  # Steps of items
    works: int = 0  # Paid works, equal ones once

    def add_work(self, at: Path, path: str) -> None:
        """Counts a paid work."""
        self.works += 1
        _refuse_works(self.works, at, path)

    def count_works(self, steps: Mapping[str, Step], at: Path, frames: Sequence[Frame], path: str) -> None:
        """Raises an error if the paid works of items would be too many, before the steps of the items are created."""
        number = self.works
        for name, step in steps.items():
            if isinstance(step, PaidStep) and step.same is not True and step.when is None:
                various = frames if isinstance(step.takes, str) else frames[:1]
                takes = sum(count_of("takes", step.takes, frame)[0] or 1 for frame in various)
                number += takes * len(frames) // len(various)
                _refuse_works(number, (*at, name), f"{path}.{name}")

    def add_steps(self, steps: Mapping[str, Step], items: int, at: Path, path: str) -> None:
        """Counts the steps of all items."""
        self.steps += self.count_steps(steps, items, at, path)

    def count_steps(self, steps: Mapping[str, Step], items: int, at: Path, path: str) -> int:
        """Returns the number of steps of all items, without inner fan-outs; raises an error if there are too many."""
        each, inner = 0, list(steps.values())
        while inner:
            one = inner.pop()
            each += not isinstance(one, GroupStep)
            inner += one.steps.values() if isinstance(one, GroupStep) and not one.is_fan_out else []
        number = items * each
        if self.steps + number > MOST_STEPS:
            raise PlanTooLarge(
                at,
                f"{path} has {items} items with {number} steps; the items of a plan can have at most {MOST_STEPS} "
                "steps in total; select fewer items with `limit` or `where`",
            )
        return number


class PlanTooLarge(Exception):
    """A plan would have more steps or items than `MOST_STEPS`, or more paid jobs than `MOST_WORKS`."""

    def __init__(self, at: Path, message: str) -> None:
        """Takes the position in the file, and a message with the number, its limit and the remedy."""
        super().__init__(message)
        self.at, self.message = at, message


def _refuse_works(number: int, at: Path, path: str) -> None:
    if number > MOST_WORKS:
        more = f"with {path}, the run would have more than the {MOST_WORKS} paid jobs allowed"
        raise PlanTooLarge(at, f"{more}; select fewer items with `limit` or `where`, or reduce `takes`")


def count_of(key: str, written: int | str | None, frame: Frame) -> tuple[int | None, str]:
    """Evaluates `takes`, `limit` or `at_most`: returns the number, or None and a clause if the value is wrong."""
    if written is None:
        return None, ""
    value = certain(evaluate(written, frame))
    if isinstance(value, Unknown):
        return None, f"{key} must be a whole number that is known before the run, but {written} is made by a step"
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or value < 1:
        return None, f"{key} must be a whole number of at least 1, but {written} {_shown(value)}"
    if value > MOST_AT_ONCE and key != "limit":
        which = "this" if written == value else written
        return None, f"{key} must be at most {MOST_AT_ONCE}, but {which} is {text_of(value)}; use a smaller number"
    return int(value), ""


def _shown(value: Any) -> str:
    if value is ABSENT:
        return "is absent"
    return f"is {text_of(value)}" if isinstance(value, int | float) else "is not a number"

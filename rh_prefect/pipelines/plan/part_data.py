"""`Findings`: the data of the parts of a plan, except their steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rh_prefect.pipelines.check.checked_file import Checked, ItemProblem
from rh_prefect.pipelines.conditions import not_numbers
from rh_prefect.pipelines.parsed_document import Path
from rh_prefect.pipelines.planning_values import Frame, Group


@dataclass(slots=True, repr=False)
class PartFindings:
    """The data of a part of a plan, except the part's steps."""

    notes: dict[str, None] = field(default_factory=dict)  # What is worth knowing
    problems: list[ItemProblem] = field(default_factory=list)  # What is wrong
    new_takes: dict[str, int] = field(default_factory=dict)  # The first take of each step that is made again
    # The fan-outs whose items are not all known yet, each with whether it is an outermost one
    open_fan_outs: dict[str, bool] = field(default_factory=dict)
    # The fan-outs, with their paths, for which it is not known yet which items `limit` selects; the inner ones first
    chosen: list[tuple[str, Group]] = field(default_factory=list)

    def add(self, other: PartFindings) -> None:
        """Adds the findings of another part."""
        self.notes |= other.notes
        self.problems += other.problems
        self.new_takes |= other.new_takes
        self.open_fan_outs |= other.open_fan_outs
        self.chosen += other.chosen


class Findings:
    """The findings of steps that are planned together, by the outermost item to which they belong."""

    def __init__(self) -> None:
        self.parts: dict[int, PartFindings] = defaultdict(PartFindings)  # By the item's number; 0 outside of fan-outs

    def of(self, numbers: Sequence[int]) -> PartFindings:
        """Returns the findings of the part to which an item belongs; see `Frame.numbers`."""
        return self.parts[numbers[0] if numbers else 0]

    def wrong(self, numbers: Sequence[int], checked: Checked, at: Path, clause: str, address: str = "") -> None:
        """Adds a problem of an item."""
        self.of(numbers).problems.append((checked, at, clause, address))

    def not_numbers(self, checked: Checked, condition: Any, at: Path, frame: Frame) -> list[str]:
        """Reports values that a condition wrongly compares as numbers; returns a clause for each value."""
        found = list(not_numbers(condition, frame))
        numbers = frame.numbers if frame.outer is None else frame.numbers or frame.outer.numbers
        for path, clause in found:
            self.wrong(numbers, checked, (*at, *path), clause, frame.row_around)
        return [clause for _, clause in found]

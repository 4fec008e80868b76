"""Adds up the cost of tasks by model, day and other names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from rh_prefect.pipelines.takes_file import step_of
from rh_prefect.works.journal.record_types import is_fingerprint

if TYPE_CHECKING:
    from rh_prefect.flow_runs.charge_reader import TaskCharge


@dataclass(slots=True)
class Sum:
    """One row of a table: the sum of all tasks with the same name and the same unit of cost, or with unknown costs."""

    tasks: int = 0
    amount: Decimal = Decimal(0)
    estimated: Decimal = Decimal(0)

    def add(self, other: Sum) -> None:
        """Adds another sum of the same unit."""
        self.tasks += other.tasks
        self.amount += other.amount
        self.estimated += other.estimated


def bars(found: Iterable[TaskCharge], by: str) -> dict[str, list[tuple[str, Decimal]]]:
    """Returns the sums for each unit as bars: dates in order, including days without a task; other names by amount."""
    bars: dict[str, list[tuple[str, Decimal]]] = defaultdict(list)
    for (name, unit), row in sorted(sums_of(found, by).items()):
        if unit:
            bars[unit].append((name, row.amount))
    for unit, rows in bars.items():
        if by == "day":
            known, days = dict(rows), [date.fromisoformat(name) for name, _ in rows]
            every = ((days[0] + timedelta(number)).isoformat() for number in range((days[-1] - days[0]).days + 1))
            bars[unit] = [(name, known.get(name, Decimal(0))) for name in every]
        elif by not in ("week", "month"):
            rows.sort(key=lambda row: -row[1])
    return bars


def sums_of(found: Iterable[TaskCharge], by: str) -> defaultdict[tuple[str, str], Sum]:
    """Returns the sum for each name and unit; unknown costs have no unit."""
    sums: defaultdict[tuple[str, str], Sum] = defaultdict(Sum)
    for one in found:
        name = _name(one, by)
        for unit, amount in one.charge.costs.amounts.items():
            sums[name, unit].add(Sum(1, amount, amount if one.charge.is_estimate else Decimal(0)))
        if one.charge.costs.unknown:
            sums[name, ""].add(Sum(1))
    return sums


def _name(one: TaskCharge, by: str) -> str:
    match by:
        case "day":
            return one.at[:10]
        case "week":
            year, week, _ = date.fromisoformat(one.at[:10]).isocalendar()
            return f"{year}-W{week:02}"
        case "month":
            return one.at[:7]
        case "flow":
            return one.flow or "no flow"
        case "label":
            return one.label or "no label"
        case "run":
            return one.run
        case "account":
            # Records name an account without a name by the fingerprint of its key, which `doctor` also shows.
            return f"key fingerprint {one.account}" if is_fingerprint(one.account) else one.account
        case "pipeline" | "step" | "item":
            return _part_of_pipeline(one, by)
        case _:
            return one.model


def _part_of_pipeline(one: TaskCharge, by: str) -> str:
    """Returns the name of a task's pipeline, followed by the step (`each.clip`) or the item (`each[A-17]`)."""
    if not one.pipeline:
        return "no pipeline"
    before, sign, _ = one.step.rpartition("]")  # an id may contain brackets, a step's name does not
    item = f"{before}{sign}" if sign else "no item"
    part = {"step": step_of(one.step), "item": item}.get(by, "")
    return f"{one.pipeline}: {part}" if part else one.pipeline

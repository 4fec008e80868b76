"""Sums the costs of tasks separately for each unit, and counts the unknown costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from rh_prefect.works.journal.job_records import JobView, Submit
from rh_prefect.works.journal.record_types import End

COINS = "coins"
"""RunningHub's coins, which are a separate unit beside the currencies."""

CURRENCY = "CNY"
"""The currency of the catalogue, and of an account that reports none."""


def amount_text(amount: Decimal, unit: str | None = None) -> str:
    """Writes an amount of money with two decimals, or more if it has more; coins unchanged."""
    text = f"{amount.normalize():f}"
    if unit == COINS:
        return text
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals:0<2}"


@dataclass(frozen=True, slots=True)
class Costs:
    """The total cost of some tasks."""

    amounts: Mapping[str, Decimal] = field(default_factory=dict)  # One sum for each unit: a currency, or `coins`
    unknown: int = 0  # The number of tasks whose cost RunningHub does not report; they are in no sum

    @classmethod
    def of(cls, amount: Decimal | None, unit: str | None) -> Costs:
        """The cost of one task; the unit is the catalogue's currency by default."""
        return cls(unknown=1) if amount is None else cls(amounts={unit or CURRENCY: amount})

    @classmethod
    def total(cls, parts: Iterable[Costs]) -> Costs:
        """Adds costs up, unit by unit."""
        amounts: dict[str, Decimal] = {}
        unknown = 0
        for part in parts:
            unknown += part.unknown
            for unit, amount in part.amounts.items():
                amounts[unit] = amounts.get(unit, Decimal(0)) + amount
        return cls(amounts=amounts, unknown=unknown)

    def __add__(self, other: Costs) -> Costs:
        return Costs.total((self, other))

    def __bool__(self) -> bool:
        """Whether anything was paid, or may have been."""
        return bool(self.unknown) or any(self.amounts.values())

    def __str__(self) -> str:
        """Reads like `8.21 CNY, 25 coins, 2 tasks of unknown cost`; 0 where there is nothing."""
        sums = [f"{amount_text(amount, unit)} {unit}" for unit, amount in sorted(self.amounts.items()) if amount]
        tasks = f"{self.unknown} {'task' if self.unknown == 1 else 'tasks'} of unknown cost"
        return ", ".join(sums + [tasks] * bool(self.unknown)) or "0"


@dataclass(frozen=True, slots=True)
class Charge:
    """The cost, or possible cost, of one submission."""

    costs: Costs  # By unit
    # Whether it is the price from before the submit: the task has not ended, or its end is not known
    is_estimate: bool = False


def costs_of(end: End) -> Costs:
    """The cost of a task that has ended: a graph with paid nodes costs coins and money."""
    if end.coins is None:
        return Costs.of(end.cost, end.currency)
    coins = Costs.of(end.coins, COINS)
    return coins if end.cost is None else coins + Costs.of(end.cost, end.currency)


def ended_costs(job: JobView) -> Costs:
    """The cost of all tasks of a job that have ended, failed ones included."""
    return Costs.total(costs_of(submit.end) for submit in job.submits if submit.end is not None)


def charge_of(submit: Submit) -> Charge | None:
    """The cost of a submission; None if it certainly cost nothing."""
    estimate = Costs.of(submit.intent.estimate, submit.intent.currency)
    parts: list[Costs] = []
    if submit.end is not None:
        parts.append(costs_of(submit.end))
    elif may_cost(submit):
        parts.append(estimate)
    # A late ticket is a second task, unless it is the one that is counted already.
    if submit.late_task_id is not None and (submit.task_id or not parts):
        parts.append(estimate)
    if not parts:
        return None
    return Charge(Costs.total(parts), is_estimate=submit.end is None or len(parts) > 1)


def may_cost(submit: Submit) -> bool:
    """Whether a submission was accepted, or may have been."""
    return submit.state != "refused" and (submit.state != "forgotten" or submit.may_be_paid)

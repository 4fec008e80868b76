"""Adds up the costs of tasks, and refuses a job that would exceed the budget of its run.

All jobs of a scope share one `SpendTracker` in an attempt, even jobs without a budget. The first job with a budget
reads the journal. An ended job counts at its cost. A job that may still be charged counts at its estimated price.
Currencies and coins are added separately. Use the tracker on the loop thread.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, TypeAlias

from rh_prefect.errors import NOT_PAID, BudgetExceeded
from rh_prefect.works.journal.job_records_and_state import JobView, Submit
from rh_prefect.works.journal.record_types import Charged

if TYPE_CHECKING:
    from rh_prefect.works.journal.scope import Scope

COINS = "coins"
"""RunningHub's coins, a unit beside the currencies."""

CURRENCY = "CNY"
"""The currency of the catalogue, and of an account that reports no currency."""


def amount_text(amount: Decimal, unit: str | None = None) -> str:
    """Formats an amount: money with at least two decimals, coins unchanged."""
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
        """Returns the cost of one task; the unit is the catalogue's currency by default."""
        return cls(unknown=1) if amount is None else cls({unit or CURRENCY: amount})

    @classmethod
    def total(cls, parts: Iterable[Costs]) -> Costs:
        """Adds up costs, unit by unit."""
        parts = list(parts)
        if len(parts) == 1:
            return parts[0]
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
        """Returns whether anything was paid, or may have been."""
        return bool(self.unknown) or any(self.amounts.values())

    def __str__(self) -> str:
        """Formats the costs, as in `8.21 CNY, 25 coins, 2 tasks of unknown cost`; `0` if there are none."""
        sums = [f"{amount_text(amount, unit)} {unit}" for unit, amount in sorted(self.amounts.items()) if amount]
        tasks = f"{self.unknown} {'task' if self.unknown == 1 else 'tasks'} of unknown cost"
        return ", ".join(sums + [tasks] * bool(self.unknown)) or "0"


@dataclass(frozen=True, slots=True)
class Charge:
    """The cost, or possible cost, of one submission."""

    amount: Decimal | None  # In a budget; None if neither a cost nor a price is known
    is_spent: bool  # Whether its task has ended
    currency: str = CURRENCY  # The currency of the amount
    costs: Costs = field(default_factory=Costs)  # The amount in each unit; empty for a claim
    # Whether a part of the costs is the price before the submission, because a task has not ended or is not known
    is_estimate: bool = False


def costs_of(task: Charged) -> Costs:
    """Returns the cost of a task that has ended; a graph with paid nodes costs coins and money."""
    if task.coins is None:
        return Costs.of(task.cost, task.currency)
    coins = Costs.of(task.coins, COINS)
    return coins if task.cost is None else coins + Costs.of(task.cost, task.currency)


def ended_costs(job: JobView) -> Costs:
    """Returns the cost of all ended tasks of a job, including failed tasks."""
    return Costs.total(costs_of(submit.end) for submit in job.submits if submit.end is not None)


def charge_of(submit: Submit) -> Charge | None:
    """Returns the cost of a submission; None if the submission certainly cost nothing."""
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
    costs, intent = Costs.total(parts), submit.intent
    currency = next((unit for unit in costs.amounts if unit != COINS), intent.currency or CURRENCY)
    # Coins are not money, and an end without a price may have cost its estimate.
    amount = costs.amounts.get(currency, intent.estimate)
    return Charge(amount, submit.end is not None, currency, costs, is_estimate=submit.end is None or len(parts) > 1)


def may_cost(submit: Submit) -> bool:
    """Returns whether a submission was accepted, or may have been."""
    return submit.state != "refused" and (submit.state != "forgotten" or submit.may_be_paid)


@dataclass(frozen=True, slots=True)
class Money:
    """An expected cost of a job."""

    amount: Decimal
    currency: str | None


Ask: TypeAlias = Callable[[], Awaitable[Money | None]]
"""Requests a job's price from RunningHub; returns None if RunningHub has none."""


@dataclass(frozen=True, slots=True)
class Shortfall:
    """The reason why the budget does not allow a job: the job's price, and the amounts that are spent and reserved."""

    price: Money | None  # What the job would cost; None if that is unknown
    spent: Decimal  # What the run's ended jobs have cost, in the currency of the price
    reserved: Decimal  # What its other jobs may still cost, in the same currency
    others: Costs = field(default_factory=Costs)  # Both in other currencies, with which no budget can be compared


Charges: TypeAlias = dict[int, Charge | None]
"""The charges of a job's submissions, by number; None for a submission that certainly cost nothing."""


def charges_of(job: JobView) -> Charges:
    """Returns the charge of each submission of a job, by the number of the submission."""
    charges = {submit.n: charge_of(submit) for submit in job.submits}
    tasks = {submit.task_id for submit in job.submits}
    for submit in job.submits:
        if submit.late_task_id is not None and submit.late_task_id in tasks:
            # A person has adopted the late task for another submission, with which it counts.
            charges[submit.n] = charge_of(replace(submit, late=None)) if submit.task_id else None
    return charges


async def charges_in(run: Scope) -> AsyncIterator[tuple[str, Charges]]:
    """Yields the charges of each job in the journal of a run, with the job's key."""
    async for view in run.jobs():
        yield view.key, charges_of(view)


def _priced(price: Money | None) -> Charge:
    """Returns the charge of a submission that has no recorded price yet."""
    if price is None:
        return Charge(None, is_spent=False)
    return Charge(price.amount, is_spent=False, currency=price.currency or CURRENCY)


def _is_more(price: Money | None, known: Charge) -> bool:
    if price is None or known.amount is None:
        return price is not None
    currency = price.currency or CURRENCY
    # Amounts of two currencies cannot be compared: RunningHub's own price is more reliable than a guess.
    return currency != known.currency or price.amount > known.amount


class SpendTracker:
    """The costs of one scope's jobs, spent and reserved."""

    def __init__(self, read: Callable[[], AsyncIterator[tuple[str, Charges]]]) -> None:
        self._read = read
        self._lock = asyncio.Lock()
        # By the key and the number of the submission, in one dictionary: a run has thousands of jobs
        self._charges: dict[tuple[str, int], Charge] = {}
        self._newest: dict[str, int] = {}  # The highest number that a submission of the job has had
        # For submissions without a budget whose price was not known: the request for the price, then the price. It
        # counts until the job has ended, because the records of the submission do not contain it.
        self._asks: dict[tuple[str, int], Ask | Money] = {}
        # Number of calls that have reserved the same submission, or are claiming it; none once its intent is recorded.
        # Calls with different storages can reach the same submission.
        self._holders: dict[tuple[str, int], int] = {}
        # Running sums, since each of thousands of jobs reads them.
        self._sums: defaultdict[tuple[str, bool], Decimal] = defaultdict(Decimal)
        self.open_amounts: defaultdict[str, Decimal] = defaultdict(Decimal)
        """What the submissions of a job without a known end may cost, by the job's key; only of jobs with a price."""
        self._is_complete = False
        self._changed: set[str] = set()
        self.pipelines = 0
        """The number of pipeline runs in progress in the scope."""
        self.planned = Decimal(0)
        """What the scope may have cost when these have ended, by their highest prices."""

    def spent(self, currency: str = CURRENCY) -> Decimal:
        """Returns the total cost of ended jobs in a currency."""
        return self._sums[currency, True]

    def reserved(self, currency: str = CURRENCY) -> Decimal:
        """Returns the amount in a currency that running jobs may still cost."""
        return self._sums[currency, False]

    @property
    def all_spent(self) -> Decimal:
        """Returns the total cost of ended jobs; with a budget, all accounts have one currency."""
        return sum((amount for (_, is_spent), amount in tuple(self._sums.items()) if is_spent), Decimal(0))

    @property
    def all_counted(self) -> Decimal:
        """Returns the spent and the reserved amount of all jobs; with a budget, all accounts have one currency."""
        return sum(tuple(self._sums.values()), Decimal(0))

    def amount_of(self, key: str) -> Decimal:
        """Returns the cost of one job's ended tasks in the currency of the budget."""
        return sum((one.amount or Decimal(0) for one in self._charges_of(key).values() if one.is_spent), Decimal(0))

    async def complete(self) -> None:
        """Reads the costs of earlier processes from the journal, once."""
        async with self._lock:
            if self._is_complete:
                return
            async for key, charges in self._read():
                # What this process has read or recorded of a job is newer.
                if key not in self._changed:
                    for n, charge in charges.items():
                        self._note(key, n, charge)
            self._is_complete = True

    def spent_on(self, key: str) -> Costs | None:
        """Returns the cost of one job's ended tasks; None if no task has ended."""
        ended = [charge.costs for charge in self._charges_of(key).values() if charge.is_spent]
        return Costs.total(ended) if ended else None

    def open_costs(self) -> tuple[int, Costs]:
        """Returns the number of submissions without a known end, and the sum of their prices."""
        charges = tuple(self._charges.values())
        costs = [Costs.of(one.amount, one.currency) for one in charges if not one.is_spent]
        return len(costs), Costs.total(costs)

    def newest_submit(self, key: str) -> int:
        """Returns the number of a job's newest submission that has or may have a task; 0 if none is known."""
        return max(self._charges_of(key), default=0)

    async def costs(self) -> dict[str, Costs]:
        """Returns the costs of each job's ended tasks, by job key, including tasks of earlier processes of the run."""
        await self.complete()
        return {key: costs for key in tuple(self._newest) if (costs := self.spent_on(key)) is not None}

    def replace_job(self, view: JobView) -> None:
        """Replaces the amounts of a job with newly read amounts, but keeps an amount that a call holds."""
        read = charges_of(view)
        for n in self._charges_of(view.key).keys() - read.keys():
            self.leave(view.key, n)
        for n, charge in read.items():
            self._holders.pop((view.key, n), None)
            self._note(view.key, n, charge)

    def _charges_of(self, key: str) -> dict[int, Charge]:
        """Returns the charges of one job's submissions, by number."""
        numbers = range(1, self._newest.get(key, 0) + 1)
        return {n: charge for n in numbers if (charge := self._charges.get((key, n))) is not None}

    def note(self, key: str, submit: Submit) -> None:
        """Records the outcome of one submission."""
        self._holders.pop((key, submit.n), None)
        self._note(key, submit.n, charge_of(submit))

    def _note(self, key: str, n: int, charge: Charge | None) -> None:
        asked = self._asks.get((key, n))
        self._remove(key, n)
        if charge is not None:
            if asked is not None and not charge.is_spent:
                self._asks[key, n] = asked
                if not callable(asked) and _is_more(asked, charge):
                    charge = _priced(asked)
            self._charges[key, n] = charge
            self._newest[key] = max(n, self._newest.get(key, 0))
            self._add(key, charge, charge.amount or Decimal(0))
        self._changed.add(key)

    def _add(self, key: str, charge: Charge, amount: Decimal) -> None:
        self._sums[charge.currency, charge.is_spent] += amount
        if not charge.is_spent:
            self.open_amounts[key] += amount
            if not self.open_amounts[key]:
                del self.open_amounts[key]

    def hold(self, key: str, n: int, price: Money | None, ask: Ask | None = None) -> None:
        """Reserves the price of a submission, with or without a budget, until `claim` or `unreserve`.

        Any holder may be the one that pays, so the highest price counts, and an unknown one is asked for.
        """
        known, holders = self._charges.get((key, n)), self._holders.get((key, n), 0)
        if known is not None and not holders:
            return  # its intent is recorded
        if known is None or _is_more(price, known):
            self._note(key, n, _priced(price))
        if price is None and ask is not None:
            self._asks.setdefault((key, n), ask)
        self._holders[key, n] = holders + 1

    def claim(self, key: str, n: int, price: Money | None, ask: Ask | None = None) -> None:
        """Counts the price of a submission whose intent is recorded; `unreserve` no longer releases it."""
        self.hold(key, n, price, ask)
        self._holders.pop((key, n), None)

    async def reserve(self, key: str, n: int, price: Money | None, *, budget: Decimal) -> Shortfall | None:
        """Reserves the price of a submission; returns the `Shortfall` if the budget does not allow the price."""
        await self.complete()
        async with self._lock:
            await self._ask_for_prices()
        # Nothing is awaited from here on, so two jobs cannot both reserve the remaining amount.
        # Another call of this process may have made the same submission. If it only claims or has reserved it, it may
        # still leave it to this call, which must pay within its own budget.
        other = self._charges.get((key, n))
        if other is not None and (key, n) not in self._holders:
            return None
        currency = (price and price.currency) or CURRENCY
        spent, reserved = self.spent(currency), self.reserved(currency)
        if other is not None and other.currency == currency:
            reserved -= other.amount or 0
        others = Costs.total(
            Costs.of(sum_, unit) for (unit, _), sum_ in self._sums.items() if sum_ and unit != currency
        )
        if price is None or others or spent + reserved + price.amount > budget:
            return Shortfall(price, spent=spent, reserved=reserved, others=others)
        self.hold(key, n, price)
        return None

    def unreserve(self, key: str, n: int) -> None:
        """Releases the amount that one call has reserved, unless another one holds it or its intent is recorded."""
        if (holders := self._holders.get((key, n), 0)) > 1:
            self._holders[key, n] = holders - 1
        elif holders:
            self.release(key, n)

    def leave(self, key: str, n: int) -> None:
        """Removes the amount of a submission that is not the run's own, unless a call holds it."""
        if (key, n) not in self._holders:
            self.release(key, n)

    def release(self, key: str, n: int) -> None:
        """Removes the amount of a submission from the sums, if the submission has an amount."""
        self._holders.pop((key, n), None)
        self._remove(key, n)

    def _remove(self, key: str, n: int) -> None:
        self._asks.pop((key, n), None)
        charge = self._charges.pop((key, n), None)
        if charge is not None:
            self._add(key, charge, -(charge.amount or Decimal(0)))

    async def _ask_for_prices(self) -> None:
        """Requests the unknown prices of submissions without a budget, each once."""
        while asks := {ask for ask in self._asks.values() if callable(ask)}:
            prices = dict(zip(asks, await asyncio.gather(*(ask() for ask in asks))))
            # During the requests a submission may have ended.
            for (key, n), ask in tuple(self._asks.items()):
                if not callable(ask) or ask not in prices:
                    continue
                del self._asks[key, n]
                if (price := prices[ask]) is not None:
                    self._asks[key, n] = price
                    self._note(key, n, self._charges[key, n])


def exceeded(
    job: str, *, budget: Decimal, short: Shortfall, unpriced: str = "run it without a budget"
) -> BudgetExceeded:
    """Returns the error for a job that the budget does not allow."""
    price = short.price
    unit = f" {price.currency}" if price and price.currency else ""
    cost, advice = "neither the catalogue nor RunningHub's price preview has its price", unpriced
    if price is not None:
        cost, advice = f"it would cost {amount_text(price.amount)}{unit}", "set a larger budget and run again"
    if price is not None and short.others:
        cost += f", but other jobs of this run cost {short.others}, and a budget has only one currency"
        advice = "run it with an account that has the currency of these jobs, or without a budget"
    return BudgetExceeded(
        f"{job}: the job was not started: {cost}; of the budget of {amount_text(budget)}{unit}, "
        f"{amount_text(short.spent)} is spent and {amount_text(short.reserved)} reserved by other jobs of this run. "
        f"{NOT_PAID} What to do: {advice}; existing results cost nothing.",
        job=job,
        price=price.amount if price else None,
        currency=price.currency if price else None,
        budget=budget,
        spent=short.spent,
        reserved=short.reserved,
    )

"""The budget of a run: what its jobs have cost and may still cost, so that none starts that would break it.

All jobs of a scope share one `Ledger` in a process. It is rebuilt from the journal when a budget is first asked for:
an ended job counts with its cost, whatever may still be paid for with its estimate. It lives on the loop thread.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from rh_prefect.client import Client
from rh_prefect.errors import BudgetExceeded, RunningHubError, Transient
from rh_prefect.jobs.ledger.journal import Journal
from rh_prefect.jobs.ledger.records import JobView, Submit

_KEPT = 200
"""How many ledgers one process remembers; one that was forgotten is rebuilt from its journal."""


@dataclass(frozen=True, slots=True)
class Money:
    """What a job is expected to cost."""

    amount: Decimal
    currency: str | None


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Why a job may not start.

    Attributes:
        price: What it would cost; None where nobody knows.
        spent: What the run's ended jobs have cost.
        reserved: What its other jobs may still cost.
    """

    price: Money | None
    spent: Decimal
    reserved: Decimal


@dataclass(frozen=True, slots=True)
class Entry:
    """What one submit counts for."""

    amount: Decimal
    is_spent: bool


def entry_of(submit: Submit) -> Entry | None:
    """Tells what a submit counts for in its run's budget; None where it cost nothing for sure.

    Args:
        submit: As the journal has it.
    """
    estimate, end = submit.intent.estimate or Decimal(0), submit.end
    if end is not None:
        # Coins are no money; and that an unpriced end is a free one is written nowhere.
        is_said = end.cost is not None and end.currency != "coins"
        return Entry(end.cost if is_said and end.cost is not None else estimate, is_spent=True)
    if submit.state == "refused" or (submit.state == "forgotten" and not submit.may_be_paid):
        return None
    return Entry(estimate, is_spent=False)


class Ledger:
    """What one scope's jobs have cost and may still cost."""

    def __init__(self, journal: Journal) -> None:
        """Starts with nothing known; the journal is read when a budget is first asked for.

        Args:
            journal: The scope's records.
        """
        self._journal = journal
        self._lock = asyncio.Lock()
        self._entries: dict[str, dict[int, Entry]] = {}
        # Running sums: a scope may have thousands of jobs, and each of them asks.
        self._sums = {True: Decimal(0), False: Decimal(0)}
        self._is_complete = False

    @property
    def spent(self) -> Decimal:
        """What has ended, with its cost."""
        return self._sums[True]

    @property
    def reserved(self) -> Decimal:
        """What may still be paid for."""
        return self._sums[False]

    def spent_on(self, key: str) -> Decimal | None:
        """What one job's ended tasks have cost; None where it has none."""
        amounts = [entry.amount for entry in tuple(self._entries.get(key, {}).values()) if entry.is_spent]
        return sum(amounts, Decimal(0)) if amounts else None

    def take(self, view: JobView) -> None:
        """Takes over what was read of a job, in place of all that was known of it."""
        for n in tuple(self._entries.get(view.key, ())):
            self.release(view.key, n)
        for submit in view.submits:
            self.note(view.key, submit)

    def note(self, key: str, submit: Submit) -> None:
        """Takes note of what has become of one submit."""
        self.release(key, submit.n)
        entry = entry_of(submit)
        if entry is not None:
            self._put(key, submit.n, entry)

    async def reserve(self, key: str, n: int, price: Money | None, *, budget: Decimal) -> Shortfall | None:
        """Sets a job's price aside, if the budget has that much left.

        Args:
            key: The job's key.
            n: The submit that is about to be made.
            price: What it will cost; None, which no budget allows, where nobody knows.
            budget: What all jobs of the scope may cost together.

        Returns:
            None when it is set aside; else why not.

        Raises:
            JournalError: What the scope has spent cannot be read.
        """
        async with self._lock:
            if not self._is_complete:
                await self._rebuild()
        # From here on nothing is awaited, so two jobs cannot both take what is left.
        self.release(key, n)
        spent, reserved = self.spent, self.reserved
        if price is None or spent + reserved + price.amount > budget:
            return Shortfall(price, spent=spent, reserved=reserved)
        self._put(key, n, Entry(price.amount, is_spent=False))
        return None

    def release(self, key: str, n: int) -> None:
        """Gives back what was set aside for a submit; nothing if there was nothing."""
        entry = self._entries.get(key, {}).pop(n, None)
        if entry is not None:
            self._sums[entry.is_spent] -= entry.amount

    def _put(self, key: str, n: int, entry: Entry) -> None:
        self._entries.setdefault(key, {})[n] = entry
        self._sums[entry.is_spent] += entry.amount

    async def _rebuild(self) -> None:
        async for key, records in self._journal.jobs():
            # What this process does itself, it knows better.
            if key not in self._entries:
                self.take(JobView.parse(key, records))
        self._is_complete = True


_ledgers: OrderedDict[str, Ledger] = OrderedDict()
# A forked child has locks that are bound to a loop that it does not have.
os.register_at_fork(after_in_child=_ledgers.clear)


def ledger_of(journal: Journal) -> Ledger:
    """Gives this process's one ledger of a scope; call it on the loop thread.

    Args:
        journal: The scope's journal; two journals of one description are one.
    """
    name = repr(journal)
    ledger = _ledgers.setdefault(name, Ledger(journal))
    _ledgers.move_to_end(name)
    while len(_ledgers) > _KEPT:
        _ledgers.popitem(last=False)
    return ledger


class Prices:
    """What a job will cost on one account, as far as that can be known."""

    def __init__(self, client: Client) -> None:
        """Starts with nothing asked.

        Args:
            client: Talks to RunningHub.
        """
        self._client = client
        self._currency: asyncio.Task[str | None] | None = None

    async def of(self, endpoint: str, payload: Mapping[str, Any], known: Money | None) -> Money | None:
        """Finds a price in the account's currency.

        Args:
            endpoint: What is to be run.
            payload: The request as it will be sent.
            known: The catalogue's price, if it has one.

        Returns:
            The price; None where neither the catalogue nor RunningHub has one.
        """
        if known is not None and await self._is_ours(known.currency):
            return known
        try:
            preview = await self._client.price_preview(endpoint, payload)
        except RunningHubError as error:
            # No connection is no answer to the question; asking again may give one.
            if isinstance(error, Transient):
                raise
            return None
        return Money(Decimal(0) if preview.free else preview.amount, preview.currency)

    async def currency(self) -> str | None:
        """The currency of the account's money, asked for once; None where it does not say."""
        if self._currency is None or (self._currency.done() and self._currency.exception()):
            self._currency = asyncio.ensure_future(self._ask_currency())
        try:
            return await asyncio.shield(self._currency)
        except RunningHubError:
            return None

    async def _is_ours(self, currency: str | None) -> bool:
        ours = await self.currency()
        # An account that does not say is one in the catalogue's currency.
        return ours is None or currency is None or ours == currency

    async def _ask_currency(self) -> str | None:
        return (await self._client.account()).currency


def exceeded(job: str, *, budget: Decimal, short: Shortfall) -> BudgetExceeded:
    """Says why a job was not started.

    Args:
        job: Its full name.
        budget: The budget.
        short: What is missing.
    """
    price = short.price
    unit = f" {price.currency}" if price and price.currency else ""
    so_far = f"of the budget of {_plain(budget)}{unit}, {_plain(short.spent)} are spent"
    so_far += f" and {_plain(short.reserved)} reserved by other jobs of this run"
    cost, advice = f"it would cost {_plain(price.amount)}{unit}" if price else "", "set a larger budget and run again"
    if price is None:
        cost, advice = "neither the catalogue nor RunningHub knows its price", "run it without a budget"
    return BudgetExceeded(
        f"{job}: not started: {cost}; {so_far}. Nothing was paid for it. What to do: {advice}; what is done is kept.",
        job=job,
        price=price.amount if price else None,
        currency=price.currency if price else None,
        budget=budget,
        spent=short.spent,
        reserved=short.reserved,
    )


def _plain(amount: Decimal) -> str:
    return f"{amount.normalize():f}"

"""What one work costs on the account that pays, and what it adds to the spending of its run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from typing import Any

from rh_prefect.bounded_caches import SingleFlight
from rh_prefect.errors import RunningHubError
from rh_prefect.works.accounts.account import Account
from rh_prefect.works.journal.budget import Money, Shortfall
from rh_prefect.works.journal.costs import Costs
from rh_prefect.works.journal.job_records import JobView, Submit
from rh_prefect.works.work import Work

_log = logging.getLogger("rh_prefect")


class WorkSpending:
    """What one work costs, and what it adds to the spending of its run."""

    def __init__(self, work: Work, *, payload: Callable[[], Mapping[str, Any]]) -> None:
        self._work = work
        self._payload = payload
        self._spending = work.spending
        self._key = work.key
        self._has_budget = work.policy.budget is not None
        request = work.request
        self._listed = None if request.estimate is None else Money(request.estimate, request.currency)
        self._currency: str | None = None
        self._price: Money | None = None
        self._guess: Money | None = None
        self._asked: SingleFlight[Account, Money | None] = SingleFlight(10)
        self._reserved: int | None = None

    def expect(self) -> None:
        """Without a budget, counts the price of the next submission, so that a budget of another call has room."""
        if not self._has_budget:
            self._spending.expect(self._key, self._price or self._listed)

    async def find_price(self) -> None:
        """Determines the price on the account; sends a request to RunningHub only if a budget needs the price."""
        if self._work.lease.account.provider.is_bare:
            return  # RunningHub reports neither price nor cost of these.
        prices = self._work.lease.account.prices
        self._currency = await prices.currency()
        self._price, self._guess = await prices.listed(self._listed), prices.guess(self._listed)
        if self._has_budget:
            return  # `reserve` requests it.
        self._spending.expect(self._key, self._price, self._ask)
        if self._price is None and self._spending.is_limited:
            self._spending.expect(self._key, await self._ask(), self._ask)

    async def _ask(self) -> Money | None:
        """Requests the price from RunningHub, once for each account of this job; None if the request fails."""
        account = self._work.lease.account
        ask = partial(account.prices.of, self._work.request.endpoint, self._payload(), self._listed)
        try:
            self._price = await self._asked.get(account, ask)
        except RunningHubError as error:
            _log.warning("%s: its price is not known, so it is not counted in any budget: %s", self._work.job, error)
        return self._price

    async def reserve(self, n: int, budget: Decimal) -> Shortfall | None:
        """Reserves the price of submission n, in place of an earlier one that another run made."""
        self._unreserve()
        prices = self._work.lease.account.prices
        self._price = await prices.of(self._work.request.endpoint, self._payload(), self._listed)
        short = await self._spending.reserve(self._key, n, self._price, budget=budget)
        self._reserved = n if short is None else None
        return short

    def release(self) -> None:
        """Releases what was reserved or expected, and not claimed."""
        self._spending.drop(self._key)
        self._unreserve()

    def _unreserve(self) -> None:
        if self._reserved is not None:
            self._spending.unreserve(self._key, self._reserved)
        self._reserved = None

    def claim(self, n: int) -> dict[str, Any]:
        """Counts submission n, which is claimed now; returns what its intent says of its price."""
        # From here on the journal determines the amount, however this call ends.
        self._reserved = None
        # Before the answer is recorded, so that a concurrent job with a budget counts it.
        self._spending.claim(self._key, n, self._price, self._ask)
        price = self._price or self._guess
        return {"estimate": price and price.amount, "currency": price.currency if price else self._currency}

    def give_up(self, n: int) -> None:
        """Releases the amount of a claim that was perhaps not recorded, and is not posted."""
        self._spending.release(self._key, n)

    def answered(self, submit: Submit) -> Costs | None:
        """Counts an answered submission; returns the cost of the work's ended tasks."""
        self.note(submit)
        if submit.state == "refused" and not self._has_budget:
            self._spending.expect(self._key, self._price, self._ask)
        return self._spending.spent_on(self._key)

    def note(self, submit: Submit) -> None:
        """Counts what a submission has cost, or may cost."""
        self._spending.note(self._key, submit)

    def take(self, view: JobView) -> None:
        """Counts the submissions that were read, in place of what was known of the work."""
        self._spending.take(view)

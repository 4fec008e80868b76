"""The prices of jobs on one account, in the account's currency."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from typing import Any

from rh_prefect.bounded_caches_and_locks import SingleFlight
from rh_prefect.catalog.model import is_placeholder
from rh_prefect.errors import (
    AccountError,
    ApiError,
    KeyRejected,
    OutcomeUnknown,
    PriceUnknown,
    RunningHubError,
    Transient,
)
from rh_prefect.works.journal.costs_and_budget import Money
from rh_prefect.works.runninghub.provider import RunningHub

_RETRY_SECONDS = 5.0
"""Minimum seconds between a failed request for a currency that is only displayed and the next request."""

_LABEL_SECONDS = 2.0
"""Seconds for which a request for a displayed currency is repeated while RunningHub is busy."""


class Prices:
    """The prices of jobs on one account, and the account's currency."""

    def __init__(self, provider: RunningHub, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._provider = provider
        self._clock = clock
        self._requests: SingleFlight[bool, str | None] = SingleFlight()
        self._currency: str | None = None
        self._is_known = False
        self._failed_at = -math.inf

    def guess(self, price: Money | None) -> Money | None:
        """Returns the catalogue's price; None if the account is known to have another currency."""
        if price is None or is_placeholder(price.amount):
            return None
        # An account that reports no currency has the catalogue's.
        is_comparable = self._currency is None or price.currency is None or self._currency == price.currency
        return Money(price.amount, price.currency or self._currency) if is_comparable else None

    async def listed(self, price: Money | None) -> Money | None:
        """Returns the catalogue's price; None if there is none, or if the account's currency differs or is unknown."""
        await self.currency()
        return self.guess(price) if self._is_known else None

    async def of(self, endpoint: str, payload: Mapping[str, Any], catalogue_price: Money | None) -> Money | None:
        """Returns the price of a payload, from the catalogue or from RunningHub; None if neither has one."""
        currency, unknown = None, None
        try:
            currency = await self.certain_currency()
        except RunningHubError as error:
            unknown = error
        listed = self.guess(catalogue_price)
        if listed is not None and unknown is None:
            return listed
        try:
            preview = await self._provider.price(endpoint, payload)
        except (ApiError, PriceUnknown) as error:
            # A lost or delayed response says nothing about the price, and an account that is refused would not be
            # charged.
            if unknown is not None or isinstance(error, Transient | OutcomeUnknown | KeyRejected | AccountError):
                raise
            return None
        if unknown is not None and preview.currency is None:
            raise unknown
        if not is_placeholder(preview.amount):
            # Even if this call is free: the calls of concurrent jobs may not be.
            return Money(preview.amount, preview.currency or currency)
        return Money(Decimal(0), preview.currency or currency) if preview.free else None

    async def currency(self) -> str | None:
        """Returns the account's currency for display; None if RunningHub does not report it now."""
        # The next callers do not repeat a request that has just failed.
        if self._is_known or self._clock() - self._failed_at < _RETRY_SECONDS:
            return self._currency
        try:
            return await self._requests.get(False, partial(self._request, pace_seconds=_LABEL_SECONDS))
        except RunningHubError:
            self._failed_at = self._clock()
            return None

    async def certain_currency(self) -> str | None:
        """Returns the account's currency; None if RunningHub reports none. Raises any temporary error."""
        if self._is_known:
            return self._currency
        try:
            return await self._requests.get(True, self._request)
        except ApiError as error:
            if isinstance(error, Transient | OutcomeUnknown):
                raise
            return None  # the key may not read its account

    async def _request(self, *, pace_seconds: float | None = None) -> str | None:
        self._currency = await self._provider.currency(pace_seconds=pace_seconds)
        self._is_known = True
        return self._currency

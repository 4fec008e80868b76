"""`PoolServices`: the accounts that pay for works, and the objects that all their works share in this process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from rh_prefect.bounded_caches_and_locks import LruCache, SingleFlight
from rh_prefect.client.http_connections import chance, uptime
from rh_prefect.custom_endpoint import CustomInput
from rh_prefect.media.store import MediaStore
from rh_prefect.models import ModelInput
from rh_prefect.settings import Settings
from rh_prefect.works.accounts.account import Account
from rh_prefect.works.accounts.pool import Pool, unknown_account
from rh_prefect.works.checked_request import JobRequest, custom_request, prepare_request
from rh_prefect.works.input_identification import Inputs
from rh_prefect.works.job_options import Request
from rh_prefect.works.journal.costs_and_budget import Money
from rh_prefect.works.journal.record_types import Intent
from rh_prefect.works.journal.scope import Scope, begin_attempt
from rh_prefect.works.journal.spool import Spool
from rh_prefect.works.store_checks_and_download_folder import StoreChecks
from rh_prefect.works.work_in_progress import Callback, callback_of

if TYPE_CHECKING:
    from rh_prefect.works.work_runner import RunningWork

WorkName: TypeAlias = tuple[str, int, str]
"""Identifies a work that calls of this process share: the records, the run's attempt, and the work."""

OwnOptions: TypeAlias = tuple[str, str, float | Decimal | None]
"""The shape of the answer, the storage and the budget: calls that differ in them are like calls of two processes."""


class PoolServices:
    """The accounts that pay for works, and the objects that all these works share in this process."""

    def __init__(self, pool: Pool, *, settings: Settings) -> None:
        self.pool = pool
        self._settings = settings
        self._scratch = settings.state_dir
        self.spool = Spool(self._scratch / "spool")  # This machine's answers that are not in the journal yet
        self.parts = self._scratch / "parts"
        """The local folder for unfinished downloads."""
        self.stores = StoreChecks(self.parts)
        self.sleep, self.jitter = asyncio.sleep, chance
        self.clock = uptime  # Monotonic seconds, including system sleep
        self.submit_timeout, self.grace_seconds = settings.submit_timeout, settings.grace_seconds
        self.running: dict[WorkName, dict[OwnOptions, RunningWork]] = {}
        self._inputs: LruCache[tuple[str, int, str], Inputs] = LruCache(50)
        self._begun: SingleFlight[tuple[str, str, int], None] = SingleFlight(1000)

    async def open(self, scope: Scope, store: MediaStore) -> None:
        """Checks a scope once, before the first job of an attempt; see `scope.begin_attempt`."""
        # A later attempt in this process checks it again: records may have been deleted meanwhile.
        name = (repr(scope.journal), store.identity, scope.calls.number)
        await self._begun.get(name, partial(begin_attempt, scope, store))

    async def listen_for_ends(self, scope: Scope) -> None:
        """If webhooks are configured, lets the journal of a run notify the accounts' pollers of ended tasks."""
        if self._settings.webhook_url:
            for account in self.pool.accounts:
                await scope.journal.notify_of_ends(account.poller)

    async def prepare(self, request: Request, scope: Scope, store: MediaStore, label: str | None) -> JobRequest:
        """Checks a request and identifies its files by content, at no cost."""
        inputs = self._inputs_of(scope, store)
        if isinstance(request, ModelInput):
            return await prepare_request(request, site=self.pool.site, inputs=inputs, label=label)
        if isinstance(request, CustomInput):
            return await custom_request(request, site=self.pool.site, inputs=inputs, label=label)
        return await self.pool.try_each(
            lambda account: account.provider.prepare(request, inputs, label),
            model=request.model,
            exclusions=self.pool.exclusions(scope),
        )

    async def price(self, request: JobRequest, store: MediaStore) -> Money | None:
        """Returns the price of a request, from the catalogue or from RunningHub's preview, at no cost."""

        async def price_on(account: Account) -> Money | None:
            if account.at(request.endpoint).provider.is_bare:
                return None
            if (known := await account.prices.listed(request.listed)) is not None:
                return known
            files = request.inputs.items()
            links = {mark: await account.uploads.address(one, mark, store=store) for mark, one in files}
            return await account.prices.of(request.endpoint, request.sent(links), request.listed)

        return await self.pool.try_each(price_on, model=request.model)

    def callback(self, request: JobRequest) -> Callback | None:
        """Returns the webhook address for a request's task; None without webhooks, or if the request names its own."""
        # An address in the caller's parameters takes precedence.
        own = "webhookUrl" in request.payload or "webhookUrl" in request.private
        return None if own or self.pool.provider(request.endpoint).is_bare else callback_of(self._settings)

    def _inputs_of(self, scope: Scope, store: MediaStore) -> Inputs:
        name = (scope.journal.scope, scope.attempt, store.identity)
        if name not in self._inputs:
            self._inputs[name] = Inputs(scope.journal, self._scratch / "inputs", store)
        return self._inputs[name]


_contexts: dict[tuple[Path, str | None, tuple[Account, ...]], PoolServices] = {}
# A forked child has its parent's locks, which are bound to a loop that the child does not have.
os.register_at_fork(after_in_child=_contexts.clear)


def pool_services(
    accounts: Sequence[Account],
    *,
    settings: Settings,
    find: Callable[[Intent], Awaitable[Account]] = unknown_account,
    pool: str | None = None,
) -> PoolServices:
    """Returns this process's only `PoolServices` for some accounts of one site; call it on the loop thread.

    `find` returns the account that a record names if it is not one of `accounts`; by default, it raises an error.
    """
    name = (settings.state_dir, pool, tuple(accounts))
    if name not in _contexts:
        _contexts[name] = PoolServices(Pool(accounts, find=find, name=pool), settings=settings)
    return _contexts[name]

"""RunningHub accounts in this process: their slots, polls and prices, and the inputs that they have uploaded."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

from pydantic import SecretStr

from rh_prefect.bounded_caches_and_locks import LruCache, NamedLocks, SingleFlight
from rh_prefect.catalog.model import is_placeholder
from rh_prefect.client import NativeSubmit, Upload
from rh_prefect.errors import (
    AccountError,
    ApiError,
    KeyRejected,
    OutcomeUnknown,
    PriceUnknown,
    ResponseLost,
    RunningHubError,
    Transient,
)
from rh_prefect.media.input_files import digest, file_state
from rh_prefect.media.storage_urls import is_local
from rh_prefect.media.store import MediaStore
from rh_prefect.settings import Settings
from rh_prefect.works.accounts.limiter import Limiter
from rh_prefect.works.accounts.poller import Poller
from rh_prefect.works.input_identification import Copies, Input, LocalFile, check_unchanged, open_local
from rh_prefect.works.journal.costs_and_budget import Money
from rh_prefect.works.journal.identity import file_mark
from rh_prefect.works.journal.record_types import Intent, account_words
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.runninghub.provider import Machine, RunningHub

UPLOADS_AT_ONCE = 4
"""Maximum number of concurrent uploads of one account."""

_RETRY_SECONDS = 5.0
"""Minimum seconds between a failed request for a currency that is only displayed and the next request."""

_LABEL_SECONDS = 2.0
"""Seconds for which a request for a displayed currency is repeated while RunningHub is busy."""


class Uploads:
    """The input files that one account has uploaded, and their links."""

    def __init__(
        self,
        upload: Callable[..., Awaitable[Upload]],
        *,
        folder: Path,
        clock: Callable[[], float],
        lifetime: float,
    ) -> None:
        self._lifetime = lifetime
        self._upload = upload
        self._folder = folder
        self._clock = clock
        self._uploads: LruCache[str, tuple[Upload, float]] = LruCache(5000)
        self._locks = NamedLocks()
        self._semaphore = asyncio.Semaphore(UPLOADS_AT_ONCE)

    async def address(self, file: Input, mark: str, *, store: MediaStore) -> str:
        """Returns a link to an input or, if `mark` stands for a name, the name at RunningHub; both expire within hours.

        If the job's store has `signed_inputs`, a link refers to a copy of the input in the store.
        """
        is_name = mark == file_mark(file.record.sha256)
        if store.signed_inputs and not is_name:
            async with self._locks.of(f"{store.identity} {file.record.sha256}"):
                signed = await LOOP.in_file_thread(self._link_to_copy, file, store)
            if signed:
                return signed
        return await self._uploaded(file, store.options_for(file.source), is_name=is_name)

    def _link_to_copy(self, file: Input, store: MediaStore) -> str | None:
        """Copies the input to the store, and returns a signed link to the copy; None if the store signs no links."""
        copies = Copies(store)
        signed = store.signed_url(copies.name(file.record))
        if signed is None or copies.has(file.record):
            return signed
        options = store.options_for(file.source)
        with open_local(file.source, self._folder, options=options, copied=True) as local:
            check_unchanged(file, local.sha256)
            copies.put(local.path, file.record)
        return signed

    async def _uploaded(self, file: Input, options: Mapping[str, object], *, is_name: bool) -> str:
        def address(upload: Upload) -> str:
            return upload.file_name if is_name else upload.url

        sha256 = file.record.sha256
        async with self._locks.of(sha256):
            known = self._uploads.get(sha256)
            # A negative age means that the clock was set back, so the age is unknown.
            is_valid = known is not None and 0 <= self._clock() - known[1] < self._lifetime
            if known is not None and is_valid and address(known[0]):
                return address(known[0])
            began = self._clock()
            async with self._semaphore:
                upload = await self._send(file, options)
            if not address(upload):
                # A task without its input would be paid for.
                raise ResponseLost(
                    f"upload of {file.record.uri}: the response contains no {'file name' if is_name else 'link'}. "
                    "No task was submitted. What to do: run again."
                )
            self._uploads[sha256] = (upload, began)
            return address(upload)

    async def _send(self, file: Input, options: Mapping[str, object]) -> Upload:
        context = open_local(file.source, self._folder, options=options)
        local = await LOOP.in_file_thread(context.__enter__)
        try:
            check_unchanged(file, local.sha256)
            # RunningHub uses the extension, and accepts only plain ASCII names reliably.
            name = f"{local.sha256[:32]}.{file.record.extension or 'bin'}"
            upload = await self._upload(local.path, name=name, mime=file.record.mime)
            await LOOP.in_file_thread(_check_again, file, local)
            return upload
        finally:
            await LOOP.in_file_thread(context.__exit__, None, None, None)


def _check_again(file: Input, local: LocalFile) -> None:
    """Raises an error if a local file changed during the upload; RunningHub may then have the old or new content."""
    if not is_local(file.source):
        return  # a copy of this process was uploaded, which does not change
    if local.stamp != file_state(file.source).stamp:
        check_unchanged(file, digest(file.source).sha256)


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


@dataclass(frozen=True, slots=True, repr=False)
class Account:
    """One API key in this process, used on the package's loop thread.

    Accounts with the same key share everything except their names and blocks.
    """

    name: str  # The account's name in records and reports
    block: str | None  # Name of its credentials block; None for RH_API_KEY
    provider: RunningHub  # The account at RunningHub
    limiter: Limiter  # Its slots
    poller: Poller  # Its running tasks
    prices: Prices
    uploads: Uploads  # The inputs that it can read
    _settings: Settings = field(compare=False)
    _machines: dict[str, Account] = field(compare=False)

    @classmethod
    def open(cls, provider: RunningHub, *, settings: Settings, clock: Callable[[], float] = time.time) -> Account:
        """Opens an account without a name; sends no request.

        The clock counts seconds since 1970, because the expiry of upload links follows the wall clock. A monotonic
        clock stops while a laptop sleeps.
        """
        limiter = Limiter(provider.slots, clock=time.monotonic)
        poller = Poller(
            provider.query,
            clock=time.monotonic,
            shortest=settings.poll_seconds,
            grace=settings.grace_seconds,
            count=None if provider.is_bare else limiter.count,
        )
        folder = settings.state_dir / "inputs"
        uploads = Uploads(provider.upload, folder=folder, clock=clock, lifetime=provider.file_seconds)
        return cls("", None, provider, limiter, poller, Prices(provider), uploads, settings, {})

    def at(self, endpoint: str) -> Account:
        """Returns this account or, for an endpoint of the native proxy, the account of the endpoint's machine."""
        if endpoint not in get_args(NativeSubmit):
            return self
        if endpoint not in self._machines:
            machine = Machine(self.provider.client, cast(NativeSubmit, endpoint))
            self._machines[endpoint] = Account.open(machine, settings=self._settings)
        return replace(self._machines[endpoint], name=self.name, block=self.block)

    def is_of(self, intent: Intent) -> bool:
        """Returns whether a submission's record names this account and its block."""
        return (self.name, self.block) == (intent.account, intent.credentials)

    def __str__(self) -> str:
        """Returns the account's name and the source of its API key."""
        return account_words(self.name, self.block)


_accounts: dict[tuple[str, SecretStr, Path], Account] = {}
# The sockets and locks of the parent are bound to a loop that a forked child does not have.
os.register_at_fork(after_in_child=_accounts.clear)


def account_of(
    api_key: SecretStr, *, base_url: str, settings: Settings, name: str | None = None, block: str | None = None
) -> Account:
    """Returns this process's account for a key; call it on the loop thread.

    Without `name`, the account's name is a fingerprint of the key.
    """
    identity = (base_url, api_key, settings.state_dir)
    if identity not in _accounts:
        provider = RunningHub.open(api_key, base_url=base_url, submit_timeout=settings.submit_timeout)
        _accounts[identity] = Account.open(provider, settings=settings)
    account = _accounts[identity]
    return replace(account, name=name or account.provider.account_id, block=block)

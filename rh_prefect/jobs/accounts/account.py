"""One account in this process: its client, poller, slots and uploads, shared by all jobs that are paid on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from rh_prefect.client import Client
from rh_prefect.jobs.accounts.limiter import Limiter
from rh_prefect.jobs.accounts.poller import Poller
from rh_prefect.jobs.accounts.uploads import Uploads
from rh_prefect.jobs.journal.budget import Prices
from rh_prefect.jobs.journal.identity import file_mark
from rh_prefect.jobs.named_locks import NamedLocks
from rh_prefect.jobs.requests.input_copies import Copies
from rh_prefect.jobs.requests.inputs import Input, check_unchanged, fetched
from rh_prefect.jobs.requests.request import JobRequest
from rh_prefect.media.store import MediaStore
from rh_prefect.settings import Settings


class Account:
    """What the jobs of one API key share in this process; lives on the package's loop thread."""

    def __init__(self, client: Client, *, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        """Opens the account; nothing is asked before its first job.

        Args:
            client: Talks to RunningHub with the account's key.
            settings: Where this machine's scratch lies, and how often to look at tasks.
            clock: Seconds since 1970. Links of uploads end by the wall clock; a monotonic one stands still while a
                laptop sleeps.
        """
        self.client = client
        self.settings = settings
        self.machines: dict[str, Account] = {}
        self.slots = Limiter(self._ask_for_slots, clock=time.monotonic)
        self.poller = Poller(
            client.query,
            clock=time.monotonic,
            shortest=settings.poll_seconds,
            grace=settings.grace_seconds,
            count=self.slots.count,
        )
        self.prices = Prices(client)
        self._copying = NamedLocks()
        self._uploads = Uploads(client.upload, folder=settings.state_dir / "inputs", clock=clock)

    async def link(self, order: JobRequest, mark: str, *, store: MediaStore) -> str:
        """Gives a link, or a name at RunningHub, under which it can read an input of a job that this account pays.

        Args:
            order: What is asked for.
            mark: The input's mark in the order's payload.
            store: The job's store. One with `signed_inputs` gives links to content-named copies in it.

        Raises:
            RunningHubError: The file cannot be read or uploaded any more.
        """
        given = order.inputs[mark]
        if mark == file_mark(given.seen.sha256):
            return await self._uploads.file_name(given, options=store.options_for(given.source))
        if store.signed_inputs:
            async with self._copying.of(f"{store.url} {given.seen.sha256}"):
                signed = await asyncio.to_thread(self._link_to_copy, given, store)
            if signed:
                return signed
        return await self._uploads.link(given, options=store.options_for(given.source))

    def _link_to_copy(self, given: Input, store: MediaStore) -> str | None:
        """A link to a copy that is named by its content: what lies under another name may be overwritten."""
        copies = Copies(store)
        signed = store.signed_url(copies.name(given.seen))
        if signed is None or copies.has(given.seen):
            return signed
        options = store.options_for(given.source)
        with fetched(given.source, self.settings.state_dir / "inputs", options=options, copied=True) as held:
            check_unchanged(given, held.sha256)
            copies.put(held.path, given.seen)
        return signed

    async def aclose(self) -> None:
        """Closes the client's connections."""
        await self.client.aclose()

    async def _ask_for_slots(self) -> tuple[int | None, int]:
        status = await self.client.queue_status()
        return status.limit, status.running + status.queued


@dataclass(frozen=True, slots=True)
class Member:
    """An account as those who pay with it call it.

    Attributes:
        account: The account; two blocks with one key share it.
        name: What records and reports call it.
        block: Name of its credentials block; None for RH_API_KEY.
    """

    account: Account
    name: str
    block: str | None = None

    @property
    def client(self) -> Client:
        """Talks to RunningHub with the account's key."""
        return self.account.client

    def __str__(self) -> str:
        """The account, and where its key comes from."""
        return f"{self.name} ({'RH_API_KEY' if self.block is None else f'block {self.block!r}'})"

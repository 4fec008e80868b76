"""Keeps the accounts of this process, finds the one that a record names, and opens an account's ComfyUI machines."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from pydantic import SecretStr

from rh_prefect.caches_and_locks import NamedLocks
from rh_prefect.client import Client, NativeSubmit, Upload
from rh_prefect.errors import ConfigError
from rh_prefect.jobs.accounts.limiter import Limiter
from rh_prefect.jobs.accounts.poller import Poller
from rh_prefect.jobs.accounts.uploads import Uploads
from rh_prefect.jobs.journal.budget import Prices
from rh_prefect.jobs.journal.identity import file_mark
from rh_prefect.jobs.journal.record_types import Intent
from rh_prefect.jobs.loop_thread import LOOP
from rh_prefect.jobs.requests.input_copies import Copies
from rh_prefect.jobs.requests.input_files import Input, check_unchanged, fetched
from rh_prefect.jobs.requests.request import JobRequest
from rh_prefect.media.store import MediaStore
from rh_prefect.settings import Settings


class Account:
    """The shared state of one API key's jobs in this process, on the package's loop thread."""

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
        """Returns a link or a file name with which RunningHub can read an input of a job that this account pays.

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
    """An account with the name by which its users refer to it.

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
        """The client for RunningHub with the account's key."""
        return self.account.client

    def __str__(self) -> str:
        """The account, and where its key comes from."""
        return f"{self.name} ({'RH_API_KEY' if self.block is None else f'block {self.block!r}'})"


@dataclass(frozen=True, slots=True)
class Key:
    """One API key, and where it comes from.

    Attributes:
        api_key: RunningHub's API key.
        base_url: The site.
        account: The account's name in records; a fingerprint of the key by default.
        block: Name of its credentials block; None for RH_API_KEY.
    """

    api_key: SecretStr
    base_url: str
    account: str | None = None
    block: str | None = None


_accounts: dict[tuple[str, SecretStr, Path], Account] = {}
# A forked child has its parent's sockets and locks, which are bound to a loop that the child does not have.
os.register_at_fork(after_in_child=_accounts.clear)


def member(key: Key, *, settings: Settings) -> Member:
    """Returns this process's only account object for a key; call it on the loop thread.

    Args:
        key: The key.
        settings: This machine's state folder, and how often tasks are polled.

    Raises:
        ConfigError: The key or the site cannot be used.
    """
    name = (key.base_url, key.api_key, settings.state_dir)
    if name not in _accounts:
        client = Client(key.api_key, base_url=key.base_url, submit_timeout=settings.submit_timeout)
        _accounts[name] = Account(client, settings=settings)
        LOOP.on_close(_accounts[name].aclose)
    account = _accounts[name]
    return Member(account, key.account or account.client.account_id, key.block)


async def _unknown(intent: Intent) -> Member:
    raise ConfigError(
        f"task paid on account {intent.account!r}: none of the configured accounts is that one. What to "
        "do: run again with its key."
    )


class Accounts:
    """A lookup of the account in a job's record: the only way from an intent to its client."""

    def __init__(
        self, members: Sequence[Member] = (), *, find: Callable[[Intent], Awaitable[Member]] = _unknown
    ) -> None:
        """Takes the accounts at hand.

        Args:
            members: The accounts that are looked at first.
            find: Finds an account that is not among these; by default that is an error.
        """
        self.members = tuple(members)
        self.find = find

    async def for_intent(self, intent: Intent) -> Member:
        """Finds the account that a job was paid on.

        Args:
            intent: The job's record.

        Raises:
            ConfigError: Its block does not exist any more, no key is set, or the key is for another site.
        """
        found = self._at_hand(intent) or await self.find(intent)
        if found.client.site != intent.site:
            raise ConfigError(
                f"the job was submitted to {intent.site}, but the credentials here are for "
                f"{found.client.site}. What to do: start this process with the same RH_BASE_URL, or use "
                "credentials blocks in your flows."
            )
        return found

    async def client_for(self, intent: Intent) -> Client:
        """Finds the client of the account that a job was paid on; see `for_intent`."""
        return (await self.for_intent(intent)).client

    def _at_hand(self, intent: Intent) -> Member | None:
        # A block whose key was renewed is the same account; only where two have changed places does the name decide.
        named = [one for one in self.members if one.name == intent.account]
        blocks = [one for one in self.members if one.block == intent.credentials]
        both = [one for one in named if one in blocks]
        return next((found[0] for found in (both, named, blocks) if found), None)


GRAPHS_AT_ONCE = 1
"""How many graphs of this process a machine has at a time; RunningHub does not publish that it takes more."""

FILES_SECONDS = 600.0
"""For how long a file is expected on the machine, which may be another one tomorrow."""


def is_native(endpoint: str) -> bool:
    """Tells whether an order goes to ComfyUI's own API.

    Args:
        endpoint: The order's.
    """
    return endpoint in get_args(NativeSubmit)


class Machine(Account):
    """The shared state of the graphs on one machine of an account in this process."""

    def __init__(self, client: Client, endpoint: str, *, settings: Settings) -> None:
        """Opens the machine; nothing is asked before its first graph.

        Args:
            client: The account's.
            endpoint: One of `NativeSubmit`.
            settings: As of `Account`.
        """
        super().__init__(client, settings=settings)
        self._comfy = client.comfy if endpoint == "/proxy" else client.comfy_plus
        # The account's own count of its tasks says nothing of these.
        self.slots = Limiter(self._ask_for_one, clock=time.monotonic)
        self.poller = Poller(client.query, clock=time.monotonic, shortest=settings.poll_seconds)
        self._uploads = Uploads(
            self._upload, folder=settings.state_dir / "inputs", clock=time.monotonic, lifetime=FILES_SECONDS
        )

    async def _ask_for_one(self) -> tuple[int | None, int]:
        return GRAPHS_AT_ONCE, self.slots.held

    async def _upload(self, path: Path, *, name: str, mime: str) -> Upload:
        file = await self._comfy.upload(path, name=name, mime=mime)
        return Upload(url="", file_name="/".join(filter(None, (file.subfolder, file.name))), size=0, kind=file.kind)


def at_machine(member: Member, endpoint: str) -> Member:
    """Returns the same account, bound to the machine that runs its graphs.

    Args:
        member: The account.
        endpoint: One of `NativeSubmit`.
    """
    machines = member.account.machines
    if endpoint not in machines:
        machines[endpoint] = Machine(member.client, endpoint, settings=member.account.settings)
    return replace(member, account=machines[endpoint])

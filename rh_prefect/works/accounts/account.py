"""The accounts of this process: their uploads and ComfyUI machines, and the lookup of a record's account."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from pydantic import SecretStr

from rh_prefect.caches_and_locks import LruCache, NamedLocks
from rh_prefect.client import Client, NativeSubmit, Upload
from rh_prefect.errors import ConfigError
from rh_prefect.media.input_files import digest, file_state
from rh_prefect.media.store import MediaStore
from rh_prefect.media.urls import is_local
from rh_prefect.settings import Settings
from rh_prefect.works.accounts.limiter import Limiter
from rh_prefect.works.accounts.poller import Poller
from rh_prefect.works.journal.budget import Prices
from rh_prefect.works.journal.identity import file_mark
from rh_prefect.works.journal.record_types import Intent, account_words
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.requests.input_identification import Input, LocalFile, check_unchanged, open_local
from rh_prefect.works.requests.request_preparation import JobRequest
from rh_prefect.works.requests.stored_input_copies import Copies

UPLOAD_LIFETIME = 20 * 3600.0
"""Seconds for which a link is used: RunningHub documents one day, and a job may wait for a slot in that time."""

UPLOADS_AT_ONCE = 4
"""Maximum number of concurrent uploads of one account."""


class Uploads:
    """The uploads of one account in this process."""

    def __init__(
        self,
        upload: Callable[..., Awaitable[Upload]],
        *,
        folder: Path,
        clock: Callable[[], float],
        lifetime: float = UPLOAD_LIFETIME,
        most: int = 5000,
    ) -> None:
        """Starts without uploads.

        Args:
            upload: Uploads a local file: `upload(path, name=…, mime=…)`.
            folder: Local folder for temporary copies of remote files.
            clock: Seconds since 1970.
            lifetime: Seconds for which an upload is assumed to be at RunningHub.
            most: Maximum number of remembered uploads; a file whose upload was dropped is uploaded again.
        """
        self._lifetime = lifetime
        self._upload = upload
        self._folder = folder
        self._clock = clock
        self._uploads: LruCache[str, tuple[Upload, float]] = LruCache(most)
        self._locks = NamedLocks()
        self._semaphore = asyncio.Semaphore(UPLOADS_AT_ONCE)

    async def link(self, file: Input, *, options: Mapping[str, object]) -> str:
        """Returns a link that RunningHub can read for some more hours; uploads the file if necessary.

        Args:
            file: The file.
            options: fsspec's storage options for its source.

        Raises:
            InputError: The file has changed since it was first read.
            MediaError: The file can no longer be read.
        """
        return (await self._uploaded(file, options)).url

    async def file_name(self, file: Input, *, options: Mapping[str, object]) -> str:
        """Returns the name of an uploaded file for a workflow's loader node; uploads it if necessary. See `link`."""
        return (await self._uploaded(file, options)).file_name

    async def _uploaded(self, file: Input, options: Mapping[str, object]) -> Upload:
        sha256 = file.record.sha256
        async with self._locks.of(sha256):
            upload, began = self._uploads.get(sha256) or (None, 0.0)
            # A negative age means that the clock was set back, so the age is unknown.
            if upload is None or not 0 <= self._clock() - began < self._lifetime:
                began = self._clock()
                async with self._semaphore:
                    upload = await self._send(file, options)
                self._uploads[sha256] = (upload, began)
            return upload

    async def _send(self, file: Input, options: Mapping[str, object]) -> Upload:
        context = open_local(file.source, self._folder, options=options)
        local = await asyncio.to_thread(context.__enter__)
        try:
            check_unchanged(file, local.sha256)
            # RunningHub uses the extension, and accepts only plain ASCII names reliably.
            name = f"{local.sha256[:32]}.{file.record.extension or 'bin'}"
            upload = await self._upload(local.path, name=name, mime=file.record.mime)
            await asyncio.to_thread(_check_again, file, local)
            return upload
        finally:
            await asyncio.to_thread(context.__exit__, None, None, None)


def _check_again(file: Input, local: LocalFile) -> None:
    """Rejects an upload of a local file that changed during the upload: the content at RunningHub is then unknown."""
    if not is_local(file.source):
        return  # the upload was a copy of this process
    if not local.proof or local.stamp != file_state(file.source).stamp:
        check_unchanged(file, digest(file.source).sha256)


class Account:
    """The shared state of one API key's jobs in this process, on the package's loop thread."""

    def __init__(self, client: Client, *, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        """Opens the account; its first job sends the first request.

        Args:
            client: The client with the account's key.
            settings: The local folder of this machine, and how often tasks are polled.
            clock: Seconds since 1970. Links of uploads expire by the wall clock; a monotonic clock stops while a laptop
                sleeps.
        """
        self.client = client
        self.settings = settings
        self.machines: dict[str, Account] = {}
        self.limiter = Limiter(self._slot_count, clock=time.monotonic)
        self.poller = Poller(
            client.query,
            clock=time.monotonic,
            shortest=settings.poll_seconds,
            grace=settings.grace_seconds,
            count=self.limiter.count,
        )
        self.prices = Prices(client)
        self._copy_locks = NamedLocks()
        self._uploads = Uploads(client.upload, folder=settings.state_dir / "inputs", clock=clock)

    async def link(self, request: JobRequest, mark: str, *, store: MediaStore) -> str:
        """Returns a link or a file name with which RunningHub can read an input of a job that this account pays.

        Args:
            request: The job's request.
            mark: The input's mark in the request's payload.
            store: The job's store. If it has `signed_inputs`, the link is that of a content-named copy in it.

        Raises:
            RunningHubError: The file cannot be read or uploaded.
        """
        file = request.inputs[mark]
        if mark == file_mark(file.record.sha256):
            return await self._uploads.file_name(file, options=store.options_for(file.source))
        if store.signed_inputs:
            async with self._copy_locks.of(f"{store.identity} {file.record.sha256}"):
                signed = await asyncio.to_thread(self._link_to_copy, file, store)
            if signed:
                return signed
        return await self._uploads.link(file, options=store.options_for(file.source))

    def _link_to_copy(self, file: Input, store: MediaStore) -> str | None:
        """Returns a link to a copy of the input; its name has the content's hash, so that it is never overwritten."""
        copies = Copies(store)
        signed = store.signed_url(copies.name(file.record))
        if signed is None or copies.has(file.record):
            return signed
        options = store.options_for(file.source)
        with open_local(file.source, self.settings.state_dir / "inputs", options=options, copied=True) as local:
            check_unchanged(file, local.sha256)
            copies.put(local.path, file.record)
        return signed

    async def aclose(self) -> None:
        """Closes the client's connections."""
        await self.client.aclose()

    async def _slot_count(self) -> tuple[int | None, int]:
        status = await self.client.queue_status()
        return status.limit, status.running + status.queued


@dataclass(frozen=True, slots=True)
class Member:
    """An account with its name.

    Attributes:
        account: The account; blocks with the same key share it.
        name: The account's name in records and reports.
        block: Name of its credentials block; None for RH_API_KEY.
    """

    account: Account
    name: str
    block: str | None = None

    @property
    def client(self) -> Client:
        """The client with the account's key."""
        return self.account.client

    def __str__(self) -> str:
        """The account's name and the source of its key."""
        return account_words(self.name, self.block)


@dataclass(frozen=True, slots=True)
class Key:
    """One API key and its source.

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
# The sockets and locks of the parent are bound to a loop that a forked child does not have.
os.register_at_fork(after_in_child=_accounts.clear)


def member(key: Key, *, settings: Settings) -> Member:
    """Returns this process's only account object for a key; runs on the loop thread.

    Args:
        key: The key.
        settings: The local folder of this machine, and how often tasks are polled.

    Raises:
        ConfigError: The key or the site cannot be used.
    """
    identity = (key.base_url, key.api_key, settings.state_dir)
    if identity not in _accounts:
        client = Client(key.api_key, base_url=key.base_url, submit_timeout=settings.submit_timeout)
        _accounts[identity] = Account(client, settings=settings)
        LOOP.on_close(_accounts[identity].aclose)
    account = _accounts[identity]
    return Member(account, key.account or account.client.account_id, key.block)


async def _unknown(intent: Intent) -> Member:
    raise ConfigError(
        f"task paid on account {intent.account_words}: none of the configured accounts is that one. What to "
        "do: run again with its key."
    )


class Accounts:
    """A lookup of the account in a job's record: the only way from an intent to its client."""

    def __init__(
        self, members: Sequence[Member] = (), *, find: Callable[[Intent], Awaitable[Member]] = _unknown
    ) -> None:
        """Takes the accounts.

        Args:
            members: The accounts that are searched first.
            find: Finds an account that is not among `members`; by default, it raises an error.
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
        member = await self._find(intent)
        if member.client.site != intent.site:
            raise ConfigError(
                f"the job was submitted to {intent.site}, but the credentials here are for "
                f"{member.client.site}. What to do: start this process with the same RH_BASE_URL, or use "
                "credentials blocks in your flows."
            )
        return member

    async def client_for(self, intent: Intent) -> Client:
        """Finds the client of the account that a job was paid on; see `for_intent`."""
        return (await self.for_intent(intent)).client

    async def _find(self, intent: Intent) -> Member:
        # The block identifies an account whose key was renewed; the name has priority, as blocks may exchange keys.
        named = [member for member in self.members if member.name == intent.account]
        with_block = [member for member in self.members if member.block == intent.credentials]
        both = [member for member in named if member in with_block]
        if named and not both:
            # Two accounts may have one name, and the one of the block may not be among the members.
            with suppress(ConfigError):
                found = await self.find(intent)
                both = [found] if found.name == intent.account else []
        return next(iter(both or named or with_block), None) or await self.find(intent)


GRAPHS_AT_ONCE = 1
"""Maximum number of graphs of this process on a machine; RunningHub does not document that it accepts more."""

FILES_SECONDS = 600.0
"""Seconds for which a file is assumed to remain on a machine, since the machine may be replaced."""


def is_native(endpoint: str) -> bool:
    """Whether a request is sent to ComfyUI's own API.

    Args:
        endpoint: The request's endpoint.
    """
    return endpoint in get_args(NativeSubmit)


class Machine(Account):
    """The shared state of the graphs on one machine of an account in this process."""

    def __init__(self, client: Client, endpoint: str, *, settings: Settings) -> None:
        """Opens the machine; its first graph sends the first request.

        Args:
            client: The account's client.
            endpoint: One of `NativeSubmit`.
            settings: See `Account`.
        """
        super().__init__(client, settings=settings)
        self._comfy = client.comfy if endpoint == "/proxy" else client.comfy_plus
        # The queue status of the account does not count the graphs on its machines.
        self.limiter = Limiter(self._graph_count, clock=time.monotonic)
        self.poller = Poller(
            client.query, clock=time.monotonic, shortest=settings.poll_seconds, grace=settings.grace_seconds
        )
        self._uploads = Uploads(
            self._upload, folder=settings.state_dir / "inputs", clock=time.monotonic, lifetime=FILES_SECONDS
        )

    async def _graph_count(self) -> tuple[int | None, int]:
        return GRAPHS_AT_ONCE, self.limiter.held

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

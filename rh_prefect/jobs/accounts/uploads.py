"""Links to inputs uploaded to RunningHub: one upload per content, shared until its link expires."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from rh_prefect.caches_and_locks import LruCache, NamedLocks
from rh_prefect.client import Upload
from rh_prefect.jobs.requests.input_files import Held, Input, check_unchanged, fetched
from rh_prefect.media.source import digest, look
from rh_prefect.media.urls import is_local

LIFETIME = 20 * 3600.0
"""Seconds for which a link is given out by the wall clock: RunningHub says one day, and a job may wait for its slot."""

AT_ONCE = 4


class Uploads:
    """What one account has uploaded in this process."""

    def __init__(
        self,
        upload: Callable[..., Awaitable[Upload]],
        *,
        folder: Path,
        clock: Callable[[], float],
        lifetime: float = LIFETIME,
        most: int = 5000,
    ) -> None:
        """Starts with nothing uploaded.

        Args:
            upload: Uploads a local file: `upload(path, name=…, mime=…)`.
            folder: Local scratch for files that are not local.
            clock: Seconds since 1970.
            lifetime: Seconds for which an upload is taken to be there.
            most: How many uploads are remembered; a file whose upload was dropped is sent again.
        """
        self._lifetime = lifetime
        self._upload = upload
        self._folder = folder
        self._clock = clock
        self._sent: LruCache[str, tuple[Upload, float]] = LruCache(most)
        self._locks = NamedLocks()
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def link(self, given: Input, *, options: Mapping[str, object]) -> str:
        """Returns a link that RunningHub can read for some more hours; uploads the file if necessary.

        Args:
            given: The file.
            options: fsspec's storage options for its source.

        Raises:
            InputError: The file has changed since it was first read.
            MediaError: It can no longer be read.
        """
        return (await self._uploaded(given, options)).url

    async def file_name(self, given: Input, *, options: Mapping[str, object]) -> str:
        """Returns the name of an uploaded file for a workflow's loader node; uploads it if necessary. See `link`."""
        return (await self._uploaded(given, options)).file_name

    async def _uploaded(self, given: Input, options: Mapping[str, object]) -> Upload:
        sha256 = given.seen.sha256
        async with self._locks.of(sha256):
            known = self._sent.get(sha256)
            # A clock that was set back since says nothing of the link's age.
            if known is None or not 0 <= self._clock() - known[1] < self._lifetime:
                began = self._clock()
                async with self._gate:
                    known = (await self._send(given, options), began)
                self._sent[sha256] = known
            return known[0]

    async def _send(self, given: Input, options: Mapping[str, object]) -> Upload:
        local = fetched(given.source, self._folder, options=options)
        held = await asyncio.to_thread(local.__enter__)
        try:
            check_unchanged(given, held.sha256)
            # RunningHub goes by the extension, and a plain ASCII name is the only one that is safe there.
            extension = given.seen.extension or "bin"
            sent = await self._upload(held.path, name=f"{held.sha256[:32]}.{extension}", mime=given.seen.mime)
            await asyncio.to_thread(_check_again, given, held)
            return sent
        finally:
            await asyncio.to_thread(local.__exit__, None, None, None)


def _check_again(given: Input, held: Held) -> None:
    """Refuses an upload of a local file that was changed while it was sent: what RunningHub received is unknown."""
    if not is_local(given.source):
        return  # what was sent is this process's own copy
    if not held.proof or held.stamp != look(given.source).stamp:
        check_unchanged(given, digest(given.source).sha256)

"""Links to inputs uploaded to RunningHub: one upload per content, shared until its link expires."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from rh_prefect.caches_and_locks import LruCache, NamedLocks
from rh_prefect.client import Upload
from rh_prefect.jobs.requests.input_identification import Input, LocalFile, check_unchanged, open_local
from rh_prefect.media.source import digest, look
from rh_prefect.media.urls import is_local

LIFETIME = 20 * 3600.0
"""Seconds for which a link is used: RunningHub documents one day, and a job may wait for a slot in that time."""

AT_ONCE = 4
"""Maximum number of concurrent uploads of one account."""


class Uploads:
    """The uploads of one account in this process."""

    def __init__(
        self,
        upload: Callable[..., Awaitable[Upload]],
        *,
        folder: Path,
        clock: Callable[[], float],
        lifetime: float = LIFETIME,
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
        self._semaphore = asyncio.Semaphore(AT_ONCE)

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
    if not local.proof or local.stamp != look(file.source).stamp:
        check_unchanged(file, digest(file.source).sha256)

"""Links of inputs at RunningHub: one upload for one content, shared for as long as its link lives."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from rh_prefect.client.wire import Upload
from rh_prefect.jobs.inputs import Input, check_unchanged, fetched

LIFETIME = 20 * 3600.0
"""Seconds for which a link is given out: RunningHub says one day, and a job may wait for its slot."""

AT_ONCE = 4


class Uploads:
    """What one account has uploaded in this process."""

    def __init__(self, upload: Callable[..., Awaitable[Upload]], *, folder: Path, clock: Callable[[], float]) -> None:
        """Starts with nothing uploaded.

        Args:
            upload: Uploads a local file: `upload(path, name=…, mime=…)`.
            folder: Local scratch for files that are not local.
            clock: Monotonic seconds.
        """
        self._upload = upload
        self._folder = folder
        self._clock = clock
        self._links: dict[str, tuple[str, float]] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def link(self, given: Input, *, options: Mapping[str, object]) -> str:
        """Gives a link that RunningHub can read for some hours yet, uploading the file if it has to.

        Args:
            given: The file.
            options: fsspec's storage options for its source.

        Raises:
            InputError: The file has changed since it was first read.
            MediaError: It can no longer be read.
        """
        sha256 = given.seen.sha256
        async with self._locks[sha256]:
            link, expires = self._links.get(sha256, ("", 0.0))
            if self._clock() >= expires:
                async with self._gate:
                    link = await self._send(given, options)
                self._links[sha256] = (link, self._clock() + LIFETIME)
            return link

    async def _send(self, given: Input, options: Mapping[str, object]) -> str:
        local = fetched(given.source, self._folder, options=options)
        path, sha256, _ = await asyncio.to_thread(local.__enter__)
        try:
            check_unchanged(given, sha256)
            # RunningHub goes by the extension, and a plain ASCII name is the only one that is safe there.
            extension = given.seen.extension or "bin"
            uploaded = await self._upload(path, name=f"{sha256[:32]}.{extension}", mime=given.seen.mime)
        finally:
            await asyncio.to_thread(local.__exit__, None, None, None)
        return uploaded.url

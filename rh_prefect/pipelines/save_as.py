"""The names that `save_as` gives to results; a file that this package did not save is never replaced."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rh_prefect.caches_and_locks import NamedLocks
from rh_prefect.errors import StoreError
from rh_prefect.jobs.journal.journal import FolderJournal
from rh_prefect.jobs.journal.record_types import Record
from rh_prefect.media.media import Media
from rh_prefect.media.names import folded
from rh_prefect.media.source import fetch
from rh_prefect.media.store import MediaStore

FOLDER = "names"


class SavedName(Record):
    """A content that was saved under a name, or was about to be.

    Attributes:
        name: The name in the store.
        sha256: The content.
    """

    name: str
    sha256: str


class SavedNames:
    """The names of results in one store, and a record of each content that was saved under a name."""

    def __init__(self, url: str, store: MediaStore, *, options: Mapping[str, Any] | None = None) -> None:
        """Stores the locations; reads nothing.

        Args:
            url: The place of the records: a folder or any fsspec URL.
            store: Where the files are.
            options: fsspec's storage options for the records.
        """
        self._records = FolderJournal(url, scope=FOLDER, options=options, readers="all")
        self._store = store
        self._locks = NamedLocks()

    async def save(self, file: Media, name: str) -> Media:
        """Copies a result to a name, unless the name already has it.

        Args:
            file: The result.
            name: Its name in the store.

        Raises:
            StoreError: A file has this name which no pipeline has saved, or the store refuses the file.
            JournalError: The records cannot be read or written.
        """
        # A store that ignores case has one file for two such names; the second one finds the first one's.
        async with self._locks.of(folded(name)):
            return await self._save(file, name)

    async def _save(self, file: Media, name: str) -> Media:
        job = hashlib.sha256(name.encode()).hexdigest()[:40]
        size, known = await asyncio.to_thread(self._store.size, name), await self._records.job(job)
        if size is not None and not known:
            raise StoreError(
                f"{self._store.uri(name)} exists, and no pipeline has saved it. It was not replaced; the "
                f"result is {file.uri}. What to do: move that file, or change the name in save_as, and "
                "run again at no cost."
            )
        contents = {record["sha256"] for record in known.values()}
        if size != file.size or contents != {file.sha256}:
            record = SavedName(name=name, sha256=file.sha256)
            await self._records.create(f"{job}-content-{file.sha256[:16]}", record.model_dump(mode="json"))
            return await asyncio.to_thread(self._copy, file, name)
        return file.model_copy(update={"uri": self._store.uri(name)})

    async def find(self, file: Media, name: str) -> Media | None:
        """Finds a result that was saved under a name; returns None if the name has no file or another one.

        Args:
            file: The result.
            name: Its name in the store.

        Raises:
            JournalError: The records cannot be read.
        """
        job = hashlib.sha256(name.encode()).hexdigest()[:40]
        size, known = await asyncio.to_thread(self._store.size, name), await self._records.job(job)
        is_there = size == file.size and {record["sha256"] for record in known.values()} == {file.sha256}
        return file.model_copy(update={"uri": self._store.uri(name)}) if is_there else None

    def _copy(self, file: Media, name: str) -> Media:
        with TemporaryDirectory(prefix="rh-save-") as folder:
            local = Path(folder) / Path(name).name
            fetch(file, local, options=self._store.options_for(file))
            return self._store.take(local, name)

"""Copies results to the names of `save_as`; a file that a user has changed is not replaced."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rh_prefect.caches_and_locks import NamedLocks
from rh_prefect.errors import StoreError
from rh_prefect.jobs.journal.journal import FolderJournal
from rh_prefect.jobs.journal.record_types import Record
from rh_prefect.media.file_state import Stamp
from rh_prefect.media.input_files import fetch
from rh_prefect.media.media import Media
from rh_prefect.media.names import folded
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


class SavedStamp(SavedName):
    """The state in which the storage reports a saved file, so that it is not read again to know its content.

    Attributes:
        stamp: See `rh_prefect.media.file_state`.
    """

    stamp: str


@dataclass(frozen=True, slots=True)
class _There:
    """What is at a name.

    Attributes:
        name: The name.
        key: The beginning of its records' keys.
        size: The file's size; None where there is none.
        contents: What pipelines have saved under the name.
        stamps: Content by the state of the file that had it.
    """

    name: str
    key: str
    size: int | None
    contents: frozenset[str]
    stamps: Mapping[str, str]


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
            StoreError: The name has a file that no pipeline has saved, or that was changed since; or the store refuses
                the file.
            JournalError: The records cannot be read or written.
        """
        # A store that ignores case has one file for two such names; the second one finds the first one's.
        async with self._locks.of(folded(name)):
            return await self._save(file, name)

    async def _save(self, file: Media, name: str) -> Media:
        there = await self._look(name)
        if there.size is not None:
            content = await self._content(there, file)
            if content == file.sha256:
                return self._located(file, name)
            if content not in there.contents:
                raise self._refusal(there, file)
        record = SavedName(name=name, sha256=file.sha256)
        await self._records.create(f"{there.key}-content-{file.sha256[:16]}", record.model_dump(mode="json"))
        saved = await asyncio.to_thread(self._copy, file, name)
        stamp = await asyncio.to_thread(self._store.stamp, name)
        # A time stamp does not tell this file from one that is written right after it.
        if stamp is not None and stamp.changed_at is None:
            await self._note_stamp(there, saved.sha256, stamp)
        return saved

    async def find(self, file: Media, name: str) -> Media | None:
        """Finds a result that was saved under a name; returns None if the name has no file or another one.

        Args:
            file: The result.
            name: Its name in the store.

        Raises:
            JournalError: The records cannot be read.
        """
        there = await self._look(name)
        if there.size != file.size or file.sha256 not in there.contents:
            return None
        return self._located(file, name) if await self._content(there, file) == file.sha256 else None

    async def _look(self, name: str) -> _There:
        key = hashlib.sha256(name.encode()).hexdigest()[:40]
        size, known = await asyncio.to_thread(self._store.size, name), await self._records.job(key)
        stamps = {record["stamp"]: record["sha256"] for record in known.values() if "stamp" in record}
        contents = frozenset(record["sha256"] for record in known.values() if "stamp" not in record)
        return _There(name, key, size, contents, stamps)

    async def _content(self, there: _There, file: Media) -> str:
        """Returns the hash of the file at a name; reads the file unless its state is noted. Empty: another content."""
        if not there.contents and there.size != file.size:
            return ""
        stamp, began = await asyncio.to_thread(self._store.stamp, there.name), time.time()
        if stamp is not None and stamp.text in there.stamps:
            return there.stamps[stamp.text]
        content = await asyncio.to_thread(self._store.digest, there.name)
        is_settled = stamp is not None and stamp == await asyncio.to_thread(self._store.stamp, there.name)
        if stamp is not None and is_settled and stamp.is_proof(read_at=began) and content in there.contents:
            await self._note_stamp(there, content, stamp)
        return content

    async def _note_stamp(self, there: _There, content: str, stamp: Stamp) -> None:
        record = SavedStamp(name=there.name, sha256=content, stamp=stamp.text)
        number = hashlib.sha256(f"{content} {stamp.text}".encode()).hexdigest()[:16]
        await self._records.create(f"{there.key}-stamp-{number}", record.model_dump(mode="json"))

    def _located(self, file: Media, name: str) -> Media:
        return file.model_copy(update={"uri": self._store.uri(name)})

    def _refusal(self, there: _There, file: Media) -> StoreError:
        what = "was changed after a pipeline saved it" if there.contents else "exists, and no pipeline has saved it"
        return StoreError(
            f"{self._store.uri(there.name)} {what}. It was not replaced; the "
            f"result is {file.uri}. What to do: move that file, or change the name in save_as, and "
            "run again at no cost.",
            is_permanent=True,
        )

    def _copy(self, file: Media, name: str) -> Media:
        with TemporaryDirectory(prefix="rh-save-") as folder:
            local = Path(folder) / Path(name).name
            fetch(file, local, options=self._store.options_for(file))
            return self._store.take(local, name)

"""Reads a job's input files and identifies each by its content; an account's `Uploads` sends them to RunningHub."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple, TypeAlias

from rh_prefect.bounded_caches_and_locks import NamedLocks
from rh_prefect.errors import InputError, MediaError, StoreError
from rh_prefect.local_files import make_folder
from rh_prefect.media.file_state import Stamp
from rh_prefect.media.input_files import (
    CheckSize,
    FileState,
    digest,
    fetch,
    file_state,
    identity_uri,
    is_link,
    shown,
    unsigned_uri,
)
from rh_prefect.media.media import Media
from rh_prefect.media.probe import extension_for, probe
from rh_prefect.media.storage_errors import as_media_error
from rh_prefect.media.storage_urls import is_local, local_path
from rh_prefect.media.store import MediaStore
from rh_prefect.works.journal.identity import media_mark, text_hash
from rh_prefect.works.journal.journal import Journal
from rh_prefect.works.journal.record_types import MediaRecord
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.store_checks_and_download_folder import local_errors

FOLDER: Final = "inputs"
"""The folder of copies of inputs in a store."""

_log = logging.getLogger("rh_prefect")


@dataclass(frozen=True, slots=True)
class Input:
    """One input file of a job."""

    source: str  # A path or URI from which the content can be read
    record: MediaRecord  # The record of the content

    @property
    def mark(self) -> str:
        """Returns the placeholder for the file in the job's payload."""
        return media_mark(self.record.sha256)


Check: TypeAlias = Callable[[int, MediaRecord | None], None]
"""Raises an error if a file is not accepted. Gets its size and, once its content was read, its description."""


def accept(_size: int, _file: MediaRecord | None) -> None:
    """Accepts every file."""


class Copies:
    """Copies of inputs in a store, named after their content and never overwritten. All methods block."""

    def __init__(self, store: MediaStore) -> None:
        self._store = store

    def name(self, record: MediaRecord) -> str:
        """Returns the name of the stored copy of an input file."""
        return f"{FOLDER}/{record.sha256}.{record.extension or 'bin'}"

    def has(self, record: MediaRecord) -> bool:
        """Returns whether the copy of an input file exists and is complete."""
        try:
            return self._store.size(self.name(record)) == record.size
        except StoreError:
            return False  # the write reports it

    def put(self, local: Path, record: MediaRecord) -> str:
        """Writes the copy of a file, unless the copy exists; returns its name. The file must not change meanwhile."""
        if not self.has(record):
            with local.open("rb") as reader:
                self._store.write_stream(self.name(record), reader, mime=record.mime)
        return self.name(record)


@dataclass(slots=True)
class _Source:
    """The recorded contents of one path or URI, and the content that was used last."""

    name: str  # The path or URI, without a signature
    records: list[MediaRecord] = field(default_factory=list)  # The records of the journal that were read
    stamps: dict[str, MediaRecord] = field(default_factory=dict)  # The content that each stamp proves
    current: MediaRecord | None = None  # The content that was used last

    def add(self, record: MediaRecord) -> None:
        """Adds a record that was read from the journal or written to it."""
        self.records.append(record)
        if record.stamp:
            self.stamps[record.stamp] = record

    @property
    def next_key(self) -> str:
        """The key of the record after those that were read."""
        return f"media-{text_hash(self.name, 24)}-{len(self.records) + 1}"

    @property
    def only(self) -> MediaRecord | None:
        """The recorded content; None unless exactly one is recorded."""
        return self.records[0] if len(self.records) == 1 else None


class Inputs:
    """The input files of one scope, each identified by its current content.

    An unchanged file is not read again. If the content of a path or URI has changed, the new content counts as another
    file, and a warning is logged. For a link without a strong ETag, a change cannot be detected, so the run uses the
    content that it first read, of which the store has a copy.
    """

    def __init__(
        self, journal: Journal, folder: Path, store: MediaStore, *, clock: Callable[[], float] = time.time
    ) -> None:
        """Starts with no files. `store` receives the copies of inputs, and provides the options for reading inputs."""
        self._journal = journal
        self._folder = folder
        self._store = store
        self._copies = Copies(store)
        self._clock = clock
        self._sources: dict[str, _Source] = {}
        self._locks = NamedLocks()

    async def identify(self, source: Media | str, *, check: Check = accept) -> Input:
        """Returns a file's content hash and properties.

        `check` is called before the file is read, if its size is known, and again before the content is recorded.
        """
        if isinstance(source, Media):
            of_media = input_of(source)
            check(source.size, of_media.record)
            return of_media
        # Reading continues if this caller is cancelled: other callers may wait for the same file.
        reading = asyncio.ensure_future(self._identify(source, check))
        reading.add_done_callback(_retrieve_error)
        return await asyncio.shield(reading)

    async def _identify(self, source: str, check: Check) -> Input:
        name = await asyncio.to_thread(_name_of, source)
        async with self._locks.of(name):
            record = await self._current(source, self._sources.setdefault(name, _Source(name)), check)
        check(record.size, record)
        return Input(self._store.uri(record.stored) if record.stored else source, record)

    async def _current(self, source: str, state: _Source, check: Check) -> MediaRecord:
        """Returns the recorded content if the file's stamp is unchanged, otherwise the present content."""
        if state.current is None:
            await self._add_records(state)
        # Without a strong ETag, the first content of a link counts for the whole run.
        first = state.only if is_link(source) and not state.stamps else None
        if first is not None and (state.current is not None or await LOOP.in_file_thread(self._copies.has, first)):
            same: MediaRecord | None = first
        else:
            same = await self._unchanged(source, state)
        state.current = same or await self._read(source, state, first, check)
        return state.current

    async def _unchanged(self, source: str, state: _Source) -> MediaRecord | None:
        """Returns the content that a file's present stamp proves; None if the file must be read."""
        if not state.stamps:
            return None
        stamp = (await self._state_of(source)).stamp
        return None if stamp is None else state.stamps.get(stamp.text)

    async def _state_of(self, source: str) -> FileState:
        """Returns the state of a file; an empty one if the file is missing or its host does not answer."""
        try:
            return await LOOP.in_file_thread(file_state, source, options=self._store.options_for(source))
        except MediaError:
            return FileState()  # reading it raises the error

    async def _read(self, source: str, state: _Source, first: MediaRecord | None, check: Check) -> MediaRecord:
        """Reads a file, and records its content; if the file is missing, returns its recorded content."""
        try:
            read, stamp = await LOOP.in_file_thread(self._content_of, source, state.records, check)
        except MediaError as error:
            # A link's first content counts for the whole run.
            known = first or state.current or state.only
            if first is None and state.records and (present := await self._state_of(source)) != FileState():
                # It was overwritten, and is not accepted; or it is unchanged, and its host answers again.
                known = None if present.stamp is None else state.stamps.get(present.stamp.text)
            if known is None:
                raise
            _log.warning("%s The recorded content is used.", error.message)
            return known
        if first is not None and read.sha256 != first.sha256:
            _log.warning(
                "%s was changed after this run had used it, and the copy of the earlier file was deleted. A new job "
                "with this file will fail, at no cost. What to do: start a new run.",
                first.uri,
            )
            return first
        self._warn_of_change(state, read)
        record = await self._record(state, read)
        if stamp is not None:
            state.stamps[stamp.text] = record
        return record

    def _content_of(
        self, source: str, records: Sequence[MediaRecord], check: Check
    ) -> tuple[MediaRecord, Stamp | None]:
        def check_size(size: int) -> None:
            check(size, None)

        options = self._store.options_for(source)
        with open_local(source, self._folder, options=options, check_size=check_size, clock=self._clock) as file:
            record = next((one for one in records if one.sha256 == file.sha256), None) or _described(source, file)
            check(record.size, record)
            if is_link(source) and file.stamp is None:
                record = record.model_copy(update={"stored": self._copies.put(file.path, record)})
        return record, file.stamp

    def _warn_of_change(self, state: _Source, record: MediaRecord) -> None:
        earlier = [state.current] if state.current else state.records
        if earlier and record.sha256 not in {one.sha256 for one in earlier}:
            since = "earlier in this run" if state.current else "in an earlier attempt of this run"
            _log.warning(
                "%s has changed since it was used %s: a job with this file is a new job, which is paid for.",
                record.uri,
                since,
            )

    async def _record(self, state: _Source, record: MediaRecord) -> MediaRecord:
        """Records the content of a source, unless a record of it exists; returns the record that counts."""
        known = len(state.records)
        while (same := next((one for one in state.records if one.sha256 == record.sha256), None)) is None:
            if await self._journal.create(state.next_key, record.model_dump(mode="json")):
                state.add(record)
                return record
            await self._add_records(state)
            # If several processes read a link at once, the first record counts for all of them.
            if state.records[known].stored:
                return state.records[known]
        return same

    async def _add_records(self, state: _Source) -> None:
        """Reads the records of a source that this process does not know yet."""
        while (record := await self._journal.read_as(state.next_key, MediaRecord)) is not None:
            state.add(record)


class LocalFile(NamedTuple):
    """A local file with the content of a source."""

    path: Path  # The local file
    sha256: str  # Hash of its content
    size: int  # Bytes
    stamp: Stamp | None = None  # The stamp at the time of reading, if an equal one proves equal content


@contextmanager
def open_local(
    source: str,
    folder: Path,
    *,
    options: Mapping[str, object] | None = None,
    check_size: CheckSize = lambda _: None,
    clock: Callable[[], float] = time.time,
    copied: bool = False,
) -> Iterator[LocalFile]:
    """Opens a source as a local file for a `with` block.

    With `copied`, even a local file is copied; the copy cannot change during the block.
    """
    if is_local(source) and not copied:
        content = digest(source, check_size=check_size, clock=clock)
        yield LocalFile(Path(local_path(source)), *content)
        return
    with local_errors(folder):
        make_folder(folder)
        scratch = TemporaryDirectory(dir=folder)
    with scratch as private:
        copy = Path(private) / "input"
        with local_errors(folder):
            content = fetch(source, copy, options=options, check_size=check_size, clock=clock)
        yield LocalFile(copy, *content)


def check_unchanged(file: Input, sha256: str) -> None:
    """Raises an error if a file to upload has changed since the request was prepared."""
    if sha256 != file.record.sha256:
        raise InputError(
            f"{file.record.uri} was changed after this job had read it, so RunningHub would not receive the file in "
            "the job's record. The job was not submitted. What to do: for a result of an earlier job, put the "
            "original file back, or pass the path of the changed file in place of the result; for any other file, run "
            "again: this makes a new job with the changed file."
        )


def _name_of(source: str) -> str:
    with as_media_error(shown(source)):
        return unsigned_uri(source) or identity_uri(source)


def _retrieve_error(reading: asyncio.Future[Input]) -> None:
    """Reads the error of a task whose caller was cancelled, so that asyncio does not log it."""
    if not reading.cancelled():
        reading.exception()


def _described(source: str, file: LocalFile) -> MediaRecord:
    facts = probe(file.path)
    return MediaRecord(
        uri=shown(source),
        sha256=file.sha256,
        size=file.size,
        kind=facts.kind,
        mime=facts.mime,
        extension=facts.extension,
        seconds=facts.seconds,
        stamp=file.stamp.text if file.stamp is not None else "",
    )


def input_of(media: Media) -> Input:
    """Returns a file whose content is known already."""
    record = MediaRecord(
        uri=shown(media.uri),
        sha256=media.sha256,
        size=media.size,
        kind=media.kind,
        mime=media.mime,
        extension=extension_for(media.mime, media.name),
        seconds=media.seconds,
    )
    return Input(media.uri, record)

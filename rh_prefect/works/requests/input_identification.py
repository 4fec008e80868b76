"""Reads a job's input files and identifies each by its content; `Uploads` of an account sends them to RunningHub."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from rh_prefect.bounded_caches import NamedLocks
from rh_prefect.errors import InputError, MediaError
from rh_prefect.local_files import make_folder
from rh_prefect.media.file_state import Stamp
from rh_prefect.media.input_files import (
    READ_SECONDS,
    CheckSize,
    Fetched,
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
from rh_prefect.media.urls import is_local, local_path
from rh_prefect.works.download_folder import local_errors
from rh_prefect.works.journal.identity import media_mark, uri_hash
from rh_prefect.works.journal.journal import Journal
from rh_prefect.works.journal.record_types import MediaRecord
from rh_prefect.works.requests.stored_input_copies import Copies

_log = logging.getLogger("rh_prefect")


@dataclass(frozen=True, slots=True)
class Input:
    """One input file of a job."""

    source: str  # A path or URI from which the content can be read
    record: MediaRecord  # The record of the content

    @property
    def mark(self) -> str:
        """The placeholder for the file's content in the job's payload."""
        return media_mark(self.record.sha256)


@dataclass(slots=True)
class Checks:
    """The requirements of a parameter for a file."""

    # Raises an error if the size is not accepted; called before the file is read, if the size is known
    size: CheckSize = lambda _: None
    # Raises an error if the content is not accepted; called before the content is recorded
    content: Callable[[MediaRecord], None] = lambda _: None
    size_error: MediaError | None = None  # The error that `size` has raised

    def check_size(self, size: int) -> None:
        """Calls `size` and stores its error."""
        try:
            self.size(size)
        except MediaError as error:
            self.size_error = error
            raise


@dataclass(slots=True)
class _Source:
    """The state of one path or URI in this process."""

    records: list[MediaRecord] = field(default_factory=list)  # The records of the journal that were read
    current: MediaRecord | None = None  # The content that was last read
    stamp: Stamp | None = None  # The stamp that proves that the content is unchanged
    is_final: bool = False  # Whether the content counts for the whole run: a link without a strong ETag is read once


READS: Final = 16
"""How many inputs are read at once: name resolution and the records of paid jobs also need threads of the loop."""


class Inputs:
    """The input files of one scope, each identified by its current content.

    A file that is unchanged since it was read is not read again. If the content at a path or URI has changed, it counts
    as another file, and a warning is logged. A link without a strong ETag does not show whether its file was replaced,
    and hosts encode pictures again, so the content that the run has read first counts; a copy of it is in the store.
    """

    def __init__(
        self,
        journal: Journal,
        folder: Path,
        *,
        options_for: Callable[[str], Mapping[str, object]],
        copies: Copies | None = None,
        clock: Callable[[], float] = time.time,
        seconds: float = READ_SECONDS,
    ) -> None:
        """Starts without files; `copies` are those of the contents of links without a strong ETag."""
        self._journal = journal
        self._folder = folder
        self._options_for = options_for
        self._copies = copies
        self._clock = clock
        self._seconds = seconds
        self._sources: dict[str, _Source] = {}
        self._locks = NamedLocks()
        self._reading = asyncio.Semaphore(READS)

    async def identify(
        self,
        source: Media | str,
        *,
        check: Callable[[MediaRecord], None] = lambda _: None,
        check_size: CheckSize = lambda _: None,
    ) -> Input:
        """Identifies a file by its content."""
        if isinstance(source, Media):
            of_media = Input(source.uri, _record_of(source))
            check(of_media.record)
            return of_media
        # Reading continues if this caller is cancelled: other callers may wait for the same file.
        reading = asyncio.ensure_future(self._identify(source, Checks(check_size, check)))
        reading.add_done_callback(_retrieve_error)
        return await asyncio.shield(reading)

    async def _identify(self, source: str, checks: Checks) -> Input:
        name = await asyncio.to_thread(_name_of, source)
        async with self._locks.of(name):
            file = await self._current_input(source, name, checks)
        checks.content(file.record)
        return file

    async def _current_input(self, source: str, name: str, checks: Checks) -> Input:
        state = self._sources.setdefault(name, _Source())
        if state.is_final and state.current is not None:
            return self._input(source, state.current)
        if state.stamp is None or (await self._stamp_of(source)) != state.stamp:
            await self._add_records(name, state.records)
            try:
                await self._refresh(source, name, state, checks)
            except _UnreadableError as error:
                record = await self._only_record(source, state)
                if record is None:
                    raise error.cause from None
                _log.warning("%s The recorded content is used.", error.cause.message)
                return self._input(source, record)
        if state.current is None:
            raise AssertionError("an identified source has a content")
        return self._input(source, state.current)

    async def _refresh(self, source: str, name: str, state: _Source, checks: Checks) -> None:
        """Sets the current content: a recorded one that counts or has the current stamp, else the one that is read."""
        first = await self._copied(state.records)
        if first is not None:
            state.current, state.is_final = first, True
            return
        if any(record.stamp for record in state.records):
            stamp = await self._stamp_of(source)
            same = next((one for one in state.records if stamp is not None and one.stamp == stamp.text), None)
            if same is not None:
                state.current, state.stamp = same, stamp
                return
        records = {record.sha256: record for record in state.records}
        async with self._reading:
            record, file = await asyncio.to_thread(self._read, source, records, checks)
        self._warn_of_change(state, record)
        state.current = await self._record(name, state.records, record)
        state.stamp, state.is_final = (file.stamp if file.proof else None), is_link(source) and not file.proof
        unsigned = unsigned_uri(source)
        if unsigned is not None:
            await self._record(f"unsigned {unsigned}", await self._add_records(f"unsigned {unsigned}", []), record)

    async def _copied(self, records: Sequence[MediaRecord]) -> MediaRecord | None:
        """Returns the first recorded content of a link whose copy is in the store."""
        copies = self._copies
        for record in records:
            if copies is not None and record.stored and await asyncio.to_thread(copies.has, record):
                return record
        return None

    async def _stamp_of(self, source: str) -> Stamp | None:
        """The current stamp of a file; None if it has none or cannot be read. Reading it raises the error."""
        try:
            async with self._reading:
                return (await asyncio.to_thread(file_state, source, options=self._options_for(source))).stamp
        except MediaError:
            return None

    def _read(self, source: str, records: Mapping[str, MediaRecord], checks: Checks) -> tuple[MediaRecord, LocalFile]:
        with ExitStack() as stack:
            try:
                file = stack.enter_context(
                    open_local(
                        source,
                        self._folder,
                        options=self._options_for(source),
                        check_size=checks.check_size,
                        seconds=self._seconds,
                        clock=self._clock,
                    )
                )
            except MediaError as error:
                if error is checks.size_error:
                    raise
                raise _UnreadableError(error) from None
            record = records.get(file.sha256) or _described(source, file)
            checks.content(record)
            stored = self._copies.put(file.path, record) if self._copies and is_link(source) and not file.proof else ""
            return _new_record(record, stamp=file.proof, stored=stored), file

    def _warn_of_change(self, state: _Source, record: MediaRecord) -> None:
        earlier = [state.current] if state.current else state.records
        if earlier and record.sha256 not in {one.sha256 for one in earlier}:
            since = "earlier in this run" if state.current else "in an earlier attempt of this run"
            _log.warning("%s is not the same file as %s: a job that uses it now is a new job.", record.uri, since)

    def _input(self, source: str, record: MediaRecord) -> Input:
        return Input(self._copies.uri(record.stored) if self._copies and record.stored else source, record)

    async def _only_record(self, source: str, state: _Source) -> MediaRecord | None:
        """The record of a file that cannot be read any more; None unless exactly one content is recorded."""
        unsigned = unsigned_uri(source)
        records = state.records or (await self._add_records(f"unsigned {unsigned}", []) if unsigned is not None else [])
        return records[0] if len({record.sha256 for record in records}) == 1 else None

    async def _record(self, name: str, records: list[MediaRecord], record: MediaRecord) -> MediaRecord:
        """Records a content of a source, unless it is recorded; returns the valid record."""
        known = len(records)
        while True:
            # If several processes read a link at once, the first record counts for all of them.
            same = next((one for one in records[known:] if record.stored and one.stored), None)
            same = same or next((one for one in records if one.sha256 == record.sha256), None)
            if same is not None:
                return same.model_copy(update={"stored": same.stored or record.stored})
            if await self._journal.create(_key(name, len(records) + 1), record.model_dump(mode="json")):
                records.append(record)
                return record
            await self._add_records(name, records)

    async def _add_records(self, name: str, records: list[MediaRecord]) -> list[MediaRecord]:
        """Adds the records of a source that the list does not have yet."""
        while (record := await self._journal.read(_key(name, len(records) + 1))) is not None:
            records.append(MediaRecord.model_validate(record))
        return records


class LocalFile(NamedTuple):
    """A source as a local file."""

    path: Path  # The local file
    sha256: str  # Hash of its content
    size: int  # Bytes
    proof: str = ""  # The text of the stamp if an equal stamp proves equal content; else empty
    stamp: Stamp | None = None  # The stamp at the time of reading


class _UnreadableError(Exception):
    """A file could not be read; an earlier attempt may have recorded its content."""

    def __init__(self, cause: MediaError) -> None:
        super().__init__()
        self.cause = cause


@contextmanager
def open_local(
    source: str,
    folder: Path,
    *,
    options: Mapping[str, object] | None = None,
    check_size: CheckSize = lambda _: None,
    seconds: float = READ_SECONDS,
    clock: Callable[[], float] = time.time,
    copied: bool = False,
) -> Iterator[LocalFile]:
    """Provides a source as a local file for the duration of a `with` block.

    With `copied`, a local file is also copied, so that it does not change while it is used.
    """
    if is_local(source) and not copied:
        content = digest(source, check_size=check_size, seconds=seconds, clock=clock)
        yield _local(Path(local_path(source)), content)
        return
    with local_errors(folder):
        make_folder(folder)
        scratch = TemporaryDirectory(dir=folder)
    with scratch as private:
        copy = Path(private) / "input"
        with local_errors(folder):
            content = fetch(source, copy, options=options, check_size=check_size, seconds=seconds, clock=clock)
        yield _local(copy, content)


def _local(path: Path, content: Fetched) -> LocalFile:
    proof = content.stamp.text if content.stamp is not None and content.is_proof else ""
    return LocalFile(path, content.sha256, content.size, proof, content.stamp)


def check_unchanged(file: Input, sha256: str) -> None:
    """Raises an error if a file to upload has changed since the request was prepared."""
    if sha256 != file.record.sha256:
        raise InputError(
            f"{file.record.uri} was changed after this job had read it, so RunningHub would receive a "
            "different file from the one in the job's record. Nothing was sent for it. "
            "What to do: if it is a result of an "
            "earlier job, put the original file back, or pass the path of the changed one instead of the result; "
            "if it was given by its path, run it again, which makes a new job with the current file."
        )


def _name_of(source: str) -> str:
    with as_media_error(shown(source)):
        return identity_uri(source)


def _new_record(record: MediaRecord, *, stamp: str, stored: str) -> MediaRecord:
    fields = record.model_dump(exclude={"token", "at"})
    return MediaRecord(**{**fields, "stamp": stamp, "stored": stored})


def _key(name: str, number: int) -> str:
    return f"media-{uri_hash(name)}-{number}"


def _retrieve_error(reading: asyncio.Future[Input]) -> None:
    """Retrieves an error whose caller was cancelled, so that asyncio does not log it."""
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
    )


def _record_of(media: Media) -> MediaRecord:
    return MediaRecord(
        uri=shown(media.uri),
        sha256=media.sha256,
        size=media.size,
        kind=media.kind,
        mime=media.mime,
        extension=extension_for(media.mime, media.name),
        seconds=media.seconds,
    )

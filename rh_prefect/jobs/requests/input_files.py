"""A job's input files and how they are read. A file is identified by its content, not by its location."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from rh_prefect.caches_and_locks import NamedLocks
from rh_prefect.errors import InputError, MediaError
from rh_prefect.jobs.download_folder import local_errors
from rh_prefect.jobs.journal.identity import media_mark, uri_hash
from rh_prefect.jobs.journal.journal import JSON, Journal
from rh_prefect.jobs.journal.record_types import FoundName, SeenMedia
from rh_prefect.jobs.requests.input_copies import Copies
from rh_prefect.local_files import make_folder
from rh_prefect.media.file_state import Stamp
from rh_prefect.media.media import Media
from rh_prefect.media.probe import probe
from rh_prefect.media.source import (
    READ_SECONDS,
    CheckSize,
    Fetched,
    digest,
    fetch,
    identity_uri,
    is_link,
    look,
    shown,
    unsigned_uri,
)
from rh_prefect.media.storage_errors import as_media_error
from rh_prefect.media.urls import is_local, local_path

_log = logging.getLogger("rh_prefect")


@dataclass(frozen=True, slots=True)
class Input:
    """One file that a job takes.

    Attributes:
        source: Where its content can be read.
        seen: What it is.
        earlier: Of a link whose host proves no state: what else earlier attempts have read there, newest first.
    """

    source: str
    seen: SeenMedia
    earlier: tuple[Input, ...] = ()

    @property
    def mark(self) -> str:
        """The placeholder for the file's content in the job's payload."""
        return media_mark(self.seen.sha256)


@dataclass(slots=True)
class Checks:
    """The requirements of a parameter for a file.

    Attributes:
        size: Raises where a file of so many bytes will not do; asked before anything is read, if the length is known.
        content: Raises where the content will not do; asked before anything is recorded.
        refused: The error that one of them has raised.
    """

    size: CheckSize = lambda _: None
    content: Callable[[SeenMedia], None] = lambda _: None
    refused: MediaError | None = None

    def check_size(self, size: int) -> None:
        """Checks a length."""
        try:
            self.size(size)
        except MediaError as error:
            self.refused = error
            raise


@dataclass(slots=True)
class _Name:
    """What this process knows of one name.

    Attributes:
        records: The records of the journal, as far as they were read.
        last: What was last read under the name.
        proof: The stamp that proves that this is still there.
        is_settled: Whether it stays so for this attempt: the link's host proves no state, so it is read once.
    """

    records: list[SeenMedia] = field(default_factory=list)
    last: SeenMedia | None = None
    proof: Stamp | None = None
    is_settled: bool = False


class Inputs:
    """The input files of one attempt of one scope, each identified by its current content.

    What has been read in the same state before is not read again. A name under which something else lies than before is
    another file, and the log says so.
    """

    def __init__(
        self,
        journal: Journal,
        folder: Path,
        *,
        options_for: Callable[[str], Mapping[str, object]],
        copies: Copies | None = None,
        attempt: int = 1,
        clock: Callable[[], float] = time.time,
        seconds: float = READ_SECONDS,
    ) -> None:
        """Starts with nothing seen.

        Args:
            journal: Keeps what was seen.
            folder: Local scratch for files that must be fetched to be looked at.
            options_for: Gives fsspec's storage options for a source.
            copies: Where the content of a link is kept whose host proves no state.
            attempt: The attempt of the run.
            clock: Seconds since 1970.
            seconds: How long reading one input may take in all.
        """
        self.attempt = attempt
        self._journal = journal
        self._folder = folder
        self._options_for = options_for
        self._copies = copies
        self._clock = clock
        self._seconds = seconds
        self._names: dict[str, _Name] = {}
        self._found: dict[tuple[str, str], str | None] = {}
        self._locks = NamedLocks()

    async def identify(
        self,
        source: Media | str,
        *,
        check: Callable[[SeenMedia], None] = lambda _: None,
        check_size: CheckSize = lambda _: None,
    ) -> Input:
        """Identifies a file by its content.

        Args:
            source: A `Media`, which says so itself, or a path or URI.
            check: Raises where the file will not do; asked before what was seen is recorded.
            check_size: Raises where a file of so many bytes will not do; asked before it is read.

        Raises:
            MediaError: It is missing, unreadable or broken.
        """
        if isinstance(source, Media):
            of_media = Input(source.uri, _of_media(source))
            check(of_media.seen)
            return of_media
        # To the end, also when this caller is cancelled: others wait for their turn, and one reads at a time.
        reading = asyncio.ensure_future(self._in_turn(source, Checks(check_size, check)))
        reading.add_done_callback(_retrieve)
        return await asyncio.shield(reading)

    async def find(self, text: str) -> str | None:
        """Decides whether a text that a node accepts as a file name refers to one of the caller's files.

        It is decided when it is first asked, and recorded: a later attempt in another folder must not take it for
        another file, or for a name at RunningHub.

        Args:
            text: The node's value.

        Returns:
            The file's path; None for a name at RunningHub.

        Raises:
            InputError: Earlier attempts decided it differently in several folders, and this is none of them.
        """
        name = f"name {text}"
        async with self._locks.of(name):
            folder, path = await asyncio.to_thread(_find_here, text)
            if (folder, text) not in self._found:
                self._found[folder, text] = await self._decided(name, FoundName(folder=folder, path=path or ""), text)
            return self._found[folder, text]

    async def _decided(self, name: str, here: FoundName, text: str) -> str | None:
        here = here.model_copy(update={"attempt": self.attempt})
        while True:
            records = [FoundName.model_validate(one) for one in await self._more(name, 0)]
            same = next((one for one in records if one.folder == here.folder), None)
            if same is None and any(one.attempt < self.attempt for one in records):
                same = _one_decision(records, text)
            key = _key(name, len(records) + 1)
            if same is not None or await self._journal.create(key, here.model_dump(mode="json")):
                return (same or here).path or None

    async def _in_turn(self, source: str, checks: Checks) -> Input:
        name = await asyncio.to_thread(_name_of, source)
        async with self._locks.of(name):
            given = await self._identified(source, name, checks)
        checks.content(given.seen)
        return given

    async def _identified(self, source: str, name: str, checks: Checks) -> Input:
        known = self._names.setdefault(name, _Name())
        if known.is_settled and known.last is not None:
            return self._input(source, known, known.last)
        if known.proof is None or (await self._look(source)) != known.proof:
            await self._seen(name, known.records)
            try:
                await self._refresh(source, name, known, checks)
            except _UnreadableError as error:
                seen = await self._recorded(source, known)
                if seen is None:
                    raise error.cause from None
                _log.warning("%s The recorded content is used.", error.cause.message)
                return self._input(source, known, seen)
        if known.last is None:
            raise AssertionError("what was identified is known")
        return self._input(source, known, known.last)

    async def _refresh(self, source: str, name: str, known: _Name, checks: Checks) -> None:
        """Finds what lies under a name now, by its state if that is recorded, else by reading it."""
        settled = next((one for one in known.records if one.stored and one.attempt == self.attempt), None)
        if settled is not None:
            known.last, known.is_settled = settled, True
            return
        if any(one.stamp for one in known.records):
            stamp = await self._look(source)
            same = next((one for one in known.records if stamp is not None and one.stamp == stamp.text), None)
            if same is not None:
                known.last, known.proof = same, stamp
                return
        seen, held = await asyncio.to_thread(self._read, source, {one.sha256: one for one in known.records}, checks)
        self._tell_of_change(known, seen)
        known.last = await self._record(name, known.records, seen)
        known.proof, known.is_settled = (held.stamp if held.proof else None), is_link(source) and not held.proof
        second = unsigned_uri(source)
        if second is not None:
            await self._record(f"unsigned {second}", await self._seen(f"unsigned {second}", []), seen)

    async def _look(self, source: str) -> Stamp | None:
        """The state of a file now; None where it cannot be told, or not be read, which the reading then says."""
        try:
            return (await asyncio.to_thread(look, source, options=self._options_for(source))).stamp
        except MediaError:
            return None

    def _read(self, source: str, known: Mapping[str, SeenMedia], checks: Checks) -> tuple[SeenMedia, Held]:
        with ExitStack() as stack:
            try:
                held = stack.enter_context(self._fetched(source, checks))
            except MediaError as error:
                if error is checks.refused:
                    raise
                raise _UnreadableError(error) from None
            seen = known.get(held.sha256) or self._describe(source, held)
            checks.content(seen)
            stored = self._copies.put(held.path, seen) if self._copies and is_link(source) and not held.proof else ""
            return _newly(seen, stamp=held.proof, attempt=self.attempt, stored=stored), held

    def _fetched(self, source: str, checks: Checks) -> AbstractContextManager[Held]:
        return fetched(
            source,
            self._folder,
            options=self._options_for(source),
            check_size=checks.check_size,
            seconds=self._seconds,
            clock=self._clock,
        )

    def _describe(self, source: str, held: Held) -> SeenMedia:
        facts = probe(held.path)
        return SeenMedia(
            uri=shown(source),
            sha256=held.sha256,
            size=held.size,
            kind=facts.kind,
            mime=facts.mime,
            extension=facts.extension,
            seconds=facts.seconds,
        )

    def _tell_of_change(self, known: _Name, seen: SeenMedia) -> None:
        before = known.last or next(reversed(known.records), None)
        contents = {one.sha256 for one in ([known.last] if known.last else known.records)}
        if before is not None and seen.sha256 not in contents and not seen.stored:
            since = "earlier in this run" if known.last else "in an earlier attempt of this run"
            _log.warning("%s is not the same file as %s: a job that uses it now is a new job.", seen.uri, since)

    def _input(self, source: str, known: _Name, seen: SeenMedia) -> Input:
        if not known.is_settled:
            return Input(self._readable(source, seen), seen)
        others = {one.sha256: one for one in known.records if one.sha256 != seen.sha256}
        earlier = tuple(Input(self._readable(source, one), one) for one in reversed(others.values()))
        return Input(self._readable(source, seen), seen, earlier)

    def _readable(self, source: str, seen: SeenMedia) -> str:
        return self._copies.uri(seen.stored) if self._copies is not None and seen.stored else source

    async def _recorded(self, source: str, known: _Name) -> SeenMedia | None:
        """What a file was that cannot be read any more: the one content that is recorded for it, if it is one."""
        second = unsigned_uri(source)
        records = known.records or (await self._seen(f"unsigned {second}", []) if second is not None else [])
        return records[0] if len({one.sha256 for one in records}) == 1 else None

    async def _record(self, name: str, records: list[SeenMedia], seen: SeenMedia) -> SeenMedia:
        """Records a content under a name, unless it is recorded; the record that counts."""
        while True:
            same = self._same(records, seen)
            if same is not None:
                return same
            if await self._journal.create(_key(name, len(records) + 1), seen.model_dump(mode="json")):
                records.append(seen)
                return seen
            await self._seen(name, records)

    def _same(self, records: Sequence[SeenMedia], seen: SeenMedia) -> SeenMedia | None:
        if seen.stored:
            # Another process of this attempt has read the link, too: all of them go by the first reading.
            settled = next((one for one in records if one.stored and one.attempt == self.attempt), None)
            if settled is not None:
                return settled
        same = next((one for one in records if one.sha256 == seen.sha256), None)
        return same.model_copy(update={"stored": seen.stored}) if same is not None and seen.stored else same

    async def _seen(self, name: str, records: list[SeenMedia]) -> list[SeenMedia]:
        """Adds the records of a name that are not read yet."""
        records += [SeenMedia.model_validate(one) for one in await self._more(name, len(records))]
        return records

    async def _more(self, name: str, have: int) -> list[JSON]:
        found: list[JSON] = []
        while (record := await self._journal.read(_key(name, have + len(found) + 1))) is not None:
            found.append(record)
        return found


class Held(NamedTuple):
    """A source as a local file.

    Attributes:
        path: The local file.
        sha256: Of its content.
        size: Bytes.
        proof: The state that was read, where an equal one proves an equal content; else empty.
        stamp: The state that was read.
    """

    path: Path
    sha256: str
    size: int
    proof: str = ""
    stamp: Stamp | None = None


class _UnreadableError(Exception):
    """A file could not be read: it may be known from an earlier attempt."""

    def __init__(self, cause: MediaError) -> None:
        super().__init__()
        self.cause = cause


@contextmanager
def fetched(
    source: str,
    folder: Path,
    *,
    options: Mapping[str, object] | None = None,
    check_size: CheckSize = lambda _: None,
    seconds: float = READ_SECONDS,
    clock: Callable[[], float] = time.time,
    copied: bool = False,
) -> Iterator[Held]:
    """Provides a source as a local file for the duration of a `with` block.

    Args:
        source: A path or URI.
        folder: Where a copy of what is not local lies meanwhile.
        options: fsspec's storage options.
        check_size: Raises where a file of so many bytes will not do.
        seconds: How long reading it may take in all.
        clock: Seconds since 1970.
        copied: Copy what is local, too, so that it does not change while it is used.

    Yields:
        The local file.

    Raises:
        MediaError: It is missing, not a regular file, empty, or cannot be read.
        StoreError: The copy cannot be kept here.
    """
    if is_local(source) and not copied:
        found = digest(source, check_size=check_size, seconds=seconds, clock=clock)
        yield _held(Path(local_path(source)), found)
        return
    with local_errors(folder):
        make_folder(folder)
        scratch = TemporaryDirectory(dir=folder)
    with scratch as private:
        copy = Path(private) / "input"
        with local_errors(folder):
            found = fetch(source, copy, options=options, check_size=check_size, seconds=seconds, clock=clock)
        yield _held(copy, found)


def _held(path: Path, found: Fetched) -> Held:
    proof = found.stamp.text if found.stamp is not None and found.is_proof else ""
    return Held(path, found.sha256, found.size, proof, found.stamp)


def check_unchanged(given: Input, sha256: str) -> None:
    """Raises an error if a file to upload has changed since the request was made.

    Raises:
        InputError: The content differs.
    """
    if sha256 != given.seen.sha256:
        raise InputError(
            f"{given.seen.uri} was changed after this job had read it, so RunningHub would receive a "
            "different file from the one in the job's record. Nothing was sent for it. What to do: run "
            "it again, which makes a new job with the current file; to keep both, give each version its "
            "own name."
        )


def _name_of(source: str) -> str:
    with as_media_error(shown(source)):
        return identity_uri(source)


def _find_here(text: str) -> tuple[str, str | None]:
    """The folder on which the meaning of a text as a path depends, and the file that it names there."""
    try:
        path = Path(text).expanduser()
        folder = "" if path.is_absolute() else str(Path.cwd())
        return folder, local_path(text) if path.is_file() else None
    except (OSError, RuntimeError, ValueError):  # too long, an unknown user's home, or a NUL: it names no file
        return "", None


def _one_decision(records: Sequence[FoundName], text: str) -> FoundName:
    if len({one.path for one in records}) == 1:
        return records[0]
    folders = ", ".join(sorted({one.folder or "any folder" for one in records}))
    raise InputError(
        f"{text!a} meant different files in earlier attempts of this run, which ran in {folders}. Nothing "
        "was sent. What to do: run it in one of these folders, or use the file's full path in a new run."
    )


def _newly(seen: SeenMedia, *, stamp: str, attempt: int, stored: str) -> SeenMedia:
    facts = seen.model_dump(exclude={"token", "at"})
    return SeenMedia(**{**facts, "stamp": stamp, "attempt": attempt, "stored": stored})


def _key(name: str, number: int) -> str:
    return f"media-{uri_hash(name)}-{number}"


def _retrieve(reading: asyncio.Future[Input]) -> None:
    """Takes note of an error for which the caller does not wait any more."""
    if not reading.cancelled():
        reading.exception()


def _of_media(media: Media) -> SeenMedia:
    suffix = Path(media.name).suffix.lower().removeprefix(".")
    return SeenMedia(
        uri=shown(media.uri),
        sha256=media.sha256,
        size=media.size,
        kind=media.kind,
        mime=media.mime,
        extension=suffix,
        seconds=media.seconds,
    )

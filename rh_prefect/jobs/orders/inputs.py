"""The files that a job takes: what they are, and how RunningHub gets them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rh_prefect.errors import InputError
from rh_prefect.jobs.ledger.identity import media_mark, uri_hash
from rh_prefect.jobs.ledger.journal import Journal
from rh_prefect.jobs.ledger.records import SeenMedia
from rh_prefect.jobs.scratch import kept_here
from rh_prefect.media.place import is_local, local_path
from rh_prefect.media.probe import probe
from rh_prefect.media.ref import Media
from rh_prefect.media.source import fetch, identity_uri, open_input


@dataclass(frozen=True, slots=True)
class Input:
    """One file that a job takes.

    Attributes:
        source: Where the caller says that it is.
        seen: What it is, as the scope first saw it.
    """

    source: str
    seen: SeenMedia

    @property
    def mark(self) -> str:
        """Its content, as it stands in the job's payload."""
        return media_mark(self.seen.sha256)


class Inputs:
    """Identifies the inputs of one scope; each is read once, and a later run trusts what was first seen.

    A link that has died or a file that has changed must not change a job's key: the job may have been paid for already.
    """

    def __init__(self, journal: Journal, folder: Path, *, options_for: Callable[[str], Mapping[str, object]]) -> None:
        """Starts with nothing seen.

        Args:
            journal: Keeps what was seen.
            folder: Local scratch for files that must be fetched to be looked at.
            options_for: Gives fsspec's storage options for a source.
        """
        self._journal = journal
        self._folder = folder
        self._options_for = options_for
        self._seen: dict[str, asyncio.Task[SeenMedia]] = {}
        self._stamps: dict[str, tuple[int, int]] = {}

    async def identify(self, source: Media | str, *, check: Callable[[SeenMedia], None] = lambda _: None) -> Input:
        """Finds out what a file is.

        Args:
            source: A `Media`, which says so itself, or a path or URI.
            check: Raises where the file will not do; asked before what was seen is recorded for good.

        Raises:
            MediaError: It is missing, unreadable or broken.
            InputError: It is another file by now than when this process first read it.
        """
        if isinstance(source, Media):
            of_media = Input(source.uri, _of_media(source))
            check(of_media.seen)
            return of_media
        uri = identity_uri(source)
        task = self._seen.get(uri)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            task = self._seen[uri] = asyncio.ensure_future(self._first_sight(source, uri, check))
        stamp = _stamp(source)
        before = self._stamps.setdefault(uri, stamp) if stamp else stamp
        given = Input(source, await asyncio.shield(task))
        if stamp != before:
            # One name for several files, as in a loop that overwrites it: the second job would get the first's picture.
            await asyncio.to_thread(self._check_again, given)
        check(given.seen)
        return given

    def _check_again(self, given: Input) -> None:
        with fetched(given.source, self._folder) as (_, sha256, _):
            check_unchanged(given, sha256)

    async def _first_sight(self, source: str, uri: str, check: Callable[[SeenMedia], None]) -> SeenMedia:
        key = f"media-{uri_hash(uri)}"
        known = await self._journal.read(key)
        if known is None:
            seen = await asyncio.to_thread(self._look, source, uri)
            # A file that will not do is mended under the same name, and then it is the mended one that counts.
            check(seen)
            if await self._journal.create(key, seen.model_dump(mode="json")):
                return seen
            known = await self._journal.read(key)
        return SeenMedia.model_validate(known)

    def _look(self, source: str, uri: str) -> SeenMedia:
        with fetched(source, self._folder, options=self._options_for(source)) as (path, sha256, size):
            facts = probe(path)
        return SeenMedia(
            uri=uri,
            sha256=sha256,
            size=size,
            kind=facts.kind,
            mime=facts.mime,
            extension=facts.extension,
            seconds=facts.seconds,
        )


@contextmanager
def fetched(
    source: str, folder: Path, *, options: Mapping[str, object] | None = None
) -> Iterator[tuple[Path, str, int]]:
    """Has a source as a local file for the length of a `with` block.

    Args:
        source: A path or URI.
        folder: Where a copy of what is not local lies meanwhile.
        options: fsspec's storage options.

    Yields:
        The local path, its sha256 and its size in bytes.

    Raises:
        MediaError: It is missing, a folder, empty, or cannot be read.
        StoreError: The copy cannot be kept here.
    """
    if is_local(source):
        with open_input(source) as reader:
            sha256 = hashlib.file_digest(reader, "sha256").hexdigest()  # type: ignore[arg-type]  # any reader will do
        path = Path(local_path(source))
        yield path, sha256, path.stat().st_size
        return
    with kept_here(folder):
        folder.mkdir(parents=True, exist_ok=True)
        scratch = TemporaryDirectory(dir=folder)
    with scratch as private:
        copy = Path(private) / "input"
        with kept_here(folder):
            sha256, size = fetch(source, copy, options=options)
        yield copy, sha256, size


def check_unchanged(given: Input, sha256: str) -> None:
    """Refuses to upload a file that is no longer what the job's key was made of.

    Raises:
        InputError: The content differs.
    """
    if sha256 != given.seen.sha256:
        raise InputError(
            f"{given.seen.uri} has changed since this run first read it, so uploading it would make another job "
            "than the one that was recorded. What to do: put the first file back, give each "
            "version a name of its own, or start a new run."
        )


def _stamp(source: str) -> tuple[int, int] | None:
    """When a local file was changed, and its size: tells without reading it that it may be another; None elsewhere."""
    try:
        said = Path(local_path(source)).stat() if is_local(source) else None
    except OSError:
        return None
    return (said.st_mtime_ns, said.st_size) if said else None


def _of_media(media: Media) -> SeenMedia:
    suffix = Path(media.name).suffix.lower().removeprefix(".")
    return SeenMedia(
        uri=identity_uri(media.uri),
        sha256=media.sha256,
        size=media.size,
        kind=media.kind,
        mime=media.mime,
        extension=suffix,
        seconds=media.seconds,
    )

"""`SavedNames`: saves files under names in a storage; a file from a user or another pipeline is not replaced.

A picture is converted if its name ends in .png or .jpg. Other files are not converted; if the extension does not fit,
they are not saved.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from rh_prefect.bounded_caches_and_locks import NamedLocks
from rh_prefect.errors import StoreError
from rh_prefect.media.file_name_templates import folded
from rh_prefect.media.file_state import Stamp
from rh_prefect.media.file_types_and_completeness import EXTENSIONS, format_named, is_made_from
from rh_prefect.media.input_files import fetch
from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore
from rh_prefect.works.journal.journal import FolderJournal, by_job
from rh_prefect.works.journal.record_types import Record
from rh_prefect.works.loop_thread import LOOP

FOLDER = "names"


def with_extension(name: str, file: Media) -> str:
    """Replaces `.*` at the end of a name with the extension of the file, or of its content if that differs."""
    if not name.endswith(".*"):
        return name
    said, extension = format_named(file.name), PurePosixPath(file.name).suffix
    is_kept = said is None or file.kind == "other" or is_made_from(said, file.kind)
    if said is not None and not is_kept and not (file.kind in said.kinds and said.fits(file.kind, file.mime)):
        extension = f".{EXTENSIONS.get(file.mime, 'bin')}"
    return f"{name.removesuffix('.*')}{extension}"


def _converts(file: Media, name: str) -> bool:
    """Returns whether a file must be converted for a name; raises an error if that is not possible."""
    said = format_named(name)
    if said is None or file.kind == "other" or said.fits(file.kind, file.mime):
        return False
    if is_made_from(said, file.kind):
        return True
    raise StoreError(
        f"{name} was not saved: the extension of the name does not fit the result, which has the type {file.mime}. The "
        f"result is stored at {file.uri}. What to do: change the name in `save_as`, and run again at no cost."
    )


def _key_of(name: str) -> str:
    """Returns the beginning of the keys of a name's records."""
    return hashlib.sha256(name.encode()).hexdigest()[:40]


class SavedName(Record):
    """The record of file content that was saved, or was about to be saved, under a name."""

    name: str  # The name in the store
    sha256: str  # The content
    pipeline: str  # The pipeline that saved it
    source: str = ""  # For a converted picture: the content of the result before the conversion
    file: Media | None = None  # For a converted picture: the saved file


class SavedStamp(Record):
    """The recorded state of a saved file in the storage; in this state, the file's content is known without a read."""

    name: str  # The name in the store
    sha256: str  # The content
    stamp: str  # See `rh_prefect.media.file_state`


@dataclass(frozen=True, slots=True)
class _NameState:
    """What the storage and the records contain about one name in `save_as`."""

    name: str
    key: str  # The beginning of its records' keys
    size: int | None  # The file's size; None if there is none
    saved: Mapping[str, SavedName]  # What pipelines have saved under the name, by content
    stamps: Mapping[str, str]  # Content by the state of the file that had it

    def converted(self, file: Media) -> Media | None:
        """Returns the converted copy of a picture that was made for the name; None if there is no such copy."""
        return next((one.file for one in self.saved.values() if one.source == file.sha256), None)


class SavedNames:
    """Saves results under names in one store, and records which content was saved under each name."""

    def __init__(
        self, url: str, store: MediaStore, *, options: Mapping[str, Any] | None = None, pipeline: str = ""
    ) -> None:
        self._pipeline = pipeline
        self._records = FolderJournal(url, scope=FOLDER, options=options)
        self._store = store
        self._locks = NamedLocks()

    async def save(self, file: Media, name: str) -> Media:
        """Copies a result to a name, unless the name already has this content."""
        # A store that ignores case has one file for two such names; the second one finds the first one's.
        async with self._locks.of(folded(name)):
            return await self._save(file, name)

    async def _save(self, file: Media, name: str) -> Media:
        converts, there = _converts(file, name), await self._look(name)
        if there.size is not None:
            wanted = there.converted(file) if converts else file
            content = await self._content(there, file)
            if wanted is not None and content == wanted.sha256:
                return self._located(wanted, name)
            if content not in there.saved or there.saved[content].pipeline != self._pipeline:
                raise self._refusal(there, file, content)
        with TemporaryDirectory(prefix="rh-save-") as folder:
            local = await LOOP.in_file_thread(self._fetch, file, Path(folder), name, converts)
            wanted = await LOOP.in_file_thread(self._store.describe, local, name) if converts else file
            record = SavedName(name=name, sha256=wanted.sha256, pipeline=self._pipeline)
            if converts:
                record = record.model_copy(update={"source": file.sha256, "file": wanted})
            # Before the file: if the process is killed, the next run knows that the file is a pipeline's.
            key = f"{there.key}-content-{wanted.sha256[:16]}"
            await self._records.create(key, record.model_dump(mode="json"))
            saved = await LOOP.in_file_thread(self._store.move, local, name)
        stamp = await LOOP.in_file_thread(self._store.stamp, name)
        # A time stamp alone does not distinguish this file from one that is written right after it.
        if stamp is not None and stamp.changed_at is None:
            await self._note_stamp(there, saved.sha256, stamp)
        return saved

    async def find(self, file: Media, name: str) -> Media | None:
        """Returns a result that was saved under a name; None if there is no such file or its content differs."""
        there = await self._look(name)
        wanted = there.converted(file) or file
        if there.size != wanted.size or wanted.sha256 not in there.saved:
            return None
        return self._located(wanted, name) if await self._content(there, wanted) == wanted.sha256 else None

    async def saved_among(self, names: Iterable[str]) -> set[str]:
        """Returns those of the names whose files are results that this pipeline has saved there; writes no record."""
        wanted = {_key_of(name): name for name in names}
        keys = [key async for key in self._records.names() if key.partition("-")[0] in wanted]
        known = by_job(await self._records.read_many(keys))
        are_own = await asyncio.gather(*(self._is_own(wanted[key], records) for key, records in known.items()))
        return {wanted[key] for key, is_own in zip(known, are_own, strict=True) if is_own}

    async def _is_own(self, name: str, known: Mapping[str, Mapping[str, Any]]) -> bool:
        """Returns whether this pipeline has saved the content of a file under its name.

        The name alone proves nothing: a user can replace the file, and storages with the same records have equal names.
        """
        saved, stamps = self._parse(known)
        own = {content for content, one in saved.items() if one.pipeline == self._pipeline}
        if not own:
            return False
        stamp = await LOOP.in_file_thread(self._store.stamp, name)
        content = stamps.get(stamp.text) if stamp is not None else None
        return (content or await LOOP.in_file_thread(self._store.digest, name)) in own

    async def _look(self, name: str) -> _NameState:
        key = _key_of(name)
        size, known = await LOOP.in_file_thread(self._store.size, name), await self._records.job(key)
        return _NameState(name, key, size, *self._parse(known))

    def _parse(self, records: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, SavedName], dict[str, str]]:
        """Returns `saved` and `stamps` of the records of a name; see `_NameState`."""
        parse = self._records.parse
        stamps = [parse(key, SavedStamp, one) for key, one in records.items() if "-stamp-" in key]
        saved = [parse(key, SavedName, one) for key, one in records.items() if "-stamp-" not in key]
        return {one.sha256: one for one in saved}, {one.stamp: one.sha256 for one in stamps}

    async def _content(self, there: _NameState, file: Media) -> str:
        """Returns the hash of the file at a name; reads the file unless its state is recorded.

        Returns "" for a user's file of a different size, which is not read.
        """
        if not there.saved and there.size != file.size:  # a user's file, which is not replaced, so it is not read
            return ""
        stamp, began = await LOOP.in_file_thread(self._store.stamp, there.name), time.time()
        if stamp is not None and stamp.text in there.stamps:
            return there.stamps[stamp.text]
        content = await LOOP.in_file_thread(self._store.digest, there.name)
        is_settled = stamp is not None and stamp == await LOOP.in_file_thread(self._store.stamp, there.name)
        if stamp is not None and is_settled and stamp.is_proof(read_at=began) and content in there.saved:
            await self._note_stamp(there, content, stamp)
        return content

    async def _note_stamp(self, there: _NameState, content: str, stamp: Stamp) -> None:
        record = SavedStamp(name=there.name, sha256=content, stamp=stamp.text)
        number = hashlib.sha256(f"{content} {stamp.text}".encode()).hexdigest()[:16]
        await self._records.create(f"{there.key}-stamp-{number}", record.model_dump(mode="json"))

    def _located(self, file: Media, name: str) -> Media:
        return file.at(self._store.uri(name))

    def _refusal(self, there: _NameState, file: Media, content: str) -> StoreError:
        what = "was changed after a pipeline saved it" if there.saved else "exists, but no pipeline has saved it"
        if content in there.saved:
            what = f"was saved by another pipeline, {there.saved[content].pipeline}"
        return StoreError(
            f"{self._store.uri(there.name)} {what}. It was not replaced; the "
            f"result is stored at {file.uri}. What to do: move that file, or change the name in `save_as`, and "
            "run again at no cost.",
            is_permanent=True,
        )

    def _fetch(self, file: Media, folder: Path, name: str, converts: bool) -> Path:
        """Copies a result to this machine, in the format that its name requires."""
        local = folder / Path(name).name
        source = folder / "source" if converts else local
        fetch(file, source, options=self._store.options_for(file))
        if converts:
            # Most runs convert nothing, and numpy takes 17 MB.
            from rh_prefect.media.edit.frames_and_thumbnails import convert_image

            convert_image(source, local)
        return local

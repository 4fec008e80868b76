"""Atomic writers for each kind of storage, in constant memory."""

from __future__ import annotations

import errno
import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeAlias

from fsspec import AbstractFileSystem

from rh_prefect.local_files import PART, atomic_path, flush_folder

PART_SIZE = 5 * 2**20
"""Bytes of one part of an S3 upload: S3's minimum, which is sufficient for files of up to 48 GB."""

BLOCK_SIZE = 2 * 2**20
"""Bytes per read from a remote storage."""

_CHUNK = 2**20


@dataclass(slots=True)
class Tally:
    """Counts and hashes the bytes that are read through this object."""

    size: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def chunks(self, reader: BinaryIO) -> Iterator[bytes]:
        """Yields the reader's bytes in pieces of at most 1 MiB."""
        for chunk in iter(partial(reader.read, _CHUNK), b""):
            self.size += len(chunk)
            self.digest.update(chunk)
            yield chunk

    def drain(self, reader: BinaryIO) -> Tally:
        """Counts and hashes all bytes of a reader, and returns this tally."""
        for _ in self.chunks(reader):
            pass
        return self


Writer: TypeAlias = "Callable[[AbstractFileSystem, str, Iterable[bytes], str], None]"
"""A function that writes pieces with a MIME type to a path; after a failure, the path has its old content."""


def writer_for(protocol: str) -> Writer:
    """Returns the writer for a kind of storage, by fsspec's protocol name."""
    return {"file": to_folder, "s3": to_s3}.get(protocol, to_other)


def to_folder(fs: AbstractFileSystem, path: str, chunks: Iterable[bytes], mime: str) -> None:
    """Writes a hidden file in the folder of the path, syncs the file to the disk, then renames it to the path."""
    del fs, mime
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(final) as part, part.open("xb") as file:
        file.writelines(chunks)


def move_to_folder(local: Path, path: str) -> Tally | None:
    """Moves a local file to its final name, synced to the disk; returns None if the file is on another disk."""
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    if local.is_symlink() or local.stat().st_dev != final.parent.stat().st_dev:
        return None
    with local.open("rb") as reader:
        tally = Tally().drain(reader)
        os.fsync(reader.fileno())
    try:
        local.replace(final)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return None  # one disk, mounted twice
    flush_folder(final.parent)
    return tally


def to_s3(fs: AbstractFileSystem, path: str, chunks: Iterable[bytes], mime: str) -> None:
    """Writes with one request, or, for a larger file, with one multipart upload, which is aborted after a failure."""
    file = fs.open(path, "wb", block_size=PART_SIZE, ContentType=mime)
    try:
        for chunk in chunks:  # not `writelines`, which repeats an interrupted piece that the file may have taken
            file.write(chunk)
        file.close()
    except BaseException:
        # Without it, the garbage collector would close the file, which uploads what was written so far.
        file.closed = True
        with suppress(Exception):
            file.discard()
        raise


def to_other(fs: AbstractFileSystem, path: str, chunks: Iterable[bytes], mime: str) -> None:
    """Writes to a temporary name, then renames the file, because an unknown storage may show an incomplete file."""
    del mime
    folder = path.rpartition("/")[0]
    fs.makedirs(folder, exist_ok=True)
    part = f"{folder}/.{uuid.uuid4().hex[:12]}{PART}"
    try:
        with fs.open(part, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
        if type(fs).mv is AbstractFileSystem.mv:  # which takes brackets in a name for a pattern
            fs.cp_file(part, path)
            fs.rm_file(part)
        else:
            fs.mv(part, path)
    except BaseException:
        with suppress(Exception):
            fs.rm_file(part)
        raise

"""Atomic writers for each kind of storage, in constant memory."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Protocol

from fsspec import AbstractFileSystem
from fsspec.asyn import sync

from rh_prefect.local_files import PART, atomic_path, flush_folder

PART_SIZE = 5 * 2**20
"""Bytes of one part of an S3 upload: the least that S3 takes, since two are held; enough for files of 48 GB."""

PARTS_AT_ONCE = 2
"""Parts in flight; so many are held in memory."""

BLOCK_SIZE = 2 * 2**20
"""Bytes that are asked for at once when a file is read from a remote place."""

_CHUNK = 2**20


@dataclass(slots=True)
class Tally:
    """A counter and hash of the bytes that pass through it."""

    size: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def chunks(self, reader: BinaryIO) -> Iterator[bytes]:
        """Yields the reader's bytes in pieces of 1 MiB; the last may be shorter."""
        while chunk := read_exactly(reader, _CHUNK):
            self.size += len(chunk)
            self.digest.update(chunk)
            yield chunk


class Writer(Protocol):
    """Writes a stream to a path, atomically."""

    def __call__(self, fs: AbstractFileSystem, path: str, reader: BinaryIO, *, mime: str) -> Tally:
        """Writes until the reader ends, and stores the type if the storage supports it; returns size and hash."""


def writer_for(protocol: str) -> Writer:
    """The writer for this kind of storage."""
    return {"file": to_folder, "s3": to_s3, "memory": to_memory}.get(protocol, to_other)


def to_folder(fs: AbstractFileSystem, path: str, reader: BinaryIO, *, mime: str) -> Tally:
    """Writes a hidden file in the same folder, syncs it to the disk, then renames it."""
    del fs, mime
    tally, final = Tally(), Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(final) as part, part.open("xb") as file:
        for chunk in tally.chunks(reader):
            file.write(chunk)
    return tally


def move_to_folder(local: Path, path: str) -> Tally | None:
    """Moves a local file to its final name, synced to the disk; None if it is on another disk and must be copied."""
    tally, final = Tally(), Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    if local.is_symlink() or local.stat().st_dev != final.parent.stat().st_dev:
        return None
    with local.open("rb") as reader:
        for _ in tally.chunks(reader):
            pass
        os.fsync(reader.fileno())
    try:
        local.replace(final)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return None  # one disk, mounted twice
    flush_folder(final.parent)
    return tally


def to_s3(fs: AbstractFileSystem, path: str, reader: BinaryIO, *, mime: str) -> Tally:
    """Makes one request, or for a larger file one multipart upload, which is aborted if it fails."""
    tally = Tally()
    bucket, key, _ = fs.split_path(path)
    chunks = tally.chunks(reader)
    # A list, since it can be emptied: a name for the part would keep it until the last one is sent.
    batch = [_next_part(chunks)]
    if tally.size < PART_SIZE:
        fs.call_s3("put_object", Bucket=bucket, Key=key, Body=batch[0].getvalue(), ContentType=mime)
        return tally
    upload = fs.call_s3("create_multipart_upload", Bucket=bucket, Key=key, ContentType=mime)
    target = {"Bucket": bucket, "Key": key, "UploadId": upload["UploadId"]}
    try:
        etags = _send_parts(fs, target, batch, chunks)
        listed = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        fs.call_s3("complete_multipart_upload", MultipartUpload={"Parts": listed}, **target)
    except BaseException:
        with suppress(Exception):
            fs.call_s3("abort_multipart_upload", **target)
        raise
    return tally


def to_memory(fs: AbstractFileSystem, path: str, reader: BinaryIO, *, mime: str) -> Tally:
    """Writes the whole file at once, because it must fit in memory anyway."""
    del mime
    tally = Tally()
    fs.pipe_file(path, b"".join(tally.chunks(reader)))
    return tally


def to_other(fs: AbstractFileSystem, path: str, reader: BinaryIO, *, mime: str) -> Tally:
    """Writes to a temporary name and moves it, because an unknown storage may show a file while it is written."""
    del mime
    tally = Tally()
    folder = path.rpartition("/")[0]
    fs.makedirs(folder, exist_ok=True)
    part = f"{folder}/.{uuid.uuid4().hex[:12]}{PART}"
    try:
        with fs.open(part, "wb") as file:
            for chunk in tally.chunks(reader):
                file.write(chunk)
        fs.mv(part, path)
    except BaseException:
        with suppress(Exception):
            fs.rm_file(part)
        raise
    return tally


def read_exactly(reader: BinaryIO, length: int) -> bytes:
    """Reads exactly this many bytes, or fewer at the end, since a socket or pipe may return less per read."""
    chunk = reader.read(length)
    if not chunk or len(chunk) == length:
        return chunk
    pieces = [chunk]
    remaining = length - len(chunk)
    while remaining and (piece := reader.read(remaining)):
        pieces.append(piece)
        remaining -= len(piece)
    return b"".join(pieces)


def _next_part(chunks: Iterator[bytes]) -> io.BytesIO:
    """Returns the next part as a file in memory; plain bytes would be copied whole into the socket's buffer."""
    part = io.BytesIO()
    for number, chunk in enumerate(islice(chunks, PART_SIZE // _CHUNK)):
        if number == 1:
            # More than one chunk: allocates the whole part at once, because gradual growth fragments the memory.
            part.seek(PART_SIZE - 1)
            part.write(b"\0")
            part.seek(_CHUNK)
        part.write(chunk)
    part.truncate()
    part.seek(0)
    return part


def _send_parts(
    fs: AbstractFileSystem, target: dict[str, str], batch: list[io.BytesIO], chunks: Iterator[bytes]
) -> list[str]:
    etags: list[str] = []
    _fill(batch, chunks)
    while batch:
        etags += sync(fs.loop, _send_batch, fs, target, len(etags) + 1, batch)
        # Emptied before the next are read, so that no more than these are ever held.
        batch.clear()
        _fill(batch, chunks)
    return etags


def _fill(batch: list[io.BytesIO], chunks: Iterator[bytes]) -> None:
    while len(batch) < PARTS_AT_ONCE and (part := _next_part(chunks)).getbuffer().nbytes:
        batch.append(part)


async def _send_batch(
    fs: AbstractFileSystem, target: dict[str, str], number: int, batch: list[io.BytesIO]
) -> list[str]:
    client = await fs.get_s3(target["Bucket"])
    client.meta.events.register("provide-client-params.s3.UploadPart", _rewind, unique_id="rh-prefect-rewind")
    sent = [fs._call_s3("upload_part", Body=part, PartNumber=number + n, **target) for n, part in enumerate(batch)]
    # Waits for all, even if one fails: a part that is still being sent would survive the abort.
    answers = await asyncio.gather(*sent, return_exceptions=True)
    etags = []
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
        etags.append(str(answer["ETag"]))
    return etags


def _rewind(params: dict[str, object], **_: object) -> None:
    """Rewinds a part: s3fs repeats a failed call with the same body, which has already been read."""
    body = params["Body"]
    if isinstance(body, io.BytesIO):
        body.seek(0)

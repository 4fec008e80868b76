"""The body of an upload: a multipart form that is read from disk while it is sent, in flat memory."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final
from uuid import uuid4

import httpx

from rh_prefect.errors import MediaError

CHUNK: Final = 1024 * 1024


class FileBody(httpx.AsyncByteStream):
    """A multipart form with one file, of exactly known length, that can be sent more than once.

    httpx's own form reads 64 KiB at a time on the event loop; this one reads MiB in a thread.

    Args:
        path: The file.
        name: Its name on the wire; anything but plain ASCII is replaced, since not every server reads more.
        mime: Its type.

    Raises:
        MediaError: The file cannot be read; while sending also: its length has changed.
    """

    def __init__(self, path: Path, *, name: str, mime: str) -> None:
        with _readable(path):
            size = path.stat().st_size
        boundary = uuid4().hex
        self._path = path
        self.size = size
        self._head = (
            f"--{boundary}\r\n"
            f'Content-Disposition: form-data; name="file"; filename="{re.sub(r"[^A-Za-z0-9._-]", "_", name)}"\r\n'
            f"Content-Type: {re.sub(r'[^A-Za-z0-9.+/-]', '', mime)}\r\n\r\n"
        ).encode("ascii", "replace")
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self.headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(self._head) + size + len(self._tail)),
        }

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._head
        with _readable(self._path):
            file = await asyncio.to_thread(self._path.open, "rb")
        try:
            async for chunk in self._chunks(file):
                yield chunk
        finally:
            file.close()
        yield self._tail

    async def _chunks(self, file: BinaryIO) -> AsyncIterator[bytes]:
        left = self.size
        while True:
            with _readable(self._path):
                chunk = await asyncio.to_thread(file.read, CHUNK)
            left -= len(chunk)
            if left < 0 or (left > 0 and not chunk):
                raise MediaError(f"{self._path}: the file changed during its upload. Upload it when it is complete.")
            if not chunk:
                return
            yield chunk


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = "Check the path and its rights"
        raise MediaError(f"{path}: cannot be read ({error.strerror or error}). {advice}.") from error

"""The body of an upload: a file that is read from disk while the request is sent, with constant memory use."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final
from uuid import uuid4

import httpx
from pydantic import SecretStr

from rh_prefect.errors import MediaError

CHUNK: Final = 1024 * 1024


class RawBody(httpx.AsyncByteStream):
    """The unchanged content of a file, with a known length; this body can be sent more than once.

    httpx reads 64 KiB at a time on the event loop; this class reads 1 MiB at a time in a thread.
    """

    def __init__(self, path: Path) -> None:
        with readable(path):
            self.size = path.stat().st_size
        self._path = path
        self._tail = b""
        self.headers = {"Content-Type": "application/octet-stream", "Content-Length": str(self.size)}

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if head := self._head():
            yield head
        with readable(self._path):
            file = await asyncio.to_thread(self._path.open, "rb")
        try:
            async for chunk in self._chunks(file):
                yield chunk
        finally:
            file.close()
        if self._tail:
            yield self._tail

    def _head(self) -> bytes:
        """Returns the bytes that are sent before the file."""
        return b""

    async def _chunks(self, file: BinaryIO) -> AsyncIterator[bytes]:
        # One buffer, and copies made on this thread, because each reading thread keeps the memory that it allocates.
        buffer = bytearray(CHUNK)
        remaining = self.size
        while True:
            with readable(self._path):
                length = await asyncio.to_thread(file.readinto, buffer)  # type: ignore[attr-defined]  # BinaryIO lacks it
            remaining -= length
            if remaining < 0 or (remaining > 0 and not length):
                raise MediaError(
                    f"{self._path}: the file changed while it was being uploaded. What to do: upload the file again "
                    "when no program is writing to it."
                )
            if not length:
                return
            yield bytes(memoryview(buffer)[:length])


class FileBody(RawBody):
    """A multipart form with one file.

    `name` is converted to plain ASCII, since not every server accepts other characters. `field` is the form field for
    the file, `fields` are the other form fields, and `secrets` are form fields whose values are inserted only when the
    body is sent.
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        mime: str,
        field: str = "file",
        fields: Mapping[str, str] | None = None,
        secrets: Mapping[str, SecretStr] | None = None,
    ) -> None:
        super().__init__(path)
        boundary = uuid4().hex
        self._boundary, self._fields, self._secrets = boundary, dict(fields or {}), dict(secrets or {})
        self._file_head = (
            f"--{boundary}\r\n"
            f'Content-Disposition: form-data; name="{field}"; filename="{re.sub(r"[^A-Za-z0-9._-]", "_", name)}"\r\n'
            f"Content-Type: {re.sub(r'[^A-Za-z0-9.+/-]', '', mime)}\r\n\r\n"
        )
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self.headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(self._head()) + self.size + len(self._tail)),
        }

    def _head(self) -> bytes:
        fields = self._fields | {name: secret.get_secret_value() for name, secret in self._secrets.items()}
        texts = "".join(
            f'--{self._boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        )
        return (texts + self._file_head).encode("ascii", "replace")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Converts file system errors to `MediaError`."""
    try:
        yield
    except OSError as error:
        advice = "What to do: check the path and its permissions"
        raise MediaError(f"{path} cannot be read ({error.strerror or error}). {advice}.") from error

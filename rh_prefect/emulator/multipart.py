"""Reads a multipart form from the wire straight to disk, in flat memory, hashing on the way."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from rh_prefect.emulator.answers import Refused

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_LONGEST_FIELD = 64 * 1024


@dataclass(frozen=True, slots=True)
class Received:
    """One file of a form, now on disk."""

    field: str
    file_name: str
    path: Path
    size: int
    sha256: str


@dataclass(slots=True)
class Form:
    """A form that was read."""

    fields: dict[str, str] = field(default_factory=dict)
    files: list[Received] = field(default_factory=list)


async def read_form(
    request: Request, folder: Path, *, limit: int, no_form: Refused, large: Refused | None = None
) -> Form:
    """Reads the form of a request.

    Args:
        request: The request.
        folder: Where its files go.
        limit: The most bytes of a file.
        no_form: What is said of a request that is not a form.
        large: What is said of a file that is too large; default 1008.

    Raises:
        Refused: It is no form, or a file is too large; the rest of that is read first, so that the answer is heard.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise no_form
    reader = _Reader(folder, limit)
    parser = MultipartParser(boundary, reader.callbacks())
    try:
        async for chunk in request.stream():
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise no_form from error
    finally:
        reader.close()
    if reader.is_too_large:
        for file in reader.form.files:
            file.path.unlink(missing_ok=True)
        raise large or Refused("1008")
    return reader.form


class _Reader:
    """Takes a form apart as it comes in; the parser calls it with pieces of headers and bodies."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.form = Form()
        self.is_too_large = False
        self._folder = folder
        self._limit = limit
        self._header = [b"", b""]
        self._disposition = b""
        self._options: dict[bytes, bytes] = {}
        self._text = bytearray()
        self._file: BinaryIO | None = None
        self._path = Path()
        self._size = 0
        self._hash = hashlib.sha256()

    def callbacks(self) -> MultipartCallbacks:
        """What the parser calls."""
        return {
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
        }

    def close(self) -> None:
        """Removes a file that broke off."""
        if self._file is not None:
            self._file.close()
            self._path.unlink(missing_ok=True)

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0] += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1] += data[start:end]

    def _on_header_end(self) -> None:
        if self._header[0].lower() == b"content-disposition":
            self._disposition = self._header[1]
        self._header = [b"", b""]

    def _on_headers_finished(self) -> None:
        _, self._options = parse_options_header(self._disposition)
        self._text.clear()
        if b"filename" in self._options:
            handle, name = tempfile.mkstemp(dir=self._folder, suffix=".part")
            self._path, self._size, self._hash = Path(name), 0, hashlib.sha256()
            self._file = os.fdopen(handle, "wb")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        piece = data[start:end]
        if self._file is None:
            self._text += piece[: _LONGEST_FIELD - len(self._text)]
            return
        self._size += len(piece)
        if self._size > self._limit:
            self.is_too_large = True
            return
        self._hash.update(piece)
        self._file.write(piece)

    def _on_part_end(self) -> None:
        name = self._options.get(b"name", b"").decode(errors="replace")
        if self._file is None:
            self.form.fields[name] = self._text.decode(errors="replace")
            return
        self._file.close()
        self._file = None
        file_name = self._options[b"filename"].decode(errors="replace")
        self.form.files.append(Received(name, file_name, self._path, self._size, self._hash.hexdigest()))

"""Upload routes: current, legacy (for loader nodes) and LoRA by MD5; bodies stream to disk."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request
from starlette.responses import Response

from rh_prefect.emulator import auth, responses
from rh_prefect.emulator.accounts import ApiKey
from rh_prefect.emulator.endpoint import Call, Endpoint
from rh_prefect.emulator.recorder import Upload
from rh_prefect.emulator.responses import Refused

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_LONGEST_FIELD = 64 * 1024


@dataclass(frozen=True, slots=True)
class Received:
    """A file in a form, which was written to disk as it arrived."""

    field: str
    file_name: str
    path: Path
    size: int
    sha256: str


@dataclass(slots=True)
class Form:
    """The fields and files of a form."""

    fields: dict[str, str] = field(default_factory=dict)
    files: list[Received] = field(default_factory=list)


async def read_form(
    request: Request, folder: Path, *, limit: int, no_form: Refused, large: Refused | None = None
) -> Form:
    """Reads the form of a request.

    Args:
        request: The request.
        folder: The folder for the form's files.
        limit: The maximum size of a file, in bytes.
        no_form: The refusal of a request without a form.
        large: The refusal of a file that is too large; by default 1008.

    Raises:
        Refused: The body is not a form, or a file is too large. The whole body is read first.
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
    """Reads a form as it arrives; the parser calls it with parts of headers and bodies."""

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
        """The callbacks of the parser."""
        return {
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
        }

    def close(self) -> None:
        """Removes an incomplete file."""
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


_MD5: Final = re.compile(r"[0-9a-fA-F]{32}")
_LEGACY_MAX_BYTES: Final = 30 * 1024 * 1024


async def upload(call: Call) -> Response:
    """Receives one file in the form field `file`."""
    known = call.state.assumptions
    no_form = Refused(*known.upload_no_file)
    form = await read_form(call.request, call.state.file_store.folder, limit=known.upload_max_bytes, no_form=no_form)
    received = next((file for file in form.files if file.field == "file"), None)
    try:
        return _save(call, received)
    finally:
        for file in form.files:
            file.path.unlink(missing_ok=True)


def _save(call: Call, received: Received | None) -> Response:
    known = call.state.assumptions
    if received is None:
        raise Refused(*known.upload_no_file)
    extension = Path(received.file_name).suffix.lstrip(".").lower()
    kind = known.upload_extensions.get(extension)
    if kind is None or received.size == 0:
        raise Refused(*(known.upload_unsupported if kind is None else known.upload_empty))
    name, link = call.state.file_store.add_upload(received.path, sha256=received.sha256, extension=extension)
    call.state.recorder.add_upload(Upload(name, received.size, received.sha256, call.key.name, call.state.clock.now()))
    return responses.uploaded(known, {"type": kind, "download_url": link, "fileName": name, "size": str(received.size)})


async def legacy(call: Call) -> Response:
    """Receives one file for the nodes of a graph, with the key in the form."""
    too_large = Refused("809")
    no_form = Refused(*call.state.assumptions.legacy_no_file)
    form = await read_form(
        call.request, call.state.file_store.folder, limit=_LEGACY_MAX_BYTES, no_form=no_form, large=too_large
    )
    try:
        key = auth.body_key(call.state.keys, call.request, dict(form.fields))
        return _keep(call, key, form)
    finally:
        for file in form.files:
            file.path.unlink(missing_ok=True)


def _keep(call: Call, key: ApiKey, form: Form) -> Response:
    known = call.state.assumptions
    received = next((file for file in form.files if file.field == "file"), None)
    if received is None or received.size == 0:
        raise Refused(*known.legacy_no_file)
    extension = Path(received.file_name).suffix.lstrip(".").lower()
    if extension not in known.upload_extensions:
        raise Refused(*known.legacy_unsupported)
    # The name of a ZIP is a bare hash; other names have a folder and an extension.
    name = received.sha256 if extension == "zip" else f"api/{received.sha256}.{extension}"
    call.state.file_store.keep(received.path, name, sha256=received.sha256, extension=extension)
    call.state.recorder.add_upload(Upload(name, received.size, received.sha256, key.name, call.state.clock.now()))
    return responses.success({"fileName": name, "fileType": form.fields.get("fileType", "input")})


async def lora(call: Call) -> Response:
    """Returns the upload link of a LoRA; no link if the same file was uploaded before."""
    name, md5 = (str(call.body.get(key) or "").strip() for key in ("loraName", "md5Hex"))
    for key, value in (("loraName", name), ("md5Hex", md5)):
        if not value:
            raise Refused("301", call.state.assumptions.v1_blank.format(field=key))
    if not _MD5.fullmatch(md5):
        raise Refused(*call.state.assumptions.bad_md5)
    file_name, link = call.state.loras.announce(md5.lower())
    return responses.success({"fileName": file_name, **({} if link is None else {"url": link})})


ENDPOINTS: Final = (
    Endpoint("/task/openapi/upload", legacy, auth.in_handler, responses.v1, on="legacy-upload", reads="form"),
    Endpoint("/api/openapi/getLoraUploadUrl", lora, auth.body_key, responses.v1, on="lora"),
    Endpoint(
        "/openapi/v2/media/upload/binary", upload, auth.upload_bearer, responses.upload, on="upload", reads="form"
    ),
)
"""The routes of this family."""

"""Upload routes: current, legacy (for loader nodes) and LoRA by MD5."""

from __future__ import annotations

import asyncio
import io
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import Response

from rh_prefect.emulator import auth, responses
from rh_prefect.emulator.endpoint import Call, Endpoint
from rh_prefect.emulator.inputs import sha256_of
from rh_prefect.emulator.recorder import Upload
from rh_prefect.emulator.responses import Refused


@dataclass(frozen=True, slots=True)
class Received:
    """The fields of a form, and its file on the disk; without a name if there is none."""

    fields: Mapping[str, object]
    file_name: str
    path: Path
    size: int
    sha256: str


@asynccontextmanager
async def received(call: Call, part: str, *, limit: int, no_form: Refused, large: Refused) -> AsyncIterator[Received]:
    """Saves the file in one part of a form for a `with` block, which may move the file; reads the whole body first.

    Raises `no_form` for an invalid form, and `large` for a file of more than `limit` bytes.
    """
    path = call.state.file_store.folder / f"{secrets.token_hex(8)}.part"
    try:
        async with call.request.form() as form:
            found = form.get(part)
            sent = found if isinstance(found, UploadFile) else UploadFile(io.BytesIO(), size=0)
            if (sent.size or 0) > limit:
                raise large
            sha256 = await asyncio.to_thread(_save_to, path, sent)
        yield Received({**form}, sent.filename or "", path, sent.size or 0, sha256)
    except HTTPException as error:
        raise no_form from error
    finally:
        path.unlink(missing_ok=True)


def _save_to(path: Path, sent: UploadFile) -> str:
    """Saves a file of a form, and returns the file's SHA-256."""
    with path.open("wb") as file:
        shutil.copyfileobj(sent.file, file)
    return sha256_of(path)


_MD5: Final = re.compile(r"[0-9a-fA-F]{32}")
_LEGACY_MAX_BYTES: Final = 30 * 1024 * 1024


async def upload(call: Call) -> Response:
    """Receives one file in the form field `file`."""
    known = call.state.assumptions
    no_file, large = Refused(*known.upload_no_file), Refused("1008")
    async with received(call, "file", limit=known.upload_max_bytes, no_form=no_file, large=large) as file:
        if not file.file_name:
            raise no_file
        extension = Path(file.file_name).suffix.lstrip(".").lower()
        kind = known.upload_extensions.get(extension)
        if kind is None or file.size == 0:
            raise Refused(*(known.upload_unsupported if kind is None else known.upload_empty))
        name, link = call.state.file_store.add_upload(file.path, sha256=file.sha256, extension=extension)
    call.state.recorder.add_upload(Upload(name, file.size, file.sha256, call.key.name, call.state.clock.now()))
    return responses.uploaded(known, {"type": kind, "download_url": link, "fileName": name, "size": str(file.size)})


async def legacy(call: Call) -> Response:
    """Receives one file for the nodes of a graph, with the key in the form."""
    state, known = call.state, call.state.assumptions
    no_file, large = Refused(*known.legacy_no_file), Refused("809")
    async with received(call, "file", limit=_LEGACY_MAX_BYTES, no_form=no_file, large=large) as file:
        key = auth.body_key(state.keys, call.request, file.fields)
        if file.size == 0:
            raise no_file
        extension = Path(file.file_name).suffix.lstrip(".").lower()
        if extension not in known.upload_extensions:
            raise Refused(*known.legacy_unsupported)
        # The name of a ZIP is a bare hash; other names have a folder and an extension.
        name = file.sha256 if extension == "zip" else f"api/{file.sha256}.{extension}"
        state.file_store.keep(file.path, name, sha256=file.sha256, extension=extension)
    state.recorder.add_upload(Upload(name, file.size, file.sha256, key.name, state.clock.now()))
    return responses.success({"fileName": name, "fileType": file.fields.get("fileType", "input")})


async def lora(call: Call) -> Response:
    """Returns the upload link of a LoRA; no link if the same file was uploaded before."""
    name, md5 = (str(call.body.get(key) or "").strip() for key in ("loraName", "md5Hex"))
    for key, value in (("loraName", name), ("md5Hex", md5)):
        if not value:
            raise Refused("301", call.state.assumptions.v1_blank.format(field=key))
    if not _MD5.fullmatch(md5):
        raise Refused(*call.state.assumptions.bad_md5)
    store, file_name = call.state.file_store, f"{call.state.assumptions.lora_folder}/{md5.lower()}.safetensors"
    link = {} if file_name in store.loras else {"url": store.sign(f"/{file_name}")}
    return responses.success({"fileName": file_name, **link})


ENDPOINTS: Final = (
    Endpoint("/task/openapi/upload", legacy, auth.in_handler, responses.v1, on="legacy-upload", reads="form"),
    Endpoint("/api/openapi/getLoraUploadUrl", lora, auth.body_key, responses.v1, on="lora"),
    Endpoint(
        "/openapi/v2/media/upload/binary", upload, auth.upload_bearer, responses.upload, on="upload", reads="form"
    ),
)
"""The routes of this family."""

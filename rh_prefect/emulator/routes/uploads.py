"""Uploads: the new one, whose link lives for a day, the legacy one for nodes only, and LoRAs by their MD5."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from starlette.responses import Response

from rh_prefect.emulator import answers, assumptions, auth
from rh_prefect.emulator.answers import Refused
from rh_prefect.emulator.books import Upload
from rh_prefect.emulator.keys import ApiKey
from rh_prefect.emulator.multipart import Form, Received, read_form
from rh_prefect.emulator.serving import Call, Endpoint

_MD5: Final = re.compile(r"[0-9a-fA-F]{32}")


async def upload(call: Call) -> Response:
    """Takes one file, in the field `file`."""
    form = await read_form(call.request, call.state.shelf.folder, limit=assumptions.UPLOAD_MAX_BYTES)
    received = next((file for file in form.files if file.field == "file"), None)
    try:
        return _shelve(call, received)
    finally:
        for file in form.files:
            file.path.unlink(missing_ok=True)


def _shelve(call: Call, received: Received | None) -> Response:
    if received is None:
        raise Refused("1007", "Required request part 'file' is not present")
    extension = Path(received.file_name).suffix.lstrip(".").lower()
    kind = assumptions.UPLOAD_EXTENSIONS.get(extension)
    if kind is None or received.size == 0:
        raise Refused(*assumptions.UPLOAD_REFUSED_TYPE)
    name, link = call.state.shelf.add_upload(received.path, sha256=received.sha256, extension=extension)
    call.state.books.uploaded(Upload(name, received.size, received.sha256, call.key.name, call.state.clock.now()))
    return answers.uploaded({"type": kind, "download_url": link, "fileName": name, "size": str(received.size)})


async def legacy(call: Call) -> Response:
    """Takes one file for the nodes of a graph, with the key in the form."""
    too_large = Refused("809")
    form = await read_form(
        call.request, call.state.shelf.folder, limit=assumptions.LEGACY_MAX_BYTES, bad="301", large=too_large
    )
    try:
        key = auth.body_key(call.state.keys, call.request, dict(form.fields))
        return _keep(call, key, form)
    finally:
        for file in form.files:
            file.path.unlink(missing_ok=True)


def _keep(call: Call, key: ApiKey, form: Form) -> Response:
    received = next((file for file in form.files if file.field == "file"), None)
    if received is None or received.size == 0:
        raise Refused("301", "Required request part 'file' is not present")
    extension = Path(received.file_name).suffix.lstrip(".").lower()
    if extension not in assumptions.UPLOAD_EXTENSIONS:
        raise Refused("301", "Unsupported file type")
    # A ZIP has a bare hash for its name, all else a folder and an extension.
    name = received.sha256 if extension == "zip" else f"api/{received.sha256}.{extension}"
    call.state.shelf.keep(received.path, name, sha256=received.sha256, extension=extension)
    call.state.books.uploaded(Upload(name, received.size, received.sha256, key.name, call.state.clock.now()))
    return answers.success({"fileName": name, "fileType": form.fields.get("fileType", "input")})


async def lora(call: Call) -> Response:
    """Tells where a LoRA is to be put; nowhere, where the same file is here already."""
    name, md5 = (str(call.body.get(field) or "").strip() for field in ("loraName", "md5Hex"))
    for field, value in (("loraName", name), ("md5Hex", md5)):
        if not value:
            raise Refused("301", assumptions.V1_BLANK.format(field=field))
    if not _MD5.fullmatch(md5):
        raise Refused("301", "md5Hex must be 32 hexadecimal digits")
    file_name, link = call.state.loras.announce(md5.lower())
    return answers.success({"fileName": file_name, **({} if link is None else {"url": link})})


ENDPOINTS: Final = (
    Endpoint("/task/openapi/upload", legacy, auth.in_handler, answers.v1, on="legacy-upload", reads="form"),
    Endpoint("/api/openapi/getLoraUploadUrl", lora, auth.body_key, answers.v1, on="lora"),
    Endpoint("/openapi/v2/media/upload/binary", upload, auth.upload_bearer, answers.upload, on="upload", reads="form"),
)
"""The routes of this family."""

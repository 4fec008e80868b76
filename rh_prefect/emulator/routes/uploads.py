"""Uploads: the new one, whose link lives for a day, the legacy one for nodes only, and LoRAs by their MD5."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from starlette.responses import Response

from rh_prefect.emulator import answers, auth
from rh_prefect.emulator.answers import Refused
from rh_prefect.emulator.keys import ApiKey
from rh_prefect.emulator.multipart import Form, Received, read_form
from rh_prefect.emulator.recorder import Upload
from rh_prefect.emulator.serving import Call, Endpoint

_MD5: Final = re.compile(r"[0-9a-fA-F]{32}")
_LEGACY_MAX_BYTES: Final = 30 * 1024 * 1024


async def upload(call: Call) -> Response:
    """Takes one file, in the field `file`."""
    known = call.state.assumptions
    no_form = Refused(*known.upload_no_file)
    form = await read_form(call.request, call.state.shelf.folder, limit=known.upload_max_bytes, no_form=no_form)
    received = next((file for file in form.files if file.field == "file"), None)
    try:
        return _shelve(call, received)
    finally:
        for file in form.files:
            file.path.unlink(missing_ok=True)


def _shelve(call: Call, received: Received | None) -> Response:
    known = call.state.assumptions
    if received is None:
        raise Refused(*known.upload_no_file)
    extension = Path(received.file_name).suffix.lstrip(".").lower()
    kind = known.upload_extensions.get(extension)
    if kind is None or received.size == 0:
        raise Refused(*(known.upload_unsupported if kind is None else known.upload_empty))
    name, link = call.state.shelf.add_upload(received.path, sha256=received.sha256, extension=extension)
    call.state.books.uploaded(Upload(name, received.size, received.sha256, call.key.name, call.state.clock.now()))
    return answers.uploaded(known, {"type": kind, "download_url": link, "fileName": name, "size": str(received.size)})


async def legacy(call: Call) -> Response:
    """Takes one file for the nodes of a graph, with the key in the form."""
    too_large = Refused("809")
    no_form = Refused(*call.state.assumptions.legacy_no_file)
    form = await read_form(
        call.request, call.state.shelf.folder, limit=_LEGACY_MAX_BYTES, no_form=no_form, large=too_large
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
            raise Refused("301", call.state.assumptions.v1_blank.format(field=field))
    if not _MD5.fullmatch(md5):
        raise Refused(*call.state.assumptions.bad_md5)
    file_name, link = call.state.loras.announce(md5.lower())
    return answers.success({"fileName": file_name, **({} if link is None else {"url": link})})


ENDPOINTS: Final = (
    Endpoint("/task/openapi/upload", legacy, auth.in_handler, answers.v1, on="legacy-upload", reads="form"),
    Endpoint("/api/openapi/getLoraUploadUrl", lora, auth.body_key, answers.v1, on="lora"),
    Endpoint("/openapi/v2/media/upload/binary", upload, auth.upload_bearer, answers.upload, on="upload", reads="form"),
)
"""The routes of this family."""

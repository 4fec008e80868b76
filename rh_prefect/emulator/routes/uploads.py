"""The new upload: a file goes to the shelf, and a link that lives for a day comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from starlette.responses import Response

from rh_prefect.emulator import answers, assumptions, auth
from rh_prefect.emulator.answers import Refused
from rh_prefect.emulator.books import Upload
from rh_prefect.emulator.multipart import Received, read_form
from rh_prefect.emulator.serving import Call, Endpoint


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


ENDPOINTS: Final = (
    Endpoint("/openapi/v2/media/upload/binary", upload, auth.upload_bearer, answers.upload, on="upload", reads="form"),
)
"""The routes of this family."""

"""Files that stand inside of their link: `data:` URLs (RFC 2397), decoded to disk."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes

from rh_prefect.client.wire import Download
from rh_prefect.errors import LinkExpired, StoreError


def is_data_url(url: str) -> bool:
    """Tells whether a link holds its file itself."""
    return url[:5].lower() == "data:"


def write_data(url: str, to: Path) -> Download:
    """Writes the file of a `data:` URL; what was there is replaced.

    Args:
        url: The link.
        to: Where the bytes go.

    Raises:
        LinkExpired: It cannot be decoded.
        StoreError: The bytes cannot be written.
    """
    head, comma, body = url.partition(",")
    try:
        data = base64.b64decode(unquote(body)) if head.lower().endswith(";base64") else unquote_to_bytes(body)
    except (binascii.Error, ValueError) as error:
        raise LinkExpired(f"download of {head}: its content is not valid base64. Ask for the task again.") from error
    if not comma:
        raise LinkExpired(f"download of {head[:60]}: this data: URL has no content. Ask for the task again.")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(data)
    except OSError as error:
        advice = "Free some space there, or name another folder"
        raise StoreError(f"{to}: a download cannot be kept here ({error.strerror or error}). {advice}.") from error
    return Download(size=len(data))

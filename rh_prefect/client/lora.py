"""Uploading a LoRA: its MD5, a signed address, the file (api.md 3.20)."""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial
from pathlib import Path
from typing import Final

from rh_prefect.client import responses
from rh_prefect.client.core import Core
from rh_prefect.client.parsing import first_text
from rh_prefect.client.responses import RequestInfo
from rh_prefect.client.upload import RawBody, readable
from rh_prefect.errors import InputError, LinkExpired

_DEAD: Final = frozenset({401, 403, 404, 410})


async def upload_lora(core: Core, path: Path, *, name: str) -> str:
    """Sends a LoRA. See `Client.upload_lora`."""
    if not name.strip():
        raise InputError(f"{path}: a LoRA needs a name. Nothing was sent.")
    ask = RequestInfo(f"upload of LoRA {path}")
    body = await asyncio.to_thread(RawBody, path)
    wanted = {"loraName": name, "md5Hex": await asyncio.to_thread(_md5, path)}
    data = responses.with_data(await core.call_v1("api/openapi/getLoraUploadUrl", wanted, ask), ask)
    file_name, url = first_text(data, "fileName"), first_text(data, "url")
    if not file_name:
        raise responses.no_answer(ask, "the answer names no file")
    if url and not url.startswith(("http://", "https://")):
        raise responses.no_answer(ask, "the address to send it to is none")
    if url:  # without one, RunningHub has the file already
        _check(await core.put(url, body, ask), ask)
    return file_name


def _md5(path: Path) -> str:
    with readable(path), path.open("rb") as file:
        # RunningHub's key for the file; nothing is secured by it.
        return hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()


def _check(status: int, ask: RequestInfo) -> None:
    if status in _DEAD:
        advice = "Upload it again for a new one"
        raise LinkExpired(f"{ask.doing}: the signed address was refused (HTTP {status}). {advice}.")
    if not 200 <= status < 300:
        raise responses.no_answer(ask, f"the file host answered HTTP {status}")

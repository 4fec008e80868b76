"""A file host with ranges, as a script of the wire server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

from rh_prefect.client.download import CHUNK
from tests.support.servers.scripted_server import Asked, Step, reply

BODY = os.urandom(3 * CHUNK + 12345)


TAG = '"v1"'


def serve(
    body: bytes = BODY, *, tag: str = TAG, stop: int | None = None, more: Mapping[str, str] | None = None
) -> Step:
    """A file host with Range and If-Range; `stop` cuts the connection after so many bytes."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: Asked) -> bool:
        start = 0
        if "range" in asked.headers and asked.headers.get("if-range") == tag:
            start = int(asked.headers["range"].removeprefix("bytes=").rstrip("-"))
        headers = {"ETag": tag, **(more or {})}
        if start and start >= len(body):
            return await reply("no", status=416, headers=headers | {"Content-Range": f"bytes */{len(body)}"})(
                reader, writer, asked
            )
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        rest = body[start:] if stop is None else body[start : start + stop]
        length = len(body) - start if stop is not None else None
        return await reply(rest, status=206 if start else 200, headers=headers, length=length)(reader, writer, asked)

    return play

"""A server that sends scripted responses, down to single bytes, and records the requests."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.parser import BytesParser
from typing import Any, Self

from rh_prefect.client.download import CHUNK


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, Any]:
        """The parts of a form, as messages with a payload, by the names of their fields."""
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        parts: Any = BytesParser().parsebytes(head + self.body).get_payload()
        return {str(part.get_param("name", header="content-disposition")): part for part in parts}


Body = bytes | str | dict[str, Any] | list[Any] | None
"""What an answer holds; anything but bytes and a text is written as JSON."""

Step = Callable[[asyncio.StreamReader, asyncio.StreamWriter, Asked], Awaitable[bool]]
"""Answers one request; returns whether the connection stays open."""


def reply(
    body: Body = b"", *, status: int = 200, headers: dict[str, str] | None = None, length: int | None = None
) -> Step:
    """A complete answer; `length` announces another length than that of the body, and then closes."""
    data = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    lines = {"Content-Length": str(len(data) if length is None else length), **(headers or {})}
    head = f"HTTP/1.1 {status} X\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items()) + "\r\n"

    async def play(_: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: Asked) -> bool:
        writer.write(head.encode() + data)
        await writer.drain()
        return length is None

    return play


def said(data: object = None, **more: object) -> Step:
    """A success in the envelope of RunningHub's v1."""
    return reply({"code": 0, "msg": "success", "data": data, **more})


def raw(data: bytes) -> Step:
    async def play(_: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: Asked) -> bool:
        writer.write(data)
        await writer.drain()
        return False

    return play


def cut() -> Step:
    async def play(_: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: Asked) -> bool:
        writer.transport.abort()
        return False

    return play


def stall() -> Step:
    """Takes the request and says nothing until the client goes."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: Asked) -> bool:
        await reader.read()
        return False

    return play


def reply_then_close(body: dict[str, Any]) -> Step:
    """A complete answer on a connection that looks kept, and is closed behind it."""
    whole = reply(body)

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: Asked) -> bool:
        await whole(reader, writer, asked)
        return False

    return play


def slow(wait: asyncio.Event, then: Step) -> Step:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: Asked) -> bool:
        await wait.wait()
        return await then(reader, writer, asked)

    return play


@dataclass
class WireServer:
    """Plays one step a request, in order; `always` answers when the script has come to its end. `tls`: by https."""

    always: Step | None = None
    tls: ssl.SSLContext | None = None
    keep_bodies: bool = True
    asked: list[Asked] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    script: deque[Step] = field(default_factory=deque)
    connections: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    unexpected: list[Asked] = field(default_factory=list)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def plays(self, *steps: Step) -> Self:
        self.script.extend(steps)
        return self

    async def holds(self, requests: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.in_flight >= requests)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def paths(self) -> list[str]:
        return [each.path for each in self.asked]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._open: set[asyncio.StreamWriter] = set()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await asyncio.sleep(0)
        assert not self.unexpected, "requests that the script does not have"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            while await self._serve_one(reader, writer, self.connections):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        method, path, _ = first.split(" ")
        body = await self._read_body(reader, int(headers.get("content-length", "0")))
        asked = Asked(method, path, headers, body, connection)
        self.asked.append(asked)
        step = self.script.popleft() if self.script else self.always
        if step is None:
            self.unexpected.append(asked)
            return False
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        async with self._changed:
            self._changed.notify_all()
        try:
            return await step(reader, writer, asked)
        finally:
            self.in_flight -= 1

    async def _read_body(self, reader: asyncio.StreamReader, length: int) -> bytes:
        parts, left = [], length
        while left:
            part = await reader.read(min(left, 65536))
            if not part:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(part)
            if self.keep_bodies:
                parts.append(part)
        self.sizes.append(length)
        return b"".join(parts)


def task(task_id: object = "2031112223334445057", status: str | None = "RUNNING", **more: Any) -> dict[str, Any]:
    texts = dict.fromkeys(("errorCode", "errorMessage", "clientId", "promptTips"), "")
    return {"taskId": task_id, "status": status, **texts, "results": None, "failedReason": {}, "usage": None, **more}


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

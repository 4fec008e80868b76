"""A real HTTP proxy in front of a server that holds a request, or its response, until a test kills or releases it.

with Proxy(server_url) as proxy:
    held = proxy.hold(r'"rh-log-.*[0-9a-f]-answer-', number=2)  # the request never reaches the server
    held = proxy.hold(r"/results/", answer=True)              # the server has acted, the client does not know
    held.wait()
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

_BLOCK = 1 << 16


@dataclass
class Hold:
    """What is held: the n-th request whose first line, or the beginning of its body, has a pattern in it."""

    pattern: str  # a regular expression
    number: int | None = 1  # which one, from 1; None for each of them
    answer: bool = False  # whether the request goes through, and what is held is its answer
    when_held: Callable[[], None] = lambda: None  # is called when one is held, before anything else happens there
    seen: int = 0
    held: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def wait(self, count: int = 1) -> None:
        """Blocks until so many are held."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.held >= count, 300), f"{self.held} of {self.pattern} held"

    def counts(self) -> bool:
        """Counts one fitting request; tells whether it is one to hold."""
        self.seen += 1
        return self.number is None or self.seen == self.number

    def is_held(self) -> None:
        self.when_held()
        with self._changed:
            self.held += 1
            self._changed.notify_all()


class Proxy:
    """Passes on whatever comes, websockets too; what it holds stays held until `release`, `drop` or its end."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        self._server = (parts.hostname, parts.port)
        self._holds: list[Hold] = []
        self._loop = asyncio.new_event_loop()
        self._connections: set[asyncio.Task[None]] = set()
        self.url = ""

    def __enter__(self) -> Self:
        listening = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listening,), name="proxy", daemon=True)
        self._thread.start()
        assert listening.wait(300)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(300)

    def connection(self, *sides: Any) -> Connection:
        """What a client's connection does; a subclass may do worse."""
        return Connection(*sides)

    def hold(self, pattern: str, *, number: int | None = 1, **more: Any) -> Hold:
        made = Hold(pattern, number, **more)
        self._loop.call_soon_threadsafe(self._releasing.clear)
        self._holds.append(made)
        return made

    def release(self) -> None:
        """Lets all requests and answers go that are held, all at once, and holds nothing more."""
        self._holds.clear()
        self._loop.call_soon_threadsafe(self._releasing.set)

    def drop(self) -> None:
        """Ends all connections, the held ones unanswered, and holds nothing more."""
        self._holds.clear()
        asyncio.run_coroutine_threadsafe(self._hang_up(), self._loop).result(300)

    def _run(self, listening: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(listening))
        self._loop.close()

    async def _serve(self, listening: threading.Event) -> None:
        self._stopping, self._releasing = asyncio.Event(), asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        listening.set()
        await self._stopping.wait()
        server.close()
        await self._hang_up()

    async def _hang_up(self) -> None:
        here = list(self._connections)
        for task in here:
            task.cancel()
        await asyncio.gather(*here, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        there: asyncio.StreamWriter | None = None
        try:
            upstream, there = await asyncio.open_connection(*self._server)
            await self.connection(reader, writer, upstream, there, self._holds, self._releasing).run()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            for one in (writer, there):
                if one is not None:
                    one.transport.abort()


@dataclass
class Connection:
    """One client's connection and the one to the server that goes with it."""

    client: asyncio.StreamReader
    to_client: asyncio.StreamWriter
    server: asyncio.StreamReader
    to_server: asyncio.StreamWriter
    holds: list[Hold]
    releasing: asyncio.Event
    _held: Hold | None = None

    async def run(self) -> None:
        pumps = [asyncio.ensure_future(self._requests()), asyncio.ensure_future(self._answers())]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _requests(self) -> None:
        while True:
            head, body, is_upgrade = await self._read_request()
            if await self.is_over(head, body):
                continue
            for hold in self._fitting(head, body):
                if hold.answer:
                    self._held = hold
                    continue
                hold.is_held()
                await self._released_or_gone()
            self.to_server.write(head + body)
            await self.to_server.drain()
            if is_upgrade:
                await _pass_on(self.client, self.to_server)
                return

    async def is_over(self, head: bytes, body: bytes) -> bool:
        """Whether a request goes no further."""
        return False

    async def _answers(self) -> None:
        while block := await self.server.read(_BLOCK):
            await self.is_answered()
            if self._held is not None:
                self._held.is_held()
                self._held = None
                await self.releasing.wait()
            self.to_client.write(block)
            await self.to_client.drain()

    async def is_answered(self) -> None:
        """Called before anything of an answer is passed on."""

    async def _released_or_gone(self) -> None:
        """Waits; a client says nothing before it is answered, so whatever can be read is its end."""
        waits = [asyncio.ensure_future(self.releasing.wait()), asyncio.ensure_future(self.client.read(1))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not self.releasing.is_set():
                raise ConnectionResetError("the client has gone")
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def _fitting(self, head: bytes, body: bytes) -> list[Hold]:
        text = (head.split(b"\r\n", 1)[0] + b"\n" + body[:_BLOCK]).decode("latin-1")
        return [hold for hold in tuple(self.holds) if re.search(hold.pattern, text) and hold.counts()]

    async def _read_request(self) -> tuple[bytes, bytes, bool]:
        head = await self.client.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").lower().split("\r\n")
        headers = {name: value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if headers.get("expect") == "100-continue":
            # The server is not asked: it would answer before the body is there that decides what is held.
            self.to_client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            head = re.sub(rb"(?i)\r\nexpect:[^\r]*", b"", head)
        return head, await self._read_body(headers), "upgrade" in headers

    async def _read_body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return await self.client.readexactly(int(headers.get("content-length", "0")))
        body = b""
        while not body.endswith(b"0\r\n\r\n"):
            body += await self.client.readuntil(b"\r\n")
        return body


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while block := await reader.read(_BLOCK):
            writer.write(block)
            await writer.drain()

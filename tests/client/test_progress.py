"""Progress from a WebSocket: told when it is offered, and never anybody's error."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr
from websockets.asyncio.server import ServerConnection, serve

from rh_prefect.client.progress import ProgressEvent, read_frame, watch_progress
from rh_prefect.errors import InputError
from tests.support.servers.scripted_server import WireServer, cut, raw, reply

TICKET = "dGlja2V0LW9mLXRoZS1hY2NvdW50"

Script = Callable[[ServerConnection], Awaitable[object]]


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[SecretStr]:
    async def handle(socket: ServerConnection) -> None:
        await script(socket)

    async with serve(handle, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield SecretStr(f"ws://127.0.0.1:{port}/ws/c_instance?clientId=5f0c&Rh-Comfy-Auth={TICKET}%3D")


def says(*frames: object) -> Script:
    async def script(socket: ServerConnection) -> None:
        for frame in frames:
            await socket.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))

    return script


async def told(script: Script) -> list[ProgressEvent]:
    async with serving(script) as url:
        return [event async for event in watch_progress(url)]


FRAMES = [
    {"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 1}}}},
    {"type": "execution_cached", "data": {"nodes": ["4", 5]}},
    {"type": "executing", "data": {"node": "3"}},
    b"\x00\x00\x00\x01\x00\x00\x00\x02JPEG",
    {"type": "progress", "data": {"node": "3", "value": 10, "max": 20}},
    "not JSON",
    {"type": "executed", "data": {"node": "9"}},
]
EVENTS = [ProgressEvent(cached=("4", "5")), ProgressEvent(node="3"), ProgressEvent(node="3", value=10, max=20)]


@pytest.mark.parametrize(
    ("end", "last"),
    [
        ({"type": "execution_success", "data": {}}, ProgressEvent(done=True)),
        ({"type": "executing", "data": {"node": None}}, ProgressEvent(done=True)),
        ({"type": "execution_error", "data": {"node_id": "3"}}, ProgressEvent(node="3", done=True)),
        ({"type": "execution_interrupted", "data": {"node_id": 3}}, ProgressEvent(node="3", done=True)),
    ],
)
async def test_a_whole_run(end: dict[str, object], last: ProgressEvent) -> None:
    assert await told(says(*FRAMES, end, {"type": "executing", "data": {"node": "never told"}})) == [*EVENTS, last]


async def test_nothing_comes_after_the_end_though_the_connection_stays() -> None:
    async def script(socket: ServerConnection) -> None:
        await socket.send(json.dumps({"type": "execution_success"}))
        await socket.wait_closed()

    assert await asyncio.wait_for(told(script), 300) == [ProgressEvent(done=True)]


async def test_a_connection_that_drops_just_ends_it() -> None:
    async def drop(socket: ServerConnection) -> None:
        await socket.send(json.dumps(FRAMES[2]))
        socket.transport.abort()

    assert await told(drop) in ([EVENTS[1]], [])
    assert await told(lambda socket: socket.close(1011, "gone")) == []
    assert await told(says(*FRAMES)) == EVENTS


async def test_a_server_that_is_none_just_ends_it() -> None:
    assert [event async for event in watch_progress(f"ws://127.0.0.1:9/?Rh-Comfy-Auth={TICKET}")] == []
    assert [event async for event in watch_progress("ws://no-such-host.invalid/")] == []
    async with WireServer() as wire:
        wire.plays(cut(), reply("", status=403), raw(b"nonsense"), reply("<html>"))
        for _ in range(4):
            url = wire.url.replace("http", "ws", 1)
            assert [event async for event in watch_progress(url, open_timeout=2)] == []


async def test_who_stops_listening_closes_the_connection() -> None:
    heard, closed = asyncio.Event(), asyncio.Event()

    async def script(socket: ServerConnection) -> None:
        await socket.send(json.dumps(FRAMES[2]))
        await socket.wait_closed()
        closed.set()

    async def listen(url: SecretStr) -> None:
        async for _ in watch_progress(url):
            heard.set()

    async with serving(script) as url:
        listening = asyncio.create_task(listen(url))
        await heard.wait()
        listening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listening
        await asyncio.wait_for(closed.wait(), 300)


async def test_an_error_of_who_listens_is_his_own() -> None:
    async with serving(says(*FRAMES)) as url:
        with pytest.raises(ZeroDivisionError):
            async for _ in watch_progress(url):
                raise ZeroDivisionError


@pytest.mark.parametrize(
    "url", ["", "https://www.runninghub.cn", "ws://", "www.runninghub.cn/ws", "wss://[::1", "\ud800"]
)
def test_what_is_no_websocket_address_is_misuse(url: str) -> None:
    with pytest.raises(InputError, match="not a WebSocket URL"):
        watch_progress(url)


async def test_the_ticket_is_told_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await told(says(*FRAMES))
    [_ async for _ in watch_progress(f"ws://127.0.0.1:9/?Rh-Comfy-Auth={TICKET}")]
    assert "no longer available: ConnectionRefusedError" in caplog.text
    ours = [record for record in caplog.records if record.name != "websockets.server"]
    assert all(TICKET not in repr(vars(record)) for record in ours)


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        ('{"type": "progress", "data": {"node": 3, "value": "10", "max": null}}', ProgressEvent(node="3", value=10)),
        ('{"type": "executing", "data": {}}', ProgressEvent()),
        ('{"type": "executing"}', ProgressEvent()),
        ('{"type": "execution_cached", "data": {"nodes": null}}', ProgressEvent()),
        ('{"type": "crystools.monitor", "data": {}}', None),
        ("{}", None),
        ("", None),
        (b'{"type": "executing", "data": {"node": null}}', None),
    ],
)
def test_a_frame(frame: str | bytes, event: ProgressEvent | None) -> None:
    assert read_frame(frame) == event

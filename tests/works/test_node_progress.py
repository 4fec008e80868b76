"""The progress of a graph: a limited number of the newest lines, and none without usable messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr
from websockets.asyncio.server import ServerConnection, serve

from rh_prefect.client import Client, TaskView
from rh_prefect.client.progress import ProgressEvent
from rh_prefect.works.checked_request import JobRequest
from rh_prefect.works.runninghub.provider import WATCHED_AT_ONCE, Lines, NodeProgress, _watching
from tests.support.waiting import until

NAMES = {"6": "CLIPTextEncode", "3": "KSampler", "8": "VAEDecode"}


def steps(done: int) -> ProgressEvent:
    return ProgressEvent(node="3", value=done, max=20)


@pytest.mark.virtual_time
async def test_the_first_line_is_reported_immediately_and_the_newest_later() -> None:
    reported: list[str] = []
    lines = Lines(reported.append, NAMES)
    lines.update(ProgressEvent(cached=("4",)))
    lines.update(ProgressEvent(node="6"))
    for done in range(1, 13):
        lines.update(steps(done))
    await asyncio.sleep(2.9)
    assert reported == ["CLIPTextEncode"]
    await asyncio.sleep(0.2)
    assert reported == ["CLIPTextEncode", "KSampler 12/20"]
    await asyncio.sleep(4.0)
    lines.update(ProgressEvent(node="8"))
    lines.update(ProgressEvent(node="9", value=1))
    await asyncio.sleep(4.0)
    assert reported[2:] == ["VAEDecode", "node 9"]


@pytest.mark.virtual_time
async def test_no_line_is_repeated_or_reported_after_the_end() -> None:
    reported: list[str] = []
    lines = Lines(reported.append, NAMES)
    lines.update(steps(1))
    lines.update(steps(1))
    lines.update(ProgressEvent(node="3", done=True))
    await asyncio.sleep(9.0)
    lines.update(steps(1))
    assert reported == ["KSampler 1/20"]
    lines.update(steps(2))
    lines.update(steps(3))
    lines.close()
    await asyncio.sleep(9.0)
    assert reported == ["KSampler 1/20", "KSampler 2/20"]


ORDER = JobRequest("workflow/1", "/task/openapi/create", "site", {}, "b" * 40, node_names=NAMES)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Client("0" * 32, base_url="http://127.0.0.1:9") as made:
        yield made


@pytest.fixture
def lines() -> list[str]:
    """What is reported."""
    return []


@pytest.fixture
def progress(client: Client, lines: list[str]) -> NodeProgress:
    return NodeProgress(client, ORDER, "1", lines.append)


def seen(url: str) -> TaskView:
    return TaskView(task_id="1", status="RUNNING", progress_url=SecretStr(url))


class Socket:
    """A server at a progress address that handles each connection with a given function."""

    def __init__(self, handle: Callable[[ServerConnection], Awaitable[None]]) -> None:
        self._handle = handle
        self.opened = 0
        self.closed = asyncio.Event()
        self.came = asyncio.Event()

    async def __call__(self, connection: ServerConnection) -> None:
        self.opened += 1
        self.came.set()
        await self._handle(connection)
        await connection.wait_closed()
        self.closed.set()


@asynccontextmanager
async def at_address(socket: Socket) -> AsyncIterator[str]:
    async with serve(socket, "127.0.0.1", 0) as server, asyncio.timeout(300):
        host, port = next(iter(server.sockets)).getsockname()[:2]
        yield f"ws://{host}:{port}/ws/c_instance"


async def says_nothing(connection: ServerConnection) -> None: ...


async def says_nonsense(connection: ServerConnection) -> None:
    for frame in ("<html>", "[]", b"\x00\x01", '{"type": "progress", "data": {"node": [], "value": "x"}}'):
        await connection.send(frame)


async def says_a_node(connection: ServerConnection) -> None:
    await connection.send('{"type": "executing", "data": {"node": "6"}}')


@pytest.mark.parametrize("has_address", [True, False])
async def test_the_node_that_runs_is_reported_until_the_job_ends(lines: list[str], has_address: bool) -> None:
    socket = Socket(says_a_node)
    async with at_address(socket) as url:

        async def outputs(_: str) -> TaskView:
            return seen(url)

        client: Any = SimpleNamespace(workflows=SimpleNamespace(outputs_v1=outputs))
        progress = NodeProgress(client, ORDER, "1", lines.append)
        with progress.during(seen(url) if has_address else None):
            progress.runs()
            progress.runs()
            await until(lambda: lines)
        await socket.closed.wait()
    assert (lines, socket.opened) == (["CLIPTextEncode"], 1)


@pytest.mark.parametrize("handle", [says_nothing, says_nonsense])
async def test_a_socket_without_usable_messages_is_closed_with_the_job(
    progress: NodeProgress, lines: list[str], handle: Callable[[ServerConnection], Awaitable[None]]
) -> None:
    socket = Socket(handle)
    async with at_address(socket) as url:
        with progress.during(seen(url)):
            await socket.came.wait()
        await socket.closed.wait()
    assert lines == []
    assert not _watching


async def test_a_failed_connection_ends_only_the_progress(client: Client, lines: list[str]) -> None:
    came = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        await reader.read()  # the handshake's request, and then the end
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(300):
        with NodeProgress(client, ORDER, "1", lines.append).during(seen(f"ws://127.0.0.1:{port}/")):
            await came.wait()
        server.close()
        await server.wait_closed()
        with NodeProgress(client, ORDER, "1", lines.append).during(seen(f"ws://127.0.0.1:{port}/")):
            await until(lambda: not _watching)
        with NodeProgress(client, ORDER, "1", lines.append).during(seen("no address")):
            await asyncio.sleep(0)
    assert lines == []


async def test_a_start_without_an_address_opens_no_socket_until_the_task_runs(
    progress: NodeProgress, client: Client, lines: list[str]
) -> None:
    with progress.during(TaskView(task_id="1", status="QUEUED")):
        assert not _watching
        progress.runs()
        assert len(_watching) == 1, "RunningHub is asked for the address"
    await until(lambda: not _watching)
    other = TaskView(task_id="2", status="RUNNING", progress_url=SecretStr("ws://127.0.0.1:9/"))
    with progress.during(other):
        assert not _watching, "it is another task's"
    progress = NodeProgress(client, replace(ORDER, endpoint="run/workflow/1"), "1", lines.append)
    with progress.during(None):
        progress.runs()
        assert not _watching, "only starts of the old API are asked for the address"


async def test_the_number_of_concurrent_sockets_is_limited(client: Client) -> None:
    socket = Socket(says_nothing)
    async with at_address(socket) as url:
        watched = [NodeProgress(client, ORDER, "1", print).during(seen(url)) for _ in range(WATCHED_AT_ONCE + 1)]
        for one in watched:
            one.__enter__()
        assert len(_watching) == WATCHED_AT_ONCE
        for one in watched:
            one.__exit__(None, None, None)
        await until(lambda: not _watching)

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from rh_prefect.client.h11_transport import CallTransport

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@asynccontextmanager
async def serving(
    *answers: bytes | asyncio.Event | list[bytes] | None,
) -> AsyncIterator[tuple[httpx.AsyncClient, list[int]]]:
    """Plays answers, one for each request: bytes, parts, None for a closed connection, or an event to wait for."""
    script, connections = list(answers), []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(0)
        number = len(connections) - 1
        try:
            while script and await reader.readuntil(b"\r\n\r\n"):
                connections[number] += 1
                answer = script.pop(0)
                if answer is None:
                    break
                if isinstance(answer, asyncio.Event):
                    await answer.wait()
                    continue
                for part in answer if isinstance(answer, list) else [answer]:
                    writer.write(part)
                    await asyncio.sleep(0.02)
        except asyncio.IncompleteReadError:
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    limits = httpx.Limits(max_keepalive_connections=4, keepalive_expiry=5.0)
    transport = CallTransport(verify=httpx.create_ssl_context(), limits=limits)
    async with httpx.AsyncClient(transport=transport, base_url=url, timeout=300) as client:
        yield client, connections
    server.close()


async def test_a_connection_is_kept() -> None:
    async with serving(OK, OK, OK) as (client, connections):
        assert [(await client.get("/")).text for _ in range(3)] == ["ok"] * 3
    assert connections == [3]


LATE = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("answer", [OK + LATE, [OK, LATE]], ids=["with the answer", "after it"])
async def test_what_comes_unasked_is_not_the_next_answer(answer: bytes | list[bytes]) -> None:
    async with serving(answer, OK) as (client, connections):
        assert (await client.get("/")).text == "ok"
        for _ in range(30):
            await asyncio.sleep(0.01)
        assert (await client.get("/")).text == "ok"
    assert len(connections) == 2


async def test_an_answer_may_come_in_any_form() -> None:
    packed = gzip.compress(b"packed")
    zipped = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    early = b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK
    async with serving(zipped, chunked, early) as (client, _):
        assert [(await client.get("/")).text for _ in range(3)] == ["packed", "abc", "ok"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (None, httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", httpx.ReadTimeout),
        (b"not HTTP at all\r\n\r\n", httpx.RemoteProtocolError),
        (asyncio.Event(), httpx.ReadTimeout),
    ],
)
async def test_a_broken_answer_is_an_error_and_its_connection_is_closed(
    answer: bytes | asyncio.Event | None, error: type[Exception]
) -> None:
    async with serving(answer, OK) as (client, connections):
        with pytest.raises(error):
            await client.get("/", timeout=httpx.Timeout(300, read=0.3 if error is httpx.ReadTimeout else 300))
        assert (await client.get("/")).text == "ok"
    assert len(connections) == 2

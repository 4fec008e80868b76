"""The transports: what is resent and when, which proxy is used, what a connection is kept for, and TLS."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
import trustme

from rh_prefect.client import Client
from rh_prefect.client.download import download
from rh_prefect.client.h11_transport import CallTransport
from rh_prefect.client.http_connections import RESEND, EnvironmentTransport, ResendTransport, _tls
from rh_prefect.errors import ConnectFailed
from rh_prefect.settings import proxy_for
from tests.client.conftest import KEY, Pauses
from tests.support.servers.scripted_server import BODY, Asked, Step, WireServer, raw, reply, serve, stall

Outcome = int | Exception | httpx.Response


class Scripted(httpx.AsyncBaseTransport):
    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.calls = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.calls += 1
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return httpx.Response(outcome) if isinstance(outcome, int) else outcome


def resending(inner: Scripted, *, draw: Callable[[], float] = lambda: 1.0) -> tuple[ResendTransport, Pauses]:
    pauses = Pauses()
    return ResendTransport(inner, sleep=pauses.sleep, draw=draw), pauses


def request(method: str = "POST", *, resend: bool = True) -> httpx.Request:
    return httpx.Request(method, "http://rh.example/x", extensions={RESEND: True} if resend else {})


@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE"])
@pytest.mark.parametrize("outcome", [502, 429, httpx.ConnectError("x"), httpx.ReadTimeout("x")])
async def test_whether_it_is_resent_is_a_property_of_the_request(method: str, outcome: Outcome) -> None:
    allowed, forbidden = Scripted(outcome, 200), Scripted(outcome, 200)
    assert (await resending(allowed)[0].handle_async_request(request(method))).status_code == 200
    with contextlib.suppress(httpx.TransportError):
        await resending(forbidden)[0].handle_async_request(request(method, resend=False))
    assert (allowed.calls, forbidden.calls) == (2, 1)


async def test_pauses_grow_and_are_jittered() -> None:
    transport, slept = resending(Scripted(502, 503, 200))
    await transport.handle_async_request(request())
    assert slept == [0.25, 0.5]
    transport, slept = resending(Scripted(502, 503, 200), draw=lambda: 0.0)
    await transport.handle_async_request(request())
    assert slept == [0.125, 0.25]


@pytest.mark.parametrize(("asked", "waited"), [("2", 2.0), ("3600", 5.0), ("0", 0.25), ("soon", 0.25), ("²", 0.25)])
async def test_retry_after_is_heeded_within_bounds(asked: str, waited: float) -> None:
    answer = httpx.Response(429, headers=[(b"retry-after", asked.encode())])
    transport, slept = resending(Scripted(answer, 200))
    await transport.handle_async_request(request())
    assert slept == [waited]
    assert answer.is_closed


async def test_the_last_outcome_is_what_comes_out() -> None:
    assert (await resending(Scripted(502, 502, 504))[0].handle_async_request(request())).status_code == 504
    with pytest.raises(httpx.ReadError):
        await resending(Scripted(502, 502, httpx.ReadError("x")))[0].handle_async_request(request())


@pytest.mark.parametrize("outcome", [404, 400, 401, 200, 302])
async def test_an_answer_is_an_answer(outcome: int) -> None:
    inner = Scripted(outcome)
    assert (await resending(inner)[0].handle_async_request(request())).status_code == outcome
    assert inner.calls == 1


async def test_our_own_mistake_is_not_resent() -> None:
    inner = Scripted(httpx.LocalProtocolError("x"))
    with pytest.raises(httpx.LocalProtocolError):
        await resending(inner)[0].handle_async_request(request())


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


def test_proxies_come_from_the_environment(environment: pytest.MonkeyPatch) -> None:
    cn, ai = "www.runninghub.cn", "x.runninghub.ai"
    assert proxy_for("https", cn) is None
    environment.setenv("https_proxy", "proxy.example:3128")
    environment.setenv("all_proxy", "http://all.example:1")
    environment.setenv("no_proxy", "runninghub.ai")
    found = [proxy_for("https", cn), proxy_for("http", ai), proxy_for("http", "127.0.0.1")]
    assert found == ["http://proxy.example:3128", None, None]


@pytest.mark.parametrize(
    ("name", "value"),
    [("SSL_CERT_FILE", "/missing.pem"), ("ALL_PROXY", "unknown://proxy:1"), ("ALL_PROXY", "socks5://proxy:1")],
)
async def test_a_wrong_setting_of_the_connection_is_no_submission_that_may_have_arrived(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """Each row of a batch became an unknown submission, although no connection was opened."""
    _tls.cache_clear()
    environment.setenv(name, value)
    async with Client(KEY, base_url="https://rh.invalid") as client:
        with pytest.raises(ConnectFailed, match=r"never left this machine: .*see SSL_CERT_FILE and the proxy"):
            await client.submit("alibaba/wan-2.6/text-to-video", {})


async def test_a_request_goes_through_the_proxy(environment: pytest.MonkeyPatch, wire: WireServer) -> None:
    environment.setenv("http_proxy", wire.url)
    wire.plays(reply("from the proxy"))
    async with httpx.AsyncClient(transport=EnvironmentTransport(httpx.Limits())) as client:
        assert (await client.get("http://rh.invalid/x")).text == "from the proxy"
    assert wire.paths == ["http://rh.invalid/x"]


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


LIMITS = httpx.Limits(max_keepalive_connections=4, keepalive_expiry=60)


@pytest.fixture
async def calls(wire: WireServer) -> AsyncIterator[httpx.AsyncClient]:
    transport = CallTransport(verify=httpx.create_ssl_context(), limits=LIMITS)
    async with httpx.AsyncClient(transport=transport, base_url=wire.url, timeout=300) as client:
        yield client


def sends(*parts: bytes) -> Step:
    """Writes parts one after the other, and keeps the connection."""

    async def play(_: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: Asked) -> bool:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0.02)
        return True

    return play


LATE = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("answer", [sends(OK + LATE), sends(OK, LATE)], ids=["with the answer", "after it"])
async def test_what_comes_unasked_is_not_the_next_answer(
    answer: Step, calls: httpx.AsyncClient, wire: WireServer
) -> None:
    wire.plays(answer, sends(OK))
    assert (await calls.get("/")).text == "ok"
    for _ in range(30):
        await asyncio.sleep(0.01)
    assert (await calls.get("/")).text == "ok"
    assert wire.connections == 2


async def test_an_answer_may_come_in_any_form(calls: httpx.AsyncClient, wire: WireServer) -> None:
    zipped = reply(gzip.compress(b"packed"), headers={"Content-Encoding": "gzip"})
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    wire.plays(zipped, sends(chunked), sends(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK))
    assert [(await calls.get("/")).text for _ in range(3)] == ["packed", "abc", "ok"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (raw(b""), httpx.RemoteProtocolError),
        (sends(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"), httpx.ReadTimeout),
        (sends(b"not HTTP at all\r\n\r\n"), httpx.RemoteProtocolError),
        (stall(), httpx.ReadTimeout),
    ],
)
async def test_a_broken_answer_is_an_error_and_its_connection_is_closed(
    answer: Step, error: type[Exception], calls: httpx.AsyncClient, wire: WireServer
) -> None:
    wire.plays(answer, sends(OK))
    with pytest.raises(error):
        await calls.get("/", timeout=httpx.Timeout(300, read=0.3 if error is httpx.ReadTimeout else 300))
    assert (await calls.get("/")).text == "ok"
    assert wire.connections == 2


AUTHORITY = trustme.CA()


@pytest.fixture
async def host() -> AsyncIterator[WireServer]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)
    async with WireServer(tls=context) as server:
        yield server


@pytest.fixture
def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


async def test_a_cancelled_download_keeps_no_encrypted_bytes(
    host: WireServer, trusting: ssl.SSLContext, tmp_path: Path
) -> None:
    """Python's `SSLSocket.shutdown` ends the decryption: what was read after it was appended to the paid file."""
    host.always = serve()
    for number in range(5):
        seen, part = asyncio.Event(), tmp_path / f"{number}.part"
        url = f"{host.url}/{number}.mp4"
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(verify=trusting, limits=LIMITS)) as client:
            run = asyncio.create_task(download(client, url, part, progress=lambda *_, seen=seen: seen.set()))
            await seen.wait()
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
            kept = part.read_bytes()
            assert kept
            assert BODY.startswith(kept), number
            await download(client, url, part)
        assert part.read_bytes() == BODY
    assert any("range" in asked.headers for asked in host.asked), "a later call continues where the first one stopped"


async def test_calls_share_a_connection(host: WireServer, trusting: ssl.SSLContext) -> None:
    host.always = reply({"code": 0})
    async with httpx.AsyncClient(transport=CallTransport(verify=trusting, limits=LIMITS)) as client:
        for _ in range(3):
            response = await client.post(f"{host.url}/query", json={"taskId": "1"})
            assert response.json() == {"code": 0}
    assert host.connections == 1


async def test_a_certificate_that_nobody_vouches_for_is_refused(host: WireServer) -> None:
    host.always = reply({"code": 0})
    transports: tuple[httpx.AsyncBaseTransport, ...] = (
        CallTransport(verify=ssl.create_default_context(), limits=LIMITS),
        httpx.AsyncHTTPTransport(verify=ssl.create_default_context(), limits=LIMITS),
    )
    for transport in transports:
        async with httpx.AsyncClient(transport=transport) as client:
            with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
                await client.get(host.url)
    assert not host.asked

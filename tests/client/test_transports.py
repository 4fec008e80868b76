"""The transports: what is resent, how long it waits, and which proxy it takes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import httpx
import pytest

from rh_prefect.client.transports import RESEND, EnvironmentTransport, ResendTransport
from rh_prefect.settings import proxy_for
from tests.support.servers.scripted_server import WireServer, reply

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


def resending(inner: Scripted, *, draw: Callable[[], float] = lambda: 1.0) -> tuple[ResendTransport, list[float]]:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    return ResendTransport(inner, sleep=sleep, draw=draw), slept


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


async def test_a_request_goes_through_the_proxy(environment: pytest.MonkeyPatch, wire: WireServer) -> None:
    environment.setenv("http_proxy", wire.url)
    wire.plays(reply("from the proxy"))
    async with httpx.AsyncClient(transport=EnvironmentTransport(httpx.Limits())) as client:
        assert (await client.get("http://rh.invalid/x")).text == "from the proxy"
    assert wire.paths == ["http://rh.invalid/x"]

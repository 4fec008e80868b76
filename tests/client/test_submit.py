"""A paid submit: sent once, and every way in which its answer can be missing or mean something."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import Callable

import httpx
import pytest

from rh_prefect.client import Client
from rh_prefect.errors import (
    CODES,
    AccountError,
    ApiError,
    Busy,
    ConfigError,
    ConnectFailed,
    InputError,
    KeyRejected,
    ModerationError,
    OutcomeUnknown,
    RequestRejected,
    ResponseLost,
)
from tests.client.conftest import KEY
from tests.support.servers.scripted_server import Step, WireServer, cut, raw, reply, reply_then_close, stall, task

MODEL = "alibaba/wan-2.6/text-to-video"
HTML = "<html><body><h1>502 Bad Gateway</h1></body></html>"


async def test_a_submit_is_one_post_with_the_key_in_the_header_only(client: Client, wire: WireServer) -> None:
    wire.plays(reply(task(promptTips='{"result": true, "node_errors": {}}')))
    view = await client.submit(
        MODEL, {"prompt": "a paper boat — 纸船", "duration": "5"}, webhook_url="https://h.example/t"
    )
    [asked] = wire.asked
    assert (asked.method, asked.path) == ("POST", f"/openapi/v2/{MODEL}")
    assert asked.json == {"prompt": "a paper boat — 纸船", "duration": "5", "webhookUrl": "https://h.example/t"}
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.headers["host"] == f"127.0.0.1:{wire.port}"
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["user-agent"].startswith("rh-prefect/")
    assert KEY.encode() not in asked.body
    assert (view.task_id, view.status, view.node_errors) == ("2031112223334445057", "RUNNING", {})


LOST: dict[str, Callable[[], Step]] = {
    "cut before a byte": cut,
    "cut in the head": lambda: raw(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "cut in the body": lambda: reply('{"taskId": "2031', length=400),
    "stalled": stall,
    "no HTTP": lambda: raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "500": lambda: reply("", status=500),
    "502 with HTML": lambda: reply(HTML, status=502),
    "503": lambda: reply("busy", status=503),
    "504": lambda: reply(HTML, status=504),
    "502 with a code that would allow a resend": lambda: reply({"errorCode": "1011", "errorMessage": "x"}, status=502),
    "500 of a framework": lambda: reply({"status": 500, "error": "Internal Server Error"}, status=500),
    "HTML under 200": lambda: reply(HTML),
    "empty": lambda: reply(""),
    "a list": lambda: reply([task()]),
    "a string": lambda: reply('"2031112223334445057"'),
    "null": lambda: reply("null"),
    "not UTF-8": lambda: reply(b'{"taskId": "\xff\xfe'),
    "no gzip": lambda: reply(b"no gzip", headers={"Content-Encoding": "gzip"}),
    "half a gzip": lambda: reply(gzip.compress(b'{"taskId": "1"}' * 9)[:20], headers={"Content-Encoding": "gzip"}),
    "neither id nor code": lambda: reply({"code": 0, "msg": "success", "data": None}),
    "an empty id": lambda: reply(task("")),
    "the id 0": lambda: reply({"code": 0, "msg": "success", "data": {"taskId": 0, "taskStatus": "RUNNING"}}),
    "a state without an id": lambda: reply({"code": 804, "msg": "APIKEY_TASK_IS_RUNNING", "data": None}),
    "a redirect": lambda: reply("", status=307, headers={"Location": "/openapi/v2/elsewhere"}),
    "request timeout": lambda: reply("", status=408),
}


@pytest.mark.parametrize("kind", LOST)
async def test_a_lost_answer_is_unknown_and_nothing_is_sent_again(kind: str, limited: Client, wire: WireServer) -> None:
    wire.plays(LOST[kind]())
    with pytest.raises(ResponseLost, match=rf"submit to {MODEL}: .*may exist and be paid for"):
        await limited.submit(MODEL, {})
    assert len(wire.asked) == 1


async def test_an_answer_that_drips_is_lost_at_the_deadline(limited: Client, wire: WireServer) -> None:
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: object) -> bool:
        while True:  # each byte comes well within any read timeout
            writer.write(b"HTTP/1.1 200 OK\r\nX: "[:1])
            await asyncio.sleep(0.1)

    wire.plays(drip)
    with pytest.raises(ResponseLost, match="no answer in time"):
        await asyncio.wait_for(limited.submit(MODEL, {}), 300)


REFUSED: list[tuple[Step, type[ApiError], str, str]] = [
    (reply({**task("", ""), "errorCode": "1007", "errorMessage": "duration"}), RequestRejected, "1007", "final"),
    (reply({**task("", ""), "errorCode": "1007"}, status=400), RequestRejected, "1007", "final"),
    (reply({**task("", ""), "errorCode": "1007"}, status=500), RequestRejected, "1007", "final"),
    (reply({**task("", None), "errorCode": 1014, "errorMessage": None}), AccountError, "1014", "action_required"),
    (reply({**task("", ""), "errorCode": "1501"}), ModerationError, "1501", "final"),
    (reply({"code": 412, "msg": "TOKEN_INVALID"}), KeyRejected, "412", "action_required"),
    (
        reply({"code": 401, "message": "verification failed", "data": None}),
        KeyRejected,
        "401",
        "action_required",
    ),
    (reply({"code": 421, "msg": "TASK_QUEUE_MAXED", "data": None}), Busy, "421", "throttled"),
    (reply({"code": "1520", "msg": ""}), Busy, "1520", "throttled"),
    (
        reply({**task("", ""), "errorCode": "1520", "errorMessage": "单用户并发任务数已达上限"}),
        Busy,
        "1520",
        "throttled",
    ),
    (reply({**task("", ""), "errorCode": "414", "errorMessage": "no coins"}), AccountError, "414", "action_required"),
    (reply({**task("", ""), "errorCode": "40310", "errorMessage": "gone"}), RequestRejected, "40310", "final"),
    (reply({"code": 77, "msg": "TASK_CREATE_TOO_FAST"}), Busy, "77", "throttled"),
    (reply({"msg": "TASK_CREATE_TOO_FAST"}), Busy, "TASK_CREATE_TOO_FAST", "throttled"),
    (reply({"code": 1011, "errorCode": "", "message": "busy"}), Busy, "1011", "throttled"),
    (reply("slow down", status=429), Busy, "429", "throttled"),
    (reply({"code": 500, "msg": "UNKNOWN_ERROR"}, status=429), Busy, "429", "throttled"),
    (reply({"code": 500, "msg": "UNKNOWN_ERROR", "data": None}), OutcomeUnknown, "500", "unknown"),
    *[
        (reply({**task("", ""), "errorCode": code}), OutcomeUnknown, code, "unknown")
        for code in ("1000", "1005", "1012")
    ],
    *[
        (reply({**task("", ""), "errorCode": code}), OutcomeUnknown, code, "unknown")
        for code in ("1516", "1517", "1518", "1519")
    ],
    (reply({**task("", ""), "errorCode": "1999"}), OutcomeUnknown, "1999", "unknown"),
    (reply({"code": -1, "msg": "?"}), OutcomeUnknown, "-1", "unknown"),
    (reply({"errorCode": "1000", "errorMessage": "429"}), OutcomeUnknown, "1000", "unknown"),
    (reply(HTML, status=404), RequestRejected, "HTTP 404", "final"),
    (reply("", status=413), RequestRejected, "HTTP 413", "final"),
    (reply("", status=401), KeyRejected, "HTTP 401", "action_required"),
]


@pytest.mark.parametrize(("step", "error", "code", "retry"), REFUSED)
async def test_an_error_inside_an_answer_is_raised_by_the_table(
    step: Step, error: type[ApiError], code: str, retry: str, client: Client, wire: WireServer
) -> None:
    wire.plays(step)
    with pytest.raises(ApiError) as caught:
        await client.submit(MODEL, {})
    assert (type(caught.value), caught.value.code, caught.value.retry) == (error, code, retry)
    assert str(caught.value).startswith(f"submit to {MODEL}: ")
    assert "What to do: " in str(caught.value)
    assert len(wire.asked) == 1


TASK = {"taskId": "2031112223334445057"}


@pytest.mark.parametrize("status", [200, 429])
@pytest.mark.parametrize("answer", [task(), {**task(), "errorCode": "421"}, {**TASK, "errorCode": "421"}, TASK])
async def test_a_task_id_is_believed_beside_a_code_or_status_that_asks_for_another_submission(
    answer: dict[str, object], status: int, wire: WireServer
) -> None:
    """A task that exists is paid for: submitted again, it would be paid for twice."""
    wire.plays(reply(answer, status=status), reply(task("2"), status=status))
    async with Client(KEY, base_url=wire.url) as client:
        view = await client.submit(MODEL, {})
    assert view.task_id == TASK["taskId"]
    assert len(wire.asked) == 1


async def test_every_listed_code_raises_its_class(client: Client, wire: WireServer) -> None:
    for code, row in CODES.items():
        wire.plays(reply({"errorCode": code, "errorMessage": "said so"}))
        with pytest.raises(ResponseLost if row.retry == "pending" else row.error):
            await client.submit(MODEL, {})


async def test_an_id_inside_an_envelope_is_found(client: Client, wire: WireServer) -> None:
    wire.plays(reply({"code": 0, "msg": "success", "data": {"taskId": 2031112223334445057, "taskStatus": "QUEUED"}}))
    view = await client.submit("run/workflow/2030000000000000001", {"nodeInfoList": []})
    assert (view.task_id, view.status) == ("2031112223334445057", "QUEUED")


async def test_a_task_id_wins_over_an_error_beside_it(client: Client, wire: WireServer) -> None:
    wire.plays(
        reply({**task(status=""), "errorCode": "1005", "errorMessage": "internal"}),
        reply({**task(status="FAILED"), "errorCode": "1015", "errorMessage": "generation failed"}),
        reply(task(), status=502),
    )
    views = [await client.submit(MODEL, {}) for _ in range(3)]
    assert [(view.status, view.code) for view in views] == [("QUEUED", "1005"), ("FAILED", "1015"), ("RUNNING", "")]


async def test_a_submit_may_answer_with_the_results(client: Client, wire: WireServer) -> None:
    wire.plays(reply(task(status="SUCCESS", results=[{"url": None, "text": "Once upon a time", "outputType": "txt"}])))
    view = await client.submit(MODEL, {})
    assert view.is_terminal
    assert view.outputs[0].text == "Once upon a time"


async def test_a_refused_connection_was_not_delivered() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening
        async with Client(KEY, base_url=f"http://127.0.0.1:{taken.getsockname()[1]}") as client:
            with pytest.raises(ConnectFailed, match="never left this machine: no connection"):
                await client.submit(MODEL, {})


async def test_a_failed_tls_handshake_was_not_delivered() -> None:
    async def no_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(no_tls, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with Client(KEY, base_url=url) as client:
        with pytest.raises(ConnectFailed, match="no connection"):
            await client.submit(MODEL, {})
    server.close()


async def test_a_tls_handshake_that_stalls_was_not_delivered() -> None:
    gone = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # takes the hello, says nothing
        writer.transport.abort()
        gone.set()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with Client(KEY, base_url=url, submit_timeout=0.4) as client:
        with pytest.raises(ConnectFailed, match="no connection in time"):
            await client.submit(MODEL, {})
    await gone.wait()
    server.close()


async def test_a_deadline_that_passes_while_connecting_was_not_delivered() -> None:
    class Connecting(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await request.extensions["trace"]("connection.connect_tcp.started", {"request": request})
            await asyncio.sleep(60)
            raise AssertionError

    async with Client(KEY, base_url="http://rh.example", transport=Connecting(), submit_timeout=0.1) as client:
        with pytest.raises(ConnectFailed, match="no answer in time"):
            await client.submit(MODEL, {})


async def test_a_tunnel_to_a_proxy_is_not_the_request_itself() -> None:
    class Tunnel(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            tunnel = httpx.Request("CONNECT", "http://rh.example")
            tunnel.method = b"CONNECT"  # type: ignore[assignment]  # as httpcore's requests have it
            await request.extensions["trace"]("http11.send_request_headers.started", {"request": tunnel})
            raise httpx.ProxyError("403 Forbidden")

    async with Client(KEY, base_url="http://rh.example", transport=Tunnel()) as client:
        with pytest.raises(ConnectFailed, match="the proxy refused"):
            await client.submit(MODEL, {})


RAISED: list[tuple[Exception, type[Exception]]] = [
    (httpx.ConnectError("x"), ConnectFailed),
    (httpx.ConnectTimeout("x"), ConnectFailed),
    (httpx.PoolTimeout("x"), ConnectFailed),
    (httpx.ProxyError("x"), ConnectFailed),
    (httpx.UnsupportedProtocol("x"), ConnectFailed),
    (httpx.InvalidURL("x"), ConnectFailed),
    (httpx.WriteError("x"), ResponseLost),
    (httpx.WriteTimeout("x"), ResponseLost),
    (httpx.ReadError("x"), ResponseLost),
    (httpx.ReadTimeout("x"), ResponseLost),
    (httpx.CloseError("x"), ResponseLost),
    (httpx.RemoteProtocolError("x"), ResponseLost),
    (httpx.LocalProtocolError("x"), ResponseLost),
    (httpx.TooManyRedirects("x"), ResponseLost),
    (httpx.DecodingError("x"), ResponseLost),
    (httpx.StreamClosed(), ResponseLost),
    (OSError("a cut TLS stream"), ResponseLost),
]


@pytest.mark.parametrize(("raised", "expected"), RAISED, ids=lambda each: getattr(each, "__name__", repr(each)))
async def test_every_exception_of_a_transport_has_its_meaning(raised: Exception, expected: type[Exception]) -> None:
    calls = []

    class Broken(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            calls.append(request)
            raise raised

    async with Client(KEY, base_url="http://rh.example", transport=Broken()) as client:
        with pytest.raises(expected) as caught:
            await client.submit(MODEL, {})
    assert len(calls) == 1
    assert caught.value.__cause__ is raised


async def test_no_exception_counts_as_undelivered_once_bytes_were_sent() -> None:
    class Sent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await request.extensions["trace"]("http11.send_request_headers.started", {"request": request})
            raise httpx.ConnectError("after all")

    async with Client(KEY, base_url="http://rh.example", transport=Sent()) as client:
        with pytest.raises(ResponseLost):
            await client.submit(MODEL, {})


async def test_each_submit_has_a_connection_of_its_own(client: Client, wire: WireServer) -> None:
    wire.plays(reply_then_close(task()), reply(task()), reply(task()))
    for _ in range(3):
        await client.submit(MODEL, {})
    assert [asked.connection for asked in wire.asked] == [1, 2, 3]


@pytest.mark.parametrize("payload", [{"seed": float("nan")}, {"image": object()}, {"prompt": "\ud800"}])
async def test_what_cannot_be_written_is_not_sent(payload: dict[str, object], client: Client, wire: WireServer) -> None:
    with pytest.raises(InputError, match="Nothing was sent"):
        await client.submit(MODEL, payload)
    assert wire.asked == []


@pytest.mark.parametrize(
    "endpoint", ["", "../task/openapi/cancel", "a/../b", "a b", "a?x=1", "https://x.example/a", "a//b"]
)
async def test_an_endpoint_cannot_lead_elsewhere(endpoint: str, client: Client, wire: WireServer) -> None:
    with pytest.raises(InputError, match="is not a valid endpoint"):
        await client.submit(endpoint, {})
    assert wire.asked == []


@pytest.mark.parametrize("suffix", ["", "/", "/rh", "/rh/"])
async def test_a_base_url_may_end_in_a_slash_or_a_path(suffix: str, wire: WireServer) -> None:
    wire.plays(reply(task()))
    async with Client(KEY, base_url=wire.url + suffix) as client:
        await client.submit(f"/{MODEL}", {})
        assert client.site == "127.0.0.1"
    assert wire.paths == [f"{suffix.rstrip('/')}/openapi/v2/{MODEL}"]


@pytest.mark.parametrize(
    "url",
    ["", "www.runninghub.cn", "ftp://x.example", "http://", "https://a:b@x.example", "http://x/?k=1", "http://[::1"],
)
def test_a_base_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="RH_BASE_URL"):
        Client(KEY, base_url=url)


@pytest.mark.parametrize("key", ["", "  ", "two words", f"{KEY}\r\nX-Evil: 1", "schlüssel"])
def test_a_key_that_is_none_is_refused_without_telling_it(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Client(key)
    assert not key.strip() or key not in str(caught.value)

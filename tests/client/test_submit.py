"""A paid submit: sent once, and every way in which its answer can be missing or mean something."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import pickle
import time

import httpx
import pytest
from pydantic import ValidationError

from rh_prefect.blocks import RunningHubCredentials
from rh_prefect.client import Client, TaskView
from rh_prefect.client.wire.task import read_node_errors
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
from rh_prefect.pipelines.plan.options import site_of
from tests.client.conftest import KEY
from tests.support.servers.scripted_server import Step, WireServer, cut, raw, reply, reply_then_close, said, stall, task

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


async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: object) -> bool:
    while True:  # each byte comes well within any read timeout
        writer.write(b"H")
        await asyncio.sleep(0.1)


LOST: dict[str, Step] = {
    "a byte now and then": drip,
    "cut before a byte": cut(),
    "cut in the head": raw(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "cut in the body": reply('{"taskId": "2031', length=400),
    "stalled": stall(),
    "no HTTP": raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "500": reply("", status=500),
    "502 with HTML": reply(HTML, status=502),
    "503": reply("busy", status=503),
    "504": reply(HTML, status=504),
    "502 with a code that would allow a resend": reply({"errorCode": "1011", "errorMessage": "x"}, status=502),
    "500 of a framework": reply({"status": 500, "error": "Internal Server Error"}, status=500),
    "HTML under 200": reply(HTML),
    "empty": reply(""),
    "a list": reply([task()]),
    "a string": reply('"2031112223334445057"'),
    "null": reply("null"),
    "not UTF-8": reply(b'{"taskId": "\xff\xfe'),
    "no gzip": reply(b"no gzip", headers={"Content-Encoding": "gzip"}),
    "half a gzip": reply(gzip.compress(b'{"taskId": "1"}' * 9)[:20], headers={"Content-Encoding": "gzip"}),
    "neither id nor code": said(None),
    "an empty id": reply(task("")),
    "the id 0": said({"taskId": 0, "taskStatus": "RUNNING"}),
    "a state without an id": reply({"code": 804, "msg": "APIKEY_TASK_IS_RUNNING", "data": None}),
    "a redirect to what was made": reply("", status=303, headers={"Location": "/openapi/v2/elsewhere"}),
    "a redirect after the request": reply("", status=302, headers={"Location": "/openapi/v2/elsewhere"}),
    "request timeout": reply("", status=408),
}


@pytest.mark.parametrize("kind", LOST)
async def test_a_lost_answer_is_unknown_and_nothing_is_sent_again(kind: str, limited: Client, wire: WireServer) -> None:
    wire.plays(LOST[kind])
    with pytest.raises(ResponseLost, match=rf"submit to {MODEL}: .*may exist and be paid for"):
        await limited.submit(MODEL, {})
    assert len(wire.asked) == 1


REFUSED: list[tuple[Step, type[ApiError], str, str]] = [
    (reply({**task("", ""), "errorCode": "1007", "errorMessage": "duration"}), RequestRejected, "1007", "final"),
    (reply({**task("", ""), "errorCode": "1007"}, status=400), RequestRejected, "1007", "final"),
    (reply({**task("", ""), "errorCode": "1007"}, status=500), RequestRejected, "1007", "final"),
    (reply({**task("", None), "errorCode": 1014, "errorMessage": None}), AccountError, "1014", "action_required"),
    (reply({**task("", ""), "errorCode": "1501"}), ModerationError, "1501", "final"),
    (reply({"code": 412, "msg": "TOKEN_INVALID"}), KeyRejected, "412", "action_required"),
    (reply({"code": 401, "message": "verification failed", "data": None}), KeyRejected, "401", "action_required"),
    (reply({"code": 421, "msg": "TASK_QUEUE_MAXED", "data": None}), Busy, "421", "throttled"),
    (reply({"code": "1520", "msg": "单用户并发任务数已达上限"}), Busy, "1520", "throttled"),
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
        for code in ("1000", "1005", "1012", "1516", "1517", "1518", "1519", "1999")
    ],
    (reply({"code": -1, "msg": "?"}), OutcomeUnknown, "-1", "unknown"),
    (reply({"errorCode": "1000", "errorMessage": "429"}), OutcomeUnknown, "1000", "unknown"),
    (reply(HTML, status=404), RequestRejected, "HTTP 404", "final"),
    (reply("", status=413), RequestRejected, "HTTP 413", "final"),
    (reply("", status=401), KeyRejected, "HTTP 401", "action_required"),
    *[
        (reply("", status=status, headers={"Location": "/elsewhere"}), RequestRejected, f"HTTP {status}", "final")
        for status in (301, 307, 308)
    ],
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


async def test_a_redirect_asks_for_another_base_url(client: Client, wire: WireServer) -> None:
    wire.plays(reply("", status=308, headers={"Location": "/elsewhere"}))
    with pytest.raises(RequestRejected, match=r"rejected before it reached .*: correct RH_BASE_URL"):
        await client.submit(MODEL, {})


async def test_every_listed_code_raises_its_class(client: Client, wire: WireServer) -> None:
    for code, row in CODES.items():
        wire.plays(reply({"errorCode": code, "errorMessage": "said so"}))
        with pytest.raises(ResponseLost if row.retry == "pending" else row.error):
            await client.submit(MODEL, {})


ID = "2031112223334445057"
TASK = {"taskId": ID}


@pytest.mark.parametrize("http_status", [200, 429, 502])
@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (TASK, "QUEUED", ""),
        (task(), "RUNNING", ""),
        ({**TASK, "errorCode": "421"}, "QUEUED", "421"),
        (task(errorCode="421"), "RUNNING", "421"),
        (task(status="", errorCode="1005"), "QUEUED", "1005"),
        (task(status="FAILED", errorCode="1015"), "FAILED", "1015"),
        ({"code": 0, "data": {"taskId": 2031112223334445057, "taskStatus": "QUEUED"}}, "QUEUED", ""),
        (task(status="SUCCESS", results=[{"text": "Once upon a time", "outputType": "txt"}]), "SUCCESS", ""),
    ],
)
async def test_a_task_id_wins_over_what_is_beside_it(
    answer: dict[str, object], status: str, code: str, http_status: int, wire: WireServer
) -> None:
    """A task that exists is paid for: submitted again, it would be paid for twice."""
    wire.plays(reply(answer, status=http_status), reply(task("2")))
    async with Client(KEY, base_url=wire.url) as client:
        view = await client.submit(MODEL, {})
    assert (view.task_id, view.status, view.code) == (ID, status, code)
    assert [output.text for output in view.outputs] == (["Once upon a time"] if status == "SUCCESS" else [])
    assert len(wire.asked) == 1


async def test_a_refused_connection_was_not_delivered(closed_port: int) -> None:
    async with Client(KEY, base_url=f"http://127.0.0.1:{closed_port}") as client:
        with pytest.raises(ConnectFailed, match="never left this machine: no connection"):
            await client.submit(MODEL, {})


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", None], ids=["no TLS", "silence"])
async def test_a_tls_handshake_that_fails_or_stalls_was_not_delivered(answer: bytes | None) -> None:
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer:
            writer.write(answer)
            writer.close()
        else:
            await reader.read()  # takes the hello, says nothing
            writer.transport.abort()
        gone.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with Client(KEY, base_url=url, submit_timeout=60 if answer else 0.4) as client:
        with pytest.raises(
            ConnectFailed, match="no connection could be opened" if answer else "no connection could be opened in time"
        ):
            await client.submit(MODEL, {})
    await gone.wait()
    server.close()


class Failing(httpx.AsyncBaseTransport):
    """Reports an event of the connection, and then fails; without an error, it takes for ever."""

    def __init__(self, error: Exception | None, *events: tuple[str, bytes | None]) -> None:
        self.error, self.events, self.calls = error, events, 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.calls += 1
        for event, method in self.events:
            about = httpx.Request("POST", request.url)
            about.method = method or about.method  # type: ignore[assignment]  # bytes, as httpcore's requests have it
            await request.extensions["trace"](event, {"request": request if method is None else about})
        if self.error is None:
            await asyncio.sleep(60)
        raise self.error or AssertionError


SENDING = "http11.send_request_headers.started"


@pytest.mark.parametrize(
    ("transport", "expected", "words"),
    [
        (Failing(None, ("connection.connect_tcp.started", None)), ConnectFailed, "no response arrived in time"),
        (
            Failing(httpx.ProxyError("403 Forbidden"), (SENDING, b"CONNECT")),
            ConnectFailed,
            "the proxy refused the connection",
        ),
        (Failing(httpx.ConnectError("after all"), (SENDING, None)), ResponseLost, "may exist and be paid for"),
    ],
    ids=["a deadline while connecting", "a tunnel to a proxy is not the request", "an error after bytes were sent"],
)
async def test_what_was_sent_decides_whether_it_was_delivered(
    transport: Failing, expected: type[Exception], words: str
) -> None:
    limit = 60 if transport.error else 0.1
    async with Client(KEY, base_url="http://rh.example", transport=transport, submit_timeout=limit) as client:
        with pytest.raises(expected, match=words):
            await client.submit(MODEL, {})


class Slept(httpx.AsyncBaseTransport):
    """The system sleeps before a request is sent; timers do not count this time."""

    def __init__(self, *, is_reused: bool) -> None:
        self.seconds = 0.0
        self._is_reused = is_reused

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        trace = request.extensions["trace"]
        if not self._is_reused:
            await trace("connection.connect_tcp.started", {})
        self.seconds = 61.0
        await trace(SENDING, {"request": request})
        raise AssertionError("it was sent")


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="the system does not measure its sleep")
@pytest.mark.parametrize("is_reused", [False, True], ids=["while it connected", "on a kept connection"])
async def test_a_system_that_slept_before_a_request_sends_nothing(
    monkeypatch: pytest.MonkeyPatch, is_reused: bool
) -> None:
    """Another process may have recorded the submission as unknown by then."""
    clock, transport = time.clock_gettime, Slept(is_reused=is_reused)
    monkeypatch.setattr(time, "clock_gettime", lambda which: clock(which) + transport.seconds)
    async with Client(KEY, base_url="http://rh.example", transport=transport, submit_timeout=60) as client:
        with pytest.raises(ConnectFailed, match="the system was asleep"):
            await client.submit(MODEL, {})


NOT_DELIVERED = (
    *(httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError),
    *(httpx.UnsupportedProtocol, httpx.InvalidURL),
)
UNKNOWN = (
    *(httpx.WriteError, httpx.WriteTimeout, httpx.ReadError, httpx.ReadTimeout, httpx.CloseError),
    *(httpx.RemoteProtocolError, httpx.LocalProtocolError, httpx.TooManyRedirects, httpx.DecodingError, OSError),
)
RAISED: list[tuple[Exception, type[Exception]]] = [
    *((kind("x"), ConnectFailed) for kind in NOT_DELIVERED),
    *((kind("x"), ResponseLost) for kind in UNKNOWN),
    (httpx.StreamClosed(), ResponseLost),
]


@pytest.mark.parametrize(("raised", "expected"), RAISED, ids=lambda each: getattr(each, "__name__", repr(each)))
async def test_every_exception_of_a_transport_has_its_meaning(raised: Exception, expected: type[Exception]) -> None:
    broken = Failing(raised)
    async with Client(KEY, base_url="http://rh.example", transport=broken) as client:
        with pytest.raises(expected) as caught:
            await client.submit(MODEL, {})
    assert broken.calls == 1
    assert caught.value.__cause__ is raised


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
    with pytest.raises(InputError, match="is not a valid endpoint") as caught:
        await client.submit(endpoint, {})
    assert "v1" not in caught.value.message
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
    [
        *("HTTPS://WWW.RunningHub.CN/", "http://emulator_1:8190", "http://localhost", "http://[FE80::1%eth0]:80/rh/"),
        *(
            "https://a.example./@team",
            "https://bücher.example",
            "https://भारत.example",
            "https://xn--bcher-kva.example",
        ),
    ],
)
def test_a_plan_and_a_run_have_the_same_site(url: str) -> None:
    """A plan without an account finds the results of a run by their requests, which contain the site."""
    block = RunningHubCredentials(api_key=KEY, base_url=url)
    assert block.get_client().site == Client(KEY, base_url=url).site == site_of(url)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "www.runninghub.cn",
            "ftp://x.example",
            "http://",
            "https://a:b@x.example",
            "http://x/?k=1",
            "http://[::1",
        ),
        *(
            "https://my host",
            "https://<your-host>",
            "https://a.example:abc",
            "https://a.example:99999",
            "https://:80",
            "https://a..example",
            "http://192.168.0.256:8190",
            "https://☃.net",
            "https://x/\x00",
        ),
    ],
)
def test_a_base_url_that_is_none_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigError, match=r"the site must be a URL .* What to do: set RH_BASE_URL") as caught:
        Client(KEY, base_url=url)
    assert "a:b" not in caught.value.message
    with pytest.raises(ValidationError, match="the site must be a URL"):
        RunningHubCredentials(api_key=KEY, base_url=url)
    with pytest.raises(ConfigError, match="the site must be a URL"):
        site_of(url)


@pytest.mark.parametrize("key", ["", "  ", "two words", f"{KEY}\r\nX-Evil: 1", "schlüssel"])
def test_a_key_that_is_none_is_refused_without_telling_it(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Client(key)
    assert not key.strip() or key not in str(caught.value)


V1 = ["/task/openapi/create", "/task/openapi/ai-app/run", "/task/openapi/quick-ai-app/run"]
TICKET = "dGlja2V0LW9mLXRoZS1hY2NvdW50"
PROGRESS = f"wss://www.runninghub.cn:443/ws/c_instance?c_host=10.0.0.7&clientId=5f0c&Rh-Comfy-Auth={TICKET}%3D"
FINE: dict[str, object] = {"result": True, "error": None, "outputs_to_execute": ["9"], "node_errors": {}}


def created(**more: object) -> Step:
    return said({"netWssUrl": PROGRESS, "taskId": ID, "taskStatus": "RUNNING", "promptTips": json.dumps(FINE), **more})


@pytest.mark.parametrize("path", V1)
async def test_the_key_is_in_the_header_and_in_the_body_of_v1(path: str, client: Client, wire: WireServer) -> None:
    """The account pays whatever key a payload names."""
    wire.plays(created())
    view = await client.submit(path, {"workflowId": "7", "apiKey": "another"}, webhook_url="https://h.example/t")
    [asked] = wire.asked
    assert (asked.method, asked.path) == ("POST", path)
    assert asked.json == {"workflowId": "7", "webhookUrl": "https://h.example/t", "apiKey": KEY}
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert (view.task_id, view.status, view.node_errors) == (ID, "RUNNING", {})


async def test_the_progress_address_is_kept_as_a_secret(
    client: Client, wire: WireServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wire.plays(created())
    view = await client.submit(V1[0], {})
    assert view.progress_url is not None
    assert view.progress_url.get_secret_value() == PROGRESS
    told = repr(view) + str(view) + view.model_dump_json() + repr(view.model_dump()) + caplog.text
    assert TICKET not in told
    assert TaskView.model_validate_json(view.model_dump_json()).progress_url is None
    assert pickle.loads(pickle.dumps(view)) == view


@pytest.mark.parametrize("url", [None, "", "https://x.example/ws", 7, {"a": 1}, "null"])
async def test_what_is_no_progress_address_is_none(url: object, client: Client, wire: WireServer) -> None:
    wire.plays(created(netWssUrl=url, taskStatus="QUEUED"))
    view = await client.submit(V1[0], {})
    assert (view.progress_url, view.status) == (None, "QUEUED")


BAD_NODE = {"errors": [{"message": "bad", "details": "x"}], "class_type": "KSampler"}
TIPS: list[tuple[object, dict[str, str]]] = [
    (None, {}),
    ("", {}),
    (json.dumps(FINE), {}),
    (FINE, {}),
    (json.dumps(json.dumps(FINE)), {}),
    ("not JSON, though it says node_errors", {}),
    (json.dumps({**FINE, "node_errors": {"3": BAD_NODE}}), {"3": "KSampler: bad: x"}),
    (json.dumps({**FINE, "node_errors": json.dumps({"3": "bad"})}), {"3": "bad"}),
    (json.dumps({**FINE, "result": False}), {"": "the graph is not valid"}),
    (json.dumps({**FINE, "result": False, "error": {"type": "no_prompt"}}), {"": '{"type": "no_prompt"}'}),
    (json.dumps({**FINE, "result": False, "error": "no outputs"}), {"": "no outputs"}),
]


@pytest.mark.parametrize(("tips", "errors"), TIPS)
def test_what_comfyui_says_of_the_graph(tips: object, errors: dict[str, str]) -> None:
    assert read_node_errors(tips) == errors


@pytest.mark.parametrize(
    "path", ["/task/openapi/cancel", "/task/openapi/creates", "task/openapi/create", "/task/openapi/create/"]
)
async def test_no_other_v1_path_is_posted_to_as_a_submit(path: str, client: Client, wire: WireServer) -> None:
    with pytest.raises(InputError, match="/task/openapi/quick-ai-app/run"):
        await client.submit(path, {})
    assert wire.asked == []

"""Everything that costs nothing: queries, the account, prices, cancel; they may be resent."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import logging
import tracemalloc
from collections.abc import Awaitable, Callable
from decimal import Decimal

import httpx
import pytest

from rh_prefect.client import Client, RemoteOutput, TaskView
from rh_prefect.client.wire.task import read_failure, read_outputs
from rh_prefect.errors import (
    Busy,
    InputError,
    KeyRejected,
    OutcomeUnknown,
    PriceUnknown,
    RequestRejected,
    ResponseLost,
    RunningHubError,
    TaskNotFound,
    TransportError,
)
from tests.client.conftest import KEY
from tests.support.servers.scripted_server import (
    Body,
    Step,
    WireServer,
    cut,
    raw,
    reply,
    reply_then_close,
    said,
    slow,
    stall,
    task,
)

ID = "2031112223334445057"


async def query(client: Client, wire: WireServer, answer: Body | Step) -> TaskView:
    wire.plays(answer if callable(answer) else reply(answer))
    return await client.query(ID)


async def test_a_finished_task_is_read_completely(client: Client, wire: WireServer) -> None:
    url = "https://img.example.net/a_1.PNG?x=1"
    usage = {"consumeMoney": "0.5", "consumeCoins": None, "taskCostTime": "121", "thirdPartyConsumeMoney": "0.14"}
    answer = task(
        status="SUCCESS",
        results=[{"url": url, "nodeId": "117", "outputType": "png", "text": None}],
        usage=usage,
        taskUsageList=[{"taskId": 2031112223334445057, "usage": {}}],
    )
    view = await query(client, wire, answer)
    assert view.outputs == (RemoteOutput(url=url, type="png", node_id="117"),)
    assert (view.usage.total, view.usage.seconds) == (Decimal("0.64"), 121.0)
    assert (view.cost, view.unit) == (Decimal("0.64"), "money")
    assert TaskView.model_validate_json(view.model_dump_json()) == view


@pytest.mark.parametrize(
    ("word", "status"),
    [
        *[(word, "QUEUED") for word in ("CREATE", "queued")],
        *[(word, word.upper()) for word in ("Running", "SUCCESS", "FAILED")],
        *[(word, "CANCELLED") for word in ("CANCEL", "CANCELED", "CANCELLED")],
    ],
)
async def test_every_status_reads_as_one_of_the_closed_set(
    word: str, status: str, client: Client, wire: WireServer
) -> None:
    assert (await query(client, wire, task(status=word))).status == status
    for data in (word, {"taskStatus": word}):
        wire.plays(said(data))
        assert (await client.workflows.status_v1(ID)).status == status


async def test_an_unknown_status_is_running_and_said_once(
    client: Client, wire: WireServer, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        assert (await query(client, wire, task(status="PAUSED_FOR_TEA"))).status == "RUNNING"
    assert sum("PAUSED_FOR_TEA" in line for line in caplog.messages) == 1


async def test_a_failed_task_is_no_exception(client: Client, wire: WireServer) -> None:
    reason = {
        "node_id": 3,
        "node_name": "KSampler",
        "exception_type": "TypeError",
        "exception_message": "missing argument\n 'vae'",
        "traceback": '["  File \\"execution.py\\", line 10\\n", "    raise\\n"]',
        "current_inputs": "{}",
    }
    view = await query(client, wire, task(status="FAILED", errorCode="805", errorMessage="failed", failedReason=reason))
    assert (view.status, view.code, view.reason) == ("FAILED", "805", "failed")
    assert str(view.failure) == "node 3 (KSampler): TypeError: missing argument 'vae'"
    assert view.failure is not None
    assert view.failure.traceback == ('  File "execution.py", line 10', "    raise")


REASONS: list[tuple[object, str | None]] = [
    ({}, None),
    (None, None),
    ("", None),
    ("{}", None),
    ("out of memory", "out of memory"),
    ('{"node_id": "7", "exception_message": "boom"}', "node 7: boom"),
    ({"why": "odd"}, '{"why": "odd"}'),
    ([], None),
    (["a"], '["a"]'),
    ({"node_name": "Save", "traceback": "plain\ntext"}, "node (Save)"),
]


@pytest.mark.parametrize(("reason", "line"), REASONS)
def test_a_failed_reason_in_every_form(reason: object, line: str | None) -> None:
    failure = read_failure(reason)
    assert (failure and str(failure)) == line


OUTPUTS: list[tuple[object, list[tuple[str | None, str | None, str | None]]]] = [
    (None, []),
    ([], []),
    ([{"url": "https://h/a.mp4"}], [("https://h/a.mp4", None, "mp4")]),
    ([{"url": "", "outputUrl": "https://h/a", "outputType": ".MP4"}], [("https://h/a", None, "mp4")]),
    ([{"fileUrl": "https://h/a.wav", "fileType": "wav"}], [("https://h/a.wav", None, "wav")]),
    ([{"url": None, "text": "hello", "outputType": "txt"}], [(None, "hello", "txt")]),
    ([{"text": '{"a": 1.10}'}], [(None, '{"a": 1.10}', None)]),
    ([{"content": "hello"}], [(None, "hello", None)]),
    ([{"url": None, "text": "https://h/a.png"}], [(None, "https://h/a.png", None)]),
    ([{"content": "http://127.0.0.1/secret"}], [(None, "http://127.0.0.1/secret", None)]),
    ([{"output": "https://h/a.png"}], [("https://h/a.png", None, "png")]),
    ([{"output": "https://h/a.png is the picture"}], [(None, "https://h/a.png is the picture", None)]),
    ([{"output": {"score": 1}}], [(None, '{"score": 1}', None)]),
    (
        [{"outputUrl": ["https://h/1.png", "https://h/2.png"]}],
        [("https://h/1.png", None, "png"), ("https://h/2.png", None, "png")],
    ),
    ([{"url": "https://h/a.mp4", "text": "a cat"}], [("https://h/a.mp4", None, "mp4"), (None, "a cat", None)]),
    (["https://h/a.glb", "words"], [("https://h/a.glb", None, "glb"), (None, "words", None)]),
    ({"url": "https://h/a.mp4"}, [("https://h/a.mp4", None, "mp4")]),
    ([{"url": None, "text": None}, None, 7, True], [(None, "7", None)]),
    ([{"url": "http://[bad"}], [("http://[bad", None, None)]),
]


@pytest.mark.parametrize(
    ("url", "usable"),
    [
        ("https://h/a b.png", True),
        ("data:image/png;base64,iVBORw0K", True),
        (" ", False),
        ("/files/a.png", False),
        ("files/a.png", False),
        ("http://[::1", False),
        ("https:///a.png", False),
        ("data:image/png", False),
    ],
)
def test_what_stands_under_a_url_key_is_never_a_text(url: str, usable: bool) -> None:
    """A blank, relative or malformed link is an output that cannot be fetched, not a text."""
    (output,) = read_outputs([{"url": url, "outputType": "png"}])
    assert (output.url, output.text, output.type) == (url.strip(), None, "png")
    assert output.is_usable is usable


@pytest.mark.parametrize(("results", "expected"), OUTPUTS)
def test_results_in_every_form(results: object, expected: list[tuple[str | None, str | None, str | None]]) -> None:
    assert [(out.url, out.text, out.type) for out in read_outputs(results)] == expected


USAGES: list[tuple[object, Decimal | None, str | None]] = [
    (None, None, None),
    ({}, None, None),
    ("nothing", None, None),
    ({"consumeCoins": "25", "taskCostTime": "121"}, Decimal(25), "coins"),
    ({"consumeMoney": 0.1, "thirdPartyConsumeMoney": "0.2"}, Decimal("0.3"), "money"),
    ({"consumeMoney": "", "thirdPartyConsumeMoney": " 0.14 "}, Decimal("0.14"), "money"),
    ({"consumeMoney": "n/a", "consumeCoins": None}, None, None),
    ({"consumeMoney": "1e999999999", "consumeCoins": "NaN"}, None, None),
]


@pytest.mark.parametrize(("usage", "cost", "unit"), USAGES)
async def test_usage_in_every_form(
    usage: object, cost: Decimal | None, unit: str | None, client: Client, wire: WireServer
) -> None:
    view = await query(client, wire, task(usage=usage))
    assert (view.cost, view.unit) == (cost, unit)


@pytest.mark.parametrize("field", ["consumeMoney", "thirdPartyConsumeMoney", "consumeCoins"])
async def test_a_negative_cost_is_not_known_and_logged(
    field: str, client: Client, wire: WireServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A negative cost would lower what a run is said to have spent."""
    view = await query(client, wire, task(usage={field: "-0.50"}))
    assert (view.cost, view.unit) == (None, None)
    assert f"negative {field} for a task (-0.50)" in caplog.text


ERRORS: list[tuple[object, type[RunningHubError]]] = [
    ({**task("", ""), "errorCode": "1004", "errorMessage": "task not found"}, TaskNotFound),
    ({**task(ID, ""), "errorCode": "1004"}, TaskNotFound),
    ({"code": 807, "msg": "APIKEY_TASK_NOT_FOUND", "data": None}, TaskNotFound),
    ({"errorCode": "1003", "errorMessage": "rate"}, Busy),
    ({"code": 412, "msg": "TOKEN_INVALID"}, KeyRejected),
    ({"errorCode": "1005"}, OutcomeUnknown),
    ({"errorCode": "77777"}, RunningHubError),
    ({}, ResponseLost),
    ({"taskId": ID, "status": ""}, ResponseLost),
    ({"taskId": ID, "status": None}, ResponseLost),
    (task("2031112223334445058"), ResponseLost),
    ("<html>", ResponseLost),
    ("", ResponseLost),
]


@pytest.mark.parametrize(("answer", "error"), ERRORS)
async def test_a_query_without_a_state_raises(
    answer: Body | Step, error: type[RunningHubError], client: Client, wire: WireServer
) -> None:
    with pytest.raises(error, match=f"query of task {ID}"):
        await query(client, wire, answer)


async def test_states_that_come_as_v1_codes_are_states(client: Client, wire: WireServer) -> None:
    queued = await query(client, wire, {"code": 813, "msg": "APIKEY_TASK_IS_QUEUED", "data": None})
    running = await query(client, wire, {"errorCode": "804", "errorMessage": "APIKEY_TASK_IS_RUNNING"})
    data = {"failedReason": {"node_id": "3", "exception_message": "boom"}}
    failed = await query(client, wire, {"code": 805, "msg": "APIKEY_TASK_STATUS_ERROR", "data": data})
    assert [view.status for view in (queued, running, failed)] == ["QUEUED", "RUNNING", "FAILED"]
    assert (failed.code, str(failed.failure), failed.task_id) == ("805", "node 3: boom", ID)


BLIPS: dict[str, Step] = {
    "cut": cut(),
    "no HTTP": raw(b"nonsense\r\n\r\n"),
    "429": reply("slow down", status=429, headers={"Retry-After": "0"}),
    "500": reply("", status=500),
    "502": reply("<html>", status=502),
    "503": reply({"code": 1010}, status=503),
    "504": reply("", status=504),
}


@pytest.mark.parametrize("kind", BLIPS)
async def test_a_read_is_sent_again_after_a_blip(kind: str, client: Client, wire: WireServer) -> None:
    wire.plays(BLIPS[kind])
    assert (await query(client, wire, task())).status == "RUNNING"
    assert len(wire.asked) == 2


async def test_a_kept_connection_that_was_closed_does_no_harm(client: Client, wire: WireServer) -> None:
    wire.plays(reply_then_close(task()))
    assert (await query(client, wire, task())).status == "RUNNING"
    assert (await client.query(ID)).status == "RUNNING"


async def test_an_invalid_id_is_not_sent(client: Client, wire: WireServer) -> None:
    for call in (client.query, client.cancel):
        for task_id in ("", "a b", "../x"):
            with pytest.raises(InputError, match=r"is not a valid id for a task\. Nothing was sent"):
                await call(task_id)
    assert wire.asked == []


async def test_after_three_blips_a_read_gives_up(client: Client, wire: WireServer) -> None:
    wire.always = reply("<html>502</html>", status=502)
    with pytest.raises(ResponseLost, match=r"HTTP 502.*Nothing is lost"):
        await client.query(ID)
    assert len(wire.asked) == 3


@pytest.mark.long
async def test_a_response_above_64_mib_is_not_read_to_its_end(client: Client, wire: WireServer) -> None:
    """It was held in memory several times, of any size."""
    wire.always = reply(json.dumps(task()).encode() + b" " * (64 << 20))
    for call in (client.query(ID), client.submit("kling-v2.6-pro/text-to-video", {})):
        with pytest.raises(ResponseLost, match="more than 64 MiB"):
            await call


@pytest.mark.long
async def test_a_compressed_response_is_decompressed_only_up_to_the_limit(client: Client, wire: WireServer) -> None:
    wire.always = reply(gzip.compress(b" " * (256 << 20)), headers={"Content-Encoding": "gzip"})
    tracemalloc.start()
    try:
        with pytest.raises(ResponseLost, match="more than 64 MiB"):
            await client.query(ID)
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("status", [301, 400, 404])
async def test_a_call_at_a_wrong_address_names_the_base_url(client: Client, wire: WireServer, status: int) -> None:
    words = rf"the request was rejected \(HTTP {status}.*Nothing is lost\. What to do: .*base URL"
    with pytest.raises(ResponseLost, match=words):
        await query(client, wire, reply("<html>not here</html>", status=status))


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ({"code": 301, "msg": "PARAMS_INVALID"}, RequestRejected, "301"),
        ({"errorCode": ""}, PriceUnknown, "the response has no price"),
        ({"errorCode": "1501", "errorMessage": "PRICE_CONFIG_NOT_FOUND"}, PriceUnknown, "RunningHub has no price"),
        (
            {"errorCode": "1501", "errorMessage": "PRICE_CONFIG_NOT_FOUND", "isFreeThisCall": True},
            PriceUnknown,
            "no price",
        ),
        ({"code": 1501, "msg": "PRICE_CONFIG_NOT_FOUND", "data": None}, PriceUnknown, "no price"),
        ({"errorCode": "", "estimatedPrice": 0, "currency": "CNY", "isFreeThisCall": False}, PriceUnknown, "no price"),
    ],
)
async def test_a_preview_without_a_price_is_neither_moderation_nor_free(
    answer: Body, error: type[RunningHubError], words: str, client: Client, wire: WireServer
) -> None:
    wire.plays(reply(answer), reply({"errorCode": "", "isFreeThisCall": True}))
    with pytest.raises(error, match=words):
        await client.price_preview("a/b", {})
    assert (await client.price_preview("a/b", {})).free


async def test_a_code_of_v1_is_an_error_of_the_account_or_the_task(client: Client, wire: WireServer) -> None:
    wire.plays(reply({"code": 1601, "msg": "param apiKey is required"}))
    with pytest.raises(KeyRejected):
        await client.account()
    wire.plays(reply("", status=502), reply({"code": 423, "msg": "TASK_NOT_FOUNED", "data": None}))
    with pytest.raises(TaskNotFound):
        await client.cancel(ID)
    assert len(wire.asked) == 3


READS: dict[str, Callable[[Client], Awaitable[object]]] = {
    "queue status": lambda client: client.queue_status(),
    "account status": lambda client: client.account(),
    "price preview of a/b": lambda client: client.price_preview("a/b", {}),
    f"query of task {ID}": lambda client: client.query(ID),
    f"graph of workflow {ID}": lambda client: client.workflows.json(ID),
    f"call example of app {ID}": lambda client: client.apps.demo(ID),
    "page 1 of the app list": lambda client: client.apps.list(),
    f"quick-create styles of {ID}": lambda client: client.quick_create.params(ID),
    "list of API keys": lambda client: client.platform.api_keys(),
    "page 1 of the UNET resources": lambda client: client.platform.resources("UNET"),
    f"webhook of task {ID}": lambda client: client.webhooks.detail(ID),
    "page 1 of the assets": lambda client: client.assets.list(),
    "page 1 of the asset groups": lambda client: client.assets.groups.list(),
}
"""Calls that only read, by the words that begin their errors."""


@pytest.mark.parametrize("doing", READS)
async def test_a_read_without_data_is_no_answer_and_a_code_is_an_error(
    doing: str, client: Client, wire: WireServer
) -> None:
    answers: list[tuple[Body, type[RunningHubError]]] = [
        ({"code": 301, "msg": "no such thing"}, RequestRejected),
        ({"code": 412, "msg": "TOKEN_INVALID"}, KeyRejected),
        ({"errorCode": "1003", "errorMessage": "rate"}, Busy),
        ("<html>", ResponseLost),
    ]
    wrong: tuple[object, ...] = (None, 7, "x", {})
    answers += [({"code": 0, "msg": "", "data": data}, TransportError) for data in wrong]
    for answer, error in answers:
        wire.plays(reply(answer))
        with pytest.raises(error, match=doing):
            await READS[doing](client)


async def test_at_most_sixteen_calls_are_in_flight_and_submits_do_not_wait_for_them(
    client: Client, wire: WireServer
) -> None:
    gate = asyncio.Event()
    wire.always = slow(gate, reply(task()))
    polls = [asyncio.create_task(client.query(ID)) for _ in range(60)]
    await wire.holds(16)
    submit = asyncio.create_task(client.submit("a/b", {}))
    await wire.holds(17)
    gate.set()
    await asyncio.gather(submit, *polls)
    assert wire.most_in_flight == 17


async def test_a_stalled_call_ends_by_itself_when_cancelled(client: Client, wire: WireServer) -> None:
    wire.plays(stall())
    asked = asyncio.create_task(client.query(ID))
    await wire.holds(1)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert (await query(client, wire, task())).status == "RUNNING"


async def test_the_key_is_seen_nowhere(client: Client, wire: WireServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    seen = [repr(client), str(client), repr(vars(client))]
    assert "127.0.0.1" in repr(client)
    echo = f"ApiKey verification failed: {KEY}; Bearer abcdefghijklmnop; https://x/proxy/0123456789abcdef/view?"
    for answer in (
        {"code": 401, "message": echo},
        task(errorCode="1015", status="FAILED", errorMessage=echo, failedReason=echo, results=[{"text": KEY}]),
        f"<html>{KEY}</html>",
    ):
        for call in (client.query(ID), client.submit("a/b", {}), client.account(), client.cancel(ID)):
            wire.plays(reply(answer, status=200))
            try:
                seen.append(repr(await call))
            except RunningHubError as error:
                seen += [str(error), repr(error), repr(vars(error))]
    told = "\n".join([*seen, caplog.text])
    assert "HTTP Request: POST" in told
    assert KEY not in told
    assert "abcdefghijklmnop" not in told
    assert "0123456789abcdef/view" not in told


async def test_the_seam_is_the_transport() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=task(status="SUCCESS"))

    async with Client(KEY, transport=httpx.MockTransport(answer)) as client:
        assert (await client.query(ID)).status == "SUCCESS"
        assert client.site == "www.runninghub.cn"
        assert client.account_id == hashlib.sha256(KEY.encode()).hexdigest()[:12]

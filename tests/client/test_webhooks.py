"""What webhooks bring, and what became of them."""

from __future__ import annotations

import json
import logging
from decimal import Decimal

import pytest

from rh_prefect.client import Client, RemoteOutput, TaskView, read_delivery
from rh_prefect.errors import RequestRejected, ResponseLost
from tests.client.conftest import KEY
from tests.support.servers.scripted_server import WireServer, cut, reply, said, task

ID = "2031112223334445057"
EVENT = "2031112223334445099"
V1 = {
    "code": 0,
    "msg": "success",
    "data": [{"fileUrl": "https://img.example.net/x.png", "fileType": "png", "taskCostTime": 78, "nodeId": "9"}],
}
V1_OUTPUT = RemoteOutput(url="https://img.example.net/x.png", type="png", node_id="9")
V2 = task(
    status="SUCCESS",
    results=[{"url": "https://img.example.net/y.jpg", "outputType": "jpg", "text": None}],
    usage={"thirdPartyConsumeMoney": "0.14", "taskCostTime": "0"},
    taskUsageList=[{"taskId": 2031112223334445057, "parentTaskId": None, "taskStatus": "SUCCESS", "usage": {}}],
)


def posted(data: object, **more: object) -> bytes:
    return json.dumps({"event": "TASK_END", "taskId": ID, "eventData": data, **more}).encode()


def view_of(body: bytes | str, *, event: str = "TASK_END") -> TaskView:
    """The state of the task that a delivery brings."""
    delivery = read_delivery(body)
    assert delivery is not None
    assert (delivery.task_id, delivery.event) == (ID, event)
    assert delivery.view is not None
    return delivery.view


@pytest.mark.parametrize("data", [V1, json.dumps(V1), json.dumps(json.dumps(V1))])
def test_a_delivery_of_v1(data: object) -> None:
    view = view_of(posted(data))
    assert (view.status, view.outputs, view.usage.seconds) == ("SUCCESS", (V1_OUTPUT,), 78.0)


@pytest.mark.parametrize(
    ("body", "event"),
    [(posted(V2), "TASK_END"), (posted(json.dumps(V2)), "TASK_END"), (json.dumps(V2), "")],
    ids=["object", "text", "a bare task"],
)
def test_a_delivery_of_v2(body: bytes | str, event: str) -> None:
    view = view_of(body, event=event)
    assert (view.status, view.cost) == ("SUCCESS", Decimal("0.14"))
    assert view.outputs[0].url == "https://img.example.net/y.jpg"


def test_a_failure_is_a_state() -> None:
    v1 = {"code": 805, "msg": "APIKEY_TASK_STATUS_ERROR", "data": {"failedReason": {"node_id": "3"}}}
    v2 = task(status="FAILED", errorCode="1015", errorMessage="no")
    views = [view_of(posted(data)) for data in (v1, v2)]
    assert [(view.status, view.code) for view in views] == [("FAILED", "805"), ("FAILED", "1015")]


@pytest.mark.parametrize("data", [None, "", "?", 7, [], {}, {"code": 999, "data": []}, task("2031112223334445058")])
def test_a_delivery_may_say_nothing_readable(data: object) -> None:
    delivery = read_delivery(posted(data))
    assert delivery is not None
    assert (delivery.task_id, delivery.view) == (ID, None)


BAD: list[bytes | str] = [
    *(b"", b"\xff\xfe", "<html>", "[]", "null", "{}", b"[" * 100_000),
    *(posted(V1, taskId=wrong) for wrong in ("", None, "../../etc", "1 OR 1", "²", -5, 1.5)),
]


@pytest.mark.parametrize("body", BAD)
def test_what_names_no_task_is_no_delivery(body: bytes | str) -> None:
    assert read_delivery(body) is None


DETAIL = {
    "id": EVENT,
    "userApiKey": "******************",
    "taskId": ID,
    "webhookUrl": "https://hooks.example.net/rh/unguessable",
    "event": "TASK_END",
    "eventData": json.dumps(V1),
    "callbackStatus": "FAILED",
    "callbackResponse": "I/O error on POST request for https://hooks.example.net/rh/unguessable",
    "retryCount": 3,
    "createTime": "2026-03-25T16:05:07",
    "updateTime": [2026, 3, 25],
}


async def test_detail(client: Client, wire: WireServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    wire.plays(cut(), said(DETAIL))
    event = await client.webhooks.detail(ID)
    assert wire.asked[1].path == "/task/openapi/getWebhookDetail"
    assert wire.asked[1].json == {"apiKey": KEY, "taskId": ID}
    assert (event.event_id, event.task_id, event.status, event.retries) == (EVENT, ID, "FAILED", 3)
    assert event.url == "https://hooks.example.net/rh/unguessable"
    assert event.response.startswith("I/O error")
    assert (event.created_at, event.updated_at) == ("2026-03-25T16:05:07", "2026-3-25")
    assert event.view is not None
    assert event.view.status == "SUCCESS"
    assert "unguessable" not in repr(event) + caplog.text
    assert type(event).model_validate_json(event.model_dump_json()) == event


async def test_what_is_no_event_is_an_error(client: Client, wire: WireServer) -> None:
    wire.plays(said({"taskId": ID}), reply({"code": 301, "msg": "PARAMS_INVALID", "data": None}))
    with pytest.raises(ResponseLost, match=f"webhook of task {ID}"):
        await client.webhooks.detail(ID)
    with pytest.raises(RequestRejected, match=f"resend of webhook event {EVENT}"):
        await client.webhooks.resend(EVENT)

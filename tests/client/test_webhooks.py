"""What webhooks bring, and what became of them."""

from __future__ import annotations

import json
import logging
from decimal import Decimal

import pytest

from rh_prefect.client import Client, RemoteOutput, read_delivery
from rh_prefect.errors import RequestRejected, ResponseLost
from tests.client.conftest import KEY
from tests.support.servers.scripted_server import WireServer, cut, reply, task

ID = "2031112223334445057"
EVENT = "2031112223334445099"
V1 = {
    "code": 0,
    "msg": "success",
    "data": [{"fileUrl": "https://img.example.net/x.png", "fileType": "png", "taskCostTime": 78, "nodeId": "9"}],
}
V2 = task(
    status="SUCCESS",
    results=[{"url": "https://img.example.net/y.jpg", "outputType": "jpg", "text": None}],
    usage={"thirdPartyConsumeMoney": "0.14", "taskCostTime": "0"},
    taskUsageList=[{"taskId": 2031112223334445057, "parentTaskId": None, "taskStatus": "SUCCESS", "usage": {}}],
)
FAILED = {"code": 805, "msg": "APIKEY_TASK_STATUS_ERROR", "data": {"failedReason": {"node_id": "3"}}}


def posted(data: object, **more: object) -> bytes:
    return json.dumps({"event": "TASK_END", "taskId": ID, "eventData": data, **more}).encode()


@pytest.mark.parametrize("data", [V1, json.dumps(V1), json.dumps(json.dumps(V1))])
def test_a_delivery_of_v1(data: object) -> None:
    delivery = read_delivery(posted(data))
    assert delivery is not None
    assert (delivery.task_id, delivery.event) == (ID, "TASK_END")
    assert delivery.view is not None
    assert delivery.view.outputs == (RemoteOutput(url="https://img.example.net/x.png", type="png", node_id="9"),)
    assert (delivery.view.status, delivery.view.usage.seconds) == ("SUCCESS", 78.0)


@pytest.mark.parametrize("data", [V2, json.dumps(V2)])
def test_a_delivery_of_v2(data: object) -> None:
    delivery = read_delivery(posted(data))
    assert delivery is not None
    assert delivery.view is not None
    assert (delivery.view.status, delivery.view.cost) == ("SUCCESS", Decimal("0.14"))
    assert delivery.view.outputs[0].url == "https://img.example.net/y.jpg"


def test_a_bare_task_is_a_delivery_too() -> None:
    delivery = read_delivery(json.dumps(V2))
    assert delivery is not None
    assert delivery.view is not None
    assert (delivery.task_id, delivery.event, delivery.view.status) == (ID, "", "SUCCESS")


FAILURES = [(FAILED, "805"), (task(status="FAILED", errorCode="1015", errorMessage="no"), "1015")]


@pytest.mark.parametrize(("data", "code"), FAILURES)
def test_a_failure_is_a_state(data: object, code: str) -> None:
    delivery = read_delivery(posted(data))
    assert delivery is not None
    assert delivery.view is not None
    assert (delivery.view.status, delivery.view.code) == ("FAILED", code)


@pytest.mark.parametrize("data", [None, "", "?", 7, [], {}, {"code": 999, "data": []}, task("2031112223334445058")])
def test_a_delivery_may_say_nothing_readable(data: object) -> None:
    delivery = read_delivery(posted(data))
    assert delivery is not None
    assert (delivery.task_id, delivery.view) == (ID, None)


BAD: list[bytes | str] = [
    b"",
    b"\xff\xfe",
    "<html>",
    "[]",
    "null",
    "{}",
    posted(V1, taskId=""),
    posted(V1, taskId=None),
    posted(V1, taskId="../../etc"),
    posted(V1, taskId="1 OR 1"),
    posted(V1, taskId="²"),
    posted(V1, taskId=-5),
    posted(V1, taskId=1.5),
    b"[" * 100_000,
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
    wire.plays(cut(), reply({"code": 0, "msg": "success", "data": DETAIL}))
    event = await client.webhooks.detail(ID)
    assert (wire.asked[1].path, wire.asked[1].json) == (
        "/task/openapi/getWebhookDetail",
        {"apiKey": KEY, "taskId": ID},
    )
    assert (event.event_id, event.task_id, event.status, event.retries) == (EVENT, ID, "FAILED", 3)
    assert event.url == "https://hooks.example.net/rh/unguessable"
    assert event.response.startswith("I/O error")
    assert (event.created_at, event.updated_at) == ("2026-03-25T16:05:07", "2026-3-25")
    assert event.view is not None
    assert event.view.status == "SUCCESS"
    assert "unguessable" not in repr(event) + caplog.text
    assert type(event).model_validate_json(event.model_dump_json()) == event


async def test_a_detail_without_an_event_is_no_answer(client: Client, wire: WireServer) -> None:
    wire.plays(reply({"code": 0, "msg": "success", "data": {"taskId": ID}}))
    with pytest.raises(ResponseLost, match=f"webhook of task {ID}"):
        await client.webhooks.detail(ID)


async def test_resend(client: Client, wire: WireServer) -> None:
    wire.always = reply({"code": 0, "msg": "", "data": None})
    await client.webhooks.resend(EVENT)
    await client.webhooks.resend(EVENT, url="https://h.example/t")
    assert wire.paths == ["/task/openapi/retryWebhook"] * 2
    assert [asked.json for asked in wire.asked] == [
        {"webhookId": EVENT, "apiKey": KEY},
        {"webhookId": EVENT, "webhookUrl": "https://h.example/t", "apiKey": KEY},
    ]
    wire.plays(reply({"code": 301, "msg": "PARAMS_INVALID", "data": None}))
    with pytest.raises(RequestRejected, match=f"resend of webhook event {EVENT}"):
        await client.webhooks.resend(EVENT)

"""Webhooks: what is delivered, retries, detail and resend, and everything that can go wrong."""

from __future__ import annotations

import json
import time

import pytest

from rh_prefect.emulator import Fault
from rh_prefect.emulator.faults import Kind
from rh_prefect.errors import InputError
from tests.emulator.conftest import Emulate
from tests.support.servers.caller import WORDS, Caller, Json
from tests.support.servers.receiver import Receiver


def delivered(rh: Caller, count: int = 1) -> bool:
    return rh.rh.recorder.wait(lambda recorder: len(recorder.deliveries) >= count)


def test_v1_data_is_text_with_seconds_as_a_number(rh: Caller, receiver: Receiver) -> None:
    task_id = rh.started(webhookUrl=receiver.url)
    assert delivered(rh)
    (body,) = receiver.got
    assert (body["event"], body["taskId"]) == ("TASK_END", task_id)
    told = json.loads(body["eventData"])
    assert (told["code"], told["msg"]) == (0, "success")
    assert told["data"][0]["taskCostTime"] > 0
    assert told["data"][0]["fileUrl"] == rh.outputs(task_id)["data"][0]["fileUrl"]


def test_v2_and_models_send_the_task_object(rh: Caller, receiver: Receiver) -> None:
    task_id = rh.submit(body={**WORDS, "webhookUrl": receiver.url})["taskId"]
    assert delivered(rh)
    assert receiver.got[0]["eventData"] == rh.query(task_id)


def test_nothing_is_told_before_the_end_or_after_a_cancel(emulate: Emulate, receiver: Receiver) -> None:
    rh = emulate(clock="polls", polls=3)
    first, second = rh.started(webhookUrl=receiver.url), rh.started(webhookUrl=receiver.url)
    rh.query(first)
    assert rh.event(first)["code"] == 1
    rh.cancel(second)
    rh.query(first), rh.query(first)
    assert delivered(rh)
    assert [body["taskId"] for body in receiver.got] == [first]
    assert rh.event(second)["code"] == 1


def test_the_detail(rh: Caller, receiver: Receiver) -> None:
    task_id = rh.started(webhookUrl=receiver.url)
    data = rh.ended_event(task_id, "SUCCESS")
    assert (data["taskId"], data["webhookUrl"], data["event"]) == (task_id, receiver.url, "TASK_END")
    assert (data["callbackResponse"], data["retryCount"]) == ("noted", 0)
    assert (len(data["id"]), data["id"] == task_id) == (19, False)
    assert data["eventData"] == receiver.got[0]["eventData"]
    assert rh.key not in json.dumps(data)
    assert "+" not in data["createTime"]
    without = rh.event(rh.started())
    assert (without["code"], without["msg"]) == (1, "webhook event not exists")
    assert rh.other().event(task_id)["code"] == 1


def test_three_retries_and_then_no_more(rh: Caller, receiver: Receiver) -> None:
    rh.rh.options.update(webhook_spacing=0.03)
    receiver.answers = [500, 503, 404, 500, 200]
    task_id = rh.started(webhookUrl=receiver.url)
    assert delivered(rh, 4)
    assert rh.ended_event(task_id, "FAILED")["retryCount"] == 3
    assert len(receiver.got) == 4
    assert [delivery.status for delivery in rh.rh.recorder.deliveries] == [500, 503, 404, 500]


def test_retries_wait_by_the_emulators_clock(rh: Caller, receiver: Receiver) -> None:
    receiver.answers = [500]
    task_id = rh.started(webhookUrl=receiver.url)
    rh.ended_event(task_id, "FAILED")
    assert len(receiver.got) == 1
    rh.rh.clock.advance(60)
    assert rh.ended_event(task_id, "SUCCESS")["retryCount"] == 1


def test_nobody_there_and_somebody_slow(rh: Caller, receiver: Receiver) -> None:
    rh.rh.options.update(webhook_timeout=0.05)
    receiver.delay = 0.3
    slow, unreachable = rh.started(webhookUrl=receiver.url), rh.started(webhookUrl="http://127.0.0.1:9/x")
    for task_id in (slow, unreachable):
        assert rh.ended_event(task_id, "FAILED")["callbackResponse"].startswith("I/O error on POST request")


def test_an_impossible_address_stops_no_other_webhook(rh: Caller, receiver: Receiver) -> None:
    rh.rh.options.update(webhook_spacing=0.0)
    task_id = rh.submit(body={**WORDS, "webhookUrl": "http://127.0.0.1:99999/h"})["taskId"]
    assert rh.ended_event(task_id, "FAILED")["callbackResponse"].startswith("I/O error on POST request")
    rh.submit(body={**WORDS, "webhookUrl": receiver.url})
    assert rh.rh.recorder.wait(lambda recorder: bool(receiver.got), seconds=10)


def test_an_emulator_ends_with_deliveries_under_way(emulate: Emulate, receiver: Receiver) -> None:
    rh = emulate()
    receiver.delay = 3600
    rh.started(webhookUrl=receiver.url)
    while not receiver.got:
        time.sleep(0.01)
    rh.rh.stop()  # waits for none of them


def test_resending(rh: Caller, receiver: Receiver) -> None:
    def resent(**body: object) -> Json:
        return rh.v1("/task/openapi/retryWebhook", **body)

    rh.rh.options.update(webhook_spacing=0.0)
    receiver.answers = [500] * 4
    task_id = rh.started(webhookUrl=receiver.url)
    assert delivered(rh, 4)
    event = rh.ended_event(task_id, "FAILED")["id"]
    answer = resent(webhookId=event, webhookUrl=receiver.url + "/new")
    assert answer == {"code": 0, "msg": "", "errorMessages": None, "data": None}
    data = rh.ended_event(task_id, "SUCCESS")
    assert (data["id"], data["webhookUrl"], data["retryCount"]) == (event, receiver.url + "/new", 0)
    assert receiver.got[-1] == receiver.got[0]
    assert resent(webhookId=event)["code"] == 0
    assert delivered(rh, 6)
    wrong: tuple[Json, ...] = ({"webhookId": task_id}, {}, {"webhookId": event, "webhookUrl": "nonsense"})
    assert [resent(**body)["code"] for body in wrong] == [1, 301, 301]


def test_scripted_losses_doubles_lies_and_delays(rh: Caller, receiver: Receiver) -> None:
    kinds: tuple[Kind, ...] = ("lost", "doubled", "forged", "late")
    rh.rh.faults.add(*(Fault("webhook", index, kind, seconds=0.2) for index, kind in enumerate(kinds, 1)))
    lost = rh.started(webhookUrl=receiver.url)
    assert rh.ended_event(lost, "FAILED")["retryCount"] == 3
    assert receiver.got == []
    rh.started(webhookUrl=receiver.url)
    assert delivered(rh, 2)
    assert receiver.got[0] == receiver.got[1]
    rh.started(webhookUrl=receiver.url)
    assert delivered(rh, 4)
    assert receiver.got[2]["eventData"]["status"] == "FAILED"
    assert json.loads(receiver.got[3]["eventData"])["code"] == 0
    late = rh.started(webhookUrl=receiver.url)
    assert rh.query(late)["status"] == "SUCCESS"
    assert len(receiver.got) == 4
    assert delivered(rh, 5)


def test_by_hand(emulate: Emulate, receiver: Receiver) -> None:
    rh = emulate(clock="polls", polls=9)
    task_id = rh.started(webhookUrl=receiver.url)
    assert rh.rh.webhooks.forge(task_id) == 200
    assert receiver.got[-1]["eventData"]["status"] == "SUCCESS"
    assert rh.rh.webhooks.send(task_id, url=receiver.url, body={"event": "NONSENSE"}) == 200
    assert receiver.got[-1] == {"event": "NONSENSE"}
    rh.rh.webhooks.send(task_id)
    assert json.loads(receiver.got[-1]["eventData"])["code"] == 805
    with pytest.raises(InputError, match="give both url and body"):
        rh.rh.webhooks.send("1")
    assert rh.query(task_id)["status"] == "QUEUED"  # in spite of the claim

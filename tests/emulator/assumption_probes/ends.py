"""AssumptionProbes of webhooks and of assets."""

from __future__ import annotations

import json
import time
from contextlib import closing
from datetime import UTC, datetime

from rh_prefect.emulator import Fault
from tests.emulator.assumption_probes.files import WAV, sent
from tests.emulator.assumption_probes.models import CLIP_BODY
from tests.emulator.assumption_probes.probe import AssumptionProbes
from tests.support.servers.caller import CLIP, WORDS, Caller, Json
from tests.support.servers.receiver import Receiver

PROBES = AssumptionProbes()

NOWHERE = "http://127.0.0.1:9/hook"
QUIET_SECONDS = 0.25
AT_ONCE = {"webhook_spacing": 0.0}


def detail(rh: Caller, task_id: str) -> Json:
    return rh.v1("/task/openapi/getWebhookDetail", taskId=task_id)


def event(rh: Caller, task_id: str) -> Json:
    """The event of a task once there is one."""
    end = time.monotonic() + 300
    while (found := detail(rh, task_id))["code"] != 0:
        assert time.monotonic() < end, found
        time.sleep(0.01)
    data: Json = found["data"]
    return data


def settled(rh: Caller, task_id: str) -> Json:
    """The event once its delivery has ended in this way or that."""
    end = time.monotonic() + 300
    while (found := event(rh, task_id))["callbackStatus"] not in ("SUCCESS", "FAILED"):
        assert time.monotonic() < end, found
        time.sleep(0.01)
    return found


def retries(rh: Caller) -> int:
    """How often a delivery is tried again, once it is quiet."""
    task_id = rh.started(webhookUrl=NOWHERE)
    settled(rh, task_id)
    time.sleep(QUIET_SECONDS)
    return int(event(rh, task_id)["retryCount"])


@PROBES(1, 3, 1, base=AT_ONCE)
def webhook_retries(rh: Caller) -> object:
    return retries(rh)


@PROBES(0.0, 0, 3)
def webhook_spacing(rh: Caller) -> object:
    return retries(rh)


@PROBES(0.1, "SUCCESS", "FAILED")
def webhook_timeout(rh: Caller) -> object:
    with closing(Receiver()) as receiver:
        receiver.delay = 0.4
        return settled(rh, rh.started(webhookUrl=receiver.url))["callbackStatus"]


@PROBES("string", dict, str)
def webhook_data(rh: Caller) -> object:
    with closing(Receiver()) as receiver:
        settled(rh, rh.submit(body={**WORDS, "webhookUrl": receiver.url})["taskId"])
        return type(receiver.got[0]["eventData"])


@PROBES("task", "code", "taskId", faults=[Fault("submit", kind="fail")])
def webhook_v1_failed(rh: Caller) -> object:
    return next(iter(json.loads(event(rh, rh.started(webhookUrl=NOWHERE))["eventData"])))


@PROBES(True, 1, 0, clock="polls", polls=9)
def webhook_on_cancel(rh: Caller) -> object:
    task_id = rh.started(webhookUrl=NOWHERE)
    rh.cancel(task_id)
    time.sleep(QUIET_SECONDS)
    return detail(rh, task_id)["code"]


@PROBES("RETRYING", "PENDING", "RETRYING")
def webhook_waiting(rh: Caller) -> object:
    with closing(Receiver()) as receiver:
        receiver.delay = 1.0
        return event(rh, rh.started(webhookUrl=receiver.url))["callbackStatus"]


@PROBES(("807", ""), 1, 807)
def webhook_unknown(rh: Caller) -> object:
    return detail(rh, rh.started())["code"]


@PROBES(0, 8, 0)
def webhook_zone_hours(rh: Caller) -> object:
    created = datetime.fromisoformat(event(rh, rh.started(webhookUrl=NOWHERE))["createTime"])
    return round((created.replace(tzinfo=UTC) - datetime.fromtimestamp(rh.rh.clock.now(), UTC)).total_seconds() / 3600)


def ask(rh: Caller, path: str, **body: object) -> Json:
    answer: Json = rh.post(f"/openapi/v2/assets/{path}", body).json()
    return answer


def made(rh: Caller, link: str = "") -> Json:
    group = ask(rh, "groups/create", name="people")["data"]["groupId"]
    answer: Json = ask(rh, "create", groupId=group, url=link or sent(rh), assetType="Image", name="Ada")["data"]
    return answer


@PROBES({"QUEUED": "New", "RUNNING": "New", "DONE": "Ready"}, ("Processing", "Active"), ("New", "Ready"))
def asset_statuses(rh: Caller) -> object:
    asset = made(rh)
    return asset["status"], ask(rh, "query", assetId=asset["assetId"])["data"]["status"]


@PROBES("ERROR", "Failed", "ERROR")
def asset_failed(rh: Caller) -> object:
    asset = made(rh, sent(rh, "a.wav", WAV))
    return ask(rh, "query", assetId=asset["assetId"])["data"]["status"]


@PROBES(1.0, "Processing", "Active", clock="real", factor=0)
def asset_seconds(rh: Caller) -> object:
    asset = made(rh)
    rh.rh.clock.advance(2)
    return ask(rh, "query", assetId=asset["assetId"])["data"]["status"]


@PROBES(("assetId", "status"), 6, 2)
def asset_fields(rh: Caller) -> object:
    made(rh)
    (item,) = ask(rh, "list", pageNumber=1, pageSize=9)["data"]["items"]
    return len(item)


@PROBES("301", (1007, 1007), (301, 301))
def asset_invalid(rh: Caller) -> object:
    return ask(rh, "query")["code"], ask(rh, "list")["code"]


@PROBES(("807", ""), 1004, 807)
def asset_unknown(rh: Caller) -> object:
    return ask(rh, "query", assetId="no")["code"]


@PROBES(("807", ""), 1004, 807)
def asset_group_unknown(rh: Caller) -> object:
    return ask(rh, "groups/query", groupId="no")["code"]


@PROBES("1004", "1013", "1004")
def asset_refused(rh: Caller) -> object:
    return rh.submit(CLIP, {**CLIP_BODY, "imageUrl": "asset://no"})["errorCode"]

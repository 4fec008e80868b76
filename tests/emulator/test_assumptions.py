"""Each assumption of the emulator: its evidence, and what a client sees when it is turned to another answer."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields, replace
from decimal import Decimal
from typing import Any

import httpx
import pytest

from rh_prefect.catalog import Param
from rh_prefect.emulator import DEFAULT, Assumptions, Fault
from rh_prefect.emulator.comfy.workflows import TEXT_TO_IMAGE
from tests.emulator.conftest import Emulate, lasting
from tests.support.samples import media as samples
from tests.support.servers.caller import CLIP, IMAGE, WORDS, Caller, Json, node, read
from tests.support.servers.receiver import Receiver

Look = Callable[[Caller], object]


class Probe:
    """Two emulators differ in one assumption: a choice or a refusal. `look` returns what a client sees of one."""

    def __init__(
        self, name: str, look: Look, value: object, now: object, then: object, *, base: Any = None, **options: Any
    ) -> None:
        self.name, self.look, self.value, self.seen, self.options = name, look, value, [now, then], options
        self.default = replace(DEFAULT, **(base or {}))
        changed: dict[str, Any] = {name: value}
        self.changed = replace(self.default, **changed)


PROBES: list[Probe] = []


def probe(value: object, now: object, then: object, **options: Any) -> Callable[[Look], Look]:
    """Makes a function a probe of the assumption whose name it has."""

    def add(look: Look) -> Look:
        PROBES.append(Probe(look.__name__, look, value, now, then, **options))
        return look

    return add


UNKNOWN = "2031112223334445057"
FAILS: dict[str, Any] = {"faults": [Fault("submit", kind="fail")]}
TEN: dict[str, Any] = {"durations": lasting(0.0, 10.0)}
HELD: dict[str, Any] = {"clock": "polls", "polls": 9}
"""Options of an emulator whose tasks run for nine queries."""
PNG = samples.picture("PNG")
GRAPH = json.dumps(TEXT_TO_IMAGE)
CREATE = "/task/openapi/create"
ELSEWHERE = [node("66", "text", "x")]
NOWHERE = "http://127.0.0.1:9/hook"
QUIET_SECONDS = 0.25


def uploaded(rh: Caller, name: str = "a.png", data: bytes = b"x", *, part: str = "file") -> Json:
    return read(rh.http.post("/openapi/v2/media/upload/binary", files={part: (name, data)}, headers=rh.bearer()))


def sent(rh: Caller, name: str = "a.png", data: bytes = PNG) -> str:
    """Uploads a file and returns its link."""
    return str(uploaded(rh, name, data)["data"]["download_url"])


def clip_of(rh: Caller, link: str) -> object:
    return rh.submit(CLIP, {"prompt": "waves", "sound": "false", "duration": "5", "imageUrl": link})["errorCode"]


def usage(rh: Caller, task_id: str, name: str = "consumeMoney") -> object:
    return rh.query(task_id)["usage"][name]


def unpriced_preview(rh: Caller) -> tuple[str, float | None]:
    rh.rh.add_model("test/unpriced")
    answer = rh.preview("test/unpriced", {"duration": 5})
    return answer["errorCode"], answer["estimatedPrice"]


def lora(rh: Caller, md5: str = hashlib.md5(b"weights").hexdigest()) -> Json:
    return rh.v1("/api/openapi/getLoraUploadUrl", loraName="style", md5Hex=md5)


def locked(rh: Caller) -> str:
    return rh.rh.workflows.add(TEXT_TO_IMAGE, name="locked", password="open sesame")


def pictures(rh: Caller, **body: Any) -> int:
    """How many different pictures two equal starts make."""
    links = [rh.outputs(rh.started(addMetadata=False, **body))["data"][0]["fileUrl"] for _ in range(2)]
    return len({httpx.get(link).content for link in links})


def result_of(rh: Caller, endpoint: str, output: Any) -> Json:
    rh.rh.add_model(endpoint, output=output, params=[Param("prompt", "prompt", "string")])
    result: Json = rh.query(rh.submit(endpoint, {"prompt": "a cat"})["taskId"])["results"][0]
    return result


def refusals(rh: Caller, endpoint: str, params: list[Param], *bodies: dict[str, object]) -> list[str]:
    """The codes of a model that the catalogue lacks."""
    rh.rh.add_model(endpoint, params=params)
    return [rh.submit(endpoint, body)["errorCode"] for body in bodies]


@probe(("1002", "no"), (401, "ApiKey verification failed: invalid api key"), (1002, "no"))
def upload_bad_key(rh: Caller) -> object:
    answer = uploaded(Caller(rh.rh, "wrong"))
    return answer["code"], answer["message"]


@probe(("412", ""), "", "412")
def wrong_host(rh: Caller) -> object:
    headers = {**rh.bearer(), "Host": "www.runninghub.cn"}
    return rh.http.post(f"/openapi/v2/{IMAGE}", json=WORDS, headers=headers).json()["errorCode"]


@probe("1007", (301, 301), (1007, 1007))
def list_refusal(rh: Caller) -> object:
    asked = (("aiapp/list", {"sort": "x"}), ("resource/list", {"resourceType": "LORA", "current": -1}))
    return tuple(rh.post(f"/openapi/v2/{path}", body).json()["code"] for path, body in asked)


@probe(False, ["1007"] * 4, [""] * 4)
def strict_types(rh: Caller) -> object:
    numbers = [Param("count", "count", "int", max=9), Param("scale", "scale", "float"), Param("sound", "sound", "bool")]
    params = [Param("seconds", "seconds", "enum", options=("5",)), *numbers]
    return refusals(rh, "test/model", params, {"seconds": 5}, {"count": "9"}, {"scale": "0.5"}, {"sound": "true"})


@probe((), ["1505"], [""])
def real_people_families(rh: Caller) -> object:
    rh.rh.options.update(real_people=True)
    return refusals(rh, "seedance-2.0/test", [Param("imageUrl", "image_url", "image")], {"imageUrl": sent(rh)})


@probe(("805", ""), 0, 805)
def cancel_finished(rh: Caller) -> object:
    task_id = rh.submit()["taskId"]
    rh.query(task_id)
    code = rh.cancel(task_id)["code"]
    assert (rh.query(task_id)["status"], rh.rh.recorder.cancelled) == ("SUCCESS", [])
    return code


@probe(("435", ""), 415, 435, **HELD)
def machines_full(rh: Caller) -> object:
    exclusive = rh.other(tier="EXCLUSIVE")
    exclusive.started()
    return exclusive.create()["code"]


@probe(1, 0, 814, **HELD)
def personal_queue(rh: Caller) -> object:
    exclusive = rh.other(tier="EXCLUSIVE")
    return [exclusive.create(usePersonalQueue=True)["code"] for _ in range(3)][-1]


@probe(("301", ""), "1007", 301)
def preview_bare_refusal(rh: Caller) -> object:
    answer = rh.preview(body={})
    return answer["errorCode"] if "errorCode" in answer else answer["code"]


@probe(False, ("0", "0"), (0, 0))
def preview_counts_as_text(rh: Caller) -> object:
    answer = rh.preview()
    return answer["freeLimitCount"], answer["remainingFreeLimitCount"]


@probe(("NORMAL",), (812, 414), (380, 414), money=0)
def billing_gate_tiers(rh: Caller) -> object:
    poor = rh.other(tier="NORMAL", coins=0)
    return tuple(caller.v1(CREATE, workflowId="1")["code"] for caller in (rh, poor))


@probe({"QUEUED": False, "RUNNING": False}, None, "0.07", **HELD)
def refund_cancelled(rh: Caller) -> object:
    task_id = str(rh.submit()["taskId"])
    assert rh.cancel(task_id)["code"] == 0
    return usage(rh, task_id, "thirdPartyConsumeMoney")


@probe(False, "0.005", "0.01", clock="real", factor=0, **TEN)
def cancel_stops_charging(rh: Caller) -> object:
    task_id = rh.started()
    rh.rh.clock.advance(5)
    rh.cancel(task_id)
    return usage(rh, task_id)


@probe(True, False, True)
def signed_results(rh: Caller) -> object:
    link = rh.result()
    assert httpx.get(link).status_code == 200
    return "q-signature" in link


@probe(False, 803, 0)
def app_fields_only(rh: Caller) -> object:
    app_id = rh.rh.apps.id_of("Portrait restyle")
    return rh.v1("/task/openapi/ai-app/run", webappId=app_id, nodeInfoList=[node("3", "steps", 5)])["code"]


@probe(True, (0, 0), (301, 0))
def quick_params_key(rh: Caller) -> object:
    asked = {"type": 2, "webappId": rh.rh.apps.id_of("Quick picture")}
    bodies = (asked, {**asked, "apiKey": rh.key})
    return tuple(rh.http.post("/api/fast/creation/model/params", json=body).json()["code"] for body in bodies)


@probe(1, 3, 1, base={"webhook_spacing": 0.0})
def webhook_retries(rh: Caller) -> object:
    """How often a delivery is tried again, once it is quiet."""
    task_id = rh.started(webhookUrl=NOWHERE)
    rh.ended_event(task_id, "SUCCESS", "FAILED")
    time.sleep(QUIET_SECONDS)
    return rh.event(task_id)["data"]["retryCount"]


@probe("string", dict, str)
def webhook_data(rh: Caller) -> object:
    with closing(Receiver()) as receiver:
        rh.ended_event(rh.submit(body={**WORDS, "webhookUrl": receiver.url})["taskId"], "SUCCESS", "FAILED")
        return type(receiver.got[0]["eventData"])


@probe(True, 1, 0, **HELD)
def webhook_on_cancel(rh: Caller) -> object:
    task_id = rh.started(webhookUrl=NOWHERE)
    rh.cancel(task_id)
    time.sleep(QUIET_SECONDS)
    return rh.event(task_id)["code"]


@probe(("assetId", "status"), 6, 2)
def asset_fields(rh: Caller) -> object:
    group = rh.asset("groups/create", name="people")["data"]["groupId"]
    rh.asset("create", groupId=group, url=sent(rh), assetType="Image", name="Ada")
    return len(rh.asset("list", pageNumber=1, pageSize=9)["data"]["items"][0])


def refusal(name: str, look: Look, now: object, then: str = "807") -> Probe:
    """A probe of a code: v2 tells it as a text, others as a number."""
    return Probe(name, look, (then, ""), now, then if isinstance(now, str) else int(then))


def v1_failure(rh: Caller) -> object:
    return next(iter(json.loads(rh.ended_event(rh.started(webhookUrl=NOWHERE), "FAILED")["eventData"])))


def interrupted(rh: Caller) -> object:
    """An interrupt that names the second of two prompts."""
    first, second = (
        read(rh.http.post(f"/proxy/{rh.key}/prompt", json={"prompt": TEXT_TO_IMAGE}))["prompt_id"] for _ in "12"
    )
    for _ in "12":
        rh.http.get(f"/proxy/{rh.key}/history/{first}")
    rh.http.post(f"/proxy/{rh.key}/interrupt", json={"prompt_id": second})
    return [task.status for task in rh.rh.recorder.tasks]


def quick_code(rh: Caller) -> object:
    app_id = rh.rh.apps.id_of("Quick picture")
    body = {"webappId": app_id, "quickCreateCode": "no", "nodeInfoList": []}
    return rh.v1("/task/openapi/quick-ai-app/run", **body)["code"]


def without_default(rh: Caller) -> object:
    return refusals(rh, "test/model", [Param("size", "size", "string", required=True, default="1K")], {})


def v2_code(rh: Caller, workflow_id: str, **body: object) -> object:
    return rh.submit(f"run/workflow/{workflow_id}", body)["errorCode"]


PROBES += [
    # refusals
    refusal("free_key", lambda rh: rh.other(tier="FREE").create()["code"], 801, "806"),
    refusal("free_key_v2", lambda rh: rh.other(tier="FREE").submit()["errorCode"], "801", "1014"),
    refusal("malformed_task_id", lambda rh: rh.query("abc")["errorCode"], "1007", "1004"),
    refusal("missing_task_id", lambda rh: rh.query("")["errorCode"], "1007", "1004"),
    refusal("unknown_task", lambda rh: rh.query(UNKNOWN)["errorCode"], "1004"),
    refusal("v1_unknown_task", lambda rh: rh.cancel(UNKNOWN)["code"], 807, "423"),
    refusal("upload_unsupported", lambda rh: uploaded(rh, "a.exe")["code"], 1007, "1013"),
    refusal("upload_empty", lambda rh: uploaded(rh, data=b"")["code"], 1007, "1013"),
    refusal("upload_no_file", lambda rh: uploaded(rh, part="other")["code"], 1007, "1013"),
    refusal("upload_no_file", lambda rh: rh.post("/openapi/v2/media/upload/binary").json()["code"], 1007, "1013"),
    refusal("legacy_unsupported", lambda rh: rh.legacy("a.exe", PNG)["code"], 301, "808"),
    refusal("legacy_no_file", lambda rh: rh.legacy("a.png", PNG, part="other")["code"], 301, "808"),
    refusal("legacy_no_file", lambda rh: rh.legacy("a.png", b"")["code"], 301, "808"),
    refusal("bad_md5", lambda rh: lora(rh, "no sum")["code"], 301, "1007"),
    refusal("wrong_password", lambda rh: rh.v1(CREATE, workflowId=locked(rh))["code"], 301, "803"),
    refusal("webhook_unknown", lambda rh: rh.event(rh.started())["code"], 1),
    refusal(
        "node_info_v2", lambda rh: v2_code(rh, rh.rh.workflows.id_of("restyle"), nodeInfoList=ELSEWHERE), "1101", "803"
    ),
    refusal("wrong_quick_code", quick_code, 301, "901"),
    refusal("asset_unknown", lambda rh: rh.asset("query", assetId="no")["code"], 1004),
    refusal("asset_group_unknown", lambda rh: rh.asset("groups/query", groupId="no")["code"], 1004),
    Probe("requests_per_minute", lambda rh: [rh.submit()["errorCode"] for _ in "12"], 1, ["", ""], ["", "1003"]),
    Probe(
        "account_key_fields",
        lambda rh: rh.http.post("/uc/openapi/accountStatus", json={"apiKey": rh.key}).json()["code"],
        ("apikey",),
        0,
        1601,
    ),
    Probe("v1_blank", lambda rh: rh.v1(CREATE)["msg"], "no {field}", "workflowId must not be blank", "no workflowId"),
    Probe("v1_no_route", lambda rh: rh.http.get("/task/openapi/status").json()["code"], ("404", "no"), 412, 404),
    # models
    Probe("missing_default_refused", without_default, False, ["1007"], [""]),
    Probe(
        "model_checks",
        lambda rh: rh.other(tier="NORMAL").submit(body={})["errorCode"],
        ("params", "tier", "webhook", "content", "people", "files"),
        "1014",
        "1007",
    ),
    Probe("model_tiers", lambda rh: rh.other(tier="EXCLUSIVE").submit()["errorCode"], ("EXCLUSIVE",), "1014", ""),
    Probe("model_tiers", lambda rh: rh.other(tier="NORMAL").preview()["errorCode"], ("NORMAL",), "1014", ""),
    Probe("not_offered", lambda rh: rh.submit(IMAGE)["errorCode"], ("rhart-*",), "", "40310"),
    Probe("withdrawn", lambda rh: rh.submit()["errorCode"], (IMAGE,), "", "1000"),
    Probe(
        "unknown_params_pass",
        lambda rh: rh.submit(body={**WORDS, "appCode": "x", "webhookUrl": NOWHERE})["errorCode"],
        False,
        "",
        "1007",
    ),
    Probe(
        "bad_file", lambda rh: clip_of(rh, sent(rh, "a.wav", samples.sound("wav", "pcm_s16le"))), "1007", "1013", "1007"
    ),
    Probe("id_answers", lambda rh: result_of(rh, "kling-elements/test", "text")["text"][0], "lines", "{", "e"),
    Probe("lyrics_as_text", lambda rh: result_of(rh, "test/lyrics", "audio")["url"] is None, False, True, False),
    # tasks
    Probe(
        "cancel_models",
        lambda rh: [rh.cancel(one)["code"] for one in (rh.submit()["taskId"], rh.started())],
        False,
        [0, 0],
        [807, 0],
        **HELD,
    ),
    Probe(
        "moderated_at_submit", lambda rh: rh.submit()["errorCode"], ("1501", ""), "", "1501", moderated=["lighthouse"]
    ),
    Probe("counted", lambda rh: [rh.submit()["errorCode"] for _ in "12"][1], ("RUNNING",), "421", "", limit=1, **HELD),
    Probe("preview_unpriced", unpriced_preview, None, ("1501", None), ("", 1.0)),
    Probe("preview_lacking", lambda rh: rh.preview()["errorCode"], (IMAGE,), "", "1501"),
    Probe("preview_per_second", unpriced_preview, {"test/*": Decimal("0.2")}, ("1501", None), ("", 0.2)),
    Probe("preview_zero", unpriced_preview, ("test/*",), ("1501", None), ("", 0.0)),
    Probe("empty_wallet", lambda rh: rh.submit()["errorCode"], ("416", ""), "812", "416", money=0),
    Probe("empty_wallet", lambda rh: rh.create()["code"], ("416", ""), 812, 416, money=0),
    Probe("billing_gate_first", lambda rh: rh.v1(CREATE, workflowId="1")["code"], (), 812, 380, money=0),
    Probe("unknown_machine", lambda rh: rh.create(instanceType="standard")["code"], "", 0, 301),
    Probe(
        "refund_failed_models",
        lambda rh: usage(rh, rh.submit()["taskId"], "thirdPartyConsumeMoney"),
        False,
        None,
        "0.07",
        **FAILS,
    ),
    Probe("refund_failed_runs", lambda rh: usage(rh, rh.started()), True, "0.01", None, **FAILS, **TEN),
    Probe("webhook_v1_failed", v1_failure, "task", "code", "taskId", **FAILS),
    # files and graphs
    Probe("interrupt_reads_id", interrupted, False, ["RUNNING", "QUEUED"], ["CANCELLED", "QUEUED"], **HELD),
    Probe("lora_checked", lambda rh: httpx.put(lora(rh)["data"]["url"], content=b"x").status_code, False, 400, 200),
    Probe("v2_reads_password", lambda rh: v2_code(rh, locked(rh), accessPassword="open sesame"), False, "", "301"),
    Probe("v2_reads_workflow", lambda rh: v2_code(rh, "1", workflow=GRAPH), False, "", "380"),
    Probe("placeholder_ids", lambda rh: rh.v1(CREATE, workflowId="1", workflow=GRAPH)["code"], (), 0, 380),
    Probe(
        "node_list_beside_graph",
        lambda rh: rh.create(workflow=GRAPH, nodeInfoList=ELSEWHERE)["code"],
        False,
        803,
        0,
    ),
    Probe("override_keeps_seeds", lambda rh: pictures(rh, workflow=GRAPH), False, 1, 2),
    Probe("reads_random_seed", lambda rh: pictures(rh, randomSeed=False), True, 2, 1),
    # assets
    Probe(
        "asset_invalid", lambda rh: [rh.asset(path)["code"] for path in ("query", "list")], "301", [1007] * 2, [301] * 2
    ),
    Probe("asset_refused", lambda rh: clip_of(rh, "asset://no"), "1004", "1013", "1004"),
]


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_another_answer_is_seen_over_http(emulate: Emulate, probe: Probe) -> None:
    assert probe.value != getattr(DEFAULT, probe.name)
    looks = [probe.look(emulate(**probe.options, assumptions=one)) for one in (probe.default, probe.changed)]
    assert looks == probe.seen


def test_every_field_names_its_evidence() -> None:
    names = [field.name for field in fields(Assumptions)]
    assert {probe.name for probe in PROBES} <= set(names)
    (owner,) = ast.parse(inspect.getsource(Assumptions)).body
    assert isinstance(owner, ast.ClassDef)
    texts = [
        node.value.value for node in owner.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ]
    said = [text for text in texts if isinstance(text, str) and " Evidence: " in " ".join(text.split())]
    assert len(said) == len(names)

"""Each assumption of the emulator: its evidence, and what a client sees when it is turned to another answer."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import FrozenInstanceError, fields, replace
from decimal import Decimal
from typing import Any

import httpx
import pytest

from rh_prefect.catalog import Param
from rh_prefect.emulator import DEFAULT, Assumptions, Fault, assumptions
from rh_prefect.emulator.accounts import Tier
from rh_prefect.emulator.comfy.workflows import TEXT_TO_IMAGE
from tests.emulator.conftest import Emulate
from tests.support.samples import media as samples
from tests.support.servers.caller import CLIP, IMAGE, WORDS, Caller, Json, node
from tests.support.servers.receiver import Receiver


class Probe:
    """Two emulators differ in one assumption: a choice or a refusal. `look` returns what a client sees of one."""

    def __init__(
        self,
        name: str,
        look: Callable[[Caller], object],
        value: object,
        now: object,
        then: object,
        *,
        base: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.name, self.look, self.value, self.seen = name, look, value, [now, then]
        self.options = options
        self.default = replace(DEFAULT, **(base or {}))
        one: dict[str, Any] = {name: value}
        self.changed = replace(self.default, **one)


UNKNOWN = "2031112223334445057"
PROMPT = Param("prompt", "prompt", "string")
CLIP_BODY = {"prompt": "waves", "sound": "false", "duration": "5"}
FAILS: dict[str, Any] = {"faults": [Fault("submit", kind="fail")]}
HELD: dict[str, Any] = {"clock": "polls", "polls": 9}
"""Options of an emulator whose tasks run for nine queries."""
PNG = samples.picture("PNG")
WAV = samples.sound("wav", "pcm_s16le")
MD5 = hashlib.md5(b"weights").hexdigest()
GRAPH = json.dumps(TEXT_TO_IMAGE)
CREATE = "/task/openapi/create"
NOWHERE = "http://127.0.0.1:9/hook"
QUIET_SECONDS = 0.25
AT_ONCE = {"webhook_spacing": 0.0}


def free(rh: Caller) -> Caller:
    return Caller(rh.rh, rh.rh.keys.add("free", tier="FREE").secret)


def uploaded(rh: Caller, name: str = "a.png", data: bytes = b"x", *, part: str = "file") -> Json:
    answer: Json = rh.http.post(
        "/openapi/v2/media/upload/binary", files={part: (name, data)}, headers=rh.bearer()
    ).json()
    return answer


def key_of(rh: Caller, tier: Tier) -> Caller:
    return Caller(rh.rh, rh.rh.keys.add(tier.lower(), tier=tier).secret)


def first_result(rh: Caller, endpoint: str, **body: object) -> dict[str, object]:
    found: dict[str, object] = rh.query(rh.submit(endpoint, body)["taskId"])["results"][0]
    return found


TEN: dict[str, Any] = {"durations": lambda model, payload: (0.0, 10.0)}


def usage(rh: Caller, task_id: str) -> Json:
    answer: Json = rh.query(task_id)["usage"]
    return answer


def cancelled(rh: Caller) -> str:
    task_id = str(rh.submit()["taskId"])
    assert rh.cancel(task_id)["code"] == 0
    return task_id


def preview(rh: Caller, endpoint: str, body: Json) -> Json:
    answer: Json = rh.post(f"/openapi/v2/price-preview/{endpoint}", body).json()
    return answer


def unpriced_preview(rh: Caller, endpoint: str = "test/unpriced") -> tuple[str, float | None]:
    rh.rh.add_model(endpoint)
    answer = preview(rh, endpoint, {"duration": 5})
    return answer["errorCode"], answer["estimatedPrice"]


def sent(rh: Caller, name: str = "a.png", data: bytes = PNG) -> str:
    """Uploads a file and returns its link."""
    return str(uploaded(rh, name, data)["data"]["download_url"])


def legacy(rh: Caller, name: str = "a.png", data: bytes = PNG, *, part: str = "file") -> Json:
    form = {"apiKey": rh.key, "fileType": "input"}
    answer: Json = rh.http.post("/task/openapi/upload", data=form, files={part: (name, data)}).json()
    return answer


def lora(rh: Caller, md5: str = MD5) -> Json:
    return rh.v1("/api/openapi/getLoraUploadUrl", loraName="style", md5Hex=md5)


def locked(rh: Caller) -> str:
    return rh.rh.workflows.add(TEXT_TO_IMAGE, name="locked", password="open sesame")


def picture(rh: Caller, **body: Any) -> bytes:
    return httpx.get(rh.outputs(rh.started(addMetadata=False, **body))["data"][0]["fileUrl"]).content


def params(rh: Caller, **body: object) -> Json:
    asked = {"type": 2, "webappId": rh.rh.apps.id_of("Quick picture"), **body}
    answer: Json = rh.http.post("/api/fast/creation/model/params", json=asked).json()
    return answer


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


def ask(rh: Caller, path: str, **body: object) -> Json:
    answer: Json = rh.post(f"/openapi/v2/assets/{path}", body).json()
    return answer


def made(rh: Caller, link: str = "") -> Json:
    group = ask(rh, "groups/create", name="people")["data"]["groupId"]
    answer: Json = ask(rh, "create", groupId=group, url=link or sent(rh), assetType="Image", name="Ada")["data"]
    return answer


def upload_bad_key(rh: Caller) -> object:
    answer = uploaded(Caller(rh.rh, "wrong"))
    return answer["code"], answer["message"]


def wrong_host(rh: Caller) -> object:
    headers = {**rh.bearer(), "Host": "www.runninghub.cn"}
    return rh.http.post(f"/openapi/v2/{IMAGE}", json=WORDS, headers=headers).json()["errorCode"]


def list_refusal(rh: Caller) -> object:
    asked = (("aiapp/list", {"sort": "x"}), ("resource/list", {"resourceType": "LORA", "current": -1}))
    return tuple(rh.post(f"/openapi/v2/{path}", body).json()["code"] for path, body in asked)


def missing_default_refused(rh: Caller) -> object:
    rh.rh.add_model("test/model", params=[Param("size", "size", "string", required=True, default="1K")])
    return rh.submit("test/model", {})["errorCode"]


def strict_types(rh: Caller) -> object:
    options = Param("seconds", "seconds", "enum", options=("5",))
    numbers = (Param("count", "count", "int", max=9), Param("scale", "scale", "float"))
    rh.rh.add_model("test/model", params=[options, *numbers, Param("sound", "sound", "bool")])
    wrong: tuple[dict[str, object], ...] = ({"seconds": 5}, {"count": "9"}, {"scale": "0.5"}, {"sound": "true"})
    return [rh.submit("test/model", body)["errorCode"] for body in wrong]


def real_people_families(rh: Caller) -> object:
    rh.rh.options.update(real_people=True)
    rh.rh.add_model("seedance-2.0/test", params=[Param("imageUrl", "image_url", "image")])
    return rh.submit("seedance-2.0/test", {"imageUrl": sent(rh)})["errorCode"]


def id_answers(rh: Caller) -> object:
    rh.rh.add_model("kling-elements/test", output="text", params=[PROMPT])
    return str(first_result(rh, "kling-elements/test", prompt="a cat")["text"])[0]


def lyrics_as_text(rh: Caller) -> object:
    rh.rh.add_model("test/lyrics", output="audio", params=[PROMPT])
    result = first_result(rh, "test/lyrics", prompt="a cat")
    return result["outputType"] if result["url"] else None


def cancel_finished(rh: Caller) -> object:
    task_id = rh.submit()["taskId"]
    rh.query(task_id)
    code = rh.cancel(task_id)["code"]
    assert (rh.query(task_id)["status"], rh.rh.recorder.cancelled) == ("SUCCESS", [])
    return code


def machines_full(rh: Caller) -> object:
    exclusive = key_of(rh, "EXCLUSIVE")
    exclusive.started()
    return exclusive.create()["code"]


def personal_queue(rh: Caller) -> object:
    exclusive = key_of(rh, "EXCLUSIVE")
    return [exclusive.create(usePersonalQueue=True)["code"] for _ in range(3)][-1]


def counted(rh: Caller) -> object:
    rh.submit()
    return rh.submit()["errorCode"]


def idempotency_field(rh: Caller) -> object:
    named = {**WORDS, "clientJobId": "7"}
    return len({rh.submit(body=named)["taskId"] for _ in range(2)})


def preview_bare_refusal(rh: Caller) -> object:
    answer = preview(rh, IMAGE, {})
    return {"errorCode": answer["errorCode"]} if "errorCode" in answer else answer


def preview_counts_as_text(rh: Caller) -> object:
    answer = preview(rh, IMAGE, WORDS)
    return answer["freeLimitCount"], answer["remainingFreeLimitCount"]


def billing_gate_tiers(rh: Caller) -> object:
    poor = Caller(rh.rh, rh.rh.keys.add("poor", tier="NORMAL", coins=0).secret)
    return tuple(caller.v1("/task/openapi/create", workflowId="1")["code"] for caller in (rh, poor))


def cancel_stops_charging(rh: Caller) -> object:
    task_id = rh.started()
    rh.rh.clock.advance(5)
    rh.cancel(task_id)
    return usage(rh, task_id)["consumeMoney"]


def upload_no_file(rh: Caller) -> object:
    no_form = rh.post("/openapi/v2/media/upload/binary").json()
    return uploaded(rh, part="other")["code"], no_form["code"]


def signed_results(rh: Caller) -> object:
    link = rh.result()
    assert httpx.get(link).status_code == 200
    return "q-signature" in link


def node_info_v2(rh: Caller) -> object:
    workflow = rh.rh.workflows.id_of("text-to-image")
    return rh.submit(f"run/workflow/{workflow}", {"nodeInfoList": [node("66", "text", "x")]})["errorCode"]


def app_fields_only(rh: Caller) -> object:
    app_id = rh.rh.apps.id_of("Portrait restyle")
    return rh.v1("/task/openapi/ai-app/run", webappId=app_id, nodeInfoList=[node("3", "steps", 5)])["code"]


def wrong_quick_code(rh: Caller) -> object:
    body = {"webappId": rh.rh.apps.id_of("Quick picture"), "quickCreateCode": "no", "nodeInfoList": []}
    return rh.v1("/task/openapi/quick-ai-app/run", **body)["code"]


def webhook_data(rh: Caller) -> object:
    with closing(Receiver()) as receiver:
        settled(rh, rh.submit(body={**WORDS, "webhookUrl": receiver.url})["taskId"])
        return type(receiver.got[0]["eventData"])


def webhook_on_cancel(rh: Caller) -> object:
    task_id = rh.started(webhookUrl=NOWHERE)
    rh.cancel(task_id)
    time.sleep(QUIET_SECONDS)
    return detail(rh, task_id)["code"]


def asset_fields(rh: Caller) -> object:
    made(rh)
    (item,) = ask(rh, "list", pageNumber=1, pageSize=9)["data"]["items"]
    return len(item)


PROBES = (
    # refusals
    Probe(
        "requests_per_minute",
        lambda rh: [rh.submit()["errorCode"] for _ in range(3)],
        2,
        ["", "", ""],
        ["", "", "1003"],
    ),
    Probe("free_key", lambda rh: free(rh).v1("/task/openapi/status", taskId="1")["code"], ("806", ""), 801, 806),
    Probe("free_key_v2", lambda rh: free(rh).submit()["errorCode"], ("1014", ""), "801", "1014"),
    Probe(
        "upload_bad_key",
        upload_bad_key,
        ("1002", "no"),
        (401, "ApiKey verification failed: invalid api key"),
        (1002, "no"),
    ),
    Probe(
        "account_key_fields",
        lambda rh: rh.http.post("/uc/openapi/accountStatus", json={"apiKey": rh.key}).json()["code"],
        ("apikey",),
        0,
        1601,
    ),
    Probe("wrong_host", wrong_host, ("412", ""), "", "412"),
    Probe(
        "v1_blank",
        lambda rh: rh.v1("/task/openapi/status")["msg"],
        "no {field}",
        "taskId must not be blank",
        "no taskId",
    ),
    Probe("v1_no_route", lambda rh: rh.http.get("/task/openapi/status").json()["code"], ("404", "no"), 412, 404),
    Probe("malformed_task_id", lambda rh: rh.query("abc")["errorCode"], ("1004", ""), "1007", "1004"),
    Probe("missing_task_id", lambda rh: rh.query("")["errorCode"], ("1004", ""), "1007", "1004"),
    Probe("unknown_task", lambda rh: rh.query(UNKNOWN)["errorCode"], ("807", ""), "1004", "807"),
    Probe("v1_unknown_task", lambda rh: rh.cancel(UNKNOWN)["code"], ("423", ""), 807, 423),
    Probe("list_refusal", list_refusal, "1007", (301, 301), (1007, 1007)),
    # models
    Probe(
        "model_checks",
        lambda rh: key_of(rh, "NORMAL").submit(body={})["errorCode"],
        ("params", "tier", "webhook", "content", "people", "files"),
        "1014",
        "1007",
    ),
    Probe("model_tiers", lambda rh: key_of(rh, "EXCLUSIVE").submit()["errorCode"], ("SHARED", "EXCLUSIVE"), "1014", ""),
    Probe("not_offered", lambda rh: rh.submit(IMAGE)["errorCode"], ("rhart-*",), "", "40310"),
    Probe("withdrawn", lambda rh: rh.submit()["errorCode"], (IMAGE,), "", "1000"),
    Probe("missing_default_refused", missing_default_refused, False, "1007", ""),
    Probe("strict_types", strict_types, False, ["1007"] * 4, [""] * 4),
    Probe(
        "unknown_params_pass",
        lambda rh: rh.submit(body={**WORDS, "appCode": "x", "webhookUrl": "http://127.0.0.1:9/"})["errorCode"],
        False,
        "",
        "1007",
    ),
    Probe(
        "bad_file",
        lambda rh: rh.submit(CLIP, {**CLIP_BODY, "imageUrl": sent(rh, "a.wav", WAV)})["errorCode"],
        "1007",
        "1013",
        "1007",
    ),
    Probe("real_people_families", real_people_families, (), "1505", ""),
    Probe("id_answers", id_answers, "lines", "{", "e"),
    Probe("lyrics_as_text", lyrics_as_text, False, None, "mp3"),
    # tasks
    Probe("cancel_finished", cancel_finished, ("805", ""), 0, 805),
    Probe(
        "cancel_models",
        lambda rh: (rh.cancel(rh.submit()["taskId"])["code"], rh.cancel(rh.started())["code"]),
        False,
        (0, 0),
        (807, 0),
        **HELD,
    ),
    Probe(
        "moderated_at_submit", lambda rh: rh.submit()["errorCode"], ("1501", ""), "", "1501", moderated=["lighthouse"]
    ),
    Probe("machines_full", machines_full, ("435", ""), 415, 435, **HELD),
    Probe("personal_queue", personal_queue, 1, 0, 814, **HELD),
    Probe("counted", counted, ("RUNNING",), "421", "", limit=1, **HELD),
    Probe("idempotency_field", idempotency_field, "clientJobId", 2, 1),
    Probe("preview_unpriced", lambda rh: unpriced_preview(rh), None, ("1501", None), ("", 1.0)),
    Probe("preview_lacking", lambda rh: preview(rh, IMAGE, WORDS)["errorCode"], (IMAGE,), "", "1501"),
    Probe("preview_per_second", lambda rh: unpriced_preview(rh), {"test/*": Decimal("0.2")}, ("1501", None), ("", 0.2)),
    Probe("preview_zero", lambda rh: unpriced_preview(rh), ("test/*",), ("1501", None), ("", 0.0)),
    Probe(
        "preview_bare_refusal",
        preview_bare_refusal,
        ("301", ""),
        {"errorCode": "1007"},
        {"code": 301, "msg": "PARAMS_INVALID"},
    ),
    Probe("preview_counts_as_text", preview_counts_as_text, False, ("0", "0"), (0, 0)),
    Probe(
        "empty_wallet",
        lambda rh: (rh.submit()["errorCode"], rh.create()["code"]),
        ("416", ""),
        ("812", 812),
        ("416", 416),
        money=0,
    ),
    Probe(
        "billing_gate_first", lambda rh: rh.v1("/task/openapi/create", workflowId="1")["code"], (), 812, 380, money=0
    ),
    Probe("billing_gate_tiers", billing_gate_tiers, ("NORMAL",), (812, 414), (380, 414), money=0),
    Probe("unknown_machine", lambda rh: rh.create(instanceType="standard")["code"], "", 0, 301),
    Probe(
        "refund_failed_models",
        lambda rh: usage(rh, rh.submit()["taskId"])["thirdPartyConsumeMoney"],
        False,
        None,
        "0.07",
        **FAILS,
    ),
    Probe("refund_failed_runs", lambda rh: usage(rh, rh.started())["consumeMoney"], True, "0.01", None, **FAILS, **TEN),
    Probe(
        "refund_cancelled",
        lambda rh: usage(rh, cancelled(rh))["thirdPartyConsumeMoney"],
        {"QUEUED": False, "RUNNING": False},
        None,
        "0.07",
        **HELD,
    ),
    Probe("cancel_stops_charging", cancel_stops_charging, False, "0.005", "0.01", clock="real", factor=0, **TEN),
    # files
    Probe("upload_unsupported", lambda rh: uploaded(rh, "a.exe")["code"], ("1013", ""), 1007, 1013),
    Probe("upload_empty", lambda rh: uploaded(rh, data=b"")["code"], ("1013", ""), 1007, 1013),
    Probe("upload_no_file", upload_no_file, ("1013", ""), (1007, 1007), (1013, 1013)),
    Probe("legacy_unsupported", lambda rh: legacy(rh, "a.exe")["code"], ("808", ""), 301, 808),
    Probe(
        "legacy_no_file",
        lambda rh: (legacy(rh, part="other")["code"], legacy(rh, data=b"")["code"]),
        ("808", ""),
        (301, 301),
        (808, 808),
    ),
    Probe("signed_results", signed_results, True, False, True),
    Probe("lora_checked", lambda rh: httpx.put(lora(rh)["data"]["url"], content=b"other").status_code, False, 400, 200),
    Probe("bad_md5", lambda rh: lora(rh, "no sum")["code"], ("1007", ""), 301, 1007),
    # graphs
    Probe("node_info_v2", node_info_v2, ("803", ""), "1101", "803"),
    Probe("wrong_password", lambda rh: rh.v1(CREATE, workflowId=locked(rh))["code"], ("803", ""), 301, 803),
    Probe(
        "v2_reads_password",
        lambda rh: rh.submit(f"run/workflow/{locked(rh)}", {"accessPassword": "open sesame"})["errorCode"],
        False,
        "",
        "301",
    ),
    Probe(
        "v2_reads_workflow", lambda rh: rh.submit("run/workflow/1", {"workflow": GRAPH})["errorCode"], False, "", "380"
    ),
    Probe("placeholder_ids", lambda rh: rh.v1(CREATE, workflowId="1", workflow=GRAPH)["code"], (), 0, 380),
    Probe(
        "node_list_beside_graph",
        lambda rh: rh.create(workflow=GRAPH, nodeInfoList=[node("66", "text", "x")])["code"],
        False,
        803,
        0,
    ),
    Probe(
        "override_keeps_seeds",
        lambda rh: picture(rh, workflow=GRAPH) == picture(rh, workflow=GRAPH),
        False,
        True,
        False,
    ),
    Probe(
        "reads_random_seed",
        lambda rh: picture(rh, randomSeed=False) == picture(rh, randomSeed=False),
        True,
        False,
        True,
    ),
    Probe("app_fields_only", app_fields_only, False, 803, 0),
    Probe("wrong_quick_code", wrong_quick_code, ("901", ""), 301, 901),
    Probe(
        "quick_params_key", lambda rh: (params(rh)["code"], params(rh, apiKey=rh.key)["code"]), True, (0, 0), (301, 0)
    ),
    # ends
    Probe("webhook_retries", lambda rh: retries(rh), 1, 3, 1, base=AT_ONCE),
    Probe("webhook_data", webhook_data, "string", dict, str),
    Probe(
        "webhook_v1_failed",
        lambda rh: next(iter(json.loads(event(rh, rh.started(webhookUrl=NOWHERE))["eventData"]))),
        "task",
        "code",
        "taskId",
        faults=[Fault("submit", kind="fail")],
    ),
    Probe("webhook_on_cancel", webhook_on_cancel, True, 1, 0, **HELD),
    Probe("webhook_unknown", lambda rh: detail(rh, rh.started())["code"], ("807", ""), 1, 807),
    Probe("asset_fields", asset_fields, ("assetId", "status"), 6, 2),
    Probe(
        "asset_invalid", lambda rh: (ask(rh, "query")["code"], ask(rh, "list")["code"]), "301", (1007, 1007), (301, 301)
    ),
    Probe("asset_unknown", lambda rh: ask(rh, "query", assetId="no")["code"], ("807", ""), 1004, 807),
    Probe("asset_group_unknown", lambda rh: ask(rh, "groups/query", groupId="no")["code"], ("807", ""), 1004, 807),
    Probe(
        "asset_refused",
        lambda rh: rh.submit(CLIP, {**CLIP_BODY, "imageUrl": "asset://no"})["errorCode"],
        "1004",
        "1013",
        "1004",
    ),
)


NAMES = [field.name for field in fields(Assumptions)]


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_another_answer_is_seen_over_http(emulate: Emulate, probe: Probe) -> None:
    assert probe.value != getattr(DEFAULT, probe.name)
    assert [
        probe.look(emulate(**probe.options, assumptions=one)) for one in (probe.default, probe.changed)
    ] == probe.seen


def test_every_field_names_its_evidence() -> None:
    assert {probe.name for probe in PROBES} <= set(NAMES)
    (owner,) = ast.parse(inspect.getsource(Assumptions)).body
    assert isinstance(owner, ast.ClassDef)
    texts = [
        node.value.value for node in owner.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ]
    said = [text for text in texts if isinstance(text, str) and " Evidence: " in " ".join(text.split())]
    assert len(said) == len(NAMES)


def test_the_answers_cannot_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        DEFAULT.refusal_status = 400  # type: ignore[misc]  # the assignment is the test
    assert not [name for name in vars(assumptions) if name.isupper() and name != "DEFAULT"]

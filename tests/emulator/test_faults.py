"""Scripted faults: which request, and what the client sees; always over a real connection."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from rh_prefect.emulator import Fault
from rh_prefect.emulator.faults import Route, fault_from_json
from rh_prefect.errors import InputError
from tests.support.samples import media as samples
from tests.support.servers.caller import IMAGE, WORDS, Caller, Json


@pytest.mark.parametrize(("phase", "accepted"), [("after", True), ("before", False)])
@pytest.mark.parametrize("kind", ["cut", "502", "504", "html", "empty"])
def test_an_answer_is_lost_after_or_before_acceptance(rh: Caller, kind: str, phase: str, accepted: bool) -> None:
    rh.rh.faults.add(fault_from_json({"on": "submit", "number": 1, "kind": kind, "phase": phase}))
    if kind == "cut":
        with pytest.raises(httpx.RemoteProtocolError):
            rh.submit()
    else:
        answer = rh.post(f"/openapi/v2/{IMAGE}", WORDS)
        assert answer.status_code == (int(kind) if kind.isdigit() else 200)
        with pytest.raises(ValueError, match="Expecting value"):
            answer.json()
    assert rh.submit()["errorCode"] == ""
    assert [entry.accepted for entry in rh.rh.recorder.submissions] == [accepted, True]


def test_an_answer_that_never_comes(rh: Caller) -> None:
    rh.rh.faults.add(Fault("submit", 1, "stall"))
    with pytest.raises(httpx.ReadTimeout):
        rh.submit(timeout=httpx.Timeout(300, read=1))
    assert rh.rh.recorder.wait(lambda recorder: len(recorder.paid) == 1)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("1003", "Rate limit exceeded, please slow down requests"),
        ("421", "api queue limit reached, please retry later | API 并发数已达上线，请降低并发或稍后重试"),
        ("1501", "Content verification failed, please modify your prompt or images"),
        ("1011", "System is currently busy, please retry later"),
        ("802", "APIKEY_UNAUTHORIZED"),
    ],
)
def test_refusals_by_code_have_runninghubs_words_and_cost_nothing(rh: Caller, code: str, words: str) -> None:
    rh.rh.faults.add(Fault("submit", 1, "code", code=code))
    answer = rh.submit()
    assert (answer["errorCode"], answer["errorMessage"], answer["taskId"]) == (code, words, "")
    (entry,) = rh.rh.recorder.submissions
    assert (entry.code, entry.accepted) == (code, False)


def test_codes_and_statuses_of_other_kinds(rh: Caller) -> None:
    rh.rh.faults.add(Fault("submit", 1, "code", code="1005", phase="after"), Fault("submit", 2, "429"))
    assert rh.submit()["errorCode"] == "1005"
    assert rh.post(f"/openapi/v2/{IMAGE}", WORDS).status_code == 429
    assert [entry.accepted for entry in rh.rh.recorder.submissions] == [True, False]
    rh.rh.faults.clear()
    rh.rh.faults.add(Fault("submit", 1, "code", code="1005", phase="after"), Fault("query", 1, "code", code="412"))
    rh.submit(body={})
    assert rh.rh.recorder.submissions[-1].code == "1007"  # no task was created
    assert rh.query(rh.rh.recorder.paid[0].task_id) == {"code": 412, "msg": "TOKEN_INVALID"}
    rh.rh.faults.add(Fault("query", 1, "slow", seconds=0.2))
    start = time.monotonic()
    assert rh.query(rh.rh.recorder.paid[0].task_id)["status"] == "SUCCESS"
    assert time.monotonic() - start >= 0.2


def test_a_held_answer_is_booked_and_then_let_go(rh: Caller) -> None:
    rh.rh.faults.add(Fault("submit", 1, "hold"))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(rh.submit)
        assert rh.rh.held.wait()
        (entry,) = rh.rh.recorder.paid
        assert not answer.done()
        assert rh.rh.held.release() == 1
        assert not rh.rh.held.wait(seconds=0)
        assert answer.result()["taskId"] == entry.task_id


def test_faults_of_other_routes(rh: Caller, tmp_path: Path) -> None:
    path, task_id = samples.png(tmp_path / "a.png"), rh.submit()["taskId"]
    calls: dict[Route, Callable[[], Json]] = {
        "query": lambda: rh.query(task_id),
        "upload": lambda: rh.upload(path),
        "queue": rh.queue,
        "cancel": lambda: rh.cancel(task_id),
        "account": rh.wallet,
        "price": rh.preview,
    }
    for route, call in calls.items():
        rh.rh.faults.add(Fault(route, 1, "code", code="1003"), Fault(route, 2, "cut"))
        refused = call()
        assert str(refused.get("errorCode") or refused["code"]) == "1003"
        with pytest.raises(httpx.RemoteProtocolError):
            call()
        assert "1003" not in str(call())
    assert len(rh.rh.recorder.uploads) == 2


def codes(rh: Caller, count: int, prompt: str = "x") -> list[str]:
    return [rh.submit(body={**WORDS, "prompt": prompt})["errorCode"] for _ in range(count)]


def test_every_kth_and_at_most_so_often(rh: Caller) -> None:
    rh.rh.faults.add(Fault("submit", every=2, times=2, kind="code", code="1003"))
    assert codes(rh, 7) == ["", "1003", "", "1003", "", "", ""]
    assert rh.rh.faults.seen("submit") == 7
    assert [fired for _, fired in rh.rh.faults.fired()] == [2]


def test_by_prompt_and_by_endpoint(rh: Caller) -> None:
    rh.rh.faults.add(
        Fault("submit", 2, "code", code="1003", prompt="storm"),
        Fault("submit", kind="code", code="1011", endpoint="kling-*"),
    )
    assert codes(rh, 1, "a storm") + codes(rh, 2, "sun") + codes(rh, 2, "a storm") == ["", "", "", "1003", ""]
    assert rh.submit("kling-v2.6-pro/image-to-video", {})["errorCode"] == "1011"
    rh.rh.faults.add(Fault("query", kind="code", code="1003", prompt="fog"))
    fog = rh.submit(body={**WORDS, "prompt": "fog"})["taskId"]
    assert rh.query(fog)["errorCode"] == "1003"
    assert rh.query(rh.submit()["taskId"])["status"] == "SUCCESS"
    rh.rh.faults.add(Fault("submit", kind="code", code="1003", prompt="bad"))
    heard = {**WORDS, "webhookUrl": "http://127.0.0.1:9/hook?run=5dd10f0e-029bad4d"}  # an address is no prompt
    assert [rh.submit(body={**heard, "prompt": one})["errorCode"] for one in ("good", "a bad one")] == ["", "1003"]


@pytest.mark.parametrize(
    "raw",
    [
        {"on": "nowhere"},
        {"on": "submit", "kind": "explode"},
        {"on": "query", "kind": "fail"},
        {"on": "submit", "kind": "expired"},
        {"on": "webhook", "kind": "502"},
        {"on": "submit", "kind": "lost"},
        {"on": "submit", "kind": "code"},
        {"on": "submit", "kind": "code", "code": "busy"},
        {"on": "submit", "every": 0},
        *({"on": "submit", "kind": kind, "phase": "before"} for kind in ("slow", "hold", "fail", "at-once")),
        {"on": "submit", "wrong": 1},
        *({"on": "submit", name: 5} for name in ("prompt", "endpoint", "phase", "code", "message", "node", "link")),
        *({"on": "submit", "kind": "slow", "seconds": seconds} for seconds in ("1", -1, True)),
        {"on": "download", "at": 2},
        {"kind": "cut"},
    ],
)
def test_a_fault_that_cannot_be(rh: Caller, raw: dict[str, object]) -> None:
    with pytest.raises(InputError):
        fault_from_json(raw)
    answer = rh.http.post("/_emulator/faults", json=raw)
    assert (answer.status_code, "error" in answer.json()) == (400, True)


STARTS = ("/task/openapi/create", "/task/openapi/ai-app/run", "/task/openapi/quick-ai-app/run")


V1 = {
    "/task/openapi/status": "status",
    "/task/openapi/outputs": "outputs",
    "/task/openapi/upload": "legacy-upload",
    "/api/openapi/getLoraUploadUrl": "lora",
    "/api/openapi/getJsonApiFormat": "workflow",
    "/api/fast/creation/model/params": "quick-create",
    "/task/openapi/getWebhookDetail": "event",
    "/task/openapi/retryWebhook": "resend",
    **dict.fromkeys(STARTS, "submit"),
}


@pytest.mark.parametrize(("path", "route"), V1.items())
def test_every_v1_route_can_go_wrong(rh: Caller, path: str, route: str) -> None:
    rh.rh.faults.add(fault_from_json({"on": route, "number": 1, "kind": "code", "code": "500"}))
    rh.rh.faults.add(fault_from_json({"on": route, "number": 1, "kind": "502"}))
    answer = rh.v1(path)
    assert answer == {"code": 500, "msg": "UNKNOWN_ERROR", "errorMessages": None, "data": None}
    assert [entry.code for entry in rh.rh.recorder.submissions] == (["500"] if path in STARTS else [])

"""The life of a task: query, clock, cancel, queue status, account."""

from __future__ import annotations

from decimal import Decimal

import pytest

from rh_prefect.emulator import Fault
from tests.emulator.conftest import Emulate
from tests.support.servers.caller import IMAGE_PRICE, Caller


def steady(model: object, payload: object) -> tuple[float, float]:
    return 10.0, 20.0


def test_the_query_of_a_finished_task(rh: Caller) -> None:
    task_id = rh.submit()["taskId"]
    done = rh.query(task_id)
    usage = {"consumeMoney": None, "consumeCoins": None, "taskCostTime": "0", "thirdPartyConsumeMoney": IMAGE_PRICE}
    (result,) = done.pop("results")
    assert done == {
        "taskId": task_id,
        "status": "SUCCESS",
        "errorCode": "",
        "errorMessage": "",
        "clientId": "",
        "promptTips": "",
        "failedReason": {},
        "usage": usage,
        "parentTaskId": None,
        "taskUsageList": [{"taskId": int(task_id), "parentTaskId": None, "taskStatus": "SUCCESS", "usage": usage}],
    }
    assert result["url"].startswith(rh.rh.files_url)
    assert (result["outputType"], result["text"]) == ("png", None)
    assert rh.rh.files_url != rh.rh.url


def test_a_task_that_nobody_knows(rh: Caller) -> None:
    answer = rh.query("2031112223334445057")
    assert (answer["errorCode"], answer["results"]) == ("1004", None)
    assert rh.query("")["errorCode"] == "1007"
    task_id = rh.submit()["taskId"]
    assert rh.post("/openapi/v2/query", {"taskId": int(task_id)}).json()["status"] == "SUCCESS"


NOT_POSITIVE, MALFORMED = "must be greater than 0", "failed to parse request body"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        *[(number, NOT_POSITIVE) for number in ("0", "-1", 0)],
        *[(other, MALFORMED) for other in ("abc", 1.5, True, ["1"])],
        ("", "taskId must not be null"),
    ],
)
def test_an_id_that_is_not_a_positive_number(rh: Caller, wrong: object, words: str) -> None:
    answer = rh.post("/openapi/v2/query", {"taskId": wrong}).json()
    assert answer == {
        "taskId": "",
        "status": "",
        "errorCode": "1007",
        "errorMessage": words,
        "results": None,
        "clientId": "",
        "promptTips": "",
        "failedReason": {},
        "usage": None,
        "parentTaskId": None,
        "taskUsageList": None,
    }


def test_a_task_belongs_to_its_account(rh: Caller) -> None:
    task_id = rh.submit()["taskId"]
    other = Caller(rh.rh, rh.rh.keys.add("other").secret)
    sibling = Caller(rh.rh, rh.rh.keys.add("sibling", account="main").secret)
    assert other.query(task_id)["errorCode"] == "1004"
    assert other.cancel(task_id)["code"] == 807
    assert sibling.query(task_id)["status"] == "SUCCESS"


@pytest.mark.parametrize(
    ("polls", "seen"),
    [(1, ["SUCCESS"]), (2, ["RUNNING", "SUCCESS"]), (4, ["QUEUED", "RUNNING", "RUNNING", "SUCCESS", "SUCCESS"])],
)
def test_a_clock_that_counts_looks(emulate: Emulate, polls: int, seen: list[str]) -> None:
    rh = emulate(clock="polls", polls=polls)
    submitted = rh.submit()
    assert submitted["status"] == "QUEUED"
    answers = [rh.query(submitted["taskId"]) for _ in seen]
    assert [answer["status"] for answer in answers] == seen
    assert all((answer["results"] is None) == (answer["status"] != "SUCCESS") for answer in answers)
    assert all(
        (answer["usage"]["thirdPartyConsumeMoney"] is None) == (answer["status"] != "SUCCESS") for answer in answers
    )


def test_a_clock_that_stands_still_until_it_is_moved(emulate: Emulate) -> None:
    rh = emulate(clock="real", factor=0, durations=steady)
    task_id = rh.submit()["taskId"]
    seen = [rh.query(task_id)["status"]]
    for seconds in (9, 2, 18):
        rh.rh.clock.advance(seconds)
        seen.append(rh.query(task_id)["status"])
    assert seen == ["QUEUED", "QUEUED", "RUNNING", "RUNNING"]
    rh.rh.clock.advance(1.5)
    assert rh.rh.recorder.wait(lambda recorder: recorder.tasks[0].status == "SUCCESS")  # it may still be rendered
    assert rh.query(task_id)["status"] == "SUCCESS"


def test_the_queue_and_the_account_count_tasks(emulate: Emulate) -> None:
    rh = emulate(clock="real", factor=0, limit=3, durations=steady, money=5)
    rh.submit()
    rh.rh.clock.advance(15)
    rh.submit()
    assert rh.queue()["data"] == {
        "apiKeyType": "SHARED",
        "concurrentLimit": 3,
        "runningCount": "1",
        "queuedCount": "1",
        "totalCurrentTasks": "2",
    }
    account = rh.http.post("/uc/openapi/accountStatus", json={"apikey": rh.key}).json()
    assert account == {
        "code": 0,
        "msg": "success",
        "errorMessages": None,
        "data": {
            "remainCoins": "0",
            "currentTaskCounts": "2",
            "remainMoney": "4.86",
            "currency": "CNY",
            "apiType": "SHARED",
        },
    }


def test_cancel_ends_a_task_and_frees_its_slot(emulate: Emulate) -> None:
    rh = emulate(clock="polls", polls=9, limit=1)
    task_id = rh.submit()["taskId"]
    assert rh.cancel(task_id) == {"code": 0, "msg": "success", "errorMessages": None, "data": None}
    answer = rh.query(task_id)
    assert (answer["status"], answer["results"]) == ("CANCEL", None)
    assert rh.rh.recorder.cancelled == [task_id]
    assert rh.submit()["errorCode"] == ""


def test_cancel_is_paid_back_only_while_queued(emulate: Emulate) -> None:
    rh = emulate(clock="polls", polls=9)
    early, late = rh.submit()["taskId"], rh.submit()["taskId"]
    rh.query(late), rh.query(late)
    rh.cancel(early), rh.cancel(late)
    assert rh.rh.recorder.charged == Decimal(IMAGE_PRICE)
    assert rh.query(early)["usage"]["thirdPartyConsumeMoney"] is None
    assert rh.query(late)["usage"]["thirdPartyConsumeMoney"] == IMAGE_PRICE


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("", ("1015", "Generation failed, please try again.")),
        ("1505", ("1505", "Photorealistic real people are prohibited, please modify your prompt or image")),
    ],
)
def test_a_failed_model_task_names_no_node_and_is_paid_back(emulate: Emulate, code: str, said: tuple[str, str]) -> None:
    rh = emulate(faults=[Fault("submit", kind="fail", code=code)], money=1)
    answer = rh.query(rh.submit()["taskId"])
    assert (answer["status"], answer["results"], answer["failedReason"]) == ("FAILED", None, {})
    assert (answer["errorCode"], answer["errorMessage"]) == said
    assert answer["usage"]["thirdPartyConsumeMoney"] is None
    assert rh.rh.recorder.charged == 0
    assert len(rh.rh.recorder.paid) == 1


def test_a_failed_graph_names_its_node_and_is_billed(emulate: Emulate) -> None:
    fault = Fault("submit", kind="fail", node="VAEDecode", exception="TypeError", message="missing argument 'vae'")
    rh = emulate(faults=[fault])
    answer = rh.query(rh.started())
    assert (answer["status"], answer["errorCode"], answer["results"]) == ("FAILED", "1000", None)
    reason = answer["failedReason"]
    assert (reason["node_name"], reason["exception_type"]) == ("VAEDecode", "TypeError")
    assert reason["exception_message"] == "missing argument 'vae'"
    assert isinstance(reason["traceback"], str)
    assert Decimal(answer["usage"]["consumeMoney"]) == rh.rh.recorder.charged > 0

"""The life of a task: query, clock, cancel, queue status, account, and the personal queue of exclusive keys."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from rh_prefect.emulator import Fault
from tests.emulator.conftest import Emulate, lasting
from tests.support.servers.caller import IMAGE_PRICE, Caller

CLIP_OF_10_SECONDS = {"prompt": "waves", "aspectRatio": "16:9", "duration": "10", "sound": "false"}


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
    assert rh.post("/openapi/v2/query", {"taskId": int(task_id)}).json()["status"] == "SUCCESS"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        *[(number, "must be greater than 0") for number in ("0", "-1", 0)],
        *[(other, "failed to parse request body") for other in ("abc", 1.5, True, ["1"])],
        ("", "taskId must not be null"),
    ],
)
def test_an_id_that_is_not_a_positive_number(rh: Caller, wrong: object, words: str) -> None:
    answer = rh.post("/openapi/v2/query", {"taskId": wrong}).json()
    assert (answer["errorCode"], answer["errorMessage"]) == ("1007", words)
    assert {name for name, value in answer.items() if value in ("", None, {})} == {
        *("taskId", "status", "results", "clientId", "promptTips", "failedReason"),
        *("usage", "parentTaskId", "taskUsageList"),
    }


def test_a_task_belongs_to_its_account(rh: Caller) -> None:
    task_id, other = rh.submit()["taskId"], rh.other()
    assert other.query(task_id)["errorCode"] == "1004"
    assert other.cancel(task_id)["code"] == 807
    assert rh.other("sibling", account="main").query(task_id)["status"] == "SUCCESS"


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
    for answer in answers:
        unpaid = answer["usage"]["thirdPartyConsumeMoney"] is None
        assert (answer["results"] is None, unpaid) == (answer["status"] != "SUCCESS",) * 2


def test_a_clock_that_stands_still_until_it_is_moved(emulate: Emulate) -> None:
    rh = emulate(clock="real", factor=0, durations=lasting(10.0, 20.0))
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
    rh = emulate(clock="real", factor=0, limit=3, durations=lasting(10.0, 20.0), money=5)
    rh.submit()
    rh.rh.clock.advance(15)
    rh.submit()
    counts = {"runningCount": "1", "queuedCount": "1", "totalCurrentTasks": "2"}
    assert rh.queue()["data"] == {"apiKeyType": "SHARED", "concurrentLimit": 3, **counts}
    money = {"remainCoins": "0", "remainMoney": "4.86", "currency": "CNY"}
    data = {**money, "currentTaskCounts": "2", "apiType": "SHARED"}
    assert rh.wallet() == {"code": 0, "msg": "success", "errorMessages": None, "data": data}


def test_cancel_ends_a_task_and_frees_its_slot(emulate: Emulate) -> None:
    rh = emulate(clock="polls", polls=9, limit=1)
    task_id = rh.submit()["taskId"]
    assert rh.cancel(task_id) == {"code": 0, "msg": "success", "errorMessages": None, "data": None}
    answer = rh.query(task_id)
    assert (answer["status"], answer["results"]) == ("CANCEL", None)
    assert rh.rh.recorder.cancelled == [task_id]
    assert rh.submit()["errorCode"] == ""


def test_a_query_that_waits_for_a_result_answers_after_a_cancel(emulate: Emulate) -> None:
    rh = emulate(long_side=640, fps=24, max_seconds=None)
    for _ in range(3):  # more than are rendered at a time
        task_id = rh.submit("kling-v2.6-pro/text-to-video", CLIP_OF_10_SECONDS)["taskId"]
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(Caller(rh.rh).query, task_id)
        assert rh.rh.recorder.wait(lambda recorder: "/openapi/v2/query" in [row.path for row in recorder.requests])
        rh.cancel(task_id)
        assert answer.result(timeout=5)["status"] == "CANCEL"


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
    told = [reason[name] for name in ("node_name", "exception_type", "exception_message")]
    assert (told, type(reason["traceback"])) == (["VAEDecode", "TypeError", "missing argument 'vae'"], str)
    assert Decimal(answer["usage"]["consumeMoney"]) == rh.rh.recorder.charged > 0


def test_status_says_one_word(emulate: Emulate) -> None:
    rh = emulate(clock="polls", polls=3)
    task_id = rh.started()
    seen = [rh.v1("/task/openapi/status", taskId=task_id) for _ in range(4)]
    assert [answer["data"] for answer in seen] == ["QUEUED", "RUNNING", "SUCCESS", "SUCCESS"]
    assert (seen[0]["code"], seen[0]["msg"]) == (0, "")


def test_outputs_say_the_state_by_their_code(emulate: Emulate) -> None:
    rh = emulate(clock="polls", polls=3)
    task_id = rh.started()
    queued, running, done = (rh.outputs(task_id) for _ in range(3))
    assert (queued["code"], queued["msg"], queued["data"]) == (813, "APIKEY_TASK_IS_QUEUED", None)
    assert (running["code"], running["msg"]) == (804, "APIKEY_TASK_IS_RUNNING")
    assert running["data"]["netWssUrl"].startswith("ws://")
    assert (done["code"], isinstance(done["data"][0]["taskCostTime"], str)) == (0, True)
    model = rh.submit()["taskId"]
    *_, of_a_model = (rh.outputs(model)["data"] for _ in range(3))
    assert of_a_model[0]["thirdPartyConsumeMoney"] == IMAGE_PRICE


def test_busy_machines_refuse_unless_the_task_may_queue(emulate: Emulate) -> None:
    rh = emulate(clock="polls", polls=2).other(tier="EXCLUSIVE", limit=1)
    first = rh.started()
    assert (rh.create()["code"], rh.create(usePersonalQueue="false")["code"]) == (415, 415)
    waiting = rh.started(usePersonalQueue="true")
    last = rh.started(usePersonalQueue=True)
    assert [rh.query(waiting)["status"] for _ in range(4)] == ["QUEUED"] * 4  # looks do not count while it waits
    queue = rh.queue()["data"]
    assert (queue["runningCount"], queue["queuedCount"], queue["totalCurrentTasks"]) == ("0", "3", "3")
    looks = (first, first, last, waiting, waiting, last, last)
    seen = [rh.query(task_id)["status"] for task_id in looks]
    assert seen == ["RUNNING", "SUCCESS", "QUEUED", "RUNNING", "SUCCESS", "RUNNING", "SUCCESS"]


def test_a_personal_queue_can_be_full_and_its_tasks_cancelled(emulate: Emulate) -> None:
    rh = emulate(clock="polls", polls=9).other(tier="EXCLUSIVE", limit=1, queue=2)
    tasks = [rh.started(usePersonalQueue=True) for _ in range(3)]
    refused = rh.create(usePersonalQueue=True)
    assert (refused["code"], refused["msg"]) == (814, "PERSONAL_QUEUE_COUNT_LIMIT")
    rh.cancel(tasks[1])
    assert rh.create(usePersonalQueue=True)["code"] == 0
    rh.cancel(tasks[0])
    assert [rh.query(tasks[2])["status"] for _ in range(2)] == ["QUEUED", "RUNNING"]  # let in, by the clock


def test_other_keys_have_no_personal_queue(emulate: Emulate) -> None:
    rh = emulate(clock="polls", limit=1)
    rh.started()
    assert rh.create(usePersonalQueue=True)["code"] == 421

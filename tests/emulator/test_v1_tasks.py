"""v1 status and outputs, cancel of graphs, and the personal queue of exclusive keys."""

from __future__ import annotations

from typing import Any

from tests.emulator.conftest import Emulate
from tests.support.servers.caller import IMAGE_PRICE, Caller, Json


def status(rh: Caller, task_id: object) -> Json:
    return rh.v1("/task/openapi/status", taskId=task_id)


def test_status_says_one_word(emulate: Emulate) -> None:
    rh = emulate(clock="polls", polls=3)
    task_id = rh.started()
    seen = [status(rh, task_id) for _ in range(4)]
    assert [answer["data"] for answer in seen] == ["QUEUED", "RUNNING", "SUCCESS", "SUCCESS"]
    assert (seen[0]["code"], seen[0]["msg"]) == (0, "")


def test_outputs_say_the_state_by_their_code(emulate: Emulate) -> None:
    rh = emulate(clock="polls", polls=3)
    task_id = rh.started()
    queued, running, done = (rh.outputs(task_id) for _ in range(3))
    assert (queued["code"], queued["msg"], queued["data"]) == (813, "APIKEY_TASK_IS_QUEUED", None)
    assert (running["code"], running["msg"]) == (804, "APIKEY_TASK_IS_RUNNING")
    assert running["data"]["netWssUrl"].startswith("ws://")
    assert done["code"] == 0
    assert isinstance(done["data"][0]["taskCostTime"], str)


def test_models_answer_v1_too(rh: Caller) -> None:
    task_id = rh.submit()["taskId"]
    assert rh.outputs(task_id)["data"][0]["thirdPartyConsumeMoney"] == IMAGE_PRICE


def exclusive(rh: Caller, **options: Any) -> Caller:
    return Caller(rh.rh, rh.rh.keys.add("own", tier="EXCLUSIVE", limit=1, **options).secret)


def test_busy_machines_refuse_unless_the_task_may_queue(emulate: Emulate) -> None:
    rh = exclusive(emulate(clock="polls", polls=2))
    first = rh.started()
    assert (rh.create()["code"], rh.create(usePersonalQueue="false")["code"]) == (415, 415)
    waiting = rh.started(usePersonalQueue="true")
    last = rh.started(usePersonalQueue=True)
    assert [rh.query(waiting)["status"] for _ in range(4)] == ["QUEUED"] * 4  # looks do not count while it waits
    assert rh.queue()["data"] | {"apiKeyType": ""} == {
        "apiKeyType": "",
        "concurrentLimit": 1,
        "runningCount": "0",
        "queuedCount": "3",
        "totalCurrentTasks": "3",
    }
    assert [rh.query(first)["status"] for _ in range(2)] == ["RUNNING", "SUCCESS"]
    assert [rh.query(last)["status"], *(rh.query(waiting)["status"] for _ in range(2))] == [
        "QUEUED",
        "RUNNING",
        "SUCCESS",
    ]
    assert [rh.query(last)["status"] for _ in range(2)] == ["RUNNING", "SUCCESS"]


def test_a_personal_queue_can_be_full_and_its_tasks_cancelled(emulate: Emulate) -> None:
    rh = exclusive(emulate(clock="polls", polls=9), queue=2)
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

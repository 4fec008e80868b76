from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from decimal import Decimal

import pytest

from rh_prefect.client.wire import RemoteOutput, TaskView, Usage
from rh_prefect.errors import ApiError, ConfigError, KeyRejected, NoAnswer, TaskNotFound, api_error
from rh_prefect.jobs.cancel import LOOKS_FOR_OUTPUTS, PATIENCE, REMEMBER, CancelWatch, cancel_scope, cancel_task
from rh_prefect.jobs.care import read_job
from rh_prefect.jobs.ledger.journal import FolderJournal
from rh_prefect.jobs.ledger.owner import current_owner
from rh_prefect.jobs.ledger.records import Answer, End, Intent, Record
from rh_prefect.jobs.ledger.scope import FolderScope
from tests.support.job_records import KEY, SOMEWHERE_ELSE, TASK, dead_owner, intent, ticket, unknown, write

RUNNING = TaskView(task_id=TASK, status="RUNNING")
EMPTY = TaskView(task_id=TASK, status="SUCCESS")
SUCCESS = TaskView(
    task_id=TASK,
    status="SUCCESS",
    outputs=(RemoteOutput(url="http://files/1.png", type="png"),),
    usage=Usage(money=Decimal("0.3")),
)
CANCELLED = TaskView(task_id=TASK, status="CANCELLED")


def not_found() -> ApiError:
    return api_error("807", "APIKEY_TASK_NOT_FOUND", doing="cancel")


class RunningHub:
    """Cancels and answers queries as told; the last answer stands."""

    def __init__(self, *queries: TaskView | Exception, refuses: Exception | None = None) -> None:
        self.queries = list(queries)
        self.refuses = refuses
        self.cancelled: list[str] = []

    async def cancel(self, task_id: str) -> None:
        self.cancelled.append(task_id)
        if self.refuses is not None:
            raise self.refuses

    async def query(self, task_id: str) -> TaskView:
        answer = self.queries.pop(0) if len(self.queries) > 1 else self.queries[0]
        if isinstance(answer, Exception):
            raise answer
        return answer.model_copy(update={"task_id": task_id})


class Time:
    """Passes where it is waited for; `then` happens meanwhile."""

    def __init__(self) -> None:
        self.now = 0.0
        self.then: list[Callable[[], Awaitable[None]]] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.then:
            await self.then.pop(0)()


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.mark.parametrize("says", [RUNNING, CANCELLED, not_found()])
async def test_what_runninghub_agreed_to_cancel_is_cancelled(says: TaskView | Exception) -> None:
    rh = RunningHub(says)
    assert (await cancel_task(rh, TASK)).status == "CANCELLED"
    assert rh.cancelled == [TASK]


async def test_a_task_that_had_succeeded_keeps_its_outputs() -> None:
    for refuses in (None, api_error("301", "too late", doing="cancel")):
        assert await cancel_task(RunningHub(SUCCESS, refuses=refuses), TASK) == SUCCESS


async def test_outputs_that_come_seconds_after_the_success_are_waited_for(time: Time) -> None:
    assert await cancel_task(RunningHub(EMPTY, EMPTY, SUCCESS), TASK, sleep=time.sleep) == SUCCESS
    assert await cancel_task(RunningHub(EMPTY), TASK, sleep=time.sleep) == EMPTY
    assert time.now == 2 + LOOKS_FOR_OUTPUTS


@pytest.mark.parametrize("query", [RUNNING, not_found()])
async def test_a_task_that_could_not_be_cancelled_is_not_called_cancelled(query: TaskView | Exception) -> None:
    with pytest.raises(TaskNotFound):
        await cancel_task(RunningHub(query, refuses=not_found()), TASK)


@pytest.mark.parametrize("error", [KeyRejected("no", retry="fix-outside"), NoAnswer("HTTP 502")])
async def test_a_cancellation_that_got_nowhere_is_an_error(error: Exception) -> None:
    with pytest.raises(type(error)):
        await cancel_task(RunningHub(RUNNING, refuses=error), TASK)


async def cancel(journal: FolderJournal, rh: RunningHub, time: Time) -> tuple[set[str], set[str], dict[str, str]]:
    async def client_for(_: Intent) -> RunningHub:
        return rh

    scope = FolderScope(journal)
    report = await cancel_scope(scope, client_for, by="a test", clock=time.clock, sleep=time.sleep)
    return set(report.cancelled), set(report.finished), report.failed


SUBMITTED: dict[str, Record] = {"intent-1": intent(), "answer-1": ticket()}


async def test_all_that_runs_is_cancelled_and_its_end_recorded(journal: FolderJournal, time: Time) -> None:
    await write(journal, SUBMITTED)
    await write(journal, {"intent-1": intent(), "answer-1": ticket("2")}, key="b1")
    assert await cancel(journal, RunningHub(RUNNING), time) == ({TASK, "2"}, set(), {})
    for key in (KEY, "b1"):
        view = await read_job(journal, key)
        assert view.last is not None
        assert view.last.end is not None
        assert view.last.end.status == "CANCELLED"


async def test_what_had_succeeded_keeps_its_links(journal: FolderJournal, time: Time) -> None:
    await write(journal, SUBMITTED)
    assert await cancel(journal, RunningHub(SUCCESS), time) == (set(), {TASK}, {})
    end = (await read_job(journal, KEY)).submits[0].end
    assert end is not None
    assert (end.status, end.cost, [link.url for link in end.links]) == (
        "SUCCESS",
        Decimal("0.3"),
        ["http://files/1.png"],
    )


async def test_what_has_ended_or_was_refused_is_left_alone(journal: FolderJournal, time: Time) -> None:
    await write(journal, {**SUBMITTED, "end-1": End(status="FAILED", task_id=TASK)})
    await write(journal, {"intent-1": intent(), "answer-1": Answer(outcome="refused")}, key="b1")
    rh = RunningHub(RUNNING)
    assert await cancel(journal, rh, time) == (set(), set(), {})
    assert rh.cancelled == []


async def test_the_record_that_stops_new_submits_comes_first(journal: FolderJournal, time: Time) -> None:
    await write(journal, SUBMITTED)

    class Looks(RunningHub):
        async def cancel(self, task_id: str) -> None:
            assert await journal.read("cancel-1") is not None
            await super().cancel(task_id)

    rh = Looks(RUNNING)
    await cancel(journal, rh, time)
    assert rh.cancelled == [TASK]


async def test_a_submit_in_flight_is_waited_for_and_its_task_cancelled(journal: FolderJournal, time: Time) -> None:
    await write(journal, {"intent-1": intent(owner=current_owner())})
    time.then = [lambda: write(journal, {"answer-1": ticket()})]
    assert await cancel(journal, RunningHub(RUNNING), time) == ({TASK}, set(), {})


@pytest.mark.parametrize("owner", [current_owner(), SOMEWHERE_ELSE], ids=["living", "elsewhere"])
async def test_patience_with_a_submit_in_flight_ends_and_is_said(
    journal: FolderJournal, time: Time, owner: object
) -> None:
    await write(journal, {"intent-1": intent(owner=owner)})
    _, _, failed = await cancel(journal, RunningHub(RUNNING), time)
    assert list(failed) == [f"run/{KEY}"]
    assert PATIENCE <= time.now < PATIENCE + 2


async def test_a_dead_process_is_not_waited_for_and_its_submit_said(journal: FolderJournal, time: Time) -> None:
    await write(journal, {"intent-1": intent(owner=dead_owner())})
    _, _, failed = await cancel(journal, RunningHub(RUNNING), time)
    assert "nobody knows" in failed[f"run/{KEY}"]
    assert time.now == 0


async def test_an_unknown_submit_is_said(journal: FolderJournal, time: Time) -> None:
    await write(journal, {"intent-1": intent(), "answer-1": unknown()})
    _, _, failed = await cancel(journal, RunningHub(RUNNING), time)
    assert "nobody knows" in failed[f"run/{KEY}"]


async def test_what_cannot_be_cancelled_is_said_and_does_not_stop_the_rest(journal: FolderJournal, time: Time) -> None:
    await write(journal, SUBMITTED)
    await write(journal, {"intent-1": intent(credentials="gone"), "answer-1": ticket("2")}, key="b1")
    rh = RunningHub(RUNNING)

    async def client_for(paid: Intent) -> RunningHub:
        if paid.credentials:
            raise ConfigError("there is no such block")
        return rh

    report = await cancel_scope(FolderScope(journal), client_for, by="a test", clock=time.clock, sleep=time.sleep)
    assert report.cancelled == (TASK,)
    assert report.failed == {"run/b1": "there is no such block"}
    assert (await read_job(journal, "b1")).state == "ticket"


async def test_a_run_is_cancelled_for_its_attempt(journal: FolderJournal, time: Time) -> None:
    await cancel(journal, RunningHub(RUNNING), time)
    watch = CancelWatch(clock=time.clock)
    assert await watch.look(journal, 1, fresh=True)
    assert not await watch.look(journal, 2, fresh=True)


async def test_not_cancelled_is_remembered_for_a_moment_only(journal: FolderJournal, time: Time) -> None:
    watch = CancelWatch(clock=time.clock)
    assert not await watch.look(journal, 1, fresh=False)
    await cancel(journal, RunningHub(RUNNING), time)
    assert not await watch.look(journal, 1, fresh=False)
    time.now += REMEMBER
    assert await watch.look(journal, 1, fresh=False)


async def test_a_fresh_look_asks_the_journal(journal: FolderJournal, time: Time) -> None:
    watch = CancelWatch(clock=time.clock)
    assert not await watch.look(journal, 1, fresh=False)
    await cancel(journal, RunningHub(RUNNING), time)
    assert await watch.look(journal, 1, fresh=True)


async def test_cancelled_is_remembered_for_ever_and_runs_are_told_apart(journal: FolderJournal, time: Time) -> None:
    await cancel(journal, RunningHub(RUNNING), time)
    watch = CancelWatch(clock=time.clock)
    other = FolderJournal(journal.url, scope="other")
    assert await watch.look(journal, 1, fresh=True)
    assert not await watch.look(other, 1, fresh=True)
    time.now += 1e6
    shutil.rmtree(journal.url)
    assert await watch.look(journal, 1, fresh=True)


async def test_jobs_of_later_attempts_and_of_those_before_the_first_that_is_meant_go_on(journal: FolderJournal) -> None:
    for attempt in (1, 2, 3, 4):
        records = {"intent-1": intent(attempt=attempt), "answer-1": ticket(f"{TASK}{attempt}")}
        await write(journal, records, key=f"{attempt}" * 24)
    hub = RunningHub(RUNNING)

    async def client_for(_: Intent) -> RunningHub:
        return hub

    report = await cancel_scope(FolderScope(journal, attempt=3), client_for, by="a test", since=2)
    assert sorted(hub.cancelled) == sorted(report.cancelled) == [f"{TASK}2", f"{TASK}3"]
    assert report.failed == {}

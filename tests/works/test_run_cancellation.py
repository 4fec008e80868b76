from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.client import RemoteOutput, TaskView, Usage
from rh_prefect.errors import ApiError, ConfigError, JournalError, KeyRejected, ResponseLost, api_error
from rh_prefect.works.journal.job_records_and_state import read_job
from rh_prefect.works.journal.journal import JSON, Journal, StoredText
from rh_prefect.works.journal.record_types import Answer, End, Intent, Record, current_owner
from rh_prefect.works.journal.scope import FolderScope, Scope, cancel_key
from rh_prefect.works.journal.spool import Spool, Spooled
from rh_prefect.works.journal.works_journal import WorksJournal
from rh_prefect.works.lifecycle_steps import BEFORE_CLAIM
from rh_prefect.works.run_cancellation import (
    PATIENCE,
    POLLS_FOR_OUTPUTS,
    UNCLEAR,
    UNTIL_INTENT,
    cancel_scope,
    cancel_task,
)
from tests.support.world.job_records import KEY, SOMEWHERE_ELSE, TASK, dead_owner, intent, ticket, unknown, write
from tests.support.world.memory_journal import MemoryJournal, MemoryPlace
from tests.support.world.virtual_time import now

pytestmark = pytest.mark.virtual_time

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
    """Cancels, and answers queries with given answers; the last one is repeated."""

    pays_in: str | None = None
    answers_after = 0.0

    def __init__(
        self,
        *queries: TaskView | Exception,
        refuses: Exception | None = None,
        on_cancel: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self.queries = list(queries)
        self.refuses = refuses
        self.on_cancel = on_cancel
        self.cancelled: list[str] = []
        self.paces: list[float | None] = []

    async def cancel(self, task_id: str) -> None:
        if self.on_cancel is not None:
            await self.on_cancel(task_id)
        self.cancelled.append(task_id)
        if self.refuses is not None:
            raise self.refuses

    async def query(self, task_id: str) -> TaskView:
        answer = self.queries.pop(0) if len(self.queries) > 1 else self.queries[0]
        if isinstance(answer, Exception):
            raise answer
        return answer.model_copy(update={"task_id": task_id})

    async def currency(self, *, pace_seconds: float | None = None) -> str | None:
        self.paces.append(pace_seconds)
        await asyncio.sleep(self.answers_after)
        if self.pays_in is None:
            raise ResponseLost("HTTP 502")
        return self.pays_in


class Works(WorksJournal):
    """The records of works, without the threads for which nothing waits in virtual time."""

    async def _call(self, function: Any, *args: Any) -> Any:
        return function(*args)


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal(MemoryPlace(), "run")


def later(seconds: float, call: Callable[[], Awaitable[None]]) -> None:
    asyncio.get_running_loop().call_later(seconds, lambda: asyncio.ensure_future(call()))


@pytest.mark.parametrize(
    ("says", "status"), [(RUNNING, "RUNNING"), (CANCELLED, "CANCELLED"), (not_found(), "CANCELLED")]
)
async def test_a_task_is_cancelled_if_runninghub_accepts_the_cancellation(
    says: TaskView | Exception, status: str
) -> None:
    rh: Any = RunningHub(says)
    assert (await cancel_task(rh, TASK)).status == status
    assert rh.cancelled == [TASK]


async def test_an_accepted_cancellation_is_no_end_while_the_task_runs(journal: MemoryJournal) -> None:
    await write(journal, SUBMITTED)
    assert await cancel(journal, RunningHub(RUNNING)) == ({TASK}, set(), {})
    (last,) = (await read_job(journal, KEY)).submits
    assert (last.state, last.end) == ("ticket", None)  # a later attempt queries it, and pays for no other
    assert await cancel(journal, RunningHub(SUCCESS)) == (set(), {TASK}, {})
    assert (await read_job(journal, KEY)).submits[0].end is not None


@pytest.mark.parametrize(("pays_in", "currency"), [("USD", "USD"), (None, "CNY")])
async def test_the_cost_of_a_task_that_had_ended_is_in_the_currency_of_its_account(
    journal: MemoryJournal, pays_in: str | None, currency: str
) -> None:
    """The intent has the catalogue's currency if the account could not be read at the submission."""
    await write(journal, {"intent-1": intent(currency="CNY"), "answer-1": ticket()})
    rh = RunningHub(SUCCESS)
    rh.pays_in = pays_in
    await cancel(journal, rh)
    (last,) = (await read_job(journal, KEY)).submits
    assert last.end is not None
    assert (last.end.cost, last.end.currency) == (Decimal("0.3"), currency)


@pytest.mark.parametrize(("pays_in", "after", "took"), [("USD", 0, 0), (None, 2, 2), ("USD", 60, 5)])
async def test_each_account_is_asked_for_its_currency_once_and_only_for_seconds(
    journal: MemoryJournal, pays_in: str | None, after: float, took: float
) -> None:
    """A hook has 30 s for all tasks, and RunningHub may be too busy to tell the currency."""
    accounts = {name: RunningHub(SUCCESS) for name in ("main", "two")}
    for number, key in enumerate(MANY[:40]):
        # An account that was renamed meanwhile has two names.
        account = ("main", "two", "main", "earlier name of two")[number % 4]
        await write(journal, {"intent-1": intent(account=account), "answer-1": ticket(f"{TASK}{number}")}, key=key)
    for one in accounts.values():
        one.pays_in, one.answers_after = pays_in, after

    async def client_for(intent: Intent) -> Any:
        return accounts["main" if intent.account == "main" else "two"]

    report = await cancel_scope(FolderScope(journal), client_for, by="a test")
    assert (len(report.finished), report.failed) == (40, {})
    assert now() == pytest.approx(took, abs=0.1)
    assert [one.paces for one in accounts.values()] == [[2.0], [2.0]]


async def test_a_success_without_files_is_reported_and_not_recorded(journal: MemoryJournal) -> None:
    await write(journal, SUBMITTED)
    assert await cancel(journal, RunningHub(EMPTY)) == (set(), {TASK}, {})
    assert (await read_job(journal, KEY)).submits[0].end is None, "its files may come"


async def test_outputs_that_come_seconds_after_the_success_are_waited_for() -> None:
    asked = list[float]()

    class Hub(RunningHub):
        async def query(self, task_id: str) -> TaskView:
            asked.append(round(now(), 2))
            return await super().query(task_id)

    late: Any = Hub(EMPTY, EMPTY, SUCCESS)
    never: Any = Hub(EMPTY)
    assert await cancel_task(late, TASK) == SUCCESS
    assert await cancel_task(never, TASK) == EMPTY
    assert asked == [0, 1, 2, *range(2, 2 + POLLS_FOR_OUTPUTS + 1)]
    assert POLLS_FOR_OUTPUTS == 5


@pytest.mark.parametrize(
    ("query", "refusal"),
    [
        (RUNNING, not_found()),
        (not_found(), not_found()),
        # These say nothing about the task.
        (SUCCESS, KeyRejected("no", retry="action_required")),
        (SUCCESS, ResponseLost("HTTP 502")),
    ],
)
async def test_a_task_that_could_not_be_cancelled_is_an_error(query: TaskView | Exception, refusal: Exception) -> None:
    rh: Any = RunningHub(query, refuses=refusal)
    with pytest.raises(type(refusal)):
        await cancel_task(rh, TASK)


async def cancel(
    where: Journal | Scope, rh: RunningHub, *, spool: Spool | None = None
) -> tuple[set[str], set[str], dict[str, str]]:
    """Cancels a run; returns the tasks that were cancelled, those that had ended, and why others were not cancelled."""

    async def client_for(_: Intent) -> Any:
        return rh

    scope = where if isinstance(where, Scope) else FolderScope(where)
    report = await cancel_scope(scope, client_for, by="a test", spool=spool)
    return set(report.cancelled), set(report.finished), report.failed


SUBMITTED: dict[str, Record] = {"intent-1": intent(), "answer-1": ticket()}


async def test_no_task_is_submitted_any_more_and_all_are_cancelled_and_their_ends_recorded(
    journal: MemoryJournal,
) -> None:
    async def look(_: str) -> None:
        assert await journal.read("cancel-1") is not None
        await asyncio.sleep(0.02)

    await write(journal, SUBMITTED)
    await write(journal, {"intent-1": intent(), "answer-1": ticket("2")}, key="b1")
    assert await cancel(journal, RunningHub(CANCELLED, on_cancel=look)) == ({TASK, "2"}, set(), {})
    ends = [(await read_job(journal, key)).submits[0].end for key in (KEY, "b1")]
    assert [end and end.status for end in ends] == ["CANCELLED"] * 2


async def test_a_task_whose_answer_only_this_machine_has_is_cancelled(journal: MemoryJournal, tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    sent = intent()
    await write(journal, {"intent-1": sent})
    spool.put(Spooled(scope=journal.scope, key=KEY, n=1, token=sent.token, answer=ticket()))
    assert await cancel(journal, RunningHub(CANCELLED), spool=spool) == ({TASK}, set(), {})
    (submit,) = (await read_job(journal, KEY)).submits
    assert (submit.task_id, submit.end and submit.end.status) == (TASK, "CANCELLED")
    assert not list(spool.entries())


@pytest.mark.parametrize(
    ("attempt", "comes_at", "cancelled"),
    [(1, 0, {TASK}), (1, 0.5, {TASK}), (2, 0.5, set()), (1, UNTIL_INTENT, set())],
    ids=["is there", "comes", "of a later attempt", "never comes"],
)
async def test_the_intent_of_a_noted_claim_is_waited_for_and_left_to_a_later_attempt_that_claims_it(
    tmp_path: Path, attempt: int, comes_at: float, cancelled: set[str]
) -> None:
    works = Works(str(tmp_path))

    class FlowRun(Scope):
        async def works(self) -> WorksJournal:
            return works

    scope = FlowRun(MemoryJournal(MemoryPlace(), "night"), run="night", flow="night", attempt=1)
    await write(scope.journal, {"claim-1": Record()})

    async def submit() -> None:
        await write(works, {"intent-1": intent(flow_run="night", attempt=attempt), "answer-1": ticket()})

    if not comes_at:
        await submit()
    elif comes_at == 0.5:
        later(0.4, submit)
    assert await cancel(scope, RunningHub(CANCELLED)) == (cancelled, set(), {})
    assert now() == pytest.approx(comes_at, abs=0.1)
    assert BEFORE_CLAIM < UNTIL_INTENT < PATIENCE, "an intent that comes later is not submitted"


async def test_no_intent_of_a_noted_claim_is_waited_for_outside_of_flows(tmp_path: Path) -> None:
    """The process reads the cancellation after its intent, and does not submit."""
    scope = FolderScope(MemoryJournal(MemoryPlace(), "night"), Works(str(tmp_path)))
    await write(scope.journal, {"claim-1": Record()})
    assert await cancel(scope, RunningHub(CANCELLED)) == (set(), set(), {})
    assert now() < 0.1


@pytest.mark.parametrize("code", ["301", "813"])
async def test_a_task_that_had_succeeded_keeps_its_links(journal: MemoryJournal, code: str) -> None:
    await write(journal, SUBMITTED)
    refuses = api_error(code, "too late", doing="cancel")
    assert await cancel(journal, RunningHub(SUCCESS, refuses=refuses)) == (set(), {TASK}, {})
    end = (await read_job(journal, KEY)).submits[0].end
    assert end is not None
    assert (end.queued_seconds, end.run_seconds) == (None, None), "this process has not watched the task"
    assert (end.status, end.cost, end.links[0].url) == ("SUCCESS", Decimal("0.3"), "http://files/1.png")


async def test_ended_and_refused_submissions_are_not_changed(journal: MemoryJournal) -> None:
    await write(journal, {**SUBMITTED, "end-1": End(status="FAILED", task_id=TASK)})
    await write(journal, {"intent-1": intent(), "answer-1": Answer(outcome="refused")}, key="b1")
    rh = RunningHub(RUNNING)
    assert await cancel(journal, rh) == (set(), set(), {})
    assert rh.cancelled == []


@pytest.mark.parametrize(
    ("owner", "answer", "waits"),
    [
        (current_owner, {}, PATIENCE),
        (lambda: SOMEWHERE_ELSE, {}, PATIENCE),
        (dead_owner, {}, 0),
        (dead_owner, {"answer-1": unknown()}, 0),
    ],
    ids=["living", "elsewhere", "dead", "unknown"],
)
async def test_the_wait_for_a_submission_in_flight_is_limited_and_reported(
    journal: MemoryJournal, owner: Callable[[], object], answer: dict[str, Record], waits: float
) -> None:
    await write(journal, {"intent-1": intent(owner=owner()), **answer})
    _, _, failed = await cancel(journal, RunningHub(RUNNING))
    assert failed == {f"run/{KEY}": UNCLEAR}
    assert now() == pytest.approx(waits, abs=0.1)
    assert PATIENCE == 20, "Prefect ends the cancelling process after 30 s"


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ConfigError("there is no such block"), "there is no such block"), (RuntimeError("odd"), "RuntimeError: odd")],
)
async def test_a_failed_cancellation_is_reported_and_does_not_stop_the_others(
    journal: MemoryJournal, error: Exception, reason: str
) -> None:
    await write(journal, SUBMITTED)
    await write(journal, {"intent-1": intent(), "answer-1": ticket("2")}, key="b1")

    async def fail(task_id: str) -> None:
        if task_id == "2":
            raise error

    assert await cancel(journal, RunningHub(RUNNING, on_cancel=fail)) == ({TASK}, set(), {"run/b1": reason})
    assert (await read_job(journal, "b1")).state == "ticket"


async def test_jobs_of_later_attempts_are_not_cancelled(journal: MemoryJournal) -> None:
    for attempt in (2, 3, 4):
        records = {"intent-1": intent(attempt=attempt), "answer-1": ticket(f"{TASK}{attempt}")}
        await write(journal, records, key=f"{attempt}" * 24)
    hub, earlier = RunningHub(RUNNING), {f"{TASK}2", f"{TASK}3"}
    assert await cancel(FolderScope(journal, attempt=3), hub) == (earlier, set(), {})
    assert set(hub.cancelled) == earlier
    recorded = [attempt for attempt in range(6) if await journal.read(cancel_key(attempt)) is not None]
    assert recorded == [1, 2, 3], "another process of the named scope submits nothing either"


MANY = [f"{number:024x}" for number in range(80)]


async def test_tasks_are_cancelled_16_at_a_time_while_more_are_read() -> None:
    has_cancelled, at_once, most_at_once = asyncio.Event(), 0, 0

    class Listed(MemoryJournal):
        """Its listing continues only after a task was cancelled."""

        async def jobs(self) -> AsyncIterator[tuple[str, dict[str, StoredText]]]:
            number = 0
            async for job in super().jobs():
                number += 1
                yield job
                if number == len(MANY) // 2:
                    await asyncio.wait_for(has_cancelled.wait(), 300)

    async def count(_: str) -> None:
        nonlocal at_once, most_at_once
        has_cancelled.set()
        at_once += 1
        most_at_once = max(most_at_once, at_once)
        await asyncio.sleep(0.02)
        at_once -= 1

    hub, journal = RunningHub(RUNNING, on_cancel=count), Listed(MemoryPlace(), "run")
    tasks = [f"{TASK}{number:02}" for number in range(len(MANY))]
    for key, task_id in zip(MANY, tasks):
        await write(journal, {"intent-1": intent(), "answer-1": ticket(task_id)}, key=key)
    assert await cancel(journal, hub) == (set(tasks), set(), {})
    assert most_at_once == 16
    assert sorted(hub.cancelled) == tasks


async def test_an_end_that_another_process_recorded_first_counts(journal: MemoryJournal) -> None:
    await write(journal, SUBMITTED)

    async def end(_: str) -> None:
        await write(journal, {"end-1": End(status="SUCCESS", task_id=TASK)})

    assert await cancel(journal, RunningHub(CANCELLED, on_cancel=end)) == (set(), {TASK}, {})


async def test_while_a_submit_is_in_flight_only_its_job_is_read_again() -> None:
    """The whole scope is read once, for any wait for a submission."""

    class Counted(MemoryJournal):
        listings = 0

        async def jobs(self) -> AsyncIterator[tuple[str, dict[str, StoredText]]]:
            self.listings += 1
            async for job in super().jobs():
                yield job

    journal = Counted(MemoryPlace(), "run")
    await write(journal, SUBMITTED)
    await write(journal, {"intent-1": intent(owner=current_owner())}, key="b1")
    later(0.9, lambda: write(journal, {"answer-1": ticket("2")}, key="b1"))
    assert await cancel(journal, RunningHub(RUNNING)) == ({TASK, "2"}, set(), {})
    assert journal.listings == 1


async def test_a_submission_in_flight_is_given_up_while_the_cancellation_of_another_one_is_slow(
    journal: MemoryJournal,
) -> None:
    await write(journal, {"intent-1": intent(owner=current_owner())}, key="a1")
    await write(journal, SUBMITTED)

    async def wait(_: str) -> None:
        await asyncio.sleep(2 * PATIENCE)

    cancelled, _, failed = await cancel(journal, RunningHub(RUNNING, on_cancel=wait))
    assert (cancelled, list(failed)) == ({TASK}, ["run/a1"])
    assert now() == pytest.approx(2 * PATIENCE, abs=0.1)


async def test_a_job_that_cannot_be_read_again_is_reported_and_the_others_are_cancelled() -> None:
    """A report without that job would mean that it does not continue."""

    class Away(MemoryJournal):
        async def job(self, job_key: str) -> dict[str, JSON]:
            if job_key == "b1":
                raise JournalError("the place is away")
            return await super().job(job_key)

    journal = Away(MemoryPlace(), "run")
    for key in (KEY, "b1", "c1"):
        await write(journal, {"intent-1": intent(owner=current_owner())}, key=key)

    async def answers() -> None:
        await write(journal, {"answer-1": ticket()})
        await write(journal, {"answer-1": ticket("2")}, key="c1")

    later(0.4, answers)
    cancelled, _, failed = await cancel(journal, RunningHub(RUNNING))
    assert (cancelled, failed) == ({TASK, "2"}, {"run/b1": "the place is away"})


async def test_a_damaged_job_is_reported_and_the_others_are_cancelled(journal: MemoryJournal) -> None:
    """Its record ended the listing, and the tasks of the jobs after it continued and were charged."""
    await write(journal, {"intent-1": intent()}, key="a1")
    await journal.create("a1-answer-1", {"token": "of a record without a time"})
    for key in (KEY, "c1"):
        await write(journal, {"intent-1": intent(), "answer-1": ticket(f"{TASK}{key}")}, key=key)
    cancelled, _, failed = await cancel(journal, RunningHub(RUNNING))
    assert cancelled == {f"{TASK}{KEY}", f"{TASK}c1"}
    assert list(failed) == ["run/a1"]
    assert "a1-answer-1 in the journal of run cannot be read" in failed["run/a1"]

"""A suspend group: no member is suspended before all wait, and a member whose task has ended is not suspended."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rh_prefect.flow_runs.suspend_for_jobs import PendingTask, SuspendGroup, Suspension
from rh_prefect.flows.prefect_engine import PrefectEngine
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan.planned_steps import KnownWorks, PlannedStep, Selection
from rh_prefect.pipelines.run.interfaces import Pages
from rh_prefect.pipelines.run.step_scheduler import StepScheduler
from rh_prefect.works.accounts.poller import Poller
from rh_prefect.works.journal.job_records_and_state import result_key
from rh_prefect.works.journal.record_types import End, Record, ResultRecord
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.work_runner import WorkCall, WorkRunner
from tests.support.samples.steps import PICTURE, steps
from tests.support.world.job_records import TASK, intent, ticket
from tests.support.world.run_inputs import RUN, RunInputs, job_keys, logged, prefect_api
from tests.support.world.virtual_time import settle

ONE, TWO = (PendingTask(job=f"run/{name}", n=1, task_id=name) for name in ("one", "two"))


class Group(SuspendGroup):
    """A group that decides as the test says, and records the decisions."""

    def __init__(self, *, may_leave: bool = True, meanwhile: Callable[[], Awaitable[object]] | None = None) -> None:
        super().__init__(uuid.uuid4(), had=[], count=0, longest=60.0)
        self.may_leave = may_leave
        self.calls: list[set[PendingTask]] = []
        self.meanwhile = meanwhile

    async def may_suspend(self, tasks: Sequence[PendingTask]) -> bool:
        self.calls.append(set(tasks))
        if self.meanwhile is not None:
            await self.meanwhile()
        return self.may_leave


class Waiting:
    """A member of the group that waits for a task."""

    def __init__(self, group: SuspendGroup, task: PendingTask) -> None:
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.over = asyncio.ensure_future(group.wait(task, self._ends()))

    async def _ends(self) -> str:
        return await self.end


@pytest.mark.parametrize("last", [ONE, TWO, None], ids=["waits for the same task", "waits for another one", "ends"])
async def test_a_run_is_suspended_when_the_last_member_waits_or_has_ended(last: PendingTask | None) -> None:
    group = Group()
    await group.expect(2)
    first = Waiting(group, ONE)
    await settle()
    assert not group.is_suspended
    waiting = [first]
    if last is None:
        await group.end()
    else:
        waiting.append(Waiting(group, last))
    assert [await one.over for one in waiting] == [None] * len(waiting)
    assert group.is_suspended
    assert group.calls == [{ONE, last} - {None}]


async def test_a_group_without_waiting_members_is_not_suspended() -> None:
    group = Group()
    await group.expect(1)
    await group.end()
    await settle()
    assert not group.calls
    assert not group.is_suspended


async def test_a_task_that_ends_before_the_last_member_waits_returns_its_result() -> None:
    group = Group()
    await group.expect(2)
    first = Waiting(group, ONE)
    first.end.set_result("done")
    assert await first.over == "done"
    second = Waiting(group, TWO)
    await settle()
    assert not second.over.done(), "the first member continues and may submit another job"
    await group.end()
    assert await second.over is None


class Engine(PrefectEngine):
    """An engine whose steps are no task runs, and whose works take for ever."""

    async def run(self, instance: PlannedStep, make: Callable[[], Awaitable[None]]) -> None:
        await make()

    async def make(self, runner: WorkRunner, asked: WorkCall) -> None:
        await asyncio.Event().wait()


async def cancelled_after(turns: int) -> bool:
    """Cancels a pipeline of two steps with two works each; returns whether the run is suspended for another task."""
    group = Group()
    ledger = SimpleNamespace(spent_on=lambda _: None)
    budget = SimpleNamespace(consider=lambda *_, **__: None, refusal=lambda _: None, spending=ledger)
    services: Any = SimpleNamespace(
        engine=Engine(group), known=KnownWorks(), budget=budget, pages=Pages(), names=None, reviewed=None, runner=None
    )
    file = Pipeline.from_text("name: two\n" + steps(a=PICTURE % "x" + ", takes: 2", b=PICTURE % "y" + ", takes: 2"))
    pipeline = StepScheduler(file, services, Selection(), {})
    await pipeline.make_plan()
    making = asyncio.ensure_future(pipeline.make_all())
    await settle(turns)
    making.cancel()
    await asyncio.wait([making])
    await group.expect(1)
    waiting = Waiting(group, ONE)
    await settle()
    waiting.over.cancel()
    return group.is_suspended


async def test_a_pipeline_that_is_cancelled_at_any_turn_of_its_loop_ends_all_of_its_members() -> None:
    """A task that is cancelled before its first turn runs none of its own code."""
    # On the group's own loop, a call of the group takes the same turns each time.
    suspended = [await LOOP.call(cancelled_after(turns)) for turns in range(40)]
    assert suspended == [True] * 40


async def test_an_error_of_a_member_is_raised() -> None:
    group = Group()
    await group.expect(2)
    first = Waiting(group, ONE)
    first.end.set_exception(TimeoutError("too long"))
    with pytest.raises(TimeoutError, match="too long"):
        await first.over


async def fail() -> None:
    raise OSError("no journal")


@pytest.mark.parametrize("meanwhile", [None, fail], ids=["stay", "fails"])
async def test_a_member_that_must_not_be_suspended_waits_for_the_end(
    meanwhile: Callable[[], Awaitable[object]] | None, caplog: pytest.LogCaptureFixture
) -> None:
    group = Group(may_leave=False, meanwhile=meanwhile)
    await group.expect(1)
    first = Waiting(group, ONE)
    await settle()
    assert not first.over.done()
    assert not group.is_suspended
    assert ("no journal" in caplog.text) == (meanwhile is fail)
    first.end.set_result("done")
    assert await first.over == "done"


async def test_an_end_during_the_decision_causes_a_new_decision() -> None:
    waiting: list[Waiting] = []

    async def ends() -> None:
        if not waiting[0].end.done():
            waiting[0].end.set_result("done")
            await settle()

    group = Group(meanwhile=ends)
    await group.expect(2)
    waiting += [Waiting(group, ONE), Waiting(group, TWO)]
    assert await waiting[0].over == "done"
    await settle()
    assert not group.is_suspended
    await group.end()
    assert await waiting[1].over is None
    assert group.calls == [{ONE, TWO}, {TWO}]


class Woken:
    """A poller that records which tasks it was notified of."""

    def __init__(self) -> None:
        self.tasks: list[str] = []

    def wake(self, task_id: str) -> None:
        self.tasks.append(task_id)


async def test_if_all_ends_are_recorded_the_polls_are_woken_without_a_notification() -> None:
    (key,), inputs, poller = job_keys(1), RunInputs(), Woken()
    records: dict[str, Record] = {
        f"{key}-intent-1": intent(),
        f"{key}-answer-1": ticket(),
        f"{key}-end-1": End(status="SUCCESS", task_id=TASK),
    }
    inputs.values |= logged({name: record.model_dump_json() for name, record in records.items()})
    group = SuspendGroup(RUN, had=[], count=0, longest=60.0)
    group._pollers[TASK] = cast("Poller", poller)
    async with prefect_api(always=inputs.answer):
        assert not await group.may_suspend([PendingTask(job=f"{RUN}/{key}", n=1, task_id=TASK)])
    assert poller.tasks == [TASK]


@pytest.mark.parametrize(("shape", "may_suspend"), [(None, False), ("", True), ('{"type": "list"}', True)])
async def test_a_run_that_used_the_recorded_results_of_its_last_suspension_is_suspended_again(
    shape: str | None, may_suspend: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A pipeline does not request a job again whose result is recorded; its run occupied its worker to the end."""
    (first, second), inputs = job_keys(2), RunInputs()
    records: dict[str, Record] = {f"{key}-intent-1": intent() for key in (first, second)}
    records |= {f"{key}-answer-1": ticket() for key in (first, second)}
    if shape is not None:
        records[result_key(first, shape)] = ResultRecord(task_id="1")
    inputs.values |= logged({name: record.model_dump_json() for name, record in records.items()})
    slept_for = PendingTask(job=f"{RUN}/{first}", n=1, task_id="1", shape=shape or "")
    had = [Suspension(tasks=(slept_for,), wake_by=datetime.now(UTC))]
    group = SuspendGroup(RUN, had=had, count=1, longest=60.0)
    async with prefect_api(always=inputs.answer):
        assert await group.may_suspend([PendingTask(job=f"{RUN}/{second}", n=1, task_id=TASK)]) == may_suspend
    assert ("has not requested" in caplog.text) != may_suspend


async def test_a_cancelled_member_leaves_no_asyncio_task() -> None:
    group = Group()
    await group.expect(2)
    first = Waiting(group, ONE)
    await settle()
    first.over.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first.over
    await settle()
    assert first.end.cancelled()
    assert asyncio.all_tasks() == {asyncio.current_task()}

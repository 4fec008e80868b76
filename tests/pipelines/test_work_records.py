"""What the runs of a work record, in which order, and what they hold, pay and cancel when something goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.emulator import Emulator, Fault
from rh_prefect.emulator.comfy.workflows import TEXT_TO_IMAGE
from rh_prefect.errors import BudgetExceeded, JobCancelled, JobFailed, RequestRejected, SubmissionUnknown
from rh_prefect.jobs.journal.budget import spend_tracker_of
from rh_prefect.jobs.journal.record_types import Record
from rh_prefect.jobs.journal.scope import cancel_key
from rh_prefect.jobs.loop_thread import LOOP
from rh_prefect.pipelines.run_ledger import WorksLedger
from rh_prefect.pipelines.work_runner import WorkCall, WorkResult
from rh_prefect.workflows import WorkflowInput
from tests.support.pipeline_runs import PipelineRun, picture

PRICE = Decimal("0.04")


@pytest.fixture
def rh() -> Iterator[Emulator]:
    with Emulator(clock="polls", polls=2, long_side=48) as emulator:
        yield emulator


@pytest.fixture
def given(rh: Emulator, tmp_path: Path) -> dict[str, Any]:
    return {"url": rh.url, "key": rh.key, "folder": tmp_path, "store_url": str(tmp_path / "store")}


async def reserved(run: PipelineRun) -> Decimal:
    """What the works of a run may still cost, as its process counts it."""
    ledger = WorksLedger(run.scope, await run.works())

    async def look() -> Decimal:
        return spend_tracker_of(ledger).reserved()

    return await LOOP.call(look())


async def cancel(run: PipelineRun) -> None:
    """Cancels an attempt of a flow run, as a person does."""
    await run.scope.journal.create(cancel_key(run.attempt), Record().model_dump(mode="json"))


def before(order: list[str], first: str, second: str) -> bool:
    """Whether a record is created before another one; both end in these words."""
    created = [what for what in order if what.startswith("create ")]
    at = {end: next(number for number, what in enumerate(created) if what.endswith(end)) for end in (first, second)}
    return at[first] < at[second]


async def test_the_journal_of_a_run_names_a_submission_before_the_intent_exists(
    rh: Emulator, given: dict[str, Any]
) -> None:
    """Otherwise a run that is killed in between has paid for what neither its budget nor its cancellation knows."""
    rh.faults.add(Fault("submit", number=1, kind="code", code="421"))
    order: list[str] = []
    await PipelineRun(**given, operation=order.append).one(picture())
    for n in (1, 2):
        assert before(order, f"-claim-{n}", f"-intent-{n}")
        assert before(order, f"-intent-{n}", f"-answer-{n}")
    assert before(order, "-answer-1", "-claim-2")
    assert before(order, "interest-one", "-claim-1")


async def test_a_run_that_waits_for_a_task_of_another_says_so_and_claims_nothing(
    rh: Emulator, given: dict[str, Any]
) -> None:
    rh.clock.polls = 10**6
    first = asyncio.ensure_future(PipelineRun(**given).one(picture()))
    assert await asyncio.to_thread(rh.recorder.wait, lambda recorder: len(recorder.paid) == 1)
    order: list[str] = []
    second = asyncio.ensure_future(PipelineRun(**given, name="two", operation=order.append).one(picture()))
    while not any("-wait1-1" in what for what in order):  # noqa: ASYNC110 - it sets no event
        await asyncio.sleep(0.02)
    assert not any("-claim-" in what for what in order)
    rh.clock.polls = 1
    assert (await first).home == (await second).home
    assert not any("-wait" in what for what in order if "-wait1-1" not in what)
    assert len(rh.recorder.submissions) == 1


HELPED, NOT_HELPED, HOPELESS = "1504", "805", "1501"
"""Failures after which a new task may succeed, need not, and will not."""


@pytest.mark.parametrize(
    ("fault", "error", "paid"),
    [
        (None, None, 1),
        (Fault("submit", number=1, kind="code", code="421"), None, 1),
        (Fault("submit", number=1, kind="fail", code=HELPED), None, 2),
        (Fault("submit", every=1, times=9, kind="fail", code=HELPED), JobFailed, 3),
        (Fault("submit", every=1, times=9, kind="fail", code=NOT_HELPED), JobFailed, 1),
        (Fault("submit", every=1, times=9, kind="fail", code=HOPELESS), JobFailed, 1),
        (Fault("submit", every=1, times=9, kind="code", code="301"), RequestRejected, 0),
    ],
    ids=["success", "no slot", "one failure", "failures", "useless", "hopeless", "refusal"],
)
@pytest.mark.parametrize("budget", [None, 1])
async def test_nothing_stays_reserved_when_a_work_has_ended(
    rh: Emulator, given: dict[str, Any], fault: Fault | None, error: type[Exception] | None, paid: int, budget: Any
) -> None:
    if fault is not None:
        rh.faults.add(fault)
    run = PipelineRun(**given)
    (done,) = await run.make(picture(attempts=3), budget=budget)
    assert isinstance(done, error or WorkResult)
    assert len(rh.recorder.paid) == paid
    assert await reserved(run) == 0


@pytest.mark.parametrize(
    ("code", "advice"),
    [(HELPED, "run it again, which pays for a new task"), (HOPELESS, "run again with --retake")],
)
async def test_a_failure_says_whether_the_same_request_is_worth_another_task(
    rh: Emulator, given: dict[str, Any], code: str, advice: str
) -> None:
    rh.faults.add(Fault("submit", number=1, kind="fail", code=code))
    with pytest.raises(JobFailed, match=advice) as caught:
        await PipelineRun(**given).one(picture())
    assert caught.value.new_task is (code == HELPED)
    assert (caught.value.code, caught.value.task_id) == (code, rh.recorder.paid[0].task_id)


async def test_what_does_not_fit_into_the_budget_reserves_nothing_and_claims_nothing(
    rh: Emulator, given: dict[str, Any]
) -> None:
    run = PipelineRun(**given)
    with pytest.raises(BudgetExceeded, match=r"0\.03"):
        await run.one(picture(), budget=0.03)
    assert rh.recorder.submissions == []
    assert await reserved(run) == 0
    assert await WorksLedger(run.scope, await run.works()).claims() == []


@pytest.mark.parametrize("budget", [None, 1])
async def test_an_unknown_submission_stays_reserved(rh: Emulator, given: dict[str, Any], budget: Any) -> None:
    rh.faults.add(Fault("submit", number=1))
    run = PipelineRun(**given)
    with pytest.raises(SubmissionUnknown):
        await run.one(picture(), budget=budget)
    assert await reserved(run) == PRICE


@pytest.mark.parametrize("budget", [None, 1])
async def test_a_cancelled_run_submits_nothing(rh: Emulator, given: dict[str, Any], budget: Any) -> None:
    run = PipelineRun(**given)
    await cancel(run)
    with pytest.raises(JobCancelled, match="before this job was submitted"):
        await run.one(picture(), budget=budget)
    assert rh.recorder.submissions == []
    assert await reserved(run) == 0
    assert await WorksLedger(run.scope, await run.works()).claims() == []


async def _submitting(rh: Emulator, run: PipelineRun) -> asyncio.Task[WorkResult]:
    """A run whose task is accepted, and which does not know it yet."""
    rh.faults.add(Fault("submit", number=1, kind="hold", seconds=300))
    running = asyncio.ensure_future(run.one(picture()))
    assert await asyncio.to_thread(rh.held.wait, seconds=60)
    return running


async def test_a_run_that_is_cancelled_during_its_submission_cancels_the_task(
    rh: Emulator, given: dict[str, Any]
) -> None:
    rh.clock.polls = 10**6
    run = PipelineRun(**given)
    running = await _submitting(rh, run)
    await cancel(run)
    rh.held.release()
    with pytest.raises(JobCancelled) as caught:
        await running
    (paid,) = rh.recorder.paid
    assert rh.recorder.cancelled == [paid.task_id]
    assert caught.value.task_id == paid.task_id
    assert await reserved(run) == 0
    rh.clock.polls = 1
    later = await PipelineRun(**given, name="later").one(picture())
    assert (later.home.n, len(rh.recorder.paid)) == (2, 2)


async def test_a_cancelled_run_leaves_its_task_to_a_run_that_waits_for_it(rh: Emulator, given: dict[str, Any]) -> None:
    rh.clock.polls = 10**6
    run, other = PipelineRun(**given), PipelineRun(**given, name="two", machine="there")
    running = await _submitting(rh, run)
    waiting = asyncio.ensure_future(other.one(picture()))
    works = await other.works()
    while not [key async for key, _ in works.jobs() if await works.has_other_interest(key, "one")]:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    await cancel(run)
    rh.held.release()
    with pytest.raises(JobCancelled, match="because another run waits for it"):
        await running
    assert rh.recorder.cancelled == []
    rh.clock.polls = 1
    assert (await waiting).home.task_id == rh.recorder.paid[0].task_id
    assert len(rh.recorder.paid) == 1


@pytest.mark.parametrize(("attempts", "paid"), [(1, 1), (2, 2)])
async def test_a_failure_that_a_run_has_waited_for_is_one_of_its_attempts(
    rh: Emulator, given: dict[str, Any], attempts: int, paid: int
) -> None:
    rh.clock.polls = 10**6
    rh.faults.add(Fault("submit", number=1, kind="fail", code=HELPED))
    first = asyncio.ensure_future(PipelineRun(**given).one(picture()))
    assert await asyncio.to_thread(rh.recorder.wait, lambda recorder: len(recorder.paid) == 1)
    order: list[str] = []
    other = PipelineRun(**given, name="two", operation=order.append)
    second = asyncio.ensure_future(other.one(picture(attempts=attempts)))
    while not any("-wait1-1" in what for what in order):  # noqa: ASYNC110 - it sets no event
        await asyncio.sleep(0.02)
    rh.clock.polls = 1
    with pytest.raises(JobFailed):
        await first
    done = (await asyncio.gather(second, return_exceptions=True))[0]
    assert isinstance(done, WorkResult if paid == 2 else JobFailed)
    assert len(rh.recorder.paid) == paid
    assert await reserved(other) == 0


async def test_a_resumed_run_counts_the_failure_that_it_had_waited_for_and_a_new_attempt_does_not(
    rh: Emulator, given: dict[str, Any]
) -> None:
    rh.clock.polls = 10**6
    rh.faults.add(Fault("submit", number=1, kind="fail", code=HELPED))
    first = asyncio.ensure_future(PipelineRun(**given).one(picture()))
    assert await asyncio.to_thread(rh.recorder.wait, lambda recorder: len(recorder.paid) == 1)
    order: list[str] = []
    killed = asyncio.ensure_future(PipelineRun(**given, name="two", operation=order.append).one(picture()))
    while not any("-wait1-1" in what for what in order):  # noqa: ASYNC110 - it sets no event
        await asyncio.sleep(0.02)
    killed.cancel()
    rh.clock.polls = 1
    await asyncio.gather(first, killed, return_exceptions=True)
    with pytest.raises(JobFailed):
        await PipelineRun(**given, name="two").one(picture())
    assert len(rh.recorder.paid) == 1
    assert (await PipelineRun(**given, name="two", attempt=2).one(picture())).home.n == 2
    assert len(rh.recorder.paid) == 2


async def test_a_graph_that_is_reported_as_broken_is_cancelled_and_not_waited_for(
    rh: Emulator, given: dict[str, Any]
) -> None:
    rh.clock.polls = 10**6
    rh.faults.add(Fault("submit", number=1, kind="node-errors"))
    graph = WorkflowInput(id=rh.workflows.add(dict(TEXT_TO_IMAGE)), nodes={"6.text": "a pier"})
    with pytest.raises((JobFailed, JobCancelled)):
        await PipelineRun(**given).one(WorkCall("ink", graph))
    assert rh.recorder.cancelled == [rh.recorder.paid[0].task_id]


async def test_a_refused_submission_leaves_its_slot_to_the_others(tmp_path: Path) -> None:
    with Emulator(clock="polls", polls=2, long_side=48, limit=1) as rh:
        rh.faults.add(Fault("submit", prompt="wrong", kind="code", code="301"))
        run = PipelineRun(rh.url, rh.key, tmp_path, str(tmp_path / "store"))
        wrong, *right = await run.make(picture("wrong"), picture("one"), picture("two"))
    assert isinstance(wrong, RequestRejected)
    assert all(isinstance(one, WorkResult) for one in right)

"""`reconcile`: what cancelled runs have left at RunningHub is ended, what failed ones have paid for is kept."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Cancelling, Crashed, Failed, Running

from rh_prefect import MediaStorage, RunningHubCredentials
from rh_prefect.cli.jobs import list_, mark_refused_
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.leftover_jobs import Finding, _by_report, _look_after, reconcile_runs
from rh_prefect.flow_runs.recorded_job_collection import recorded_progress
from rh_prefect.flow_runs.resume_or_rerun import rerun
from rh_prefect.flow_runs.run_queries_and_scopes import read_flow_run, recorded_scope
from rh_prefect.flows.pipeline import Pipeline, pipeline_flow
from rh_prefect.flows.reconcile import reconcile
from rh_prefect.works.journal.job_records_and_state import JobView, jobs_of
from rh_prefect.works.journal.journal import UnreadableRecord
from rh_prefect.works.journal.record_types import Record
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.run_cancellation import CancelReport
from tests.e2e import flows
from tests.e2e.flows import begin
from tests.support.samples.steps import PICTURE, steps
from tests.support.waiting import until
from tests.support.world.job_records import TASK, failed, intent, ticket, unknown, view_of
from tests.support.world.prefect_runs import artifacts_of, set_states

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("no_earlier_flow_runs")]


@pytest.fixture
def rh(slow_rh: Emulator) -> Emulator:
    return slow_rh


async def left_behind(state: State[Any], *prompts: str, flow: Any = flows.many) -> UUID:
    """A run whose tasks run at RunningHub while nobody waits for them any more."""
    run = await begin(flow, prompts=list(prompts))
    task = asyncio.ensure_future(rerun(flow, run))
    await until_running(run, len(prompts))
    task.cancel()
    await asyncio.wait([task])
    await set_states(run, state)
    return UUID(run)


async def until_running(run: str, count: int) -> None:
    """Waits until a run has so many jobs, whose tasks all run."""

    async def is_reached() -> bool:
        return [view.state for view in await jobs(run)] == ["ticket"] * count

    await until(is_reached)


async def jobs(run: str | UUID) -> list[JobView]:
    return [view async for view in jobs_of(FlowRunJournal(str(run)))]


async def ends(run: UUID) -> set[str]:
    return {view.last.end.status if view.last and view.last.end else "none" for view in await jobs(run)}


async def look(run: UUID | None = None, *, hours: float = 24.0) -> tuple[Finding, ...]:
    return (await LOOP.call(reconcile_runs(flow_run_id=run, hours=hours))).findings


def asked(rh: Emulator) -> int:
    return len(rh.recorder.requests)


@pytest.mark.parametrize("state", [Cancelled(), pytest.param(Cancelling(), marks=pytest.mark.long)])
async def test_what_a_cancelled_run_left_is_cancelled(rh: Emulator, state: State[Any]) -> None:
    run = await left_behind(state, "a lighthouse", "a harbour")
    found = await look()
    assert sorted(one.task_id or "" for one in found if one.flow_run_id == run) == sorted(rh.recorder.cancelled)
    assert len(rh.recorder.cancelled) == 2
    assert await ends(run) == {"CANCELLED"}
    await set_states(run, Cancelled())


async def test_a_task_that_cannot_be_queried_fails_the_run(rh: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await left_behind(Failed(), "a lighthouse")
    rh.clock.advance(3600)
    monkeypatch.delenv("RH_API_KEY")
    (found,) = await look(run)
    assert (found.done, found.is_open) == ("NOT collected", True)
    assert "account of RH_API_KEY (key fingerprint" in found.note
    state = await reconcile(flow_run_id=run, return_state=True)
    assert state.is_failed()
    assert "could not be downloaded" in str(state.message)
    monkeypatch.setenv("RH_API_KEY", rh.key)
    rh.faults.add(Fault("query", kind="502"))
    assert [one.done for one in await look(run)] == ["no answer"]
    rh.faults.clear()
    assert [one.done for one in await look(run)] == ["collected"]


@pytest.mark.parametrize(
    ("state", "found"),
    [
        (Cancelled(), ["cancelled", "NOT cancelled"]),
        pytest.param(Failed(), ["still runs", "NOT collected"], marks=pytest.mark.long),
    ],
)
async def test_a_damaged_job_hides_no_other_job(
    rh: Emulator, capsys: pytest.CaptureFixture[str], state: State[Any], found: list[str]
) -> None:
    run = await left_behind(state, "a lighthouse")
    await FlowRunJournal(run).create("00ab-intent-1", Record().model_dump(mode="json"))
    findings = await look(run)
    assert [one.done for one in findings] == found
    assert findings[-1].note.startswith("The record 00ab-intent-1 in the journal of")
    assert findings[-1].job == f"{run}/00ab"
    assert [one.task_id for one in findings[:-1]] == [rh.recorder.paid[0].task_id]
    await list_(str(run))
    listed = capsys.readouterr().out
    assert listed.count(f"{run}/") == 2
    assert "The record 00ab-intent-1" in listed
    with pytest.raises(UnreadableRecord):  # a report would say that nothing was charged for that job
        await recorded_progress(await recorded_scope(await read_flow_run(run)))


@pytest.mark.parametrize("state", [Cancelled(), pytest.param(Failed(), marks=pytest.mark.long)])
async def test_a_success_is_brought_home_before_its_links_die(rh: Emulator, tmp_path: Path, state: State[Any]) -> None:
    run = await left_behind(state, "a lighthouse", "a harbour")
    rh.clock.advance(3600)
    found = await look(run)
    assert [one.done for one in found] == ["collected", "collected"]
    assert all(Path(one.note.removeprefix("file://")).is_relative_to(tmp_path / "out") for one in found)
    assert await look(run) == ()
    if state.is_failed():
        results = await rerun(flows.many, run)
        assert len(results) == 2
    assert len(rh.recorder.downloads) == 2, "it is home already"
    assert not rh.recorder.cancelled


@pytest.mark.parametrize("state", [Crashed(), pytest.param(Failed(), marks=pytest.mark.long)])
async def test_tasks_of_a_crashed_or_failed_run_are_left_to_its_next_attempt(rh: Emulator, state: State[Any]) -> None:
    run = await left_behind(state, "a lighthouse", "a harbour")
    assert [one.done for one in await look(run)] == ["still runs", "still runs"]
    assert not rh.recorder.cancelled
    rh.clock.advance(3600)
    results = await rerun(flows.many, run)
    assert {result.task_id for result in results} == {one.task_id for one in rh.recorder.paid}
    assert len(rh.recorder.paid) == 2


async def test_a_run_that_goes_on_is_not_touched(rh: Emulator) -> None:
    run = await left_behind(Running(), "a lighthouse")
    before = asked(rh)
    assert await look(run) == ()
    assert asked(rh) == before
    assert [one for one in await look() if one.flow_run_id == run] == []


async def test_a_run_that_is_retried_after_it_was_listed_is_not_touched(rh: Emulator) -> None:
    run = await left_behind(Cancelled(), "a lighthouse")
    listed = await LOOP.call(read_flow_run(run))
    await set_states(run, Running())
    assert await LOOP.call(_look_after(listed)) == []
    assert not rh.recorder.cancelled


async def test_each_job_is_cancelled_on_the_account_that_paid(rh: Emulator) -> None:
    other = rh.keys.add("other", money=100)
    await RunningHubCredentials(api_key=other.secret, base_url=rh.url).asave("paying-account", overwrite=True)
    run = await left_behind(Cancelled(), "a lighthouse", flow=flows.many_on_another_account)
    assert [one.key_name for one in rh.recorder.paid] == ["other"]
    assert [one.done for one in await look(run)] == ["cancelled"]
    assert len(rh.recorder.cancelled) == 1


async def test_what_could_not_be_cancelled_fails_the_run_and_is_tried_again_and_the_table_says_so(rh: Emulator) -> None:
    run = await left_behind(Cancelled(), "a lighthouse", "a harbour")
    rh.faults.add(Fault("cancel", number=1, kind="code", code="802"))
    state: State[Any] = await reconcile(flow_run_id=run, return_state=True)
    assert state.is_failed()
    (stuck,) = {one.task_id for one in rh.recorder.paid} - set(rh.recorder.cancelled)
    assert f"may continue and be charged: {stuck}" in (state.message or "")
    state = await reconcile(flow_run_id=run, return_state=True)
    assert state.is_completed(), state.message
    assert len(rh.recorder.cancelled) == 2
    (table,) = (await artifacts_of(state)).values()
    assert "1 flow run(s) reconciled, 1 cancelled" in (table.description or "")
    assert " | cancelled | " in str(table.data)


async def test_findings_are_shown_even_if_no_stopped_run_can_be_looked_up(
    rh: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    await left_behind(Failed(), "a lighthouse")

    async def fail(*_: object) -> None:
        raise ConnectionError("no automations")

    monkeypatch.setattr(PrefectClient, "read_automations_by_name", fail)
    state = await reconcile(return_state=True)
    assert state.is_failed() and "no automations" in str(state.message)
    assert any(" | still runs | " in str(one.data) for one in (await artifacts_of(state)).values())


@pytest.mark.parametrize(
    ("read", "ended", "done", "message"),
    [
        ("filter_flow_run_input", Cancelled(), "NOT cancelled", "may continue and be charged"),
        pytest.param(
            *("read_flow_run", Failed(), "NOT collected", "may be paid for but could not be downloaded"),
            marks=pytest.mark.long,
        ),
    ],
)
async def test_a_run_that_cannot_be_read_does_not_stop_the_checks_of_others(
    rh: Emulator, monkeypatch: pytest.MonkeyPatch, read: str, ended: State[Any], done: str, message: str
) -> None:
    first = await left_behind(Failed(), "a lighthouse")
    second = await left_behind(ended, "a harbour")
    original = getattr(PrefectClient, read)

    async def fail(self: PrefectClient, flow_run_id: UUID, *more: Any) -> Any:
        if flow_run_id == second:  # it is listed first
            raise ValueError("no JSON")  # a request whose answer is lost would be repeated for 85 s
        return await original(self, flow_run_id, *more)

    monkeypatch.setattr(PrefectClient, read, fail)
    found = {one.flow_run_id: one for one in await look() if one.flow_run_id in (first, second)}
    assert {run: one.done for run, one in found.items()} == {first: "still runs", second: done}
    assert ("it may have no paid job" in found[second].note) == (read == "filter_flow_run_input")
    state = await reconcile(return_state=True)
    assert message in str(state.message)


@pytest.mark.parametrize("is_pipeline", [True, False])
async def test_a_submit_of_which_nobody_knows_is_named_with_both_ways_out(
    rh: Emulator, is_pipeline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rh.faults.add(Fault("submit", kind="cut", phase="after"))
    picture = Pipeline.from_text("name: lighthouse\n" + steps(picture=PICTURE % "a lighthouse"))
    flow: Any = pipeline_flow(picture) if is_pipeline else flows.many
    run = await begin(flow, **({} if is_pipeline else {"prompts": ["a lighthouse"]}))
    await asyncio.gather(rerun(flow, run), return_exceptions=True)
    said = str((await set_states(run)).state)
    states: list[State[Any]] = [Failed(), Cancelled()]
    for state in states:  # it stays open
        await set_states(run, state)
        (found,) = await look(UUID(run))
        assert (found.done, found.model) == ("unknown", f"{'picture · ' * is_pipeline}z-image/turbo")
        ways = [f"jobs {way} {found.job}" for way in ("adopt", "mark-refused")]
        assert all(way in found.note for way in ways) and ways[0] in said
    monkeypatch.setenv("RH_STORAGE_URL", "elsewhere")  # as on the machine of a person
    await mark_refused_(found.job)
    assert await look(UUID(run)) == ()


@pytest.mark.parametrize(
    ("records", "done", "note"),
    [
        ({}, "unknown", "adopt"),
        ({"answer-1": unknown()}, "unknown", "adopt"),
        ({"answer-1": ticket()}, "NOT cancelled", "busy"),
        ({"answer-1": ticket(), "end-1": failed("1504", task_id=TASK)}, "unknown", "busy"),
    ],
)
def test_only_a_submission_without_an_answer_is_to_be_adopted(records: dict[str, Record], done: str, note: str) -> None:
    """Both commands refuse a task whose end another process has recorded since its cancellation failed."""
    every = {"intent-1": intent(), **records}
    view = view_of(every)
    assert view.last is not None
    judged = _by_report(CancelReport(failed={"run/job": "busy"}), "run/job", view.last)
    assert judged is not None
    assert judged[0] == done and note in judged[1]


async def test_the_storage_of_a_completed_run_is_not_needed(rh: Emulator, tmp_path: Path) -> None:
    await MediaStorage(url=str(tmp_path / "shelf")).asave("shelf", overwrite=True)
    picture = Pipeline.from_text("name: lighthouse\nstorage: shelf\n" + steps(picture=PICTURE % "a lighthouse"))
    run = await begin(pipeline_flow(picture))
    task = asyncio.ensure_future(rerun(pipeline_flow(picture), run))
    assert await asyncio.to_thread(rh.recorder.wait, lambda recorder: len(recorder.paid) == 1)
    rh.clock.advance(3600)
    await task
    await MediaStorage.adelete("shelf")
    assert await look(UUID(run)) == ()


async def test_it_looks_back_as_far_as_asked_takes_any_named_run_and_asks_nothing_twice(rh: Emulator) -> None:
    run = await left_behind(Cancelled(), "a lighthouse")
    assert [one for one in await look(hours=1e-6) if one.flow_run_id == run] == []
    assert not rh.recorder.cancelled
    assert [one.done for one in await look(run)] == ["cancelled"]
    before = asked(rh)
    assert await look(run) == ()
    assert asked(rh) == before
    assert [one for one in await look() if one.flow_run_id == run] == []

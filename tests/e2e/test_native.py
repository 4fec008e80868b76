"""Graphs on ComfyUI's own API go by the same records: killed, cancelled, adopted and collected, and paid for once."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import TaskNotFound
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.rerun import rerun
from rh_prefect.works.journal.job_records import jobs_of
from rh_prefect.works.manual_repair import adopt
from tests.e2e import flows
from tests.support.processes.film_run import FilmRun

pytestmark = pytest.mark.prefect

GRAPHS, PROMPTS = f"{flows.MODULE}:graphs", ["a pier", "a harbour"]


@pytest.fixture
def rh(slow_rh: Emulator) -> Emulator:
    return slow_rh


def killed(stage: FilmRun) -> list[str]:
    """Has a process run both graphs, and kills it once both are paid for; their ids as tasks."""
    child = stage.begin(GRAPHS, {"prompts": PROMPTS}, spares=0)
    child.wait_until_heard("job", len(PROMPTS), state="submitted")
    assert not stage.kill(child)
    tickets = [str(view.last and view.last.task_id) for view in stage.jobs()]
    assert sorted(ticket.partition(".")[0] for ticket in tickets) == ["proxy", "proxy-plus"]
    return tickets


def prompts(rh: Emulator) -> int:
    return len(rh.recorder.tasks)


@pytest.mark.long
def test_a_killed_run_s_graphs_are_waited_for_and_not_run_again(stage: FilmRun) -> None:
    tickets = killed(stage)
    stage.rh.clock.factor = 1000
    results = asyncio.run(rerun(flows.graphs, stage.run))
    assert {one.task_id for one in results} == set(tickets)
    assert prompts(stage.rh) == len(PROMPTS)


@pytest.mark.long
def test_cancelling_a_killed_run_stops_its_graphs(stage: FilmRun) -> None:
    killed(stage)
    hook = stage.flow_processes.cancel(GRAPHS, stage.run)
    assert hook.ended() == 0, hook.errors()
    assert {task.status for task in stage.rh.recorder.tasks} == {"CANCELLED"}
    assert {view.last.end.status for view in stage.jobs() if view.last and view.last.end} == {"CANCELLED"}
    # Another attempt is another wish: who runs it again wants it made.
    stage.rh.clock.factor = 1000
    assert len(asyncio.run(rerun(flows.graphs, stage.run))) == len(PROMPTS)
    assert prompts(stage.rh) == 2 * len(PROMPTS)


@pytest.mark.long
async def test_a_graph_whose_answer_was_lost_is_found_on_the_machine_and_adopted(rh: Emulator) -> None:
    rh.clock.mode = "instant"
    rh.faults.add(Fault("submit", number=1, kind="cut"))
    run = await flows.begin(flows.graphs, prompts=["a pier"])
    lost = await flows.fails(flows.graphs, run, words="/proxy/<key>/history .*call log does not include these")
    (prompt_id,) = await on_the_machine(rh)
    await flows.command("jobs", "adopt", lost.job, f"proxy.{prompt_id}")
    (result,) = await rerun(flows.graphs, run)
    assert (result.task_id, result.job) == (f"proxy.{prompt_id}", lost.job)
    assert prompts(rh) == 1
    views = [view async for view in jobs_of(FlowRunJournal(run))]
    assert [view.last.end.status for view in views if view.last and view.last.end] == ["SUCCESS"]


async def on_the_machine(rh: Emulator) -> list[str]:
    """The ids in ComfyUI's own history, as a person reads them there."""
    async with httpx.AsyncClient(base_url=rh.url) as http:
        return list((await http.get(f"/proxy/{rh.key}/history")).json())


@pytest.mark.long
async def test_a_graph_that_its_machine_does_not_know_ends_the_wait_after_the_grace_time(rh: Emulator) -> None:
    rh.faults.add(Fault("submit", number=1, kind="cut", phase="before"))
    run = await flows.begin(flows.graphs, prompts=["a pier"])
    await flows.fails(flows.graphs, run, words="ComfyUI's own job lists")
    (view,) = [view async for view in jobs_of(FlowRunJournal(run))]
    await adopt(FlowRunJournal(run), view.key, "proxy.replaced-with-its-machine")
    async with asyncio.timeout(300):
        with pytest.raises(TaskNotFound, match="jobs mark-lost"):
            await rerun(flows.graphs, run)

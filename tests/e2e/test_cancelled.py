"""Cancel means cancel: the hook, in a separate process, cancels what a run has submitted, and nothing new is paid."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import JobCancelled
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.rerun import rerun
from rh_prefect.media.store import MediaStore
from rh_prefect.settings import get_settings
from rh_prefect.works.accounts.account import account_of
from rh_prefect.works.journal.job_records import JobView
from rh_prefect.works.journal.record_types import End
from rh_prefect.works.journal.scope import Scope
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.pool_services import pool_services
from rh_prefect.works.work_runner import WorkCall, WorkRunner
from tests.e2e import flows
from tests.support.processes.film_run import FilmRun
from tests.support.processes.flow_process import FlowProcess

pytestmark = pytest.mark.prefect

MANY, PROMPTS = f"{flows.MODULE}:many", ["a lighthouse", "a lighthouse", "a harbour"]


@pytest.fixture
def rh(slow_rh: Emulator) -> Emulator:
    return slow_rh


def begin(stage: FilmRun, *, spares: int) -> FlowProcess:
    child = stage.begin(MANY, {"prompts": PROMPTS}, spares=spares)
    child.wait_until_heard("job", len(PROMPTS), state="submitted")
    return child


def cancel(stage: FilmRun) -> None:
    hook = stage.flow_processes.cancel(MANY, stage.run)
    assert hook.ended() == 0, hook.errors()
    hook.wait_for("done")


def test_the_hook_cancels_the_tasks_of_a_killed_run(stage: FilmRun) -> None:
    assert not stage.kill(begin(stage, spares=1))
    cancel(stage)
    assert sorted(stage.rh.recorder.cancelled) == sorted(one.task_id for one in stage.rh.recorder.paid)
    assert {_status(view) for view in stage.jobs()} == {"CANCELLED"}
    assert asyncio.run(FlowRunJournal(stage.run).read("cancel-1")) is not None
    _nothing_more_is_submitted(stage, attempt=1)
    # Another attempt is another wish: who runs it again wants it made.
    stage.rh.clock.factor = 1000
    results = asyncio.run(rerun(flows.many, stage.run))
    assert {one.task_id for one in stage.rh.recorder.paid[3:]} == {result.task_id for result in results}


@pytest.mark.long
def test_a_runner_that_lives_on_submits_nothing_after_it_was_cancelled(stage: FilmRun) -> None:
    child = begin(stage, spares=1)
    os.kill(child.pid, signal.SIGSTOP)
    cancel(stage)
    os.kill(child.pid, signal.SIGCONT)
    assert child.ended() == 1
    errors = child.wait_for("failed")["errors"]
    assert {one["type"] for one in errors} == {"JobCancelled"}
    assert len(stage.rh.recorder.submissions) == len(PROMPTS)
    assert len(stage.rh.recorder.cancelled) == len(PROMPTS)


@pytest.mark.long
def test_what_had_succeeded_is_not_lost_to_a_cancellation(stage: FilmRun) -> None:
    assert not stage.kill(begin(stage, spares=1))
    stage.rh.clock.advance(3600)
    cancel(stage)
    assert not stage.rh.recorder.cancelled
    assert {_status(view) for view in stage.jobs()} == {"SUCCESS"}
    results = asyncio.run(rerun(flows.many, stage.run))
    assert {result.task_id for result in results} == {one.task_id for one in stage.rh.recorder.paid}
    assert len(stage.rh.recorder.submissions) == len(PROMPTS)


@pytest.mark.long
def test_what_may_go_on_because_nobody_knows_of_it_is_said(stage: FilmRun) -> None:
    stage.rh.faults.add(Fault("submit", prompt="a harbour", kind="hold", seconds=300))
    child = stage.begin(MANY, {"prompts": PROMPTS}, spares=1)
    assert stage.rh.held.wait(seconds=300)
    child.wait_until_heard("job", 2, state="submitted")
    (unknown,) = stage.kill(child)
    cancel(stage)
    assert f"{unknown}: could not be cancelled" in stage.flow_processes.children[-1].errors()
    assert len(stage.rh.recorder.cancelled) == 2


def _status(view: JobView) -> str:
    assert view.last is not None
    assert isinstance(view.last.end, End)
    return view.last.end.status


def _nothing_more_is_submitted(stage: FilmRun, *, attempt: int) -> None:
    # As of a process that nobody told of the cancellation.
    scope = Scope(FlowRunJournal(stage.run), "run", "many", attempt, first_attempt=1)
    before = len(stage.rh.recorder.submissions)
    for prompt in (*PROMPTS, "one that was not asked for yet"):
        with pytest.raises(JobCancelled):
            asyncio.run(_ask(prompt, scope))
    assert len(stage.rh.recorder.submissions) == before


async def _ask(prompt: str, scope: Scope) -> None:
    settings = get_settings()
    key, store = settings.api_key, MediaStore(settings.storage_url)
    assert key is not None

    async def run() -> None:
        desk = pool_services([account_of(key, base_url=settings.base_url, settings=settings)], settings=settings)
        await WorkRunner(desk, scope, store).complete(WorkCall(flows.picture(prompt)))

    await LOOP.call(run())

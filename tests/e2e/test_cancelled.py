"""Cancel means cancel: the hook, in a separate process, cancels what a run has submitted, and nothing new is paid."""

from __future__ import annotations

import asyncio

import pytest

from rh_prefect.emulator import Emulator
from rh_prefect.errors import JobCancelled
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.resume_or_rerun import rerun
from rh_prefect.media.store import MediaStore
from rh_prefect.settings import get_settings
from rh_prefect.works.accounts.account import account_of
from rh_prefect.works.journal.scope import Scope
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.pool_services import pool_services
from rh_prefect.works.work_runner import WorkCall, WorkRunner
from tests.e2e import flows
from tests.support.processes.film_run import FilmRun

pytestmark = pytest.mark.prefect

MANY, PROMPTS = f"{flows.MODULE}:many", ["a lighthouse", "a lighthouse", "a harbour"]


@pytest.fixture
def rh(slow_rh: Emulator) -> Emulator:
    return slow_rh


def test_the_hook_cancels_the_tasks_of_a_killed_run(stage: FilmRun) -> None:
    child = stage.begin(MANY, {"prompts": PROMPTS}, spares=1)
    child.wait_until_heard("job", len(PROMPTS), state="submitted")
    assert not stage.kill(child)
    hook = stage.flow_processes.cancel(MANY, stage.run)
    assert hook.ended() == 0, hook.errors()
    assert sorted(stage.rh.recorder.cancelled) == sorted(one.task_id for one in stage.rh.recorder.paid)
    ends = [view.last and view.last.end for view in stage.jobs()]
    assert [end and end.status for end in ends] == ["CANCELLED"] * len(PROMPTS)
    assert asyncio.run(FlowRunJournal(stage.run).read("cancel-1")) is not None
    # As of a process that nobody told of the cancellation.
    scope = Scope(FlowRunJournal(stage.run), "run", "many", 1, first_attempt=1)
    for prompt in (*PROMPTS, "one that was not asked for yet"):
        with pytest.raises(JobCancelled):
            asyncio.run(_ask(prompt, scope))
    assert len(stage.rh.recorder.submissions) == len(PROMPTS)
    # Another attempt is another wish: who runs it again wants it made.
    stage.rh.clock.factor = 1000
    results = asyncio.run(rerun(flows.many, stage.run))
    assert {one.task_id for one in stage.rh.recorder.paid[3:]} == {result.task_id for result in results}


async def _ask(prompt: str, scope: Scope) -> None:
    settings = get_settings()
    key, store = settings.api_key, MediaStore(settings.storage_url)
    assert key is not None

    async def run() -> None:
        desk = pool_services([account_of(key, base_url=settings.base_url, settings=settings)], settings=settings)
        await WorkRunner(desk, scope, store).complete(WorkCall(flows.picture(prompt)))

    await LOOP.call(run())

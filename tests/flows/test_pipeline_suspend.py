"""A pipeline that suspends its flow run while its tasks run, and is woken by a webhook or by the clock."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prefect import Flow

from rh_prefect import flow, generate_many, models
from rh_prefect.emulator import Fault
from rh_prefect.errors import InputError, PipelineIncomplete
from rh_prefect.flow_runs.resume_or_rerun import rerun
from rh_prefect.flow_runs.suspend_for_jobs import UNTIL_IT_FAILS
from rh_prefect.flow_runs.suspended_run_resumer import wake_suspended
from rh_prefect.flows.batch.run import batch
from rh_prefect.flows.pipeline import Pipeline
from rh_prefect.pipelines.rounds_across_runs import Suspended
from rh_prefect.settings import get_settings
from rh_prefect.works.journal.works_journal import open_default_works
from rh_prefect.works.loop_thread import LOOP
from tests.support.samples.steps import CLIP, PICTURE, of_rows, rows, steps
from tests.support.world.prefect_runs import cancel, state_of, until_state
from tests.support.world.suspended_runs import SuspendedRuns

pytestmark = pytest.mark.prefect

PICTURES = of_rows("title: string", picture=PICTURE % "$(item.title)", clip=CLIP % "$(picture)")
ROWS = rows("a mug", "a bowl")


def flow_of(text: str, name: str = "suspended") -> Flow[..., Any]:
    return Pipeline.from_text(f"name: {name}\n{text}").flow()


@pytest.fixture
def pictures() -> Flow[..., Any]:
    return flow_of(PICTURES + "outputs: {clips: $(each.clip)}\n")


@pytest.mark.long
async def test_it_suspends_while_all_tasks_run_and_is_woken_by_webhooks(
    with_webhooks: SuspendedRuns, pictures: Flow[..., Any]
) -> None:
    desk = with_webhooks
    run = await desk.begin(pictures, rows=ROWS, wait="suspend")
    await desk.run_until_suspended(pictures, run, jobs=2)
    await desk.end()
    await until_state(run, "Resuming")
    await desk.run_until_suspended(pictures, run, jobs=4)
    await desk.end()
    await until_state(run, "Resuming")
    result = await rerun(pictures, run)
    assert len(result["clips"]) == 2
    assert len(desk.paid) == len(set(desk.paid)) == 4
    assert await state_of(run) == "Completed"
    assert {one.task_id for one in desk.rh.recorder.deliveries} == set(desk.paid)


async def test_a_task_that_fails_during_a_suspension_is_paid_for_again(without_webhooks: SuspendedRuns) -> None:
    desk = without_webhooks
    again = flow_of(steps(picture=PICTURE % "a mug" + ", attempts: 2") + "outputs: {picture: $(picture)}\n")
    desk.rh.faults.add(Fault("submit", number=1, kind="fail", code="1504"))
    run = await desk.begin(again, wait="suspend")
    await desk.run_until_suspended(again, run, jobs=1)
    await desk.wake(run)
    await desk.run_until_suspended(again, run, jobs=2)
    await desk.wake(run)
    result = await rerun(again, run)
    assert result["picture"].uri
    assert len(desk.paid) == 2


@pytest.mark.long
async def test_after_a_failed_item_the_clips_of_others_suspend_the_run_again(
    without_webhooks: SuspendedRuns, pictures: Flow[..., Any]
) -> None:
    desk = without_webhooks
    desk.rh.faults.add(Fault("submit", number=1, kind="fail", code="1504"))
    run = await desk.begin(pictures, rows=ROWS, wait="suspend")
    await desk.run_until_suspended(pictures, run, jobs=2)
    await desk.wake(run)
    await asyncio.wait_for(desk.run_until_suspended(pictures, run, jobs=3), 60)


@pytest.mark.long
async def test_a_run_outside_of_a_deployment_waits_in_its_process(
    without_webhooks: SuspendedRuns, pictures: Flow[..., Any]
) -> None:
    desk = without_webhooks
    run: Any = pictures(rows=ROWS[:1], wait="suspend")
    running = asyncio.ensure_future(run)
    while len(desk.paid) < 2:
        await desk.end()
        await asyncio.sleep(0.1)
        assert not running.done() or running.result()
    await desk.end()
    assert len((await running)["clips"]) == 1


@pytest.mark.long
async def test_a_suspended_run_counts_the_failed_task_of_another_run(without_webhooks: SuspendedRuns) -> None:
    desk = without_webhooks
    pipelines = [flow_of(steps(picture=PICTURE % "a mug"), name) for name in ("first", "second")]
    desk.rh.faults.add(Fault("submit", kind="fail", code="1504"))
    runs = [await desk.begin(pipeline, wait="suspend") for pipeline in pipelines]
    for pipeline, run in zip(pipelines, runs, strict=True):
        await desk.run_until_suspended(pipeline, run, jobs=1)
    await desk.end()
    await LOOP.call(wake_suspended())
    for pipeline, run in reversed(list(zip(pipelines, runs, strict=True))):
        with pytest.raises(PipelineIncomplete, match="`attempts` allows 1"):
            await rerun(pipeline, run)
    assert len(desk.paid) == 1


@flow
async def a_batch_then_a_call(prompts: list[str]) -> list[str]:
    await batch([{"prompt": prompts[0]}], model="z-image/turbo", wait="suspend")
    (made,) = await generate_many([models.ZImageTurbo(prompt=prompts[1])], wait="suspend")
    return [made.task_id]


@pytest.mark.long
async def test_after_a_batch_the_same_flow_is_suspended_again(without_webhooks: SuspendedRuns) -> None:
    run = await without_webhooks.begin(a_batch_then_a_call, prompts=["one", "two"])
    await without_webhooks.run_until_suspended(a_batch_then_a_call, run, 1)
    await without_webhooks.wake(run)
    await asyncio.wait_for(without_webhooks.run_until_suspended(a_batch_then_a_call, run, 2), 60)


async def suspension_seconds() -> list[float]:
    """Returns for how long each suspension of a run reserves the run's round."""
    rounds = (await open_default_works()).rounds
    names = [name async for name in rounds.names() if "-suspended-" in name]
    return [Suspended.model_validate(await rounds.read(name)).seconds for name in names]


@pytest.mark.long
async def test_a_suspended_run_keeps_its_round_until_it_ends_or_is_cancelled(without_webhooks: SuspendedRuns) -> None:
    desk = without_webhooks
    pipeline = flow_of(steps(picture=PICTURE % "a mug" + ", reuse: never"), "each-round")
    run, other = [await desk.begin(pipeline, wait="suspend") for _ in range(2)]
    await desk.run_until_suspended(pipeline, run, jobs=1)
    assert await LOOP.call(suspension_seconds()) == [get_settings().suspend_seconds + UNTIL_IT_FAILS]
    with pytest.raises(InputError, match=rf"rh-prefect jobs cancel {run}"):
        await rerun(pipeline, other)
    await desk.wake(run)
    await rerun(pipeline, run)
    await desk.run_until_suspended(pipeline, other, jobs=2)
    await cancel(other)
    last = await desk.begin(pipeline, wait="suspend")
    await desk.run_until_suspended(pipeline, last, jobs=3)

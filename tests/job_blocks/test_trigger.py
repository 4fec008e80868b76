"""A block's job outside of flows: started, waited for, fetched, cancelled, and paid for once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rh_prefect import models
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import InputError, JobCancelled, JobFailed, JobTimeout, ModerationError, StoreError
from rh_prefect.job_blocks import RunningHubApp, RunningHubJobRun, RunningHubModel, RunningHubWorkflow
from rh_prefect.job_blocks.job_handle import MemoryJournal, background
from rh_prefect.settings import get_settings
from rh_prefect.tasks import generate
from rh_prefect.works.journal.job_records_and_state import JobRecords, read_job
from rh_prefect.works.journal.works_journal import default_works
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.result import Result
from tests.support.samples import media as samples
from tests.support.world.job_records import KEY, TASK, failed, intent, ticket, write

HOUR = 3600


def workflow(rh: Emulator, **fields: object) -> RunningHubWorkflow:
    return RunningHubWorkflow(workflow_id=rh.workflows.id_of("text-to-image"), **fields)


def turbo(prompt: str = "a lighthouse", **fields: object) -> RunningHubModel:
    return RunningHubModel(model="z-image/turbo", params={"prompt": prompt}, **fields)


def sent(rh: Emulator) -> dict[str, object]:
    nodes = rh.recorder.submissions[-1].payload["nodeInfoList"]
    assert isinstance(nodes, list)
    return {f"{one['nodeId']}.{one['fieldName']}": one["fieldValue"] for one in nodes}


def test_trigger_comes_back_when_it_is_paid_for_and_waits_in_the_background(slow_rh: Emulator, tmp_path: Path) -> None:
    run = turbo(label="dawn").trigger(scope="test")
    assert [one.task_id for one in slow_rh.recorder.paid] == [run.task_id]
    assert not list((tmp_path / "out").rglob("dawn-*"))
    slow_rh.clock.advance(HOUR)
    run.wait_for_completion()
    assert len(list((tmp_path / "out").rglob("dawn-*.png"))) + len(list((tmp_path / "out").rglob("dawn-*.jpg"))) == 1
    result = run.fetch_result()
    assert (result.task_id, result.job, result.label) == (run.task_id, run.job, "dawn")
    assert Path(result.first_output.uri).is_file()
    assert run.task_id in repr(run)


def test_overrides_are_laid_over_the_saved_values(rh: Emulator, tmp_path: Path) -> None:
    saved = RunningHubWorkflow(
        workflow_id=rh.workflows.id_of("restyle"), nodes={"6.text": "in ink", "3.steps": 10}, seed=3, label="saved"
    )
    photo = samples.png(tmp_path / "photo.png")
    run = saved.trigger(nodes={"6.text": "in oil", "10.image": photo}, seed=5, instance_type="plus", scope="test")
    assert run.fetch_result().label == "saved"
    assert sent(rh) | {"10.image": ""} == {"6.text": "in oil", "3.steps": 10, "10.image": "", "3.seed": 5}
    assert str(sent(rh)["10.image"]).startswith("openapi/")
    assert rh.recorder.submissions[-1].payload["instanceType"] == "plus"
    assert saved.trigger(label="given", scope="test").fetch_result().label == "given"
    assert (sent(rh)["6.text"], sent(rh)["3.seed"]) == ("in ink", 3)


def test_a_model_s_parameters_are_overridden_one_by_one(rh: Emulator) -> None:
    saved = RunningHubModel(model="ZImageTurbo", params={"prompt": "a lighthouse", "aspect_ratio": "16:9"})
    media = saved.trigger(params={"prompt": "a harbour"}, scope="test").fetch_result().first_output
    assert media.width is not None and media.height is not None
    assert media.width > media.height
    assert rh.recorder.submissions[-1].payload["prompt"] == "a harbour"


def test_an_app_runs_and_its_options_are_checked_before_anything_is_sent(rh: Emulator, tmp_path: Path) -> None:
    app = RunningHubApp(webapp_id=rh.apps.id_of("Portrait restyle"), nodes={"3.sampler_name": "euler"})
    with pytest.raises(InputError, match="allowed values"):
        app.trigger(nodes={"3.sampler_name": "nonsense"}, scope="test")
    assert not rh.recorder.submissions
    run = app.trigger(nodes={"10.image": samples.png(tmp_path / "photo.png")}, scope="test")
    assert run.fetch_result().first_output.kind == "image"
    assert sent(rh)["3.sampler_name"] == "euler"


def test_an_override_that_is_none_is_named(rh: Emulator) -> None:
    wrong: list[tuple[Callable[..., object], str, str]] = [
        (turbo().trigger, "prompt", r"prompt.*`params`"),
        (workflow(rh).trigger, "promt", "promt: Extra inputs"),
    ]
    for trigger, name, words in wrong:
        with pytest.raises(InputError, match=words):
            trigger(**{name: "a harbour"}, scope="test")
    assert not rh.recorder.submissions


def test_triggered_again_or_generated_while_it_runs_it_is_the_same_job(slow_rh: Emulator) -> None:
    first, second = (turbo().trigger(scope="test") for _ in range(2))
    assert (first.task_id, first.job) == (second.task_id, second.job)
    slow_rh.clock.advance(HOUR)
    generated = asyncio.run(generate.fn(models.ZImageTurbo(prompt="a lighthouse"), scope="test"))
    assert first.fetch_result() == second.fetch_result() == generated
    assert len(slow_rh.recorder.paid) == 1


def test_what_is_reused_is_paid_for_by_nobody_and_cannot_be_cancelled(rh: Emulator) -> None:
    first = turbo().trigger(scope="test").fetch_result()
    run = turbo().trigger(scope="another", reuse="always")
    run.cancel()
    assert (run.task_id, run.fetch_result().cost) == (first.task_id, Decimal(0))
    assert len(rh.recorder.paid) == 1
    assert not rh.recorder.cancelled


def test_a_refused_submit_is_raised_by_trigger(rh: Emulator) -> None:
    with pytest.raises(ModerationError):
        turbo("a forbidden thing").trigger(scope="test")
    assert not rh.recorder.paid


async def test_cancel_cancels_the_task_records_it_and_ends_the_wait(slow_rh: Emulator) -> None:
    run = await turbo().trigger_async(scope="test")
    waiting = asyncio.create_task(run.wait_for_completion_async())
    await asyncio.sleep(0.05)
    await run.cancel_async()
    with pytest.raises(JobCancelled, match=run.task_id):
        await waiting
    with pytest.raises(JobCancelled):
        await run.fetch_result_async()
    await run.cancel_async()
    assert slow_rh.recorder.cancelled == [run.task_id]
    last = (await read_job(default_works(get_settings()), run.job.partition("/")[2])).last
    assert last is not None and last.end is not None
    assert last.end.status == "CANCELLED"


async def test_trigger_returns_the_task_of_a_broken_graph_while_the_task_is_being_cancelled(slow_rh: Emulator) -> None:
    slow_rh.faults.add(Fault("submit", number=1, kind="node-errors"), Fault("cancel", number=1, kind="hold"))
    run = await asyncio.wait_for(workflow(slow_rh).trigger_async(scope="test"), 10)
    assert [one.task_id for one in slow_rh.recorder.paid] == [run.task_id]
    assert await asyncio.to_thread(slow_rh.held.wait)
    slow_rh.held.release()
    with pytest.raises(JobFailed):
        await run.fetch_result_async()
    assert slow_rh.recorder.cancelled == [run.task_id]


async def test_cancel_cancels_the_task_that_has_followed_a_failed_one(slow_rh: Emulator) -> None:
    slow_rh.faults.add(Fault("submit", number=1, kind="fail", code="1504"))
    run = await turbo().trigger_async(scope="test")
    slow_rh.clock.advance(HOUR)
    assert await asyncio.to_thread(slow_rh.recorder.wait, lambda recorder: len(recorder.paid) == 2)
    await run.cancel_async()
    assert slow_rh.recorder.cancelled == [slow_rh.recorder.paid[1].task_id]
    with pytest.raises(JobCancelled):
        await run.wait_for_completion_async()


async def test_a_task_that_is_cancelled_after_the_deadline_of_the_wait_is_cancelled_for_the_wait_too(
    slow_rh: Emulator,
) -> None:
    run = await turbo().trigger_async(scope="test", deadline=0.2)
    with pytest.raises(JobTimeout):
        await run.fetch_result_async()
    await run.cancel_async()
    assert slow_rh.recorder.cancelled == [run.task_id]
    with pytest.raises(JobCancelled, match=run.task_id):
        await run.fetch_result_async()


async def test_a_result_that_came_before_the_cancellation_is_delivered(slow_rh: Emulator) -> None:
    """RunningHub may still report the task of a delivered result as running, or no longer know it."""
    started = await turbo().trigger_async(scope="test")
    delivered: Any = object()

    async def deliver() -> Any:
        return delivered

    async def handle() -> RunningHubJobRun:
        work = background(deliver())
        await work
        return RunningHubJobRun(started.task_id, started.job, started._records, started._runner, lambda: work)

    run = await LOOP.call(handle())
    await run.cancel_async()
    assert slow_rh.recorder.cancelled == [run.task_id]
    assert await run.fetch_result_async() is delivered
    await started.cancel_async()


async def test_cancel_raises_the_error_of_a_submission_whose_answer_was_not_recorded(slow_rh: Emulator) -> None:
    started = await turbo().trigger_async(scope="test")
    records = JobRecords(MemoryJournal(), KEY)
    end = failed("1504", task_id=TASK)
    await write(records.journal, {"intent-1": intent(), "answer-1": ticket(), "end-1": end, "intent-2": intent()})

    async def fail() -> Result:
        raise StoreError("the records cannot be written")

    async def handle() -> RunningHubJobRun:
        work = background(fail())
        return RunningHubJobRun(TASK, "test/job", records, started._runner, lambda: work)

    run = await LOOP.call(handle())
    with pytest.raises(StoreError, match="cannot be written"):
        await asyncio.wait_for(run.cancel_async(), 10)
    await started.cancel_async()


async def test_who_stops_waiting_does_not_stop_the_job(slow_rh: Emulator) -> None:
    run = await turbo().trigger_async(scope="test")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(run.wait_for_completion_async(), 0.2)
    slow_rh.clock.advance(HOUR)
    assert (await run.fetch_result_async()).first_output.kind == "image"
    assert not slow_rh.recorder.cancelled


async def test_a_trigger_that_is_given_up_leaves_a_job_that_the_next_one_adopts(slow_rh: Emulator) -> None:
    slow_rh.faults.add(Fault("submit", number=1, kind="hold"))
    trigger = asyncio.create_task(turbo().trigger_async(scope="test"))
    assert await asyncio.to_thread(slow_rh.held.wait)
    trigger.cancel()
    slow_rh.held.release()
    with pytest.raises(asyncio.CancelledError):
        await trigger
    run = await turbo().trigger_async(scope="test")
    assert [one.task_id for one in slow_rh.recorder.paid] == [run.task_id]


async def test_a_trigger_that_is_given_up_before_its_submit_submits_nothing_afterwards(slow_rh: Emulator) -> None:
    slow_rh.faults.add(Fault("workflow", number=1, kind="hold"))
    trigger = asyncio.create_task(workflow(slow_rh).trigger_async(scope="test"))
    assert await asyncio.to_thread(slow_rh.held.wait)
    trigger.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trigger
    slow_rh.held.release()
    await asyncio.sleep(0.3)
    assert not slow_rh.recorder.submissions

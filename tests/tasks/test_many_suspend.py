"""A run that suspends itself until its jobs have ended: once, and for nothing that it could not be woken from."""

from __future__ import annotations

import asyncio
import inspect
from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest
from prefect import Flow, runtime, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.exceptions import Pause
from prefect.settings import PREFECT_API_URL, temporary_settings

from rh_prefect import flow, generate_many, models
from rh_prefect.emulator import Fault
from rh_prefect.errors import InputError
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.progress_observer import forget_run_progress
from rh_prefect.flow_runs.resume_or_rerun import create, rerun
from rh_prefect.flow_runs.suspend_for_jobs import SUSPEND, Suspension
from rh_prefect.flow_runs.suspended_run_resumer import wake_suspended
from rh_prefect.prefect_internals import drain
from rh_prefect.settings import get_settings
from rh_prefect.tasks.generate_many import WAVE, _run
from rh_prefect.works.journal.scope import REQUESTED_KEYS
from rh_prefect.works.loop_thread import LOOP
from tests.support.servers.faulty_proxy import FaultyProxy
from tests.support.servers.prefect_server import PrefectServer
from tests.support.waiting import until
from tests.support.world.prefect_runs import state_of, until_state
from tests.support.world.suspended_runs import SuspendedRuns

pytestmark = pytest.mark.prefect


@flow
async def pictures(prompts: list[str], wait: Any = "suspend") -> list[str]:
    asked = [models.ZImageTurbo(prompt=prompt) for prompt in prompts]
    return [result.task_id for result in await generate_many(asked, wait=wait)]


@flow
async def two_at_once(prompts: list[str]) -> list[str]:
    both = await asyncio.gather(
        *(generate_many([models.ZImageTurbo(prompt=prompt)], wait="suspend") for prompt in prompts)
    )
    return [result.task_id for results in both for result in results]


@flow
async def parent(prompts: list[str]) -> list[str]:
    return await pictures(prompts)


@flow
async def with_a_task(prompts: list[str]) -> list[str]:
    done: list[str] = await task(pictures.fn)(prompts)
    return done


@flow(retries=1)
async def retried(prompts: list[str]) -> list[str]:
    if runtime.flow_run.run_count == 1:
        raise RuntimeError("bad luck")
    return await pictures.fn(prompts)


async def test_it_rests_once_and_is_woken_by_its_webhooks(with_webhooks: SuspendedRuns) -> None:
    run = await with_webhooks.suspended(pictures, "one", "two", "three")
    await with_webhooks.end_and_wake(run)
    await with_webhooks.has_all(rerun(pictures, run), 3)
    assert with_webhooks.calls["turbo"] == 3


@pytest.mark.long
async def test_a_resumed_run_moves_the_progress_bar_of_its_first_process(without_webhooks: SuspendedRuns) -> None:
    run = await without_webhooks.suspended(pictures, "one", "two")
    forget_run_progress(str(run))  # as in another process
    await without_webhooks.wake(run)
    await without_webhooks.has_all(rerun(pictures, run), 2)
    async with get_client() as client:
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
        found = await client.read_artifacts(artifact_filter=of_run)
    assert [one.data for one in found if str(one.key).endswith("-progress")] == [100.0]


@pytest.mark.long
async def test_webhooks_that_never_come_cost_time_and_nothing_else(without_webhooks: SuspendedRuns) -> None:
    run = await without_webhooks.suspended(pictures, "one", "two")
    assert await LOOP.call(wake_suspended()) == []
    assert await state_of(run) == "Suspended"
    await without_webhooks.end()
    asked = without_webhooks.calls["query"]
    assert await LOOP.call(wake_suspended()) == [run]
    assert without_webhooks.calls["query"] == asked + 2
    assert await LOOP.call(wake_suspended()) == [], "it is woken once"
    await without_webhooks.has_all(rerun(pictures, run), 2)
    assert without_webhooks.calls["query"] == asked + 2, "what was asked for is recorded"


async def test_when_its_time_has_come_it_is_woken_and_rests_no_second_time(
    without_webhooks: SuspendedRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RH_SUSPEND_SECONDS", "0.1")
    run = await without_webhooks.suspended(pictures, "one", "two")
    await asyncio.sleep(0.2)
    without_webhooks.rh.faults.add(Fault("query", kind="code", code="802"))
    assert await LOOP.call(wake_suspended()) == [run], "whether or not RunningHub answers"
    without_webhooks.rh.faults.clear()
    going_on = asyncio.ensure_future(rerun(pictures, run))
    await until_state(run, "Running")
    await asyncio.sleep(1)
    assert not going_on.done()
    await without_webhooks.end()
    await without_webhooks.has_all(going_on, 2)


@pytest.mark.long
async def test_a_full_account_is_waited_for_while_what_has_ended_is_collected(without_webhooks: SuspendedRuns) -> None:
    prompts = [f"number {n}" for n in range(8)]
    run = await without_webhooks.begin(pictures, prompts=prompts)
    going_on = asyncio.ensure_future(rerun(pictures, run))

    await until_paid(without_webhooks, 5)
    await asyncio.sleep(0.5)
    assert await state_of(run) == "Running", "three jobs are not submitted yet"
    await without_webhooks.end()
    with pytest.raises(Pause):
        await going_on
    assert len(without_webhooks.paid) == 8
    downloaded = {one.task_id for one in without_webhooks.rh.recorder.downloads}
    assert downloaded == set(without_webhooks.paid[:5])
    await without_webhooks.end()
    assert await LOOP.call(wake_suspended()) == [run]
    await without_webhooks.has_all(rerun(pictures, run), 8)


async def until_paid(desk: SuspendedRuns, jobs: int) -> None:
    await until(lambda: len(desk.paid) == jobs)


@pytest.mark.long
async def test_two_calls_at_once_rest_together(with_webhooks: SuspendedRuns) -> None:
    run = await with_webhooks.suspended(two_at_once, "one", "two")
    await with_webhooks.end_and_wake(run)
    await with_webhooks.has_all(rerun(two_at_once, run), 2)


@pytest.mark.parametrize(
    ("flow_", "lacks", "why"),
    [
        (parent, "nothing", "cannot suspend a child flow"),
        pytest.param(with_a_task, "nothing", "a task cannot suspend", marks=pytest.mark.long),
        pytest.param(retried, "nothing", "no worker would resume it", marks=pytest.mark.long),
        (pictures, "a deployment", "only a run of a deployment"),
        pytest.param(pictures, "a receiver", "no receiver would resume the run", marks=pytest.mark.long),
    ],
)
async def test_where_it_cannot_be_suspended_it_waits_and_says_why(
    without_webhooks: SuspendedRuns,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    flow_: Flow[..., Any],
    lacks: str,
    why: str,
) -> None:
    if lacks == "a receiver":
        monkeypatch.delenv("RH_WEBHOOK_URL")
    asked: dict[str, Any] = {"prompts": ["one", "two"]}
    run = await (create(flow_, asked) if lacks == "a deployment" else without_webhooks.begin(flow_, **asked))
    going_on = asyncio.ensure_future(rerun(flow_, run))
    await until_paid(without_webhooks, 2)
    await without_webhooks.end()
    await without_webhooks.has_all(going_on, 2)
    assert why in caplog.text


async def test_outside_of_a_flow_it_waits_and_says_why(
    without_webhooks: SuspendedRuns, caplog: pytest.LogCaptureFixture
) -> None:
    asked = [models.ZImageTurbo(prompt=prompt) for prompt in ("one", "two")]
    going_on = asyncio.ensure_future(generate_many(asked, wait="suspend", scope="outside"))
    await until_paid(without_webhooks, 2)
    await without_webhooks.end()
    assert sorted(result.task_id for result in await going_on) == sorted(without_webhooks.paid)
    assert "the call is outside of a flow" in caplog.text


@flow
async def one_after_another(deadlines: list[float | None]) -> None:
    for number, deadline in enumerate(deadlines):
        await generate_many([models.ZImageTurbo(prompt=str(number))], wait="suspend", deadline=deadline)


@pytest.mark.long
async def test_each_suspension_has_the_deadline_of_the_calls_that_wait(without_webhooks: SuspendedRuns) -> None:
    run = await without_webhooks.begin(one_after_another, deadlines=[30, None, 40])
    for jobs in (1, 2, 3):
        await without_webhooks.run_until_suspended(one_after_another, run, jobs)
        await without_webhooks.wake(run)
    records = await LOOP.call(FlowRunJournal(run).job(SUSPEND))
    wake_after = [Suspension.model_validate(one) for one in records.values()]
    seconds = [(one.wake_by - datetime.fromisoformat(one.at)).total_seconds() for one in wake_after]
    assert seconds == pytest.approx([30, get_settings().suspend_seconds, 40], abs=1)


@flow
async def random_and(prompts: list[str]) -> list[str]:
    """Requests something new in each start, besides the prompts."""
    return await pictures.fn([*prompts, uuid4().hex])


@pytest.mark.long
async def test_a_run_whose_requests_differ_in_each_start_is_suspended_once(
    without_webhooks: SuspendedRuns, caplog: pytest.LogCaptureFixture
) -> None:
    """It paid for a new task, and suspended itself again, in each resume."""
    run = await without_webhooks.begin(random_and, prompts=["one"])
    await without_webhooks.run_until_suspended(random_and, run, 2)
    REQUESTED_KEYS.pop(str(run))  # as in another process
    await without_webhooks.wake(run)
    going_on = asyncio.ensure_future(rerun(random_and, run))
    await until(lambda: "has not requested 1 of the job(s)" in caplog.text or going_on.done())
    await without_webhooks.end()
    assert set(await going_on) < set(without_webhooks.paid)
    assert len(without_webhooks.paid) == 3
    downloaded = {one.task_id for one in without_webhooks.rh.recorder.downloads}
    assert downloaded == set(without_webhooks.paid), "what was paid for before the suspension, too"
    assert "but the last start did not request it" in caplog.text


@flow
async def after_a_cancelled_call(prompts: list[str]) -> list[str]:
    many = [models.ZImageTurbo(prompt=str(number)) for number in range(WAVE + 2)]
    first = asyncio.ensure_future(generate_many(many, wait="suspend"))
    while not any(getattr(one.get_coro(), "__qualname__", "") == _run.__qualname__ for one in asyncio.all_tasks()):  # noqa: ASYNC110 - in the same turn of the loop
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    return await pictures.fn(prompts)


async def test_after_a_call_that_was_cancelled_between_two_waves_the_run_is_suspended(
    without_webhooks: SuspendedRuns,
) -> None:
    run = await without_webhooks.begin(after_a_cancelled_call, prompts=["one"])
    await asyncio.wait_for(without_webhooks.run_until_suspended(after_a_cancelled_call, run, 1), 60)


async def test_if_prefect_cannot_be_asked_about_suspensions_the_run_waits_in_its_process(
    without_webhooks: SuspendedRuns, prefect_server: PrefectServer, caplog: pytest.LogCaptureFixture
) -> None:
    with FaultyProxy(prefect_server.url) as proxy, temporary_settings({PREFECT_API_URL: f"{proxy.url}/api"}):

        @flow
        async def unread(prompts: list[str]) -> list[str]:
            proxy.add_fault(rf"^GET .*/flow_runs/{runtime.flow_run.id} ", "403", times=1)
            return await pictures.fn(prompts)

        run = await without_webhooks.begin(unread, prompts=["one"])
        going_on = asyncio.ensure_future(rerun(unread, run))
        await until_paid(without_webhooks, 1)
        await without_webhooks.end()
        await without_webhooks.has_all(going_on, 1)
        await drain()
    assert 'wait="suspend": the run waits in its process' in caplog.text


async def test_a_run_that_prefect_does_not_suspend_waits_for_its_tasks(
    without_webhooks: SuspendedRuns, prefect_server: PrefectServer, caplog: pytest.LogCaptureFixture
) -> None:
    with FaultyProxy(prefect_server.url) as proxy, temporary_settings({PREFECT_API_URL: f"{proxy.url}/api"}):
        proxy.add_fault(r"/set_state[^\n]*\n.*Suspended", "403")
        run = await without_webhooks.begin(pictures, prompts=["one", "two"])
        going_on = asyncio.ensure_future(rerun(pictures, run))
        await until(lambda: "the run could not be suspended" in caplog.text)
        await without_webhooks.end()
        await without_webhooks.has_all(going_on, 2)
        await drain()  # while there is somebody who takes it


@flow
async def counted(prompts: list[str]) -> list[int]:
    """Has many pictures; returns for each start of a job how many earlier ones had not begun yet."""
    jobs: list[Any] = []
    not_begun: list[int] = []

    def make(loop: asyncio.AbstractEventLoop, body: Any, **more: Any) -> asyncio.Task[Any]:
        if getattr(body, "__qualname__", "") == _run.__qualname__:
            not_begun.append(sum(inspect.getcoroutinestate(one) == inspect.CORO_CREATED for one in jobs))
            jobs.append(body)
        return asyncio.Task(body, loop=loop, **more)

    loop = asyncio.get_running_loop()
    loop.set_task_factory(make)
    try:
        await pictures.fn(prompts)
    finally:
        loop.set_task_factory(None)
    return not_begun


@pytest.mark.long
async def test_after_a_refused_suspension_no_more_jobs_start_together_than_before(
    without_webhooks: SuspendedRuns,
    prefect_server: PrefectServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RH_API_KEY", without_webhooks.rh.keys.add("many", money=100, limit=50).secret)
    with FaultyProxy(prefect_server.url) as proxy, temporary_settings({PREFECT_API_URL: f"{proxy.url}/api"}):
        proxy.add_fault(r"/set_state[^\n]*\n.*Suspended", "403")
        run = await without_webhooks.begin(counted, prompts=[str(number) for number in range(WAVE + 2)])
        going_on = asyncio.ensure_future(rerun(counted, run))
        await until(lambda: "the run could not be suspended" in caplog.text)
        await without_webhooks.end()
        not_begun = await going_on
        await drain()
    assert len(not_begun) == 2 * (WAVE + 2)
    assert max(not_begun) < WAVE


async def test_a_way_to_wait_that_there_is_not_is_refused(without_webhooks: SuspendedRuns) -> None:
    run = await create(pictures, {"prompts": ["one"], "wait": "sleep"})
    with pytest.raises(InputError, match='"poll" or "suspend"'):
        await rerun(pictures, run)
    assert not without_webhooks.paid

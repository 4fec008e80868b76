"""Suspended runs under attack: resumed by others, cancelled, woken while they suspend, or not to be asked about."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import Pause
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling

from rh_prefect import flow, generate_many, models
from rh_prefect.emulator import Fault
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.prefect_internals import drain
from rh_prefect.flow_runs.reconciliation import reconcile_runs
from rh_prefect.flow_runs.resume import rerun
from rh_prefect.flow_runs.suspended_runs import wake_suspended
from rh_prefect.jobs.journal.job_records import jobs_of
from rh_prefect.jobs.loop_thread import LOOP
from tests.support.prefect_server import PrefectServer
from tests.support.proxy import Proxy
from tests.support.resting import Desk, state_of, until, until_woken

pytestmark = pytest.mark.prefect
SUSPENDS = r"/set_state[^\n]*\n.*Suspended"


@flow
async def pictures(prompts: list[str]) -> list[str]:
    asked = [models.ZImageTurbo(prompt=prompt) for prompt in prompts]
    return [result.task_id for result in await generate_many(asked, wait="suspend")]


async def resume(run: UUID) -> SetStateStatus:
    """As the dashboard's button does."""
    async with get_client() as client:
        return (await client.resume_flow_run(run)).status


async def states_of(run: UUID) -> list[str]:
    async with get_client() as client:
        return [state.name or "" for state in await client.read_flow_run_states(run)]


async def test_a_person_who_resumes_it_early_and_twice_has_it_wait_in_its_process(unheard: Desk) -> None:
    run = await unheard.begin(pictures, prompts=["one", "two"])
    await unheard.until_it_rests(pictures, run, 2)
    assert [await resume(run), await resume(run)] == [SetStateStatus.ACCEPT, SetStateStatus.ABORT]
    going_on = asyncio.ensure_future(rerun(pictures, run))

    async def is_on() -> bool:
        return await state_of(run) == "Running"

    await until(is_on)
    assert await resume(run) == SetStateStatus.ABORT
    assert await LOOP.call(wake_suspended()) == []
    await unheard.end()
    assert sorted(await going_on) == sorted(unheard.paid)
    assert len(unheard.paid) == 2
    assert (await states_of(run)).count("Suspended") == 1


async def test_two_who_look_at_the_same_time_wake_it_once(unheard: Desk) -> None:
    run = await unheard.begin(pictures, prompts=["one", "two"])
    await unheard.until_it_rests(pictures, run, 2)
    await unheard.end()
    woken = await asyncio.gather(*(LOOP.call(wake_suspended()) for _ in range(3)))
    assert [one for each in woken for one in each] == [run]
    assert sorted(await rerun(pictures, run)) == sorted(unheard.paid)
    assert (await states_of(run)).count("Resuming") == 1


async def test_cancelled_it_sleeps_for_good_and_its_tasks_are_cancelled(heard: Desk) -> None:
    run = await heard.begin(pictures, prompts=["one", "two"])
    await heard.until_it_rests(pictures, run, 2)
    async with get_client() as client:
        await client.set_flow_run_state(run, Cancelling())
    assert await state_of(run) == "Cancelled", "at once: there is no process to wait for"
    found = await LOOP.call(reconcile_runs(flow_run_id=run))
    assert [one.done for one in found.findings] == ["cancelled", "cancelled"]
    await heard.end()
    assert await LOOP.call(wake_suspended()) == []
    assert await state_of(run) == "Cancelled"
    assert sorted(heard.rh.books.cancelled) == sorted(heard.paid)


@pytest.fixture
def proxy(prefect_server: PrefectServer) -> Iterator[Proxy]:
    """Between the run and its Prefect server; the receiver has a way of its own."""
    with Proxy(prefect_server.url) as proxy, temporary_settings({PREFECT_API_URL: f"{proxy.url}/api"}):
        yield proxy
        asyncio.run(drain())  # while there is somebody who takes it


async def test_webhooks_that_come_while_it_is_being_suspended_wake_it(heard: Desk, proxy: Proxy) -> None:
    run = await heard.begin(pictures, prompts=["one", "two"])
    held = proxy.hold(SUSPENDS)
    going_on = asyncio.ensure_future(rerun(pictures, run))
    await asyncio.to_thread(held.wait)
    await heard.end()
    await until_recorded(run, 2)
    proxy.release()
    with pytest.raises(Pause):
        await going_on
    await until_woken(run)
    assert sorted(await rerun(pictures, run)) == sorted(heard.paid)
    assert len(heard.paid) == 2


async def test_what_has_ended_when_it_writes_down_what_it_waits_for_is_not_slept_for(heard: Desk, proxy: Proxy) -> None:
    run = await heard.begin(pictures, prompts=["one", "two"])
    held = proxy.hold(r'"rh-suspend-1"')
    going_on = asyncio.ensure_future(rerun(pictures, run))
    await asyncio.to_thread(held.wait)
    await heard.end()
    await until_recorded(run, 2)
    proxy.release()
    assert sorted(await going_on) == sorted(heard.paid)
    assert "Suspended" not in await states_of(run)


async def test_a_suspension_whose_answer_is_lost_is_one(heard: Desk, proxy: Proxy) -> None:
    run = await heard.begin(pictures, prompts=["one", "two"])
    held = proxy.hold(SUSPENDS, answer=True)
    going_on = asyncio.ensure_future(rerun(pictures, run))
    await asyncio.to_thread(held.wait)
    proxy.drop()
    with pytest.raises(Pause):
        await going_on
    assert await state_of(run) == "Suspended"
    await heard.end()
    await until_woken(run)
    assert sorted(await rerun(pictures, run)) == sorted(heard.paid)
    assert (await states_of(run)).count("Suspended") == 1


async def until_recorded(run: UUID, ends: int) -> None:
    """Waits until the receiver has recorded so many ends."""

    async def is_recorded() -> bool:
        jobs = [job async for job in jobs_of(FlowRunJournal(run))]
        return sum(job.state == "ended" for job in jobs) == ends

    await until(is_recorded)


async def test_who_cannot_ask_wakes_it_when_its_time_has_come(unheard: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RH_SUSPEND_SECONDS", "1")
    run = await unheard.begin(pictures, prompts=["one"])
    await unheard.until_it_rests(pictures, run, 1)
    unheard.rh.faults.add(Fault("query", kind="code", code="802"))
    await asyncio.sleep(1)
    assert await LOOP.call(wake_suspended()) == [run]


async def test_who_has_another_key_does_not_keep_it_asleep_for_good(
    unheard: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = await unheard.begin(pictures, prompts=["one"])
    await unheard.until_it_rests(pictures, run, 1)
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("RH_API_KEY", secrets.token_hex(16))
        assert await LOOP.call(wake_suspended()) == []
        assert "cannot be looked after" in caplog.text
    await unheard.end()
    assert await LOOP.call(wake_suspended()) == [run]


async def test_a_task_that_is_not_known_any_more_is_not_slept_for(unheard: Desk) -> None:
    run = await unheard.begin(pictures, prompts=["one"])
    await unheard.until_it_rests(pictures, run, 1)
    unheard.rh.faults.add(Fault("query", kind="code", code="1004"))
    assert await LOOP.call(wake_suspended()) == [run]


async def test_half_of_it_is_refused_at_the_submit_and_half_of_it_is_slept_for(heard: Desk) -> None:
    heard.rh.faults.add(Fault("submit", prompt="bad", kind="code", code="1007"))
    run = await heard.begin(pictures, prompts=["good one", "bad one", "good two", "bad two"])
    await heard.until_it_rests(pictures, run, 2)
    await heard.end()
    await until_woken(run)
    with pytest.raises(ExceptionGroup) as caught:
        await rerun(pictures, run)
    assert len(caught.value.exceptions) == len(heard.paid) == 2


async def test_what_others_have_suspended_is_none_of_ours(unheard: Desk) -> None:
    run = await unheard.begin(pictures, prompts=["one"])
    await unheard.until_it_rests(pictures, run, 1)
    await resume(run)
    suspended: dict[str, Any] = {"type": "PAUSED", "name": "Suspended", "state_details": {"pause_key": "lunch"}}
    async with get_client() as client:
        response = await client._client.post(f"/flow_runs/{run}/set_state", json={"state": suspended, "force": True})
        response.raise_for_status()
    await unheard.end()
    assert await LOOP.call(wake_suspended()) == []
    assert await state_of(run) == "Suspended"

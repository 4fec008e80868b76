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
from rh_prefect.flow_runs.leftover_jobs import reconcile_runs
from rh_prefect.flow_runs.resume_or_rerun import rerun
from rh_prefect.flow_runs.suspend_for_jobs import PAUSE_KEY
from rh_prefect.flow_runs.suspended_run_resumer import wake_suspended
from rh_prefect.prefect_api import ask
from rh_prefect.works.journal.job_records_and_state import jobs_of
from rh_prefect.works.loop_thread import LOOP
from tests.support.servers.holding_proxy import Proxy
from tests.support.servers.prefect_server import PrefectServer, drain_services
from tests.support.waiting import until
from tests.support.world.prefect_runs import set_states, state_of, states_of, until_state
from tests.support.world.suspended_runs import SuspendedRuns

pytestmark = pytest.mark.prefect


@flow
async def pictures(prompts: list[str]) -> list[str]:
    asked = [models.ZImageTurbo(prompt=prompt) for prompt in prompts]
    return [result.task_id for result in await generate_many(asked, wait="suspend")]


async def resume(run: UUID) -> SetStateStatus:
    """As the dashboard's button does."""
    return (await ask(lambda api: api.resume_flow_run(run))).status


async def test_two_who_look_at_the_same_time_wake_it_once(without_webhooks: SuspendedRuns) -> None:
    run = await without_webhooks.suspended(pictures, "one", "two")
    await without_webhooks.end()
    woken = await asyncio.gather(*(LOOP.call(wake_suspended()) for _ in range(3)))
    assert [one for each in woken for one in each] == [run]
    await without_webhooks.has_all(rerun(pictures, run), 2)
    assert (await states_of(run)).count("Resuming") == 1
    ended = (await set_states(run)).state
    assert ended is not None
    assert "2 of 2 jobs done, cost " in (ended.message or ""), "a suspension is no failure"


async def test_cancelled_it_sleeps_for_good_and_its_tasks_are_cancelled(with_webhooks: SuspendedRuns) -> None:
    run = await with_webhooks.suspended(pictures, "one", "two")
    await set_states(run, Cancelling(), force=False)
    assert await state_of(run) == "Cancelled", "at once: there is no process to wait for"
    found = await LOOP.call(reconcile_runs(flow_run_id=run))
    assert [one.done for one in found.findings] == ["cancelled", "cancelled"]
    await with_webhooks.end()
    assert await LOOP.call(wake_suspended()) == []
    assert await state_of(run) == "Cancelled"
    assert sorted(with_webhooks.rh.recorder.cancelled) == sorted(with_webhooks.paid)


@pytest.fixture
def proxy(prefect_server: PrefectServer) -> Iterator[Proxy]:
    """Between the run and its Prefect server; the receiver has a separate connection."""
    with Proxy(prefect_server.url) as proxy, temporary_settings({PREFECT_API_URL: f"{proxy.url}/api"}):
        yield proxy
        drain_services()


async def held(proxy: Proxy, desk: SuspendedRuns, **more: Any) -> tuple[UUID, asyncio.Future[Any]]:
    """A run of two pictures whose suspension is held."""
    run = await desk.begin(pictures, prompts=["one", "two"])
    suspension = proxy.hold(r"/set_state[^\n]*\n.*Suspended", **more)
    going_on = asyncio.ensure_future(rerun(pictures, run))
    await asyncio.to_thread(suspension.wait)
    return run, going_on


async def test_webhooks_during_its_suspension_wake_it(with_webhooks: SuspendedRuns, proxy: Proxy) -> None:
    run, going_on = await held(proxy, with_webhooks)
    await with_webhooks.end()

    async def is_recorded() -> bool:
        return [job.state async for job in jobs_of(FlowRunJournal(run))] == ["ended", "ended"]

    await until(is_recorded)
    proxy.release()
    with pytest.raises(Pause):
        await going_on
    await until_state(run, "Resuming")
    await with_webhooks.has_all(rerun(pictures, run), 2)


@pytest.mark.long
async def test_a_suspension_whose_answer_is_lost_is_one(with_webhooks: SuspendedRuns, proxy: Proxy) -> None:
    run, going_on = await held(proxy, with_webhooks, answer=True)
    proxy.drop()
    with pytest.raises(Pause):
        await going_on
    assert await state_of(run) == "Suspended"
    await with_webhooks.end_and_wake(run)
    await with_webhooks.has_all(rerun(pictures, run), 2)
    assert (await states_of(run)).count("Suspended") == 1


async def test_who_has_another_key_does_not_keep_it_asleep_for_good(
    without_webhooks: SuspendedRuns, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = await without_webhooks.suspended(pictures, "one")
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("RH_API_KEY", secrets.token_hex(16))
        assert await LOOP.call(wake_suspended()) == []
        assert "cannot be watched" in caplog.text
    await without_webhooks.end()
    assert await LOOP.call(wake_suspended()) == [run]


@pytest.mark.parametrize("answers", [1, None])
async def test_a_task_that_is_not_known_any_more_is_not_slept_for_but_a_single_such_answer_wakes_nobody(
    without_webhooks: SuspendedRuns, answers: int | None
) -> None:
    run = await without_webhooks.suspended(pictures, "one")
    without_webhooks.rh.faults.add(Fault("query", kind="code", code="1004", times=answers))
    assert await LOOP.call(wake_suspended()) == ([] if answers else [run])


@pytest.mark.long
async def test_a_success_whose_link_is_not_valid_is_not_slept_for(without_webhooks: SuspendedRuns) -> None:
    run = await without_webhooks.suspended(pictures, "one")
    await without_webhooks.end()
    without_webhooks.rh.faults.add(Fault("query", kind="odd-link", link="nowhere", number=1))
    assert await LOOP.call(wake_suspended()) == [run]
    # The run waits in its process for the link, as long as a file host may need for a new file.
    assert await rerun(pictures, run) == without_webhooks.paid
    assert (await states_of(run)).count("Suspended") == 1


@pytest.mark.parametrize(("name", "key"), [("Suspended", "lunch"), ("Paused", f"{PAUSE_KEY}1")])
async def test_what_others_have_suspended_is_none_of_ours(without_webhooks: SuspendedRuns, name: str, key: str) -> None:
    run = await without_webhooks.suspended(pictures, "one")
    await resume(run)
    suspended: dict[str, Any] = {"type": "PAUSED", "name": name, "state_details": {"pause_key": key}}
    async with get_client() as client:
        response = await client._client.post(f"/flow_runs/{run}/set_state", json={"state": suspended, "force": True})
        response.raise_for_status()
    await without_webhooks.end()
    assert await LOOP.call(wake_suspended()) == []
    assert await state_of(run) == name

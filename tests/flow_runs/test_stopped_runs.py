"""Runs that have stopped and that the automations have missed are brought back, by the automations' own limits."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.events.schemas.automations import AutomationCore
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Cancelled, Crashed, Failed, Pending, Running, Scheduled

from rh_prefect.flow_runs.crashed_run_restart import MARK_CRASHED, RUN_AGAIN, revive_stopped
from rh_prefect.prefect_api import ask
from rh_prefect.prefect_internals import awaiting_retry
from rh_prefect.works.loop_thread import LOOP
from tests.support.servers.prefect_server import PrefectServer, empty
from tests.support.waiting import until
from tests.support.world.prefect_runs import deployed_run, set_states, state_of, states_of

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("automations")]

AUTOMATIONS = Path(__file__).parents[2] / "deployments" / "automations.yaml"
HOUR = timedelta(hours=1)
RUNS: set[UUID] = set()
"""The runs of the test; those of earlier ones are still there."""


@pytest.fixture
def automations(prefect_server: PrefectServer) -> Iterator[dict[str, UUID]]:
    """The automations of this project, by name; the server itself waits too long to act in a test."""
    made: dict[str, UUID] = {}
    with get_client(sync_client=True) as client:
        for found in yaml.safe_load(AUTOMATIONS.read_text())["automations"]:
            found["trigger"]["within"] = HOUR.total_seconds() / 2
            made[found["name"]] = client.create_automation(AutomationCore.model_validate(found))
        try:
            yield made
        finally:
            for name in made:
                for one in client.read_automations_by_name(name):
                    client.delete_automation(one.id)


@pytest.fixture(autouse=True)
def runs() -> Iterator[None]:
    yield
    RUNS.clear()


async def begin(*states: State[Any], tags: tuple[str, ...] = ("media",)) -> UUID:
    """A run of a deployment that had these states."""
    run = await deployed_run(empty, deployment=uuid.uuid4().hex, tags=tags)
    await set_states(run, *states)
    RUNS.add(run)
    return run


async def look(*, later: timedelta = HOUR) -> set[UUID]:
    """Looks at the runs some time later, as the schedule does; returns those that were changed."""
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: 180}):
        done = await LOOP.call(revive_stopped(hours=24, now=datetime.now(UTC) + later))
    return {one.flow_run_id for one in done} & RUNS


async def test_a_crashed_run_is_scheduled_again_up_to_the_limit_of_the_automation() -> None:
    """Prefect's server forgets a crash that was near to a restart of it, and the run stayed crashed for ever."""
    first = await begin(Running(), Crashed())
    third = await begin(*[Running(), Crashed()] * 3)
    fourth = await begin(*[Running(), Crashed()] * 4)
    assert await look() == {first, third}
    assert [await state_of(run) for run in (first, third)] == ["AwaitingRetry"] * 2
    assert await state_of(fourth) == "Crashed"
    assert await look() == set(), "they are scheduled"


async def test_a_run_that_crashes_without_end_before_it_starts_is_failed() -> None:
    """Prefect counts no such start as an attempt: the automation scheduled the run again each 15 s, for ever."""
    crashes: list[State[Any]] = [Pending(), Crashed()]
    never = await begin(*crashes * 4)
    once = await begin(Running(), Crashed(), *crashes * 3)
    scheduled = await begin(Running(), Crashed(), *crashes * 3, awaiting_retry())
    soon = await begin(Running(), Crashed(), *crashes * 2, awaiting_retry())
    by_hand = await begin(*crashes * 4, Failed(), awaiting_retry())
    assert await look(later=timedelta(0)) == {never, once}, "a person may just have retried a run that is scheduled"
    assert await look() == {scheduled}
    assert {await state_of(run) for run in (never, once, scheduled)} == {"Failed"}
    assert {await state_of(run) for run in (soon, by_hand)} == {"AwaitingRetry"}


async def test_a_crash_is_left_to_the_automation_first_and_old_ones_are_left_alone() -> None:
    run = await begin(Running(), Crashed())
    assert await look(later=timedelta(0)) == set()
    assert await look(later=timedelta(days=2)) == set()
    assert await state_of(run) == "Crashed"


async def test_other_runs_are_left_alone() -> None:
    await begin(Running(), Crashed(), tags=("other",))
    await begin(Running(), Cancelled())
    await begin(Scheduled())
    of_a_program = await ask(lambda api: api.create_flow_run(empty, tags=["media"], state=Pending()))
    RUNS.add(of_a_program.id)
    assert await look() == set()
    assert await states_of(of_a_program.id) == ["Pending"]


@pytest.mark.parametrize("name", [RUN_AGAIN, MARK_CRASHED])
async def test_runs_of_a_paused_or_absent_automation_are_left_alone(automations: dict[str, UUID], name: str) -> None:
    crashed, lost = await begin(Running(), Crashed()), await begin(Pending())
    await ask(lambda api: api.pause_automation(automations[name]))
    changed = await look()
    assert changed == ({lost} if name == RUN_AGAIN else {crashed})
    async with get_client() as client:
        for one in automations.values():
            await client.delete_automation(one)
    assert await look() == set()


@pytest.mark.parametrize("name", ["Pending", "Submitting", "InfrastructurePending"])
async def test_a_run_whose_worker_died_before_it_began_is_brought_back(name: str) -> None:
    run = await begin(Pending(name=name))
    assert await look(later=timedelta(minutes=25)) == set(), "infrastructure may take some time"
    assert await look() == {run}
    assert (await states_of(run))[-2:] == ["Crashed", "AwaitingRetry"]


async def test_a_run_that_was_killed_before_its_first_heartbeat_is_brought_back(prefect_server: PrefectServer) -> None:
    """The automation waits from the first heartbeat on, so that such a run stayed Running for ever."""
    killed, alive = await begin(Running()), await begin(Running())
    await heartbeat(prefect_server, alive, at=datetime.now(UTC) + HOUR - timedelta(minutes=3))
    await stored(killed, "prefect.flow-run.Running")
    await stored(alive, "prefect.flow-run.heartbeat")
    assert await look() == {killed}
    assert await state_of(alive) == "Running"
    assert "Crashed" in await states_of(killed)


async def heartbeat(server: PrefectServer, run: UUID, *, at: datetime) -> None:
    event = {
        "occurred": at.isoformat(),
        "event": "prefect.flow-run.heartbeat",
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
        "id": str(uuid.uuid4()),
    }
    async with httpx.AsyncClient(base_url=server.api, timeout=300) as http:
        (await http.post("/events", json=[event])).raise_for_status()


async def stored(run: UUID, event: str) -> None:
    """Waits until the server has stored an event of a run, which it does some time later."""
    resource, later = {"id": [f"prefect.flow-run.{run}"]}, (datetime.now(UTC) + 2 * HOUR).isoformat()
    asked = {"filter": {"resource": resource, "occurred": {"until": later}}}

    async def is_stored() -> bool:
        found = (await ask(lambda api: api.request("POST", "/events/filter", json=asked))).json()["events"]
        return event in [one["event"] for one in found]

    await until(is_stored)

"""Runs that are cancelled or die under a real Prefect server and a process worker, with what `deployments/` ships.

Whatever happens to a run: what was paid for is one task for each job, what was cancelled does not go on, and a run that
died goes on with its tasks.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger
from prefect.states import Cancelling

from rh_prefect.emulator import Emulator, Fault
from tests.support.servers.deployment_server import Workplace, workplace
from tests.support.servers.emulator_env import environment
from tests.support.world.prefect_runs import set_states

pytestmark = [pytest.mark.long]

FLOWS = "tests.long.worker_flows"
HEART = "Mark runs without heartbeats as crashed"
ENDED = {"SUCCESS", "FAILED", "CANCELLED"}


@pytest.fixture(scope="module")
def rh() -> Iterator[Emulator]:
    """One whose tasks run until they are cancelled, or the clock is moved on."""
    with Emulator(clock="real", factor=0, long_side=96, fps=6) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def place(rh: Emulator, tmp_path_factory: pytest.TempPathFactory, prefect_template: Path) -> Iterator[Workplace]:
    folder = tmp_path_factory.mktemp("workplace")
    env = {**environment(rh, folder), "RH_POLL_SECONDS": "0.2"}
    with workplace(folder, env, template=prefect_template) as made:
        names = ("pictures", "blocking_pictures", "resting_pictures", "crashing_pictures")
        asyncio.run(made.deploy(*(f"{FLOWS}.{name}" for name in names)))
        made.staff()
        made.prefect("deploy", "--prefect-file", "deployments/prefect.yaml", "--name", "reconcile")
        made.prefect("automation", "create", "--from-file", "deployments/automations.yaml")
        yield made


@dataclass
class Desk:
    """What one test has at RunningHub."""

    rh: Emulator
    before: int  # how many submits there were before the test

    @property
    def paid(self) -> list[str]:
        return [one.task_id for one in self.rh.recorder.submissions[self.before :] if one.accepted]

    def task(self, prompt: str) -> str:
        (task_id,) = (
            one.task_id for one in self.rh.recorder.submissions[self.before :] if one.payload["prompt"] == prompt
        )
        return task_id

    @property
    def cancelled(self) -> list[str]:
        return [task_id for task_id in self.rh.recorder.cancelled if task_id in self.paid]

    @property
    def going_on(self) -> list[str]:
        return [one.task_id for one in self.rh.recorder.tasks if one.task_id in self.paid and one.status not in ENDED]

    def check(self, *, jobs: int, cancelled: int) -> None:
        prompts = {str(one.payload["prompt"]) for one in self.rh.recorder.submissions[self.before :]}
        assert len(self.paid) == len(prompts) == jobs, "one task for each job"
        assert len(self.cancelled) == cancelled
        assert not self.going_on


@pytest.fixture
async def desk(rh: Emulator, place: Workplace) -> AsyncIterator[Desk]:
    yield Desk(rh, len(rh.recorder.submissions))
    rh.faults.clear()


async def begin(place: Workplace, desk: Desk, flow: str, *prompts: str) -> UUID:
    """A run whose tasks run at RunningHub, and are recorded."""
    run = await place.start(f"{flow}/test", prompts=list(prompts))

    async def all_have_tickets() -> bool:
        jobs = await place.jobs(run)
        return len(jobs) == len(prompts) and {job.state for job in jobs} == {"ticket"}

    await place.until(all_have_tickets)
    assert len(desk.paid) == len(prompts)
    return run


async def cancel(run: UUID) -> None:
    """As the dashboard's button does."""
    await set_states(run, Cancelling(), force=False)


@pytest.mark.parametrize("flow", ["pictures", "blocking-pictures"])
async def test_cancelled_while_it_runs(place: Workplace, desk: Desk, flow: str) -> None:
    run = await begin(place, desk, flow, f"{flow} one", f"{flow} two", f"{flow} three")
    since = time.monotonic()
    await cancel(run)
    await place.until(lambda: len(desk.cancelled) == 3)
    print(f"{flow}: all tasks were cancelled {time.monotonic() - since:.1f} s after the run")
    await place.until(lambda: place.is_in(run, "Cancelled"))
    desk.check(jobs=3, cancelled=3)


async def test_what_could_not_be_cancelled_is_said_in_the_run_s_logs(place: Workplace, desk: Desk) -> None:
    run = await begin(place, desk, "pictures", "stubborn", "docile")
    stubborn, docile = desk.task("stubborn"), desk.task("docile")  # submitted side by side, in either order
    desk.rh.faults.add(Fault("cancel", prompt="stubborn", kind="code", code="802"))
    await cancel(run)
    await place.until(lambda: place.is_in(run, "Cancelled"))
    await place.until_told(run, "could not be cancelled and may continue and be charged")
    assert desk.cancelled == [docile]
    assert desk.going_on == [stubborn]
    desk.rh.faults.clear()
    await place.start("reconcile/reconcile", flow_run_id=str(run))
    await place.until(lambda: len(desk.cancelled) == 2)
    desk.check(jobs=2, cancelled=2)


async def test_cancelled_while_its_worker_is_dead(place: Workplace, desk: Desk) -> None:
    run = await begin(place, desk, "pictures", "left one", "left two")
    place.black_out()
    await cancel(run)
    await place.until(lambda: place.is_in(run, "Cancelled"))
    assert not desk.cancelled
    place.staff()
    await place.until(lambda: len(desk.cancelled) == 2)
    desk.check(jobs=2, cancelled=2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_evicted_or_killed_it_goes_on_with_its_tasks(
    place: Workplace, desk: Desk, number: signal.Signals
) -> None:
    run = await begin(place, desk, "pictures", f"{number.name} one", f"{number.name} two")
    place.signal(run, number)
    await place.until(lambda: place.is_in(run, "Running", attempt=2))
    desk.rh.clock.advance(600)
    await place.until(lambda: place.is_in(run, "Completed"))
    assert {view.last.end.task_id for view in await place.jobs(run) if view.last and view.last.end} == set(desk.paid)
    await place.until_told(run, "was already paid for; waiting for it")
    desk.check(jobs=2, cancelled=0)


async def test_a_run_that_always_crashes_is_left_alone_in_the_end(place: Workplace, desk: Desk) -> None:
    run = await place.start("crashing-pictures/test", prompts=["doomed"])
    await place.until(lambda: place.is_in(run, "Crashed", attempt=4), seconds=600)
    await asyncio.sleep(15)  # longer than a crashed run waits to be run again
    assert (await place.look(run)).run_count == 4
    assert await place.is_in(run, "Crashed")
    assert len(desk.paid) == 1
    looked = await place.start("reconcile/reconcile", flow_run_id=str(run))
    await place.until(lambda: place.is_in(looked, "Completed"))
    await place.until_told(looked, f"task {desk.paid[0]}: still runs")
    desk.rh.clock.advance(600)
    desk.check(jobs=1, cancelled=0)


async def test_a_run_that_nobody_saw_die_is_found_by_its_heart_and_goes_on(place: Workplace, desk: Desk) -> None:
    resting = await begin(place, desk, "resting-pictures", "resting")
    await place.until(lambda: place.is_in(resting, "Suspended"))
    before = await shorten(HEART, seconds=10)
    try:
        run = await place.start("pictures/test", prompts=["silenced"])
        await place.until(lambda: len(desk.paid) == 2)
        place.black_out()
        place.staff()
        await place.until(lambda: place.is_in(run, "Running", attempt=2), seconds=600)
    finally:
        await put(before)
    assert await place.is_in(resting, "Suspended"), "it has no heart-beat, and needs none"
    desk.rh.clock.advance(600)
    await place.until(lambda: place.is_in(run, "Completed"))
    async with get_client() as client:
        await client.resume_flow_run(resting)
    await place.until(lambda: place.is_in(resting, "Completed"))
    desk.check(jobs=2, cancelled=0)


async def shorten(name: str, *, seconds: float) -> Automation:
    """Shortens the time of an automation that is there, and nothing else; it as it was."""
    async with get_client() as client:
        (found,) = await client.read_automations_by_name(name)
    trigger = EventTrigger.model_validate({**found.trigger.model_dump(), "within": seconds})
    await put(found.model_copy(update={"trigger": trigger}))
    return found


async def put(automation: Automation) -> None:
    core = AutomationCore.model_validate(automation.model_dump(exclude={"id", "owner_resource"}))
    async with get_client() as client:
        await client.update_automation(automation.id, core)

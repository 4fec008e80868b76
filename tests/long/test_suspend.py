"""Runs that suspend themselves, under a real Prefect server, a worker with one slot and a separate receiver.

Whatever becomes of the webhooks, what was paid for is one task for each job, and the runs complete.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest

from rh_prefect.emulator import Emulator, Fault
from tests.support.servers.deployment_server import Worker, Workplace, workplace
from tests.support.servers.emulator_env import environment
from tests.support.servers.webhook_receiver import TOKEN, ReceiverProcess
from tests.support.world.prefect_runs import states_of

pytestmark = [pytest.mark.long]

FLOWS = "tests.long.worker_flows"
MANY, BATCH = "suspending-pictures/test", "suspending-batch/test"


@dataclass
class Office:
    """One worker with one slot, one receiver, and what one test has at RunningHub."""

    rh: Emulator  # RunningHub, whose tasks run until the clock is moved on
    place: Workplace
    receiver: ReceiverProcess
    before: int = 0  # how many submits there were before the test

    @property
    def paid(self) -> list[str]:
        return [one.task_id for one in self.rh.recorder.submissions[self.before :] if one.accepted]

    def deliveries(self) -> Counter[str]:
        """How often each task's end was told, and the receiver had it."""
        told = [one for one in self.rh.recorder.deliveries if one.task_id in self.paid and one.status == 200]
        return Counter(one.task_id for one in told)

    async def reach(self, run: UUID, state: str) -> None:
        await self.place.until(lambda: self.place.is_in(run, state))

    async def end(self) -> None:
        await asyncio.to_thread(self.rh.clock.advance, 600)

    async def check(self, *runs: UUID, jobs: int) -> None:
        """Each run was suspended and woken once; one task was paid for each job, and its picture is here."""
        for run in runs:
            states = Counter(await states_of(run))
            assert states["Suspended"] == states["Resuming"] == 1, states
        assert len(self.paid) == jobs
        fetched = Counter(one.task_id for one in self.rh.recorder.downloads if one.task_id in self.paid)
        assert fetched == dict.fromkeys(self.paid, 1)


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory, prefect_template: Path) -> Iterator[Office]:
    folder = tmp_path_factory.mktemp("suspend")
    with Emulator(clock="real", factor=0, long_side=64) as rh:
        env = {**environment(rh, folder), "RH_WEBHOOK_TOKEN": TOKEN, "RH_SUSPEND_SECONDS": "3600"}
        with workplace(folder, env, template=prefect_template) as place:
            receiver = ReceiverProcess(place.env, log=folder / "receiver.log")
            asyncio.run(place.deploy(f"{FLOWS}.suspending_pictures", f"{FLOWS}.suspending_batch"))
            place.prefect("deploy", "--prefect-file", "deployments/prefect.yaml", "--name", "reconcile")
            receiver.start()
            worker = {**place.env, "RH_WEBHOOK_URL": receiver.url}
            place.workers.append(Worker(worker, folder, "only", limit=1))
            try:
                yield Office(rh, place, receiver)
            finally:
                receiver.end()


@pytest.fixture
async def desk(office: Office) -> AsyncIterator[Office]:
    office.before = len(office.rh.recorder.submissions)
    yield office
    office.rh.faults.clear()


async def test_two_runs_share_one_slot_while_their_tasks_run(desk: Office) -> None:
    first = await desk.place.start(MANY, prompts=["one", "two", "three"])
    second = await desk.place.start(BATCH, prompts=["four", "five"])
    for run in (first, second):
        await desk.reach(run, "Suspended")
    assert len(desk.paid) == 5
    assert not desk.deliveries(), "both have given the slot away, and no task has ended"
    await desk.end()
    for run in (first, second):
        await desk.reach(run, "Completed")
    await desk.check(first, second, jobs=5)
    assert desk.deliveries() == dict.fromkeys(desk.paid, 1)


async def test_a_receiver_that_was_killed_makes_up_for_what_it_has_missed(desk: Office) -> None:
    run = await desk.place.start(MANY, prompts=["missed one", "missed two"])
    await desk.reach(run, "Suspended")
    desk.receiver.end(signal.SIGKILL)
    desk.rh.faults.add(Fault("webhook", kind="lost"))
    await desk.end()
    await asyncio.sleep(1)
    assert await desk.place.is_in(run, "Suspended")
    desk.receiver.start()
    await desk.reach(run, "Completed")
    await desk.check(run, jobs=2)
    assert not desk.deliveries()

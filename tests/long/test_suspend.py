"""Runs that suspend themselves, under a real Prefect server, a worker with one slot and a separate receiver.

Whatever becomes of the webhooks, what was paid for is one task for each job, and the runs complete.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TypeAlias
from uuid import UUID

import pytest

from rh_prefect.emulator import Emulator, Fault
from tests.support.servers.deployment_server import Workplace, workplace
from tests.support.servers.emulator_env import environment
from tests.support.servers.webhook_receiver import TOKEN, ReceiverProcess
from tests.support.world.prefect_runs import states_of

pytestmark = [pytest.mark.long]

FLOWS = "tests.long.worker_flows"
MANY, BATCH = "suspending-pictures/test", "suspending-batch/test"


Office: TypeAlias = tuple[Workplace, ReceiverProcess]


@pytest.fixture
def rh() -> Iterator[Emulator]:
    """RunningHub, whose tasks run until the clock is moved on."""
    with Emulator(clock="real", factor=0, long_side=64) as emulator:
        yield emulator


@pytest.fixture
def office(rh: Emulator, tmp_path: Path, prefect_template: Path) -> Iterator[Office]:
    """One worker with one slot, and one receiver."""
    env = {**environment(rh, tmp_path), "RH_WEBHOOK_TOKEN": TOKEN, "RH_SUSPEND_SECONDS": "3600"}
    with workplace(tmp_path, env, template=prefect_template) as place:
        receiver = ReceiverProcess(place.env, log=tmp_path / "receiver.log")
        asyncio.run(place.deploy(f"{FLOWS}.suspending_pictures", f"{FLOWS}.suspending_batch"))
        receiver.start()
        place.hire(limit=1, env={"RH_WEBHOOK_URL": receiver.url})
        try:
            yield place, receiver
        finally:
            receiver.end()


def deliveries(rh: Emulator) -> Counter[str]:
    """How often the receiver was told of each task's end."""
    return Counter(one.task_id for one in rh.recorder.deliveries if one.status == 200)


async def reach(place: Workplace, state: str, *runs: UUID) -> None:
    for run in runs:
        await place.until(partial(place.is_in, run, state))


async def check(rh: Emulator, *runs: UUID, jobs: int) -> None:
    """Each run was suspended and woken once; one task was paid for each job, and its picture is here."""
    for run in runs:
        states = Counter(await states_of(run))
        assert states["Suspended"] == states["Resuming"] == 1, states
    assert len(rh.recorder.paid) == jobs
    assert Counter(one.task_id for one in rh.recorder.downloads) == Counter(one.task_id for one in rh.recorder.paid)


async def test_two_runs_share_one_slot_while_their_tasks_run(rh: Emulator, office: Office) -> None:
    place, _ = office
    runs = [
        await place.start(MANY, prompts=["one", "two", "three"]),
        await place.start(BATCH, prompts=["four", "five"]),
    ]
    await reach(place, "Suspended", *runs)
    assert len(rh.recorder.paid) == 5
    assert not deliveries(rh), "both have given the slot away, and no task has ended"
    await asyncio.to_thread(rh.clock.advance, 600)
    await reach(place, "Completed", *runs)
    await check(rh, *runs, jobs=5)
    assert deliveries(rh) == Counter(one.task_id for one in rh.recorder.paid)


async def test_a_receiver_that_was_killed_makes_up_for_what_it_has_missed(rh: Emulator, office: Office) -> None:
    place, receiver = office
    run = await place.start(MANY, prompts=["missed one", "missed two"])
    await reach(place, "Suspended", run)
    receiver.end(signal.SIGKILL)
    rh.faults.add(Fault("webhook", kind="lost"))
    await asyncio.to_thread(rh.clock.advance, 600)
    await asyncio.sleep(1)
    assert await place.is_in(run, "Suspended")
    receiver.start()
    await reach(place, "Completed", run)
    await check(rh, run, jobs=2)
    assert not deliveries(rh)

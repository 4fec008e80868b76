"""Many machines: Prefect on PostgreSQL, two process workers, two flow runs at once on one key, and a machine that dies.

The account is the only arbiter of how many tasks run; the journal, in PostgreSQL, the only one of what was paid for.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.states import Scheduled

from rh_prefect.emulator import Emulator
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.media.store import MediaStore
from rh_prefect.works.journal.spool import Spool
from tests.support.servers.deployment_server import Workplace, workplace
from tests.support.servers.emulator_env import environment
from tests.support.servers.postgres import PROGRAMS, WHY_NOT, dump, postgres
from tests.support.servers.prefect_server import free_port
from tests.support.world import invariants
from tests.support.world.call_log import settle
from tests.support.world.invariants import Place
from tests.support.world.prefect_runs import set_states

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200), pytest.mark.skipif(not PROGRAMS, reason=WHY_NOT)]

SLOTS, ROWS = 6, 16
REFUSALS_A_JOB = 1
"""What is looked for is a storm: two or three in all are usual, and once it were nine, for who asks first for a slot
depends on the machine. How few there are is measured by the benchmarks."""
PATIENCE = 600.0
"""Seconds for what takes a few: a flow run's process needs up to twenty to begin where others use the cores."""


@pytest.fixture
def rh() -> Iterator[Emulator]:
    """One whose clock stands still until both runs are there."""
    with Emulator(clock="real", factor=0, limit=SLOTS, long_side=96, fps=6) as emulator:
        yield emulator


@pytest.fixture
def database_port() -> int:
    return free_port()


@pytest.fixture
def place(rh: Emulator, database_port: int, tmp_path: Path) -> Iterator[Workplace]:
    env = {**environment(rh, tmp_path), "RH_POLL_SECONDS": "0.2"}
    with postgres(database_port) as database, workplace(tmp_path, env, database=database) as made:
        asyncio.run(made.deploy("tests.long.worker_flows.pictures"))
        yield made


async def test_a_machine_dies_in_the_middle_of_two_runs(place: Workplace, rh: Emulator, database_port: int) -> None:
    first = place.hire(limit=1)
    dying = await begin(place, "dying")
    second = place.hire()
    living = await begin(place, "living")
    # Called running, a run's process may need seconds until it asks for anything.
    await place.until(lambda: is_in_line(living), seconds=PATIENCE)
    rh.clock.factor = 1
    await place.until(lambda: is_in_the_middle(rh), seconds=PATIENCE)
    rh.clock.factor = 0

    first.kill()
    place.signal(dying, signal.SIGKILL)
    await place.until(lambda: not place.processes_of(dying))
    # What had left the dead process may still be under way to its servers.
    await asyncio.sleep(0.5)
    paid = [str(one.payload["prompt"]) for one in rh.recorder.paid]
    assert sum(prompt.startswith("dying") for prompt in paid) < ROWS, "in the middle of it"
    # A ticket that waits on this machine for its journal is found by the next run itself.
    waiting = Spool(Path(place.env["RH_STATE_DIR"]) / "spool").entries()
    unknown = await settle(rh, FlowRunJournal(dying), waiting, states=("open",))
    print(f"in flight when the machine died: {unknown}")
    # As the automation does that `deployments/` ships, for a run that nobody saw die.
    await set_states(dying, Scheduled(name="AwaitingRetry"))
    await place.until(lambda: place.is_in(dying, "Running", attempt=2), seconds=PATIENCE)
    rh.clock.factor = 5
    for run in (dying, living):
        await place.until(partial(place.is_in, run, "Completed"), seconds=PATIENCE)

    assert second.is_running
    wanted = Counter(f"{name} {number}" for name in ("dying", "living") for number in range(ROWS))
    assert Counter(str(one.payload["prompt"]) for one in rh.recorder.paid) == wanted, "each job is paid for once"
    refused = Counter(one.code for one in rh.recorder.submissions if not one.accepted)
    print(f"{refused.total()} refusals of {2 * ROWS} jobs: {refused}")
    assert set(refused) <= {"421"}
    assert refused.total() <= REFUSALS_A_JOB * 2 * ROWS
    await all_is_home(place, rh, [dying, living])
    database = dump(database_port)
    ends = set(re.findall(rb"([0-9a-f]+-end-\d+) \{", database))
    assert len(ends) == 2 * ROWS, "the journal is in PostgreSQL"
    assert not await problems(place, rh, [dying, living], database)


async def begin(place: Workplace, name: str) -> UUID:
    """Starts a run, and waits until a worker has it."""
    run = await place.start("pictures/test", prompts=[f"{name} {number}" for number in range(ROWS)])
    await place.until(lambda: place.is_in(run, "Running"), seconds=PATIENCE)
    return run


def is_in_the_middle(rh: Emulator) -> bool:
    states = Counter(one.status for one in rh.recorder.tasks)
    return states["SUCCESS"] > 1 and states["RUNNING"] > 1


async def is_in_line(run: UUID) -> bool:
    """Whether a run's process has begun with its jobs."""
    async with get_client() as client:
        jobs = await client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])))
    return any(job.state is not None and job.state.is_running() for job in jobs)


async def all_is_home(place: Workplace, rh: Emulator, runs: list[UUID]) -> None:
    last = [view.last for run in runs for view in await place.jobs(run)]
    assert sorted(one.task_id or "" for one in last if one is not None) == sorted(
        one.task_id for one in rh.recorder.paid
    )
    pictures = [name for name in MediaStore(place.env["RH_STORAGE_URL"]).list() if name.endswith(".png")]
    assert len(pictures) == 2 * ROWS


async def problems(place: Workplace, rh: Emulator, runs: list[UUID], database: bytes) -> list[str]:
    """What is not as it should be: of the money, the files, and the key, which stands nowhere."""
    logs = [worker.log for worker in place.workers] + [place.server.log]
    words = {"the database": database.decode(), **{log.name: log.read_text(errors="replace") for log in logs}}
    journals = [FlowRunJournal(run) for run in runs]
    state = Path(place.env["RH_STATE_DIR"])
    found = await invariants.gather(
        rh, journals=journals, place=Place(place.env["RH_STORAGE_URL"]), words=words, folder=state
    )
    return invariants.broken(found, secrets=[rh.key], is_over=True)

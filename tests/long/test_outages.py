"""The store fails, and the Prefect API fails, at each step that writes or reads them; when they are back, it goes on.

What fails is told by what a proxy in front of the real server sees, never by the time. Nothing may be paid for that is
not recorded, or reported with its task id; see `tests.support.world.invariants`.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from rh_prefect.emulator import Fault
from rh_prefect.flow_runs.journal import FlowRunJournal
from tests.e2e import flows
from tests.support.processes.film_run import FilmRun, OpenStage
from tests.support.processes.flow_process import ROOT, FlowProcess
from tests.support.samples import media as samples
from tests.support.servers.faulty_proxy import FaultyProxy, Kind
from tests.support.servers.prefect_server import PrefectServer
from tests.support.servers.s3 import S3Server
from tests.support.world.invariants import Place, Told, broken, gather
from tests.support.world.matrix import SEED, all_hold
from tests.support.world.resume_scenario import Scenario, jobs, open_trial

pytestmark = [pytest.mark.long, pytest.mark.prefect, pytest.mark.usefixtures("without_tracebacks")]

UNHURRIED: Final = {"submit_timeout": 6.0}
"""RunningHub itself is well here: on a busy machine its answers shall come late and not be lost."""

STORE: Final[dict[str, str]] = {
    "the first check, writing": r"^PUT \S*rh-prefect-check",
    "the first check, reading": r"^GET \S*rh-prefect-check",
    "the first check, deleting": r"^DELETE \S*rh-prefect-check",
    "reading an input": r"^(HEAD|GET) \S*photo\.png",
    "an output": r"^PUT \S*/trial/\S*",
    "a large output, beginning": r"^POST \S*/trial/\S*\?uploads",
    "a large output, a part": r"^PUT \S*/trial/\S*partNumber=2",
    "a large output, ending": r"^POST \S*/trial/\S*\?uploadId=",
    "a result": r"^PUT \S*/results/",
}
"""What is asked of the store, by what it is asked for."""

JOURNAL: Final[dict[str, str]] = {
    "reading the records": r"POST \S*/input/filter HTTP",
    "recording an input": r'(?s)POST \S*/input HTTP.*"rh-log-.*nmedia-',
    "the claim": r'(?s)POST \S*/input HTTP.*"rh-log-.*[0-9a-f]-intent-',
    "the ticket": r'(?s)POST \S*/input HTTP.*"rh-log-.*[0-9a-f]-answer-',
    "the end": r'(?s)POST \S*/input HTTP.*"rh-log-.*[0-9a-f]-end-',
    "the result": r'(?s)POST \S*/input HTTP.*"rh-log-.*[0-9a-f]-result ',
    "an artifact": r"POST \S*/artifacts/",
    "the run's state": r"(?s)POST \S*/set_state HTTP.*COMPLETED",
}
"""What is asked of the Prefect API."""

AGAIN: Final[dict[str, str]] = {
    "looking for a result": r"^HEAD \S*/results/",
    "reading a result": r"^GET \S*/results/",
    "looking for an output": r"^HEAD \S*/trial/",
}
"""What is asked of the store only by a run that goes on with another one."""


@dataclass(frozen=True)
class Cell:
    step: str
    kind: Kind
    times: int | None  # how often; None until it is repaired, after the first run

    def __str__(self) -> str:
        return f"{self.step}: {self.kind} {'for good' if self.times is None else f'{self.times} times'}"

    @property
    def pattern(self) -> str:
        return {**STORE, **JOURNAL, **AGAIN, "reading a job": JOURNAL["reading the records"]}[self.step]


LASTING: Final[tuple[tuple[Kind, int | None], ...]] = (
    ("503", None),
    ("503", 2),
    ("cut", None),
    ("lost", 1),
    ("lost", None),
    ("slow", None),
    ("down", None),
)

OF_A_STORE: Final[tuple[tuple[Kind, int | None], ...]] = (
    *(one for one in LASTING if one[0] != "cut"),  # a store that is down is that, too
    ("403", None),
)

BRIEF: Final[tuple[tuple[Kind, int | None], ...]] = (("503", None), ("lost", 1), ("403", None))
"""For steps that fail in the same code as others: the check of the store, and the parts of a large file."""


@asynccontextmanager
async def with_store(s3: S3Server, folder: Path, cell: Cell) -> AsyncIterator[tuple[Scenario, FaultyProxy]]:
    with FaultyProxy(s3.endpoint) as outage:
        # Without the pauses of botocore's and fsspec's own, which only make it last longer.
        config = {"retries": {"max_attempts": 1}, "connect_timeout": 5, "read_timeout": 20}
        options = {**s3.options, "endpoint_url": outage.url, "config_kwargs": config}
        place = Place(s3.url("out"), options)
        photo = f"{s3.url('in')}/photo.png"
        local = samples.png(folder.with_suffix(".png"))
        await asyncio.to_thread(s3.filesystem().put_file, str(local), photo)
        large = {"least_bytes": 11 * 2**20} if "large" in cell.step else {}
        asked = jobs(photo)
        asked = asked[:1] if large else asked
        async with open_trial(folder, place=place, settings=UNHURRIED, emulator=large, asked=asked) as trial:
            yield trial, outage


@asynccontextmanager
async def with_journal(server: PrefectServer, folder: Path, cell: Cell) -> AsyncIterator[tuple[Scenario, FaultyProxy]]:
    # Prefect has one of these for all events of a process; it must not belong to an API that will be gone.
    EventsWorker.instance()
    is_watched = cell.step == "an artifact"
    async with open_trial(folder, settings=UNHURRIED, journal_patience=2.0, is_watched=is_watched) as trial:
        with FaultyProxy(server.url) as outage, temporary_settings({PREFECT_API_URL: f"{outage.url}/api"}):
            yield trial, outage


Opened = AbstractAsyncContextManager[tuple[Scenario, FaultyProxy]]


def _shuffled(cells: list[Cell]) -> list[Cell]:
    random.Random(SEED).shuffle(cells)
    return cells


async def _problems(cell: Cell, opened: Opened) -> list[str]:
    async with opened as (trial, outage):
        if cell.step in (*AGAIN, "reading a job"):
            # There must be something to go on with: paid for, and in part in the store.
            await trial.once()
        is_incomplete = cell.step in ("looking for a result", "reading a result")
        if is_incomplete:
            # A stored result is only looked for where a file of the recorded one is missing.
            outputs = [name for name in await asyncio.to_thread(trial.store.list) if "/trial/" in f"/{name}"]
            await asyncio.gather(*(asyncio.to_thread(trial.store.delete, name) for name in outputs))
        add_fault = outage.add_fault(cell.pattern, cell.kind, times=cell.times)
        # Prefect's own retries, which take half a minute, are for the run that goes on.
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 1}):
            first = await trial.once()
        outage.clear_faults()
        wrong = [] if is_incomplete else await trial.problems()
        if not add_fault.happened:
            wrong.append("it did not happen")
        if first is None and not trial.told:
            wrong.append("it ended without a word")
        await trial.settle()
        if await trial.once() is None:
            wrong.append(f"the second run ended with {trial.told[-3:]}")
        return wrong + await trial.problems(is_over=True)


@pytest.mark.timeout(1200)
async def test_the_store(s3: S3Server, tmp_path: Path) -> None:
    cells = [
        Cell(step, kind, times)
        for step in (*STORE, *AGAIN)
        for kind, times in (BRIEF if step.startswith(("the first check", "a large output")) else OF_A_STORE)
    ]
    await all_hold(_shuffled(cells), tmp_path, lambda cell, folder: _problems(cell, with_store(s3, folder, cell)))


@pytest.mark.timeout(1200)
async def test_the_prefect_api(prefect_server: PrefectServer, tmp_path: Path) -> None:
    cells = [Cell(step, kind, times) for step in (*JOURNAL, "reading a job") for kind, times in LASTING]
    opened = partial(with_journal, prefect_server)
    await all_hold(_shuffled(cells), tmp_path, lambda cell, folder: _problems(cell, opened(folder, cell)))


async def test_a_store_that_is_stopped_and_started_again(tmp_path: Path) -> None:
    folder = tmp_path / "s3"
    folder.mkdir()
    server = S3Server(folder)
    server.start()
    server.wait_until_ready()
    try:
        with FaultyProxy(server.endpoint) as outage:
            options = {**server.options, "endpoint_url": outage.url, "config_kwargs": {"retries": {"max_attempts": 1}}}
            place = Place(server.url("out"), options)
            async with open_trial(tmp_path / "trial", settings=UNHURRIED, place=place) as trial:
                held = outage.hold(STORE["a result"], number=2)
                running = asyncio.ensure_future(trial.once())
                await asyncio.to_thread(held.wait)
                server.stop()
                outage.release()
                assert await running is None
                assert {one.kind for one in trial.told} == {"StoreError"}
                server.start()
                await asyncio.to_thread(server.wait_until_ready)
                assert not await trial.problems()
                assert await trial.once() is not None
                wrong = await trial.problems(is_over=True)
                if wrong and all(" is not done: ended " in one for one in wrong):
                    # Once the restarted server did not list a result that the run had just read or written.
                    await asyncio.sleep(2)
                    later = await trial.problems(is_over=True)
                    assert not later, f"two seconds before: {wrong}"
                else:
                    assert not wrong
    finally:
        server.stop()


UNPRIVILEGED: Final = {"PYTHONPATH": str(ROOT / "tests/support/processes/unprivileged")}
"""For children for whom permissions hold."""


@pytest.fixture
def stage(open_stage: OpenStage) -> FilmRun:
    return open_stage(least_bytes=LARGE, env=UNPRIVILEGED)


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on another disk than the tests' own: to a folder on the same one a result is moved, not written."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("this machine has no other disk that anybody may write to")
    with TemporaryDirectory(dir=memory, prefix="rh-tests-") as folder:
        yield Path(folder)


LARGE: Final = 600_000
"""Bytes of a result: more than of anything else that is written."""

PATIENT: Final = f"{flows.MODULE}:patient"


def fill_up(child: FlowProcess) -> None:
    """Lets a child that waits for its order write no file as large as a result, as if its disk were nearly full."""
    _, hard = resource.prlimit(child.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (LARGE // 2, hard))


def holds(stage: FilmRun, told: list[Mapping[str, Any]], *, is_over: bool = False) -> None:
    said = [Told(one["type"], one["message"], one["job"]) for one in told]
    place, state = Place(stage.env["RH_STORAGE_URL"]), Path(stage.env["RH_STATE_DIR"])
    looking = gather(stage.rh, journals=[FlowRunJournal(stage.run)], place=place, told=said, folder=state)
    assert not broken(asyncio.run(looking), secrets=[stage.rh.key], is_over=is_over)
    assert len(stage.rh.recorder.paid) == 1


def fails(stage: FilmRun, child: FlowProcess, words: str) -> None:
    assert child.ended() == 1, child.errors()
    (error,) = child.wait_for("failed")["errors"]
    assert error["type"] == "StoreError"
    assert words in error["message"]
    holds(stage, [error])


def goes_on(stage: FilmRun) -> None:
    child = stage.again(PATIENT)
    assert child.ended() == 0, child.errors()
    holds(stage, [], is_over=True)


def test_a_disk_that_is_full_before_the_end_of_an_output(open_stage: OpenStage, other_disk: Path) -> None:
    stage = open_stage(least_bytes=LARGE, env={**UNPRIVILEGED, "RH_STORAGE_URL": str(other_disk)})
    stage.rh.faults.add(Fault("query", number=1, kind="hold", seconds=60))
    child = stage.begin(PATIENT, {"retries": 0})
    assert stage.rh.held.wait(seconds=300)
    in_the_way = other_disk / "patient"
    in_the_way.write_text("")
    stage.rh.held.release()
    assert child.ended() == 1, child.errors()
    in_the_way.unlink()
    # It is on this machine now, whole, so that nothing but the output is to be written.
    fill_up(stage.flow_processes.children[1])
    fails(stage, stage.again(PATIENT), "larger than the limit of this location")
    goes_on(stage)
    # Once by the first of the three runs, and once each time that is looked at what it should be.
    assert stage.rh.recorder.served(stage.rh.recorder.paid[0].task_id) == 3 * LARGE


@pytest.mark.parametrize("folder", ["RH_STORAGE_URL", "RH_STATE_DIR"])
def test_a_folder_that_becomes_read_only(stage: FilmRun, folder: str) -> None:
    stage.rh.faults.add(Fault("query", number=1, kind="hold", seconds=60))
    child = stage.begin(PATIENT, {"retries": 0})
    assert stage.rh.held.wait(seconds=300)
    locked = [path for path in (Path(stage.env[folder]), *Path(stage.env[folder]).rglob("*")) if path.is_dir()]
    for path in locked:
        path.chmod(0o555)
    stage.rh.held.release()
    fails(stage, child, "cannot be written to" if folder == "RH_STATE_DIR" else "does not have permission for this")
    for path in locked:
        path.chmod(0o755)
    goes_on(stage)

"""What `spend` adds up is what RunningHub charged, whatever became of the tasks."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from rh_prefect.emulator import Emulator, Fault
from rh_prefect.workflow_inputs import WorkflowInput
from rh_prefect.works import manual_repair
from rh_prefect.works.job_options import Request
from rh_prefect.works.journal.job_records_and_state import RESUBMITTED, JobView, jobs_of
from rh_prefect.works.journal.journal import FolderJournal
from rh_prefect.works.journal.record_types import Intent
from rh_prefect.works.journal.scope import FolderScope
from rh_prefect.works.journal.works_journal import FOLDER
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.run_cancellation import cancel_scope
from rh_prefect.works.runninghub.provider import RunningHub
from tests.support.processes.pooled_run import PooledRun, pictures

pytestmark = pytest.mark.long

RUNS_FAST, STANDS_STILL = 2000.0, 0.0
JOBS = {"main": 85, "dollars": 50, "consumer": 30, "cancelled": 20, "lost": 10, "never accepted": 5}


@pytest.fixture
def rh() -> Iterator[Emulator]:
    # No submit of this key is refused: a refusal whose response is lost costs nothing, but counts as possibly paid.
    with Emulator(clock="real", factor=RUNS_FAST, limit=200, long_side=32, fps=4) as emulator:
        emulator.keys.add("dollars", currency="USD")
        emulator.keys.add("consumer", tier="NORMAL", limit=10)
        yield emulator


async def interrupted(run: PooledRun, asked: Sequence[Request], *, paid: int) -> asyncio.Task[object]:
    """Jobs that have all been submitted, while the clock stands still."""
    run.rh.clock.factor = STANDS_STILL
    before = len(run.rh.recorder.paid)
    work = asyncio.ensure_future(run.all(asked))
    assert await asyncio.to_thread(run.rh.recorder.wait, lambda recorder: len(recorder.paid) == before + paid)
    return work


async def cancel(runs: Sequence[PooledRun], attempt: int) -> None:
    """Cancels what the runs have submitted in an attempt, each task on its account."""

    async def provider_of(intent: Intent) -> RunningHub:
        return next(run.account(name).provider for run in runs for name in run.members if intent.credentials == name)

    await LOOP.call(cancel_scope(FolderScope(runs[0].journal, attempt=attempt), provider_of, by="a test"))


async def settled(journal: FolderJournal, state: str) -> list[JobView]:
    return [view async for view in jobs_of(journal) if view.state == state]


def spent(folder: Path, *options: str) -> dict[str, tuple[int, str]]:
    """The last lines of `spend`: the number of tasks and the sum, by unit; an empty sum of unknown costs."""
    env = {**os.environ, "RH_RECORDS": str(folder / "journal"), "RH_STORAGE_URL": str(folder / "out")}
    env |= {"RH_STATE_DIR": str(folder / "state"), "PREFECT_HOME": str(folder / "prefect")}
    env.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "rh_prefect.cli", "spend", *options]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    sums = re.findall(r"^total +(\d+) task\(s\) +(?:([\d.]+) (\w+)|unknown cost)", done.stdout, re.MULTILINE)
    return {unit or "unknown": (int(tasks), amount) for tasks, amount, unit in sums}


def charged(rh: Emulator) -> dict[str, Decimal]:
    """By RunningHub's own books: what each key paid, less what was paid back."""
    key_of = {one.task_id: one.key_name for one in rh.recorder.paid}
    sums: defaultdict[str, Decimal] = defaultdict(Decimal)
    for task in rh.recorder.tasks:
        sums[key_of[task.task_id]] += task.charged - task.refunded
    return sums


async def test_200_jobs_cost_what_the_books_say(rh: Emulator, tmp_path: Path) -> None:
    # In the folder in which `spend` reads the jobs that runs share.
    cny = PooledRun(rh, tmp_path, members=("main",), scope=FOLDER)
    usd, coins = replace(cny, members=("dollars",)), replace(cny, members=("consumer",))
    journal = cny.journal

    # Answers that are lost after the task was accepted, and submitted again; and failures, paid for again later.
    rh.faults.add(Fault("submit", prompt="money", every=9, kind="cut"))
    rh.faults.add(Fault("submit", prompt="money", every=7, kind="fail", code="805"))
    rh.faults.add(Fault("submit", prompt="dollar", every=6, kind="fail", code="805"))
    rh.faults.add(Fault("submit", prompt="never", kind="cut", phase="before", times=JOBS["never accepted"]))
    workflow = WorkflowInput(id=rh.workflows.id_of("text-to-image"), nodes={})
    for attempt in (1, 2):
        await asyncio.gather(
            replace(cny, attempt=attempt).all(pictures(JOBS["main"], "money"), on_unknown="resubmit"),
            replace(usd, attempt=attempt).all(pictures(JOBS["dollars"], "dollar")),
            replace(coins, attempt=attempt).all([workflow], takes=JOBS["consumer"]),
        )

    # A submit that never arrived: a person has looked, and forgets it.
    await replace(cny, attempt=2).all(pictures(JOBS["never accepted"], "never"))
    for view in await settled(journal, "unknown"):
        # Of the others some stay unknown, after as many attempts as a job may have: these were accepted.
        if "never" in str(view.submits[0].intent.payload["prompt"]):
            await manual_repair.mark_refused(journal, view.key)

    # Cancelled while they run.
    half = JOBS["cancelled"] // 2
    runs = [replace(cny, attempt=3), replace(usd, attempt=3)]
    works = [await interrupted(run, pictures(half, f"stopped {run.members}"), paid=half) for run in runs]
    rh.clock.advance(3.0)  # queued for at most so long, and no picture is done
    await cancel(runs, 3)
    await asyncio.gather(*works)

    # The clock still stands. Tasks that RunningHub forgot, as a person says, and that are paid for again.
    lost = replace(cny, attempt=4)
    await lost.all(pictures(JOBS["lost"], "lost"), deadline=1.0)
    for view in await settled(journal, "ticket"):
        await manual_repair.mark_lost(journal, view.key)
    rh.clock.factor = RUNS_FAST
    await replace(cny, attempt=5).all(pictures(JOBS["lost"], "lost"))

    views = [view async for view in jobs_of(journal)]
    submits = [submit for view in views for submit in view.submits]
    assert len(views) == sum(JOBS.values())
    assert sum(submit.resolution is not None and submit.resolution.by == RESUBMITTED for submit in submits) >= 5
    assert sum(submit.lost is not None for submit in submits) == JOBS["lost"]
    assert Counter(task.status for task in rh.recorder.tasks)["CANCELLED"] == JOBS["cancelled"]
    assert sum(1 for task in rh.recorder.tasks if task.status == "FAILED") >= 10

    found, books = spent(tmp_path), charged(rh)
    assert Decimal(found["CNY"][1]) == books["main"]
    assert Decimal(found["USD"][1]) == books["dollars"]
    assert Decimal(found["coins"][1]) == rh.recorder.coins
    assert set(found) == {"CNY", "USD", "coins", "unknown"}
    # Each task once: those that cost something, and those of which the service reports no cost.
    assert sum(tasks for tasks, _ in found.values()) == len(rh.recorder.tasks)
    assert found["unknown"] == (sum(task.status == "FAILED" for task in rh.recorder.tasks), "")
    for by in ("day", "run", "account"):
        assert spent(tmp_path, "--by", by) == found

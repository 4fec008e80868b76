"""How long it takes to read a flow run of 8,000 jobs, and to cancel what runs of it.

The second table is of a pipeline's run, whose works are recorded in a storage that takes 30 ms for a request: with the
notes of settled submissions, and without them, as after a crash before each note.

python -m benchmarks.large_run
python -m benchmarks.large_run --jobs 800
"""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

from prefect.settings import PREFECT_API_URL, temporary_settings

from benchmarks.report import Figure, show
from rh_prefect.client import TaskView
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.run_queries_and_scopes import FlowScope
from rh_prefect.prefect_api import disconnect
from rh_prefect.works.journal.costs_and_budget import SpendTracker, charge_of
from rh_prefect.works.journal.job_records_and_state import Submit, jobs_of
from rh_prefect.works.journal.record_types import End, Intent, Record
from rh_prefect.works.journal.scope import Scope
from rh_prefect.works.journal.works_journal import WorksJournal
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.run_cancellation import cancel_scope
from rh_prefect.works.run_ledger import all_charges, settled_name
from tests.support.servers.prefect_server import PrefectServer
from tests.support.world.filesystems import SlowFiles
from tests.support.world.job_records import intent, ticket
from tests.support.world.run_inputs import job_keys
from tests.support.world.seeded_run import seed, seed_records

RUNNING = 50
REQUEST_SECONDS = 0.03
PRICE = Decimal("0.04")


class Timed:
    """Takes as long for each request as RunningHub does, and remembers when the first cancellation came."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.first: float | None = None

    async def cancel(self, task_id: str) -> None:  # noqa: ARG002 - its signature
        if self.first is None:
            self.first = time.monotonic() - self.began
        await asyncio.sleep(0.2)

    async def query(self, task_id: str) -> TaskView:
        await asyncio.sleep(0.2)
        return TaskView(task_id=task_id, status="CANCELLED")

    async def currency(self, *, pace_seconds: float | None = None) -> str | None:  # noqa: ARG002
        return None


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=8000)
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="rh-bench-")))
        server = stack.enter_context(PrefectServer(folder / "prefect"))
        stack.enter_context(temporary_settings({PREFECT_API_URL: server.api}))
        figures = _measure(server, given.jobs)
        show(f"A flow run of {given.jobs} jobs, {RUNNING} of which run", figures)
        show(f"A pipeline's run of {given.jobs} works, {RUNNING} of which run", asyncio.run(_works(server, given.jobs)))


def _measure(server: PrefectServer, jobs: int) -> list[Figure]:
    """Reads, then cancels; each on a separate event loop, because a loop keeps the records that it read."""
    run = asyncio.run(seed(server, jobs, running=RUNNING))
    return [asyncio.run(_read(run)), *asyncio.run(_cancel(run))]


async def _read(run: UUID) -> Figure:
    began, cpu_began = time.monotonic(), time.process_time()
    read = [view async for view in jobs_of(FlowRunJournal(run))]
    listed, cpu = time.monotonic() - began, time.process_time() - cpu_began
    await disconnect()
    return Figure("to read all jobs", listed, 10, "s", f"{len(read)} jobs, client CPU {cpu:.1f} s")


async def _cancel(run: UUID) -> list[Figure]:
    hub = Timed()
    cancelled = await cancel_all(run, hub)
    ended = time.monotonic() - hub.began
    await disconnect()
    return [
        Figure("to the first cancellation", hub.first or ended, 10, "s", "all records are read before it"),
        Figure("to cancel all", ended, 12, "s", f"{cancelled} cancelled"),
    ]


async def _works(server: PrefectServer, count: int) -> list[Figure]:
    measured = []
    for is_noted in (False, True):
        works = WorksJournal(f"{SlowFiles.protocol}://bucket/{is_noted}")
        await works.check()
        run = await seed_records(server, partial(_record_works, works, count, is_noted=is_noted))
        scope = _Sharing(journal=FlowRunJournal(run), run="run", flow="flow", attempt=1, place=works)
        for measure in (_count_costs(scope, count), _cancel_works(scope)):
            SlowFiles.seconds, SlowFiles.reads, began = REQUEST_SECONDS, 0, time.monotonic()
            await LOOP.call(measure)
            measured.append((time.monotonic() - began, SlowFiles.reads))
            SlowFiles.seconds = 0.0
    await LOOP.call(disconnect())
    await disconnect()
    return [
        Figure(what, seconds, limit, "s", f"{reads} reads; without notes {before:.1f} s, {reads_before} reads")
        for what, limit, (before, reads_before), (seconds, reads) in zip(
            ("to count what it may cost", "to cancel all"), (10, 12), measured[:2], measured[2:], strict=True
        )
    ]


def _record_works(works: WorksJournal, count: int, run: UUID, *, is_noted: bool) -> dict[str, str]:
    """Records works that a run has paid for; returns the run's notes about them."""
    files, notes = SlowFiles(), dict[str, str]()
    every = count // RUNNING
    for number, key in enumerate(job_keys(count)):
        end = End(status="SUCCESS", task_id=str(number), cost=PRICE, currency="CNY")
        submit = Submit(1, intent(flow_run=str(run), estimate=PRICE, currency="CNY"), ticket(str(number)), end=end)
        is_running = number % every == every - 1
        records = {"intent": submit.intent, "answer": submit.answer} | ({} if is_running else {"end": submit.end})
        for what, record in records.items():
            path = f"{works.url.removeprefix('slow:/')}/works/{key}/{what}-1.json"
            files.pipe_file(path, record.model_dump_json().encode() if record else b"")
        name = settled_name(key, 1, charge_of(submit))
        names = [f"{key}-claim-1", *([name] if name and is_noted and not is_running else [])]
        notes |= {one: Record().model_dump_json() for one in names}
    return notes


async def _count_costs(scope: FlowScope, count: int) -> None:
    tracker = SpendTracker(partial(all_charges, scope))
    await tracker.complete()
    assert (tracker.spent(), tracker.reserved()) == (PRICE * (count - RUNNING), PRICE * RUNNING)


@dataclass(kw_only=True)
class _Sharing(FlowScope):
    """The scope of a run whose journal does not say where its works are."""

    place: WorksJournal

    async def works(self) -> WorksJournal:
        return self.place


async def _cancel_works(scope: Scope) -> None:
    hub = Timed()

    async def client_for(_: Intent) -> Any:
        return hub

    assert len((await cancel_scope(scope, client_for, by="a benchmark")).cancelled) == RUNNING


def _scope_of(run: UUID) -> FlowScope:
    return FlowScope(journal=FlowRunJournal(run), run="run", flow="flow", attempt=1)


async def cancel_all(run: UUID, hub: Timed) -> int:
    """Cancels what a run has submitted; how many tasks."""

    async def client_for(_: Intent) -> Any:
        return hub

    return len((await cancel_scope(_scope_of(run), client_for, by="a benchmark")).cancelled)


if __name__ == "__main__":
    main()

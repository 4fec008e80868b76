"""How long it takes to read a flow run of 8,000 jobs, and to cancel what runs of it.

python -m benchmarks.listing
python -m benchmarks.listing --jobs 800
"""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

from prefect.settings import PREFECT_API_URL, temporary_settings

from benchmarks.report import Figure, show
from rh_prefect.client import TaskView
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.queries import RecordedScope
from rh_prefect.jobs.journal.job_records import jobs_of
from rh_prefect.jobs.journal.record_types import Intent
from rh_prefect.jobs.run_cancellation import cancel_scope
from rh_prefect.prefect_api import disconnect
from tests.support.servers.prefect_server import PrefectServer
from tests.support.world.seeded_run import seed

RUNNING = 50


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


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=8000)
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="rh-bench-")))
        server = stack.enter_context(PrefectServer(folder / "prefect"))
        stack.enter_context(temporary_settings({PREFECT_API_URL: server.api}))
        figures = asyncio.run(_measure(server, given.jobs))
    show(f"A flow run of {given.jobs} jobs, {RUNNING} of which run", figures)


async def _measure(server: PrefectServer, jobs: int) -> list[Figure]:
    run = await seed(server, jobs, running=RUNNING)
    began, cpu_began = time.monotonic(), time.process_time()
    read = [view async for view in jobs_of(FlowRunJournal(run))]
    listed, cpu = time.monotonic() - began, time.process_time() - cpu_began
    hub = Timed()
    cancelled = await cancel_all(run, hub)
    ended = time.monotonic() - hub.began
    await disconnect()
    return [
        Figure("to read all jobs", listed, 10, "s", f"{len(read)} jobs, client CPU {cpu:.1f} s"),
        Figure("to the first cancellation", hub.first or ended, 2, "s"),
        Figure("to cancel all", ended, 12, "s", f"{cancelled} cancelled"),
    ]


async def cancel_all(run: UUID, hub: Timed) -> int:
    """Cancels what a run has submitted; how many tasks."""

    async def client_for(_: Intent) -> Timed:
        return hub

    scope = RecordedScope(journal=FlowRunJournal(run), run="run", flow="flow", attempt=1)
    return len((await cancel_scope(scope, client_for, by="a benchmark")).cancelled)


if __name__ == "__main__":
    main()

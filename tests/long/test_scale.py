"""A flow run of 8,000 jobs on a real Prefect server: its jobs are listed, and what runs is cancelled."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from rh_prefect.client import TaskView
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.run_queries_and_scopes import FlowScope
from rh_prefect.prefect_api import disconnect
from rh_prefect.works.journal.job_records_and_state import jobs_of
from rh_prefect.works.journal.record_types import Intent
from rh_prefect.works.run_cancellation import cancel_scope
from tests.support.servers.prefect_server import PrefectServer
from tests.support.world.seeded_run import seed

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

JOBS = 8000
RUNNING = 50


@pytest.fixture
def server(tmp_path: Path, prefect_template: Path) -> Iterator[PrefectServer]:
    server = PrefectServer(tmp_path / "prefect", template=prefect_template)
    with server, temporary_settings({PREFECT_API_URL: server.api}):
        yield server


class Hub:
    """Cancels at once."""

    async def cancel(self, task_id: str) -> None:
        pass

    async def query(self, task_id: str) -> TaskView:
        return TaskView(task_id=task_id, status="CANCELLED")

    async def currency(self, *, pace_seconds: float | None = None) -> str | None:
        return None


async def test_8000_jobs_are_listed_in_one_go_and_what_runs_is_cancelled(
    server: PrefectServer, caplog: pytest.LogCaptureFixture
) -> None:
    run, hub = await seed(server, JOBS, running=RUNNING), Hub()

    async def client_for(_: Intent) -> Any:
        return hub

    caplog.set_level(logging.INFO, logger="httpx")
    caplog.clear()
    began = time.monotonic()
    report = await cancel_scope(FlowScope(FlowRunJournal(run), "run", "flow", 1), client_for, by="a test")
    seconds, requests = time.monotonic() - began, len(caplog.records)
    assert len(report.cancelled) == RUNNING
    assert report.failed == {}
    print(f"all cancelled after {seconds:.2f} s and {requests} requests")
    assert requests <= 100 + 2 * RUNNING, "the run is read page by page, and an end takes at most two requests"
    assert seconds < 30, "after 30 s, Prefect kills the process of the hook"
    views = [view async for view in jobs_of(FlowRunJournal(run))]
    assert len(views) == JOBS
    assert {view.state for view in views} == {"ended"}
    await disconnect()

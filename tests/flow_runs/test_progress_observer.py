from __future__ import annotations

import asyncio
import gc
import heapq
import logging
import os
import subprocess
import sys
import threading
import time
import uuid
from _collections_abc import dict_values
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import prefect
import pytest
from prefect.context import FlowRunContext

from rh_prefect import generate, models
from rh_prefect.artifacts import Page
from rh_prefect.flow_runs import progress_observer
from rh_prefect.flow_runs.progress_observer import ENDED, RunObserver, RunProgress, run_progress_of
from rh_prefect.flow_runs.recorded_job_collection import recorded_progress
from rh_prefect.works.events import JobEvent, JobEventState
from rh_prefect.works.journal.costs_and_budget import Costs
from rh_prefect.works.journal.record_types import Record
from rh_prefect.works.journal.scope import FolderScope
from rh_prefect.works.journal.works_journal import WorksJournal
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.run_cancellation import CancelReport
from tests.support.world.job_records import KEY, adopted_late, intent, refused, ticket, write

STATES: tuple[JobEventState, ...] = ("waiting", "submitted", "running", "failed", "submitted", "succeeded")


def event(job: int, state: JobEventState, *, message: str = "", is_step: bool = False) -> JobEvent:
    return JobEvent(state=state, job=f"run/{job}", model=f"model-{job}", message=message, is_step=is_step)


class Rows(dict[str, JobEvent]):
    walks = 0

    def values(self) -> dict_values[str, JobEvent]:
        self.walks += 1
        return super().values()


def test_no_event_goes_through_all_rows() -> None:
    status = RunProgress()
    status.rows = rows = Rows()
    for job in range(100):
        status.update(event(job, "running"))
        assert (status.ended, status.percent, bool(status.line)) == (0, 0.0, True)
    assert rows.walks == 0


def test_what_has_ended_is_counted_and_a_job_that_is_tried_again_is_counted_no_more() -> None:
    status = RunProgress()
    status.expect(10)
    for step, state in enumerate(STATES):
        for job in range(4):
            status.update(event(job, state))
        assert status.ended == sum(one.state in ENDED for one in status.rows.values())
        assert status.has_work == (state not in ENDED), step
    assert (status.ended, status.percent) == (4, 40.0)
    assert status.line == "4 of 10 jobs done"


def test_jobs_that_begin_while_the_run_is_summed_up_change_nothing() -> None:
    """The summary of a flow run failed with `dictionary changed size during iteration`, and with it the run."""
    progress, before = RunProgress(), sys.getswitchinterval()

    def add() -> None:
        for job in range(5_000):
            progress.update(event(job, "running"))

    adding = threading.Thread(target=add)
    sys.setswitchinterval(1e-6)
    try:
        adding.start()
        while adding.is_alive():
            assert len(progress.steps()) <= len(progress.rows)
            assert not progress.cost
            assert not progress.outputs
    finally:
        adding.join()
        sys.setswitchinterval(before)


def test_a_board_is_dropped_with_its_run() -> None:
    page = Page("film", uuid.uuid4())
    status = run_progress_of(page)
    assert run_progress_of(page) is status
    progress_observer.forget_run_progress(str(page.flow_run_id))
    assert run_progress_of(page) is not status
    progress_observer.forget_run_progress(str(page.flow_run_id))


def test_a_failed_run_is_not_shown_as_done() -> None:
    status = RunProgress()
    status.expect(5, estimate=Costs.of(Decimal("9.3"), "CNY"))
    for job, state in enumerate(("succeeded", "reused", "failed", "cancelled")):
        status.update(event(job, cast("JobEventState", state)))
    assert status.line == "2 of 5 jobs done, 1 failed, 1 cancelled, estimate 9.30 CNY"
    assert status.summary == "2 of 5 jobs done, 1 failed, 1 cancelled, 1 not finished, cost 0"
    assert (status.percent, status.percent_done) == (80.0, 40.0)


def test_a_task_that_the_run_no_longer_waits_for_is_charged() -> None:
    status = RunProgress()
    status.expect(3)
    status.update(replace(event(1, "submitted"), task_id="5"))
    assert status.summary == "0 of 3 jobs done, 2 not finished, 1 task continues and will be charged, cost 0 so far"
    status.update(replace(event(2, "running"), task_id="6"))
    assert status.summary == "0 of 3 jobs done, 1 not finished, 2 tasks continue and will be charged, cost 0 so far"


def test_a_task_that_has_ended_does_not_continue() -> None:
    status = RunProgress()
    for job in (1, 2):
        status.update(replace(event(job, "submitted"), task_id=str(job)))
    status.update(replace(event(1, "collecting"), task_id="1"))
    status.update(replace(event(2, "waiting"), task_id=""))  # its task has failed
    assert status.summary == "0 of 2 jobs done, 2 not finished, cost 0"
    status.update(event(2, "queued"))
    assert status.summary == "0 of 2 jobs done, 2 not finished, cost 0"
    status.update(replace(event(2, "submitted"), task_id="3"))
    assert status.summary == "0 of 2 jobs done, 1 not finished, 1 task continues and will be charged, cost 0 so far"


@pytest.mark.parametrize(
    ("answer", "failed", "state", "reason"),
    [
        (ticket(), "the key was refused", "unfinished", "could not be cancelled and may continue and be charged: {}"),
        (refused("1007", "bad prompt"), "", "failed", "bad prompt"),
    ],
)
async def test_the_report_of_a_cancelled_run_says_why_a_shared_work_continues_or_has_failed(
    tmp_path: Path, answer: Record, failed: str, state: str, reason: str
) -> None:
    works = WorksJournal(str(tmp_path))
    scope = FolderScope(works.notes_of("night"), works)
    await write(scope.journal, {"claim-1": Record()})
    await write(works, {"intent-1": intent(flow_run="night"), "answer-1": answer})
    report = CancelReport(failed={f"{works.scope}/{KEY}": failed} if failed else {})
    (step,) = (await recorded_progress(scope, report)).steps()
    assert (step.state, step.reason) == (state, reason.format(failed))


async def test_the_report_of_a_cancelled_run_counts_an_adopted_late_task_once(tmp_path: Path) -> None:
    works = WorksJournal(str(tmp_path))
    scope = FolderScope(works.notes_of("night"), works)
    await write(scope.journal, {"claim-1": Record(), "claim-2": Record()})
    await write(works, adopted_late(estimate="0.50", flow_run="night"))
    (row,) = (await recorded_progress(scope)).rows.values()
    assert str(row.costs) == "0.50 CNY"


EVENT = JobEvent("submitted", "run/job", "a-model", message="submitted as task 5")


@pytest.fixture
def listen() -> Iterator[Callable[[Callable[[JobEvent], None]], None]]:
    before = list(progress_observer.listeners)
    yield progress_observer.listeners.append
    progress_observer.listeners[:] = before


def test_a_listener_that_raises_is_logged_once_and_the_others_are_called(
    listen: Callable[[Callable[[JobEvent], None]], None], caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[JobEvent] = []

    def broken(event: JobEvent) -> None:
        raise UnicodeEncodeError("latin-1", "\u2713", 0, 1, "ordinal not in range")

    listen(broken)
    listen(heard.append)
    watch = RunObserver(logging.getLogger("test-observer"), None)
    with caplog.at_level(logging.WARNING, logger="rh_prefect"):
        watch.notify(EVENT)
        watch.notify(EVENT)
    assert heard == [EVENT, EVENT]
    [record] = [record for record in caplog.records if record.name == "rh_prefect"]
    assert "UnicodeEncodeError" in record.message
    assert "run/job" in record.message


def test_a_handler_of_the_log_that_raises_stops_nothing(listen: Callable[[Callable[[JobEvent], None]], None]) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("the disk is full")

    heard: list[JobEvent] = []
    listen(heard.append)
    log = logging.Logger("broken")
    log.addHandler(Broken())
    RunObserver(log, None).notify(EVENT)
    assert heard == [EVENT]


@pytest.mark.long
def test_a_job_that_is_submitted_while_the_process_exits_reports_without_a_traceback(tmp_path: Path) -> None:
    """Prefect cannot send anything by then: each report ended in "can't register atexit after shutdown"."""
    script = """
import asyncio, logging, threading
from rh_prefect.flow_runs.progress_observer import RunObserver, RunProgress
from rh_prefect.prefect_internals import is_exiting
from rh_prefect.works.events import JobEvent
from rh_prefect.works.loop_thread import LOOP

log = logging.LoggerAdapter(logging.getLogger("prefect.flow_runs"), {"flow_run_id": "run"})
observer, began = RunObserver(log, RunProgress()), threading.Event()

async def pay():
    began.set()
    while not is_exiting():
        await asyncio.sleep(0.001)
    observer.notify(JobEvent("submitted", "run/job", "a-model", task_id="5", message="submitted as task 5"))
    observer.notify(JobEvent("unknown", "run/job", "a-model", task_id="5", message="no answer"))

async def critical():
    await LOOP.critical(pay())

LOOP.submit(critical())
began.wait()
"""
    # A command that a test has run in this process makes Prefect quiet.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    env |= {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "can't register" not in done.stderr
    assert "a-model: no answer" in done.stderr


RUNS = 6
KEPT = 2
"""Of how many runs something may be left: the poller runs in the context of the job that started it."""


@prefect.flow
async def plain() -> str:
    await generate(models.ZImageTurbo(prompt="a lighthouse"))
    return str(prefect.runtime.flow_run.id)


async def drop_cancelled_timers() -> None:
    """Removes the cancelled timers of this loop, which asyncio keeps, with their contexts, until they would be due."""
    loop: Any = asyncio.get_running_loop()
    loop._scheduled[:] = [timer for timer in loop._scheduled if not timer.cancelled()]
    heapq.heapify(loop._scheduled)
    loop._timer_cancelled_count = 0


async def kept(runs: set[str]) -> set[str]:
    """Of which flow runs there is a context still, which leads to all that the run had."""
    await drop_cancelled_timers()
    await LOOP.call(drop_cancelled_timers())
    gc.collect()
    contexts = [one for one in gc.get_objects() if type(one) is FlowRunContext and one.flow_run is not None]
    return {str(one.flow_run.id) for one in contexts if one.flow_run} & runs


@pytest.mark.prefect
@pytest.mark.usefixtures("rh")
async def test_a_flow_run_that_has_ended_is_not_kept() -> None:
    """A process keeps nothing of the flow runs that have ended in it, which took 1 MB each."""
    runs = {await plain() for _ in range(RUNS)}
    deadline = time.monotonic() + 300
    # What looks after a run looks every few seconds, and ends then.
    while len(await kept(runs)) > KEPT and time.monotonic() < deadline:  # noqa: ASYNC110 - it sets no event
        await asyncio.sleep(2)  # a look goes through all objects
    assert len(await kept(runs)) <= KEPT

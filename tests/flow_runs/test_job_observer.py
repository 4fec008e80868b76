"""What listens to a job's changes never stops the job."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rh_prefect.flow_runs import job_progress
from rh_prefect.flow_runs.job_progress import RunObserver
from rh_prefect.works.events import JobEvent

EVENT = JobEvent("submitted", "run/job", "a-model", message="submitted as task 5")


@pytest.fixture
def listen() -> Iterator[Callable[[Callable[[JobEvent], None]], None]]:
    before = list(job_progress.listeners)
    yield job_progress.listeners.append
    job_progress.listeners[:] = before


def test_a_listener_that_raises_is_logged_once_and_the_others_are_called(
    listen: Callable[[Callable[[JobEvent], None]], None], caplog: pytest.LogCaptureFixture
) -> None:
    """A listener's error is logged the first time and never reaches the job."""
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


def test_a_handler_of_the_log_that_raises_stops_nothing(
    listen: Callable[[Callable[[JobEvent], None]], None],
) -> None:
    """Neither does a handler of the log."""

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("the disk is full")

    heard: list[JobEvent] = []
    listen(heard.append)
    log = logging.Logger("broken")
    log.addHandler(Broken())
    RunObserver(log, None).notify(EVENT)
    assert heard == [EVENT]


def test_a_job_that_is_submitted_while_the_process_exits_reports_without_a_traceback(tmp_path: Path) -> None:
    """Prefect cannot send anything by then: each report ended in "can't register atexit after shutdown"."""
    script = """
import asyncio, logging, threading
from rh_prefect.flow_runs.job_progress import RunObserver, RunProgress
from rh_prefect.flow_runs.prefect_internals import is_exiting
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

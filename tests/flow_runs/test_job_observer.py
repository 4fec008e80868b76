"""What listens to a job's changes never stops the job."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from rh_prefect.flow_runs import job_progress
from rh_prefect.flow_runs.job_progress import RunObserver
from rh_prefect.jobs.events import JobEvent

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

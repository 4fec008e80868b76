from __future__ import annotations

import uuid
from _collections_abc import dict_values
from decimal import Decimal
from pathlib import Path
from typing import cast

from rh_prefect.artifacts import Page
from rh_prefect.flow_runs import job_progress as boards
from rh_prefect.flow_runs.job_progress import ENDED, RunProgress, run_progress_of
from rh_prefect.flow_runs.recorded_job_collection import recorded_progress
from rh_prefect.works.events import JobEvent, JobEventState
from rh_prefect.works.journal.costs_and_budget import Costs
from rh_prefect.works.journal.record_types import Record
from rh_prefect.works.journal.scope import FolderScope
from rh_prefect.works.journal.shared_journal import WorksJournal
from rh_prefect.works.run_cancellation import CancelReport
from tests.support.world.job_records import KEY, intent, ticket, write

STATES: tuple[JobEventState, ...] = ("waiting", "submitted", "running", "failed", "submitted", "succeeded")


def event(job: int, state: JobEventState, *, message: str = "", is_step: bool = False) -> JobEvent:
    return JobEvent(state=state, job=f"run/{job}", model=f"model-{job}", message=message, is_step=is_step)


class Rows(dict[str, JobEvent]):
    """Rows that count how often they are gone through."""

    walks = 0

    def values(self) -> dict_values[str, JobEvent]:
        self.walks += 1
        return super().values()


def test_no_event_goes_through_all_rows() -> None:
    """What an event costs does not grow with the number of jobs."""
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


def test_a_board_is_dropped_with_its_run() -> None:
    """A process that runs many flows does not remember those that have ended."""
    page = Page("film", uuid.uuid4())
    status = run_progress_of(page)
    assert run_progress_of(page) is status
    boards.forget_run_progress(str(page.flow_run_id))
    assert run_progress_of(page) is not status
    boards.forget_run_progress(str(page.flow_run_id))


def test_a_failed_run_is_not_shown_as_done() -> None:
    """A run with failed jobs said "9 of 9 jobs done, 100", and one with jobs that had not begun "5 of 5"."""
    status = RunProgress()
    status.expect(5, estimate=Costs.of(Decimal("9.3"), "CNY"))
    for job, state in enumerate(("succeeded", "reused", "failed", "cancelled")):
        status.update(event(job, cast("JobEventState", state)))
    assert status.line == "2 of 5 jobs done, 1 failed, 1 cancelled, estimate 9.30 CNY"
    assert status.summary == "2 of 5 jobs done, 1 failed, 1 cancelled, 1 not finished, cost 0"
    assert (status.percent, status.percent_done) == (80.0, 40.0)


async def test_a_shared_work_that_could_not_be_cancelled_is_named_as_its_records_with_the_reason(
    tmp_path: Path,
) -> None:
    works = WorksJournal(str(tmp_path))
    scope = FolderScope(works.notes_of("night"), works)
    await write(scope.journal, {"claim-1": Record()})
    await write(works, {"intent-1": intent(flow_run="night"), "answer-1": ticket()})
    job = f"{works.scope}/{KEY}"
    status = await recorded_progress(scope, CancelReport(failed={job: "the key was refused"}))
    assert status.rows[job].message == "could not be cancelled and may continue and be charged: the key was refused"

"""The states of one job in the words of RunningHub, of its records, of its events and of a batch's row."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from rh_prefect.client.wire.task import TaskStatus
from rh_prefect.jobs.events import JobEventState
from rh_prefect.jobs.journal.job_records import JobState

RowState = Literal["done", "failed", "unknown", "not started", "cancelled", "unfinished"]
"""The state of a row at the end of a run; see `STATES`."""


class State(NamedTuple):
    """One state of a job.

    Attributes:
        remote: RunningHub's status of the task; None without a task.
        job: The state that the records give.
        events: The states of the job's events meanwhile.
        row: The state of a batch's row whose job is left so at the end of a run.
        meaning: What it says.
    """

    remote: TaskStatus | None
    job: JobState
    events: tuple[JobEventState, ...]
    row: RowState
    meaning: str


STATES: Final = (
    State(None, "new", ("uploading", "waiting", "moved", "matched"), "unfinished", "nothing is submitted yet"),
    State(None, "new", ("failed",), "not started", "the rest of the budget is too small"),
    State(None, "new", ("failed",), "failed", "the input is invalid"),
    State(None, "open", ("waiting",), "unfinished", "the submission is under way, or its process has died"),
    State(None, "refused", ("failed",), "failed", "RunningHub has refused the submission"),
    State(None, "unknown", ("unknown",), "unknown", "the response was lost; see `jobs adopt` and `jobs mark-refused`"),
    State(None, "forgotten", ("waiting",), "unfinished", "marked as refused or lost; the next run submits again"),
    State("QUEUED", "ticket", ("submitted", "adopted"), "unfinished", "the task waits at RunningHub"),
    State("RUNNING", "ticket", ("running",), "unfinished", "the task runs"),
    State("SUCCESS", "ended", ("collecting",), "unfinished", "the outputs are downloaded and checked"),
    State("SUCCESS", "ended", ("succeeded", "reused"), "done", "the outputs are in the storage"),
    State("SUCCESS", "ended", ("failed",), "failed", "an output is damaged or has expired"),
    State("FAILED", "ended", ("failed",), "failed", "the task has failed"),
    State("CANCELLED", "ended", ("cancelled",), "cancelled", "the task was cancelled"),
)
"""All states, in the order of a job's life."""

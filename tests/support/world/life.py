"""A work's whole life as one generator, without the stages at which an executor may stop."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from rh_prefect.works.lifecycle import Policy, run_work
from rh_prefect.works.lifecycle_step_types import (
    Accepted,
    Ended,
    NoteClaim,
    NoteWait,
    NoteWaiter,
    Publish,
    ReadResult,
    ReadWait,
    ReadWaiters,
    RecordResult,
    ReleaseWaiter,
    ReportFailure,
    Step,
)

SHARED = (ReadResult, NoteWaiter, NoteClaim, NoteWait, ReadWait, ReadWaiters, ReleaseWaiter, ReportFailure)
"""Steps that do nothing in the scope of one run."""


def lifecycle(policy: Policy) -> Generator[Step, Any, Any]:
    """Runs a work in the scope of one run; its result is the submission with its end."""
    life = run_work(policy)
    came: Any = None
    try:
        while True:
            step = life.send(came)
            match step:
                case Publish(submit, end):
                    came = (submit, end)
                case RecordResult(result):
                    came = result
                case Accepted() | Ended():
                    came = None
                case _ if isinstance(step, SHARED):
                    came = None
                case _:
                    came = yield step
    except StopIteration as over:
        return over.value

"""The steps that the lifecycle of a work may request, each with the type of its result."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

from rh_prefect.works.journal.job_records import Submit
from rh_prefect.works.journal.record_types import Answer, End, Intent


@dataclass(frozen=True, slots=True)
class ReadResult:
    """A step that reads the recorded result; its result is that, or None where there is none or a file is missing."""


@dataclass(frozen=True, slots=True)
class NoteWaiter:
    """A step that records that the run waits for the work; its result is None."""


@dataclass(frozen=True, slots=True)
class ReleaseWaiter:
    """A step that records that the run no longer waits for the work; its result is None."""


@dataclass(frozen=True, slots=True)
class ReadWaiters:
    """A step that checks whether another run waits for the work; its result is a bool."""


@dataclass(frozen=True, slots=True)
class ReadSubmission:
    """A step that reads the records of number n; its result is a `Submit`, or None without an intent."""

    n: int


@dataclass(frozen=True, slots=True)
class NoteClaim:
    """A step that records in the run's own journal that the run is about to claim n; its result is None."""

    n: int


@dataclass(frozen=True, slots=True)
class NoteWait:
    """A step that records in the run's own journal that it waits for the task of n; its result is None."""

    n: int


@dataclass(frozen=True, slots=True)
class ReadWait:
    """A step that checks whether an earlier process of the run recorded a wait for n; its result is a bool."""

    n: int


@dataclass(frozen=True, slots=True)
class Prepare:
    """A step that uploads every input and makes sure that its link is valid; its result is None."""


@dataclass(frozen=True, slots=True)
class AwaitSlot:
    """A step that waits until the account may run one more task; its result is None."""


@dataclass(frozen=True, slots=True)
class FreeSlot:
    """A step that releases the slot; `full` means that RunningHub rejected the job for lack of a slot."""

    full: bool = False


@dataclass(frozen=True, slots=True)
class Reserve:
    """A step that reserves the price of submission n in the budget; its result is None or a `Shortfall`."""

    n: int
    budget: Decimal


@dataclass(frozen=True, slots=True)
class Release:
    """A step that releases the reserved price of submission n, which did not succeed; its result is None."""

    n: int


@dataclass(frozen=True, slots=True)
class SwitchAccount:
    """A step that finds whether another account may pay after this rejection; its result is a bool."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Pause:
    """A step that waits before the next POST, longer after more refusals of the job; its result is None.

    The first refusals for want of a slot cause no wait: `AwaitSlot` waits until the account has room.
    """

    refusals: int
    refused: Answer


@dataclass(frozen=True, slots=True)
class ReportFailure:
    """A step that reports a failed task, after which another one is tried; its result is None."""

    submit: Submit
    reason: str


@dataclass(frozen=True, slots=True)
class CheckCancel:
    """A step that checks whether the run was cancelled; its result is a bool. `fresh` bypasses the cache."""

    fresh: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """A step that creates intent n; its result is the `Intent`, or None if another process created it first."""

    n: int


@dataclass(frozen=True, slots=True)
class Post:
    """A step that sends POST n; its result is an `Answer` in every case."""

    intent: Intent
    n: int


@dataclass(frozen=True, slots=True)
class RecordAnswer:
    """A step that creates answer n; its result is the valid `Submit`, as another process may be first."""

    intent: Intent
    n: int
    answer: Answer


@dataclass(frozen=True, slots=True)
class Watch:
    """A step that waits until another process's intent is answered or that process has certainly ended."""

    submit: Submit


@dataclass(frozen=True, slots=True)
class Forget:
    """A step that resolves unknown answer n as forgotten; its result is None."""

    n: int


@dataclass(frozen=True, slots=True)
class AwaitEnd:
    """A step that waits until the task is terminal and records its end; its result is the valid `End`."""

    submit: Submit
    adopted: bool


@dataclass(frozen=True, slots=True)
class CancelTask:
    """A step that cancels the task at RunningHub and records its end; its result is the valid `End`."""

    submit: Submit


@dataclass(frozen=True, slots=True)
class Publish:
    """A step that downloads and publishes missing outputs; its result is the work's result, or an `Invalid`."""

    submit: Submit
    end: End


@dataclass(frozen=True, slots=True)
class RecordResult:
    """A step that records the result, unless one is recorded; its result is the recorded one."""

    result: Any


@dataclass(frozen=True, slots=True)
class Accepted:
    """The stage at which a submission's task is known; an executor may stop here. Its result is None.

    Attributes:
        submit: The submission: its task runs, or has succeeded.
        adopted: Whether an earlier call has made it.
    """

    submit: Submit
    adopted: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """The stage at which a task has ended; after a success its outputs can be published. Its result is None."""

    submit: Submit
    end: End

    @property
    def is_success(self) -> bool:
        """Whether the task has succeeded; after a failure the work fails, or submits another task."""
        return self.end.status == "SUCCESS"


@dataclass(frozen=True, slots=True)
class Finished:
    """The stage at which a work is over; only an executor makes it.

    Attributes:
        result: The result; None where nothing was paid and nothing may be.
    """

    result: Any


Stage: TypeAlias = Accepted | Ended | Finished
"""Where an executor may stop, and continue later."""

Step: TypeAlias = (
    ReadResult
    | NoteWaiter
    | ReleaseWaiter
    | ReadWaiters
    | ReadSubmission
    | NoteClaim
    | NoteWait
    | ReadWait
    | Publish
    | RecordResult
    | Accepted
    | Ended
    | Prepare
    | AwaitSlot
    | FreeSlot
    | Reserve
    | Release
    | SwitchAccount
    | Pause
    | ReportFailure
    | CheckCancel
    | Claim
    | Post
    | RecordAnswer
    | Watch
    | Forget
    | AwaitEnd
    | CancelTask
)
CancelStep: TypeAlias = ReadSubmission | ReleaseWaiter | ReadWaiters | CancelTask
"""The steps of the cancellation of a task."""

CRITICAL = (Claim, Post, RecordAnswer)
"""From the claim to the recorded answer nothing may interrupt."""

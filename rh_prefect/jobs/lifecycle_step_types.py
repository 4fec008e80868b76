"""The steps that the lifecycle of a job may request, each with the type of its result."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

from rh_prefect.jobs.journal.job_records import Submit
from rh_prefect.jobs.journal.record_types import Answer, Intent


@dataclass(frozen=True, slots=True)
class ReadJob:
    """A step that reads the job's records; its result is a `JobView`."""


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
    code: str
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


Step: TypeAlias = (
    ReadJob
    | Prepare
    | AwaitSlot
    | FreeSlot
    | Reserve
    | Release
    | SwitchAccount
    | Pause
    | CheckCancel
    | Claim
    | Post
    | RecordAnswer
    | Watch
    | Forget
    | AwaitEnd
    | CancelTask
)
CRITICAL = (Claim, Post, RecordAnswer)
"""From the claim to the recorded answer nothing may interrupt."""

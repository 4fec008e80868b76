"""What the lifecycle of a job may ask to have done; each step says what it comes back as."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

from rh_prefect.jobs.journal.job_records import Submit
from rh_prefect.jobs.journal.records import Answer, Intent


@dataclass(frozen=True, slots=True)
class ReadJob:
    """Read the job's records; comes back as a `JobView`."""


@dataclass(frozen=True, slots=True)
class Prepare:
    """Have every input uploaded and its link alive; comes back as None."""


@dataclass(frozen=True, slots=True)
class AwaitSlot:
    """Wait until the account may take one more task; comes back as None."""


@dataclass(frozen=True, slots=True)
class FreeSlot:
    """Give the slot back; `full` says that RunningHub itself refused for want of one."""

    full: bool = False


@dataclass(frozen=True, slots=True)
class Reserve:
    """Set the price of submit n aside within the run's budget; comes back as None, or as the `Shortfall`."""

    n: int
    budget: Decimal


@dataclass(frozen=True, slots=True)
class Release:
    """Give back what was set aside for submit n, which came to nothing; comes back as None."""

    n: int


@dataclass(frozen=True, slots=True)
class MoveOn:
    """Find out whether another account may pay after this refusal; comes back as a bool."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before the next POST; the more refusals in a row, the longer."""

    refusals: int
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class CheckCancel:
    """Look whether the run was cancelled; comes back as a bool. `fresh` allows no remembered answer."""

    fresh: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """Create intent n; comes back as the `Intent` when it is ours, None when another's was there first."""

    n: int


@dataclass(frozen=True, slots=True)
class Post:
    """Send POST n; the outcome is an `Answer` in every case."""

    intent: Intent
    n: int


@dataclass(frozen=True, slots=True)
class RecordAnswer:
    """Create answer n; comes back as the `Submit` that now stands: a watcher may have called it unknown first."""

    intent: Intent
    n: int
    answer: Answer


@dataclass(frozen=True, slots=True)
class Watch:
    """Wait until another's intent is answered, or its owner is surely gone; comes back as a `JobView`."""

    submit: Submit


@dataclass(frozen=True, slots=True)
class Forget:
    """Resolve unknown answer n as forgotten; comes back as None."""

    n: int


@dataclass(frozen=True, slots=True)
class AwaitEnd:
    """Wait until the task is terminal and record its end; comes back as the `End` that stands."""

    submit: Submit
    adopted: bool


@dataclass(frozen=True, slots=True)
class CancelTask:
    """Cancel the task at RunningHub and record its end; comes back as the `End` that stands."""

    submit: Submit


Step: TypeAlias = (
    ReadJob
    | Prepare
    | AwaitSlot
    | FreeSlot
    | Reserve
    | Release
    | MoveOn
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

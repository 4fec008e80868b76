"""What a job tells those who watch it: changes of state, never looks."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, Protocol

JobEventState = Literal[
    "uploading",
    "waiting",
    "submitted",
    "adopted",
    "running",
    "collecting",
    "succeeded",
    "failed",
    "cancelled",
    "unknown",
    "reused",
]


@dataclass(frozen=True, slots=True)
class JobEvent:
    """A change of one job's state.

    Attributes:
        state: What it is now.
        job: The job's full name.
        model: The model's name.
        label: The caller's name for the output.
        task_id: RunningHub's task id, once it is known.
        message: One line for the log.
        cost: What it cost, at the end.
        currency: Of the cost.
        queued_seconds: At the end.
        run_seconds: At the end.
        output: URI of the first file, at the end.
    """

    state: JobEventState
    job: str
    model: str
    label: str | None = None
    task_id: str | None = None
    message: str = ""
    cost: Decimal | None = None
    currency: str | None = None
    queued_seconds: float | None = None
    run_seconds: float | None = None
    output: str | None = None


class Observer(Protocol):
    """Is told of every change; must be quick, must not raise, and is called on the package's loop thread."""

    def notify(self, event: JobEvent) -> None:
        """Takes note of a change."""
        ...


class Silent:
    """Watches nothing."""

    def notify(self, event: JobEvent) -> None:
        """Does nothing."""

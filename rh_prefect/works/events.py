"""Events about changes in a job's state, for its observers."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal, Protocol

from rh_prefect.display_texts import with_prompt
from rh_prefect.media.media import Media
from rh_prefect.works.journal.costs_and_budget import CURRENCY, Costs, amount_text
from rh_prefect.works.result import Result

JobEventState = Literal[
    "uploading",
    "waiting",
    "moved",
    "queued",
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
    """A change in the state of one job, or a report of its progress."""

    state: JobEventState  # The new state
    job: str  # The job's full name
    model: str  # The model's name
    label: str | None = None  # The caller's name for the output
    # RunningHub's task id, once it is known; empty if the job's last task has failed and another one will be submitted
    task_id: str | None = None
    message: str = ""  # One line for the log
    cost: Decimal | None = None  # Its cost, at the end
    currency: str | None = None  # The currency of the cost
    # The cost of all ended tasks of the job, including earlier attempts; at a submission and at the end
    costs: Costs = field(default_factory=Costs)
    run_seconds: float | None = None  # The run time of the task, at the end
    output: str | None = None  # URI of the first file, at the end
    estimate: Costs = field(default_factory=Costs)  # The expected price of its task
    is_edit: bool = False  # Whether it is a local edit, which costs nothing and is no job
    files: tuple[Media, ...] = ()  # All its files, at the end
    sources: tuple[str, ...] = ()  # The addresses of the files that it was made from, at the end
    is_step: bool = False  # The state is the same: the message reports the progress of the task
    prompt: str = ""  # The beginning of the request's prompt

    @property
    def name(self) -> str:
        """The job's display name: its label, or otherwise its model and the beginning of its prompt."""
        return self.label or with_prompt(self.model, self.prompt)

    @property
    def line(self) -> str:
        """The name and the message; only the message if it begins with the name."""
        return self.message if self.message.startswith(f"{self.name}: ") else f"{self.name}: {self.message}"


class Observer(Protocol):
    """Receives each event on the package's loop thread; `notify` must return quickly and must not raise."""

    def notify(self, event: JobEvent) -> None:
        """Handles an event, without blocking or raising."""
        ...


class Silent:
    """An observer that ignores all events."""

    def notify(self, event: JobEvent) -> None:
        """Does nothing."""


def event_of(result: Result, *, message: str, prompt: str, costs: Costs, sources: tuple[str, ...] = ()) -> JobEvent:
    """Returns the event for a completed job; its state is `failed` if a file is damaged."""
    good: JobEventState = "reused" if result.reused else "succeeded"
    return JobEvent(
        state="failed" if result.damaged else good,
        job=result.job,
        model=result.model,
        label=result.label,
        task_id=result.task_id,
        message=message,
        cost=result.cost,
        currency=result.currency,
        costs=costs,
        run_seconds=result.run_seconds,
        output=result.outputs[0].uri if result.outputs else result.record,
        files=result.outputs,
        sources=sources,
        prompt=prompt,
    )


def summary_of(result: Result) -> str:
    """Returns a clause for messages that names a job's outputs, the damage to each output, and the job's cost."""
    outputs = ", ".join(map(_file, result.outputs)) or f"{len(result.text)} characters of text"
    cost = (
        f"; {amount_text(result.cost)} {result.currency or CURRENCY}"
        if result.cost is not None and not result.reused
        else ""
    )
    state = "stored, but damaged; run it again to download it again at no cost" if result.damaged else "done"
    return f"{state}: {outputs}{cost}"


def _file(media: Media) -> str:
    return media.uri if media.defect is None else f"{media.uri} ({media.defect})"

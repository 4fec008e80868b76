"""What a run has done so far, for its table and its progress bar: one row for each of its jobs."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from uuid import UUID

from rh_prefect.artifacts import Page, Progress, Step
from rh_prefect.jobs.events import JobEvent
from rh_prefect.jobs.journal.costs import Costs
from rh_prefect.media.media import Media
from rh_prefect.memory_cache import LruCache

ENDED = frozenset({"succeeded", "failed", "cancelled", "unknown", "reused"})

_TOLD = 3
"""Of how many running graphs the bar tells how far they are."""

_KEPT = 200
"""How many runs one process remembers: a long-lived one must not grow for ever."""


@dataclass(slots=True)
class RunStatus:
    """The jobs of one root flow run in this process, in the order in which they were first heard of."""

    rows: dict[str, JobEvent] = field(default_factory=dict)
    expected: int = 0
    page: Page | None = None
    estimate: Costs | None = None
    results: dict[str, Media] = field(default_factory=dict)
    progress: Progress = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    # Counted as it changes: every event asks, and a run may have thousands of rows.
    _states: Counter[str] = field(default_factory=Counter)
    _steps: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # The root's page: a nested flow's jobs are the root's jobs.
        self.progress = Progress(page=self.page)

    def take(self, event: JobEvent) -> None:
        """Takes note of a change."""
        with self._lock:
            known = self.rows.get(event.job)
            self.rows[event.job] = event if event.task_id or known is None else _with_task(event, known)
            self._states[event.state] += 1
            if known is not None:
                self._states[known.state] -= 1
            if event.is_step:
                self._steps[event.job] = None
            else:
                self._steps.pop(event.job, None)

    def expect(self, jobs: int, *, estimate: Costs | None = None) -> None:
        """Says how many jobs there will be, so that the progress bar has the right total, and what they will cost."""
        self.expected = max(self.expected, jobs)
        self.estimate = estimate or self.estimate

    @property
    def ended(self) -> int:
        """How many jobs have ended, one way or another."""
        return sum(self._states[state] for state in ENDED)

    @property
    def done(self) -> int:
        """How many jobs have a result."""
        return self._states["succeeded"] + self._states["reused"]

    @property
    def total(self) -> int:
        """How many jobs there are, or will be."""
        return max(self.expected, len(self.rows))

    @property
    def percent(self) -> float:
        """How much has ended, 0 to 100."""
        return 100.0 * self.ended / self.total if self.total else 0.0

    @property
    def percent_done(self) -> float:
        """How much has a result, 0 to 100: what the bar shows of a run that has ended."""
        return 100.0 * self.done / self.total if self.total else 0.0

    @property
    def line(self) -> str:
        """What stands above the bar: how many jobs have which end, and how far the graphs are that tell of it."""
        with self._lock:
            events = [self.rows[job] for job in islice(self._steps, _TOLD)]
        told = (f"{event.label or event.model}: {event.message}" for event in events)
        return "; ".join([", ".join(self._counts()), *told])

    def _counts(self) -> Iterator[str]:
        yield f"{self.done} of {self.total} jobs done"
        for state in ("failed", "unknown", "cancelled"):
            if self._states[state]:
                yield f"{self._states[state]} {state}"
        if self.estimate:
            yield f"estimate {self.estimate}"

    @property
    def summary(self) -> str:
        """What stands above the bar of a run that has ended."""
        waiting = self.total - self.ended
        return ", ".join([*self._counts(), *([f"{waiting} not finished"] if waiting else [])])

    @property
    def has_work(self) -> bool:
        """Whether a job has not ended yet."""
        return self.ended < len(self.rows)

    @property
    def cost(self) -> Costs:
        """What all jobs have cost together, as far as it is known."""
        return Costs.total(event.costs for event in self.rows.values())

    def files(self) -> dict[str, str]:
        """The files that the run has made, by name: what it was for, or else the output of each job."""
        if self.results:
            return {name: media.uri for name, media in self.results.items()}
        done = [event for event in self.rows.values() if event.state in ("succeeded", "reused") and event.output]
        return {f"{number}. {one.label or one.model}": str(one.output) for number, one in enumerate(done, 1)}

    def steps(self) -> list[Step]:
        """The rows of the run's table."""
        return [_step(event) for event in self.rows.values()]


def _step(event: JobEvent) -> Step:
    return Step(
        model=f"{event.label} · {event.model}" if event.label else event.model,
        state=event.state,
        queued_seconds=event.queued_seconds,
        run_seconds=event.run_seconds,
        costs=event.costs,
        output=event.output or (event.message if event.state in ("failed", "unknown", "cancelled") else None),
    )


def _with_task(event: JobEvent, known: JobEvent) -> JobEvent:
    return replace(event, task_id=known.task_id)


_boards: LruCache[str, RunStatus] = LruCache(_KEPT)


def run_status_of(flow_run_id: str, *, flow: str) -> RunStatus:
    """Gives the board of a root flow run.

    Args:
        flow_run_id: The root flow run's id.
        flow: The root flow's name.
    """
    board = _boards.get(flow_run_id)
    return _boards.setdefault(flow_run_id, RunStatus(page=Page(flow, UUID(flow_run_id)))) if board is None else board


def known_run_status(flow_run_id: str) -> RunStatus | None:
    """Finds the board of a root flow run in this process; None where it has none yet, or has ended.

    Args:
        flow_run_id: The root flow run's id.
    """
    return _boards.get(flow_run_id)


def forget_run_status(flow_run_id: str) -> None:
    """Drops the board of a flow run that has ended.

    Args:
        flow_run_id: The root flow run's id.
    """
    _boards.pop(flow_run_id, None)

"""What a run has done so far, for its table and its progress bar: one row for each of its jobs."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from itertools import islice
from uuid import UUID

from rh_prefect.artifacts import Page, Progress, Step
from rh_prefect.jobs.events import JobEvent
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
    progress: Progress = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    # Counted as it changes: every event asks, and a run may have thousands of rows.
    _ended: int = 0
    _steps: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # The root's page: a nested flow's jobs are the root's jobs.
        self.progress = Progress(page=self.page)

    def take(self, event: JobEvent) -> None:
        """Takes note of a change."""
        with self._lock:
            known = self.rows.get(event.job)
            self.rows[event.job] = event if event.task_id or known is None else _with_task(event, known)
            self._ended += (event.state in ENDED) - (known is not None and known.state in ENDED)
            if event.is_step:
                self._steps[event.job] = None
            else:
                self._steps.pop(event.job, None)

    def expect(self, jobs: int) -> None:
        """Says how many jobs there will be, so that the progress bar has the right total."""
        self.expected = max(self.expected, jobs)

    @property
    def ended(self) -> int:
        """How many jobs have ended, one way or another."""
        return self._ended

    @property
    def percent(self) -> float:
        """How much is done, 0 to 100."""
        total = max(self.expected, len(self.rows))
        return 100.0 * self.ended / total if total else 0.0

    @property
    def line(self) -> str:
        """What stands above the bar: how many jobs are done, and how far the graphs are that tell of it."""
        done = f"{self.ended} of {max(self.expected, len(self.rows))} jobs done"
        with self._lock:
            events = [self.rows[job] for job in islice(self._steps, _TOLD)]
        return "; ".join([done, *(f"{event.label or event.model}: {event.message}" for event in events)])

    @property
    def has_work(self) -> bool:
        """Whether a job has not ended yet."""
        return self._ended < len(self.rows)

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


def forget_run_status(flow_run_id: str) -> None:
    """Drops the board of a flow run that has ended.

    Args:
        flow_run_id: The root flow run's id.
    """
    _boards.pop(flow_run_id, None)

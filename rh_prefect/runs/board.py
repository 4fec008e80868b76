"""What a run has done so far, for its table and its progress bar: one row for each of its jobs."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from uuid import UUID

from rh_prefect.artifacts import Page, Progress, Step
from rh_prefect.jobs.events import JobEvent

ENDED = frozenset({"succeeded", "failed", "cancelled", "unknown", "reused"})

_TOLD = 3
"""Of how many running graphs the bar tells how far they are."""

_KEPT = 200
"""How many runs one process remembers: a long-lived one must not grow for ever."""


@dataclass(slots=True)
class Board:
    """The jobs of one root flow run in this process, in the order in which they were first heard of."""

    rows: dict[str, JobEvent] = field(default_factory=dict)
    expected: int = 0
    page: Page | None = None
    progress: Progress = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        # The root's page: a nested flow's jobs are the root's jobs.
        self.progress = Progress(page=self.page)

    def take(self, event: JobEvent) -> None:
        """Takes note of a change."""
        with self._lock:
            known = self.rows.get(event.job)
            self.rows[event.job] = event if event.task_id or known is None else _with_task(event, known)

    def expect(self, jobs: int) -> None:
        """Says how many jobs there will be, so that the bar does not run ahead."""
        self.expected = max(self.expected, jobs)

    @property
    def ended(self) -> int:
        """How many jobs have ended, one way or another."""
        return sum(1 for event in self.rows.values() if event.state in ENDED)

    @property
    def percent(self) -> float:
        """How much is done, 0 to 100."""
        total = max(self.expected, len(self.rows))
        return 100.0 * self.ended / total if total else 0.0

    @property
    def line(self) -> str:
        """What stands above the bar: how many jobs are done, and how far the graphs are that tell of it."""
        done = f"{self.ended} of {max(self.expected, len(self.rows))} jobs done"
        told = [f"{event.label or event.model}: {event.message}" for event in self.rows.values() if event.is_step]
        return "; ".join([done, *told[:_TOLD]])

    def steps(self) -> list[Step]:
        """The rows of the run's table."""
        return [_step(event) for event in self.rows.values()]


def _step(event: JobEvent) -> Step:
    return Step(
        model=f"{event.label} · {event.model}" if event.label else event.model,
        state=event.state,
        queued_seconds=event.queued_seconds,
        run_seconds=event.run_seconds,
        cost=event.cost,
        currency=event.currency,
        output=event.output or (event.message if event.state in ("failed", "unknown", "cancelled") else None),
    )


def _with_task(event: JobEvent, known: JobEvent) -> JobEvent:
    return replace(event, task_id=known.task_id)


_boards: OrderedDict[str, Board] = OrderedDict()
_boards_lock = threading.Lock()


def board_of(flow_run_id: str, *, flow: str) -> Board:
    """Gives the board of a root flow run.

    Args:
        flow_run_id: The root flow run's id.
        flow: The root flow's name.
    """
    with _boards_lock:
        board = _boards.get(flow_run_id) or Board(page=Page(flow, UUID(flow_run_id)))
        _boards[flow_run_id] = board
        _boards.move_to_end(flow_run_id)
        while len(_boards) > _KEPT:
            _boards.popitem(last=False)
        return board

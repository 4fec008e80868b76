"""`LiveView`: a terminal's table with a row for each running job and local edit, and lines about the whole run."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from statistics import fmean

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rh_prefect.display_texts import counted, cut_middle
from rh_prefect.flow_runs.progress_observer import ENDED, RunProgress
from rh_prefect.works.events import JobEvent
from rh_prefect.works.journal.costs_and_budget import Costs

_WORDS = {
    "uploading": "uploads",
    "queued": "waits for a slot",
    "waiting": "waits to try again",
    "submitted": "queued",
    "adopted": "waits for its task",
    "running": "runs",
    "collecting": "downloads",
    "moved": "moves to another account",
}
_WIDE = 100
"""Minimum number of columns of a terminal in which the model's column is shown."""

_STATE_WIDTH = 16
_BAR_WIDTH = 20
_TYPICAL_SHARE = Decimal("0.1")
"""Share of the estimated cost that must be spent before the remaining time is shown."""

_LINES_AROUND = 6
"""Number of lines of the terminal that the rows leave free."""


@dataclass(slots=True)
class _Row:
    event: JobEvent
    since: float  # The time at which the job got this state


class LiveView:
    """The running jobs and edits of a run; rich renders the view in a different thread from the one that updates it."""

    def __init__(self, board: RunProgress, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts empty; `board` counts the run's jobs."""
        self._board = board
        self._clock = clock
        self._began = clock()
        self._rows: dict[str, _Row] = {}
        self._submitted: dict[str, float] = {}  # The time at which a job's task was submitted, by job
        self._took = defaultdict[str, list[float]](list)  # The seconds that each of a model's tasks took, by model
        self._edits = 0
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """The seconds since the run began."""
        return self._clock() - self._began

    @property
    def remaining(self) -> float | None:
        """Returns the remaining seconds, from the durations of tasks and the present concurrency; None if unknown."""
        board, now = self._board, self._clock()
        with self._lock:
            if not self._is_typical or board.ended >= board.total:
                return None
            means = {model: fmean(seconds) for model, seconds in self._took.items()}
            longest = max(means.values())
            running = [
                max(0.0, means.get(self._rows[job].event.model, longest) - (now - since))
                for job, since in self._submitted.items()
            ]
        later = (board.total - board.ended - len(running)) * longest
        return max([*running, (sum(running) + later) / max(1, len(running))])

    @property
    def _is_typical(self) -> bool:
        """Returns whether enough was spent for an estimate of the time: cheap jobs come first and are fast."""
        paid, estimate = self._board.cost.amounts, (self._board.estimate or Costs()).amounts
        is_much = all(paid.get(unit, 0) >= amount * _TYPICAL_SHARE for unit, amount in estimate.items())
        return is_much and bool(self._took)

    def update(self, event: JobEvent) -> None:
        """Updates the view for an event of a job or an edit."""
        with self._lock:
            self._update(event)

    def _update(self, event: JobEvent) -> None:
        if event.state in ENDED:
            self._rows.pop(event.job, None)
            self._edits += event.is_edit and event.state == "succeeded"
            if (since := self._submitted.pop(event.job, None)) is not None:
                self._took[event.model].append(self._clock() - since)
            return
        if event.task_id and not event.is_edit:
            self._submitted.setdefault(event.job, self._clock())
        row = self._rows.get(event.job)
        since = row.since if row is not None and row.event.state == event.state else self._clock()
        self._rows[event.job] = _Row(event, since)

    @property
    def line(self) -> str:
        """The numbers of jobs and edits of the whole run, the time since its start, and, if known, the time left."""
        board, edits, remaining = self._board, self._edits, self.remaining
        counts = board.counts if board.total else ("starts" if not edits else "")
        made = f"{counted(edits, 'edit')} made" if edits else ""
        left = f"about {clock_time(remaining)} left" if remaining is not None else ""
        return " · ".join(filter(None, (counts, made, clock_time(self.seconds), left)))

    @property
    def money(self) -> str:
        """The cost so far, and the estimated cost of the run, each if it is known."""
        board = self._board
        estimate = f"estimate {board.estimate}" if board.estimate else ""
        return " · ".join(filter(None, (f"paid {board.cost}" if board.cost else "", estimate)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Renders the rows that fit, and the lines below them."""
        with self._lock:
            width, rows = options.max_width, list(self._rows.values())
        # Rows of jobs that wait for a slot say least, so they come last.
        rows.sort(key=lambda row: row.event.state == "queued" and not row.event.task_id)
        most = max(1, console.height - _LINES_AROUND)
        parts: list[RenderableType] = []
        if rows:
            parts.append(self._table(rows[:most], width))
        if len(rows) > most:
            parts.append(Text(f"and {len(rows) - most} more", style="dim"))
        bar = ProgressBar(total=max(1, self._board.total), completed=self._board.ended, width=min(_BAR_WIDTH, width))
        foot = [Text(part, style="bold", overflow="fold") for part in (self.line, self.money) if part]
        lines = Table.grid()
        lines.add_row(bar)
        yield Group(*parts, lines, *foot)

    def _table(self, rows: list[_Row], width: int) -> Table:
        now, is_wide = self._clock(), width >= _WIDE
        table = Table.grid(padding=(0, 2, 0, 0))
        states = [cut_middle(_state(row.event), _STATE_WIDTH * (2 if is_wide else 1)) for row in rows]
        seconds = [clock_time(now - row.since) for row in rows]
        costs = [_price(row.event.estimate, has_unit=is_wide) for row in rows]
        models = [row.event.model if is_wide and row.event.label else "" for row in rows]
        taken = sum(max(map(len, column)) + 2 for column in (states, seconds, costs, models) if any(column))
        for justify in ("left", "left", "left", "right", "right"):
            table.add_column(no_wrap=True, justify=justify, overflow="ellipsis")
        for row, *cells in zip(rows, models, states, seconds, costs, strict=True):
            name = cut_middle(row.event.name, max(12, width - taken - 2))
            table.add_row(*(Text(cell) for cell in (name, *cells)))
        return table


def _state(event: JobEvent) -> str:
    if event.is_edit:
        return "made here"
    return event.message if event.is_step else _WORDS.get(event.state, event.state)


def _price(estimate: Costs, *, has_unit: bool) -> str:
    prices = (f"~{amount:.2f}{f' {unit}' if has_unit else ''}" for unit, amount in estimate.amounts.items())
    return ", ".join(prices)


def clock_time(seconds: float) -> str:
    """Returns a time as in `45 s`, `2:05` or `1:00:05`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

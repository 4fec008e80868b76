"""What a person sees while a flow runs in this terminal, and after."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from prefect.settings import PREFECT_UI_URL
from rich.console import Console
from rich.table import Table

from rh_prefect.flow_runs import job_observer
from rh_prefect.flow_runs.run_status import ENDED, RunStatus
from rh_prefect.jobs.events import JobEvent
from rh_prefect.jobs.journal.costs import Costs

_MARKS = {"succeeded": "✓", "reused": "✓", "failed": "✗", "unknown": "?", "cancelled": "-"}
_SHOWN = {"submitted", "adopted", "waiting", "moved", *ENDED}


class Terminal(Console):
    """A console that falls silent once nobody reads it, as behind `… | head`."""

    def on_broken_pipe(self) -> None:
        """Goes on without a word: lines are written on the jobs' own thread, which `SystemExit` would end."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Watch:
    """Prints a line for each change that a person cares about; on Ctrl-C, what still runs and how to go on."""

    def __init__(self, *, command: str) -> None:
        """Starts with nothing seen.

        Args:
            command: The `rh-prefect run` command, for the way back.
        """
        self._command = command
        self._board = RunStatus()
        self._console = Terminal(highlight=False, soft_wrap=True)
        self._began = time.monotonic()
        self._flow_run_id = ""
        self._submitted: set[str] = set()

    def __enter__(self) -> Self:
        job_observer.listeners.append(self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        job_observer.listeners.remove(self._take)
        if kind is not None:
            self._say_how_to_go_on()

    def started(self, flow_run_id: str) -> None:
        """Says which flow run it is."""
        self._flow_run_id = flow_run_id
        ui = PREFECT_UI_URL.value()
        self._console.print(f"flow run {flow_run_id}" + (f"  {ui}/runs/flow-run/{flow_run_id}" if ui else ""))

    def summary(self, result: Any) -> None:
        """Shows what each step took and cost, and where the files are."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("step", "model", "state", "queued s", "run s", "cost"):
            table.add_column(column, justify="right" if column in ("queued s", "run s", "cost") else "left")
        for event in self._board.rows.values():
            table.add_row(
                event.label or "",
                event.model,
                event.state,
                _seconds(event.queued_seconds),
                _seconds(event.run_seconds),
                str(event.costs) if event.costs else "",
            )
        self._console.print(table)
        self._console.print(f"in {time.monotonic() - self._began:.1f} s; {self._total()}")
        for name, uri in _files(result):
            self._console.print(f"{name}: {uri}", style="bold")

    def _take(self, event: JobEvent) -> None:
        self._board.take(event)
        if event.state == "submitted":
            self._submitted.add(event.job)
        if event.state in _SHOWN:
            mark = _MARKS.get(event.state, "·")
            seconds = time.monotonic() - self._began
            self._console.print(f"{seconds:6.1f} s {mark} {event.label or event.model}: {event.message}", markup=False)

    def _total(self) -> str:
        now, earlier = (
            self._sum(event for event in self._board.rows.values() if (event.job in self._submitted) is is_new)
            for is_new in (True, False)
        )
        return f"paid {now or 'nothing'}" + (f" now; {earlier} was paid earlier" if earlier else "")

    @staticmethod
    def _sum(events: Iterable[JobEvent]) -> str:
        # Of a job that has succeeded now, an earlier attempt was paid for earlier.
        paid = (event.costs if event.cost is None else Costs.of(event.cost, event.currency) for event in events)
        total = Costs.total(paid)
        return str(total) if total else ""

    def _say_how_to_go_on(self) -> None:
        running = [event for event in self._board.rows.values() if event.state not in ENDED and event.task_id]
        for event in running:
            print(f"still runs at RunningHub: task {event.task_id}  {event.label or event.model}", file=sys.stderr)
        if self._flow_run_id:
            print(
                f"resume (nothing is billed twice): rh-prefect run {self._command} --resume {self._flow_run_id}",
                file=sys.stderr,
            )
        if self._flow_run_id and running:
            print(f"or cancel what still runs:       rh-prefect jobs cancel {self._flow_run_id}", file=sys.stderr)


def _files(result: Any) -> list[tuple[str, str]]:
    """The files of whatever a flow returns, by name."""
    found = [(name, getattr(result, name)) for name in ("film", "contact_sheet") if hasattr(result, name)]
    if found:
        return [(name.replace("_", " "), media.uri) for name, media in found]
    results = result if isinstance(result, list) else [result]
    files = [media for one in results for media in getattr(one, "outputs", ())]
    return [("output" if media.defect is None else f"output, {media.defect}", media.uri) for media in files]


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"

"""Shows the progress and the result of a run or a batch in the terminal."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from prefect.settings import PREFECT_UI_URL
from rich.console import Console
from rich.live import Live
from rich.text import Text

from rh_prefect.cli.live_view import LiveView
from rh_prefect.display_texts import counted, shortened
from rh_prefect.errors import RunningHubError
from rh_prefect.flow_runs import progress_observer
from rh_prefect.flow_runs.progress_observer import ENDED, RunProgress, known_run_progress
from rh_prefect.media.input_files import shown
from rh_prefect.media.store import LONGEST_LINK, MediaStore
from rh_prefect.pipelines.parsed_document import visible
from rh_prefect.pipelines.plan.planned_steps import PlannedStep
from rh_prefect.pipelines.plan.work_identity import mark
from rh_prefect.pipelines.planning_values import File
from rh_prefect.pipelines.run.interfaces import Pages, What
from rh_prefect.pipelines.run.result import RunEnd, StepReport
from rh_prefect.works.events import JobEvent
from rh_prefect.works.journal.costs_and_budget import Costs
from rh_prefect.works.loop_thread import JOIN_SECONDS, LOOP

_MARKS = {"succeeded": "✓", "reused": "✓", "failed": "✗", "unknown": "?", "cancelled": "-"}
_REVIEWS_SHOWN = 30
_WAITED_SHOWN = 5
_CANDIDATE_LENGTH = 200

_SHOWN = {"submitted", "adopted", "waiting", "moved", *ENDED}
"""Events of a job that are printed; a terminal's live view shows the first two events itself."""

_OF_MANY = {"moved", "failed", "unknown", "cancelled"}
"""The events of a job that are printed in a run with at least `_MANY` jobs."""

_MANY = 50
"""Number of jobs from which a run prints a line of counts in place of each event."""

_EVERY = 10.0
"""Seconds between two lines of counts if the output is not a terminal."""


class Terminal(Console):
    """A console that stops writing when the reader of its output has ended, as in `… | head`."""

    def on_broken_pipe(self) -> None:
        """Ignores a broken pipe: `SystemExit` would end the jobs' thread, which writes the lines."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Watch(Pages):
    """Prints a line for each important event of a run; is also the view (`Pages`) of a run without a server.

    On Ctrl-C, prints the running tasks and the command that continues the run. With `quiet`, prints nothing.
    """

    choosing = "the terminal shows the candidates"

    def __init__(self, *, command: str, quiet: bool = False, out: str = "", place: Sequence[str] = ()) -> None:
        self._place = place
        self._records = f"RH_STORAGE_URL={shlex.quote(out)} " if out else ""
        self._is_quiet = quiet
        self._command = command
        self._next = 0.0
        self._news: set[str] = set()
        self._waited: dict[str, str] = {}  # Names of the jobs whose tasks another run has paid for, by job
        self._board = RunProgress()
        self._console = Terminal(highlight=False, soft_wrap=True, emoji=False, quiet=quiet)
        self._flow_run_id = ""
        self.candidates_in = "The report and the dashboard show the candidates"
        self._view = LiveView(self._board)
        self._live = Live(self._view, console=self._console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        progress_observer.listeners.append(self._take)
        if self._is_live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_live:
            self._live.stop()
        if kind is not None:
            self._say_how_to_go_on()
        progress_observer.listeners.remove(self._take)

    @property
    def waited(self) -> str:
        """A sentence about the results that the run took from tasks of other runs, for which it has waited."""
        names = list(self._waited.values())
        some = ", ".join(names[:_WAITED_SHOWN]) + (", …" if len(names) > _WAITED_SHOWN else "")
        return f"Waited for {counted(len(names), 'task')} of another run, and took: {some}. " if names else ""

    @property
    def _is_live(self) -> bool:
        """Whether the output is a terminal that can rewrite its lines."""
        return self._console.is_interactive and not self._console.is_dumb_terminal and not self._is_quiet

    def expect(self, jobs: int, *, estimate: Costs | None) -> None:
        """Sets the number of jobs, and their estimated cost if there is one."""
        self._board.expect(jobs, estimate=estimate)

    def _see_estimate(self) -> None:
        known = known_run_progress(self._flow_run_id)
        if known is not None and known.estimate and not self._board.estimate:
            self.expect(known.expected, estimate=known.estimate)
            self._console.print(self._estimate())

    def _estimate(self) -> str:
        return f"{self._board.expected} job(s), estimate {self._board.estimate} from catalogue prices"

    def tell(self, what: What, *, pipeline: str, run: str, **payload: Any) -> None:  # noqa: ARG002
        """Receives the name of a run without a server, and prints it if the run has something to pay for."""
        if what == "planned":
            self._flow_run_id = run
            if self._board.estimate:
                self._console.print(f"{run}: {self._estimate()}")

    def started(self, flow_run_id: str) -> None:
        """Prints the flow run's id, and the address of its page in the dashboard if Prefect knows it."""
        self._flow_run_id = flow_run_id
        ui = PREFECT_UI_URL.value()
        self._console.print(f"flow run {flow_run_id}" + (f"  {ui}/runs/flow-run/{flow_run_id}" if ui else ""))

    def say_output(self, name: str, value: Any) -> None:
        """Prints an output; on a terminal, prints a file as a link with a short name."""
        uri = getattr(value, "uri", None)
        if uri is None or not self._console.is_terminal:
            print(f"{name}: {uri or value}")
            return
        url = ""
        with suppress(RunningHubError, OSError):
            url = value.url(seconds=LONGEST_LINK)
        short = _with_short_names(uri)
        # Another console: the results are printed even if the progress is not.
        console = Console(highlight=False, soft_wrap=True)
        console.print(Text(f"{name}: ").append(short, style=f"link {url}" if url else ""))

    def say_how_to_open(self, report: str) -> None:
        """Prints the command that opens the results of a run; `report` is the address of the run's report."""
        self.say_command("open it", shlex.join(["rh-prefect", "open", report.split("/")[-2], *self._place]))

    async def show_end(
        self,
        end: RunEnd,  # noqa: ARG002
        rows: Sequence[StepReport],  # noqa: ARG002
        reviews: Sequence[PlannedStep],
        *,
        store: MediaStore,  # noqa: ARG002
    ) -> None:
        """Prints the candidates of reviews."""
        for review in reviews[:_REVIEWS_SHOWN]:
            if review.ask:
                print(f"{review.address}: {visible(review.ask)}")
            for words, value in review.numbered_candidates:
                print(f"  {words}  {_shown(value)}")
        self.candidates_in = "The candidates are listed above"
        if len(reviews) > _REVIEWS_SHOWN:
            self.candidates_in += f", those of the first {_REVIEWS_SHOWN} reviews; the report has all files"

    def _take(self, event: JobEvent) -> None:
        self._see_estimate()
        self._view.update(event)
        if event.state == "adopted":
            self._waited[event.job] = event.name
        elif event.state in ("submitted", "failed"):
            self._waited.pop(event.job, None)  # its result is not from the other run
        if not event.is_edit:
            self._board.update(event)
        is_row = self._is_live and event.state in ("submitted", "adopted")
        is_row |= event.is_edit and event.state == "reused"  # nothing has happened
        if self._board.total >= _MANY:
            self._show_of_many(event)
        elif event.state in _SHOWN and not is_row:
            mark = _MARKS.get(event.state, "·")
            line = _with_short_names(event.line) if self._is_live else event.line
            self.say(f"{self._view.seconds:6.1f} s {mark} {line}")

    def _show_of_many(self, event: JobEvent) -> None:
        # Several jobs may report that the same account is excluded; the message is printed once.
        if event.state in _OF_MANY and event.message not in self._news:
            self._news.add(event.message)
            self.say(event.line)
        if not self._is_live and self._view.seconds >= self._next:
            self._next = self._view.seconds + _EVERY
            self.say(" · ".join(filter(None, (self._view.line, self._view.money))))

    def say(self, line: str, *, style: str | None = None) -> None:
        """Prints a line, in which characters that cannot be printed are replaced."""
        self._console.print(line.encode("utf-8", "backslashreplace").decode(), style=style, markup=False)

    def say_command(self, what: str, command: str) -> None:
        """Prints a command after a run; not with rich, which replaces tabs and so makes another command."""
        if not self._is_quiet:
            print(f"{what}: {command}")

    def _say_how_to_go_on(self) -> None:
        named = self._say_running(set())
        has_submitted = any(event.task_id or event.state == "unknown" for event in self._board.rows.values())
        if has_submitted or LOOP.is_submitting:
            print(f"continue (nothing is paid for twice): {self._command}", file=sys.stderr)
        if LOOP.is_submitting:  # the process waits for the submissions' answers before it ends
            LOOP.call_sync(LOOP.settle(JOIN_SECONDS))
            named |= self._say_running(named)
        if self._flow_run_id and named:
            cancel = f"{self._records}rh-prefect jobs cancel {self._flow_run_id}"
            print(f"or cancel running tasks:         {cancel}", file=sys.stderr)

    def _say_running(self, named: set[str]) -> set[str]:
        """Prints the running tasks that were not printed before, and returns these tasks."""
        running = {event.task_id: event.name for event in self._board.rows.values() if event.state not in ENDED}
        new = {task: name for task, name in running.items() if task and task not in named}
        for task, name in new.items():
            print(f"still running at RunningHub: task {task}  {name}", file=sys.stderr)
        return {task for task in new if task}


def _with_short_names(line: str) -> str:
    """Shortens to eight digits those file names that are hashes of the files' content."""
    return re.sub(r"([0-9a-f]{8})[0-9a-f]{56}", r"\1…", line)


def _shown(candidate: Any) -> str:
    """Returns a candidate on one line: the address of a file, or the beginning of a text."""
    if isinstance(candidate, File):
        return shown(candidate.address or (candidate.media.uri if candidate.media is not None else ""))
    text = candidate if isinstance(candidate, str) else json.dumps(mark(candidate), ensure_ascii=False)
    return shortened(visible(" ".join(text.split())), _CANDIDATE_LENGTH)

"""The jobs of a run, for the run's table and progress bar, and the observer that logs each event of a job."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final
from uuid import UUID

from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from rh_prefect.artifacts import Page, Progress
from rh_prefect.bounded_caches_and_locks import LruCache
from rh_prefect.flow_runs.cancellation import watch
from rh_prefect.flow_runs.file_lineage import emit_asset
from rh_prefect.flow_runs.root_flow_run import current_scope
from rh_prefect.flow_runs.run_queries_and_scopes import FlowScope
from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore, link_to
from rh_prefect.pipelines.run.result import StepReport, StepState
from rh_prefect.prefect_internals import emit, flow_contexts, is_exiting
from rh_prefect.works.events import JobEvent, JobEventState, Observer
from rh_prefect.works.journal.costs_and_budget import Costs

_STATES: Final[dict[JobEventState, StepState]] = {
    "succeeded": "made",
    "reused": "reused",
    "failed": "failed",
    "cancelled": "cancelled",
    "unknown": "unknown",
}
"""The state of a row of the run's table, by the last state of its job."""

ENDED = frozenset(_STATES)

_GRAPHS_IN_LINE = 3
"""Maximum number of running graphs whose progress is shown in the line above the bar."""

FILES_KEPT = 200
"""Maximum number of jobs whose files are stored for the run's report."""

_CACHE_SIZE = 200
"""Maximum number of runs whose progress one process keeps, so that a long-lived process does not grow forever."""


@dataclass(slots=True)
class RunProgress:
    """The jobs of one root flow run in this process, in the order of their first events.

    `ends` has a sentence for each pipeline that has shown its own table and results.
    """

    rows: dict[str, JobEvent] = field(default_factory=dict)
    expected: int = 0
    ends: dict[str, str] = field(default_factory=dict)
    page: Page | None = None
    estimate: Costs | None = None
    files: dict[str, tuple[Media, ...]] = field(default_factory=dict)  # The files of the first ended jobs, by job
    store: MediaStore | None = None  # Where the newest job's files go
    progress: Progress = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    # Counted on each change: every event reads the counts, and a run may have thousands of rows.
    _states: Counter[str] = field(default_factory=Counter)
    _steps: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # The root's page: a nested flow's jobs are the root's jobs.
        self.progress = Progress(page=self.page)

    def update(self, event: JobEvent) -> None:
        """Records an event of a job: its new state, and its task, costs and files if the event has them."""
        with self._lock:
            known = self.rows.get(event.job)
            if known is not None:
                task_id = known.task_id if event.task_id is None else event.task_id
                event = replace(event, task_id=task_id, costs=event.costs or known.costs)
            if event.files and len(self.files) < FILES_KEPT:
                self.files[event.job] = event.files
            self.rows[event.job] = replace(event, files=())
            self._states[event.state] += 1
            if known is not None:
                self._states[known.state] -= 1
            if event.is_step:
                self._steps[event.job] = None
            else:
                self._steps.pop(event.job, None)

    def expect(self, jobs: int, *, estimate: Costs | None = None) -> None:
        """Sets the expected number of jobs and their expected cost; see `expect_jobs`."""
        self.expected = jobs
        self.estimate = estimate or self.estimate

    @property
    def ended(self) -> int:
        """The number of jobs that have ended, with or without a result."""
        return sum(self._states[state] for state in ENDED)

    @property
    def done(self) -> int:
        """The number of jobs with a result."""
        return self._states["succeeded"] + self._states["reused"]

    @property
    def total(self) -> int:
        """The number of jobs, including expected jobs."""
        return max(self.expected, len(self.rows))

    @property
    def percent(self) -> float:
        """The percentage of jobs that have ended, 0 to 100."""
        return 100.0 * self.ended / self.total if self.total else 0.0

    @property
    def percent_done(self) -> float:
        """The percentage of jobs with a result, 0 to 100; the bar shows it at the end of the run."""
        return 100.0 * self.done / self.total if self.total else 0.0

    @property
    def line(self) -> str:
        """The text above the bar: the numbers of jobs by state, and the progress of graphs."""
        with self._lock:
            events = [self.rows[job] for job in islice(self._steps, _GRAPHS_IN_LINE)]
        estimate = [f"estimate {self.estimate}"] if self.estimate else []
        messages = (f"{event.label or event.model}: {event.message}" for event in events)
        return "; ".join([", ".join([self.counts, *estimate]), *messages])

    @property
    def counts(self) -> str:
        """The numbers of jobs that have ended, by state."""
        bad = (f"{number} {state}" for state in ("failed", "unknown", "cancelled") if (number := self._states[state]))
        return ", ".join([f"{self.done} of {self.total} jobs done", *bad])

    @property
    def summary(self) -> str:
        """The text above the progress bar of a run that has ended, and the last line of its log."""
        # The task of a job that is being collected has ended.
        events = [event for event in self._events() if event.state not in ENDED | {"collecting"}]
        running = sum(bool(event.task_id) for event in events)
        waiting = self.total - self.ended - running
        tasks = "1 task continues" if running == 1 else f"{running} tasks continue"
        parts = [f"{waiting} not finished"] if waiting else []
        parts += [f"{tasks} and will be charged"] if running else []
        return ", ".join([self.counts, *parts, f"cost {self.cost}{' so far' if running else ''}"])

    @property
    def end(self) -> str:
        """The text at the end of the progress bar: that of the only pipeline, which counts earlier attempts as well."""
        return next(iter(self.ends.values())) if len(self.ends) == 1 else self.summary

    @property
    def has_work(self) -> bool:
        """Whether any job has not ended yet."""
        return self.ended < len(self.rows)

    @property
    def cost(self) -> Costs:
        """The known total cost of all jobs."""
        return Costs.total(event.costs for event in self._events())

    @property
    def outputs(self) -> dict[str, Media]:
        """The files of the first jobs that have ended, by a number and the job's name."""
        with self._lock:
            found = [(self.rows[job].name, file) for job, files in self.files.items() for file in files]
        return {f"{number}. {name}": file for number, (name, file) in enumerate(found, 1)}

    def steps(self) -> list[StepReport]:
        """Returns the rows of the run's table, one for each job."""
        return list(map(_step, self._events()))

    def _events(self) -> list[JobEvent]:
        with self._lock:  # the loop thread adds rows meanwhile
            return list(self.rows.values())


def _step(event: JobEvent) -> StepReport:
    state = _STATES.get(event.state, "unfinished")
    return StepReport(
        step=event.name,
        model=event.model,
        state=state,
        cost=str(event.costs) if event.costs else "",
        files=(event.output,) if event.output else (),
        reason="" if state in ("made", "reused") else event.message.removeprefix(f"{event.job}: "),
        subject=event.prompt if event.label else "",
        seconds=event.run_seconds,
        tasks=(event.task_id,) if event.task_id else (),
        jobs=(event.job,),
    )


_progress_by_run: LruCache[str, RunProgress] = LruCache(_CACHE_SIZE)


def run_progress_of(page: Page) -> RunProgress:
    """Returns the `RunProgress` of the root flow run that `page` shows."""
    return _progress_by_run.setdefault(str(page.flow_run_id), RunProgress(page=page))


def _progress_in(scope: FlowScope) -> RunProgress:
    page = Page.of_context(flow_contexts()[-1])
    if page is None or str(page.flow_run_id) != scope.journal.scope:  # a worker process has only the name of the root
        page = Page(scope.flow, UUID(scope.journal.scope))
    return run_progress_of(page)


def known_run_progress(flow_run_id: str) -> RunProgress | None:
    """Returns the `RunProgress` of a root flow run in this process; None if the run has no jobs here, or has ended."""
    return _progress_by_run.get(flow_run_id)


def forget_run_progress(flow_run_id: str) -> None:
    """Removes the `RunProgress` of a flow run that has ended."""
    _progress_by_run.pop(flow_run_id, None)


_EVENTS: Final = (ENDED | {"submitted", "adopted"}) - {"reused"}
_LEVELS: Final[dict[JobEventState, int]] = {
    # A batch has hundreds of these, and the run's table also shows them.
    "queued": logging.DEBUG,
    "submitted": logging.DEBUG,
    "running": logging.DEBUG,
    "collecting": logging.DEBUG,
    "moved": logging.WARNING,
    "failed": logging.ERROR,
    "unknown": logging.ERROR,
}
_log = logging.getLogger("rh_prefect")

listeners: list[Callable[[JobEvent], None]] = []
"""Functions that are called with each event in this process, on the package's loop thread; the command line uses
them."""


class RunObserver:
    """Passes each event of the jobs of one call to the log, the run's progress and the listeners."""

    def __init__(self, log: logging.Logger | logging.LoggerAdapter[logging.Logger], status: RunProgress | None) -> None:
        self._log = log
        self._status = status

    def notify(self, event: JobEvent) -> None:
        """Forwards an event to the run's progress, log and listeners; see `rh_prefect.works.events.Observer`.

        If one of these raises errors, only its first error is logged; the job continues, because it may be paid for.
        """
        _guarded(self._write, event)
        if self._status is not None and not event.is_edit and not is_exiting():
            _guarded(self._show, event)
        for listener in tuple(listeners):
            _guarded(listener, event)

    def _write(self, event: JobEvent) -> None:
        level = _LEVELS.get(event.state, logging.INFO)
        log = _log if is_exiting() else self._log
        if not event.is_step and not event.is_edit and log.isEnabledFor(level):
            log.log(level, "%s", event.line if event.label else f"{event.model}: {event.message}")

    def _show(self, event: JobEvent) -> None:
        # Outside of flows there may be no Prefect API at all, and an event would start a throw-away server for itself.
        if self._status is not None:
            self._status.update(event)
            watch(self._status)
            self._status.progress.report(self._status.percent, self._status.line)
            if event.state in _EVENTS:
                _emit(event, self._status)


_failed: set[Callable[[JobEvent], None]] = set()
"""Listeners whose failure was logged already."""


def _guarded(listener: Callable[[JobEvent], None], event: JobEvent) -> None:
    """Calls a listener with an event; of all errors of this listener, only the first one is logged."""
    try:
        listener(event)
    except Exception as error:
        what = getattr(listener, "__func__", listener)
        if what in _failed:
            return
        _failed.add(what)
        text = "%s: a listener failed with %r. The job continues; later failures of this listener are not logged."
        with suppress(Exception):  # what failed may be a handler of the log
            _log.warning(text, event.job, error, exc_info=error)


def run_observer(store: MediaStore | None = None) -> Observer:
    """Returns an observer for the caller's run; `store` is the storage for the files of the run's jobs."""
    scope = current_scope()
    status = _progress_in(scope) if scope is not None else None
    if status is not None:
        status.store = store or status.store
    return RunObserver(run_logger(), status)


def run_logger() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    """Returns Prefect's logger for the caller's run; outside of runs, the package's logger."""
    try:
        return get_run_logger()
    except MissingContextError:
        return _log


def expect_jobs(number: int, *, estimate: Costs | None = None) -> None:
    """Sets the number of paid jobs expected in the current run, and their total price according to the catalogue."""
    scope = current_scope()
    if scope is not None:
        _progress_in(scope).expect(number, estimate=estimate)


def mark_reported(pipeline: str, end: str) -> None:
    """If the flow run is the root, records that a pipeline has shown its own table and results, and how it ended."""
    page = Page.current()
    status = known_run_progress(str(page.flow_run_id)) if page is not None else None
    if status is not None:
        status.ends[pipeline] = end


def _emit(event: JobEvent, status: RunProgress) -> None:
    cost = None if event.cost is None else str(event.cost)
    emit(
        event=f"runninghub.job.{event.state}",
        resource={
            "prefect.resource.id": f"runninghub.job.{event.task_id or event.job.replace('/', '.')}",
            "prefect.resource.name": event.label or event.model,
            "runninghub.model": event.model,
        },
        payload={
            "job": event.job,
            "task_id": event.task_id,
            "message": event.message,
            "cost": cost,
            "currency": event.currency,
            "run_seconds": event.run_seconds,
            "output": event.output,
            "link": link_to(event.output, status.store) if event.output else None,
        },
    )
    facts = {"model": event.model, "cost": cost, "currency": event.currency, "job": event.job, "task_id": event.task_id}
    run = status.page.flow_run_id if status.page is not None else None
    for file in event.files if event.state == "succeeded" else ():
        emit_asset(file, sources=event.sources, flow_run=run, step=event.label, **facts)

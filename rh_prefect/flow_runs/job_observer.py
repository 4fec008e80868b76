"""Tells Prefect what happens to a job: a log line and an event for each change of state, never for a look."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from prefect.events import emit_event
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from rh_prefect.flow_runs.cancellation import watch
from rh_prefect.flow_runs.run_status import RunStatus, run_status_of
from rh_prefect.flow_runs.scope import current_scope
from rh_prefect.jobs.events import JobEvent, JobEventState, Observer
from rh_prefect.jobs.journal.costs import Costs
from rh_prefect.media.media import Media

_EVENTS: Final[frozenset[JobEventState]] = frozenset(
    {"submitted", "adopted", "succeeded", "failed", "cancelled", "unknown"}
)
_LEVELS: Final[dict[JobEventState, int]] = {
    # A batch has hundreds of these, and the run's table says them too.
    "submitted": logging.DEBUG,
    "running": logging.DEBUG,
    "collecting": logging.DEBUG,
    "moved": logging.WARNING,
    "failed": logging.ERROR,
    "unknown": logging.ERROR,
}
_log = logging.getLogger("rh_prefect")

listeners: list[Callable[[JobEvent], None]] = []
"""Called with every change in this process, on the package's loop thread; the command line shows them."""


class RunObserver:
    """Watches the jobs of one call."""

    def __init__(self, log: logging.Logger | logging.LoggerAdapter[logging.Logger], board: RunStatus | None) -> None:
        """Sets up the watch.

        Args:
            log: Prefect's run logger, or the package's own outside of runs.
            board: The run's board; None outside of flows.
        """
        self._log = log
        self._board = board

    def notify(self, event: JobEvent) -> None:
        """Passes a change on; see `rh_prefect.jobs.events.Observer`.

        A part of it that fails is logged once and stops nothing: the job may be paid for.
        """
        _guarded(self._write, event)
        if self._board is not None:
            _guarded(self._show, event)
        for listener in tuple(listeners):
            _guarded(listener, event)

    def _write(self, event: JobEvent) -> None:
        level = _LEVELS.get(event.state, logging.INFO)
        if not event.is_step and self._log.isEnabledFor(level):
            name = event.label or event.model
            self._log.log(level, "%s: %s", name, event.message)

    def _show(self, event: JobEvent) -> None:
        # Outside of flows there may be no Prefect API at all, and an event would start a throw-away server for itself.
        if self._board is not None:
            self._board.take(event)
            watch(self._board)
            _show_progress(self._board)
            if event.state in _EVENTS:
                _emit(event)


_failed: set[Callable[[JobEvent], None]] = set()
"""Listeners whose failure was logged."""


def _guarded(listener: Callable[[JobEvent], None], event: JobEvent) -> None:
    """Calls a listener; whatever it raises is logged the first time."""
    try:
        listener(event)
    except Exception as error:
        what = getattr(listener, "__func__", listener)
        if what in _failed:
            return
        _failed.add(what)
        with suppress(Exception):  # what failed may be a handler of the log
            _log.warning(
                "%s: a listener failed with %s: %s. The job goes on; later failures of it are not logged.",
                event.job,
                type(error).__name__,
                error,
                exc_info=error,
            )


def run_observer() -> Observer:
    """Makes an observer for the run that the caller is in."""
    scope = current_scope()
    board = run_status_of(scope.journal.scope, flow=scope.flow) if scope is not None else None
    try:
        return RunObserver(get_run_logger(), board)
    except MissingContextError:
        return RunObserver(_log, board)


def expect_jobs(number: int, *, estimate: Costs | None = None) -> None:
    """Says how many paid jobs the run that the caller is in will have, and what they will cost by the catalogue.

    Args:
        number: All of them, those included that are done already.
        estimate: What they will cost together, where it is known.
    """
    scope = current_scope()
    if scope is not None:
        run_status_of(scope.journal.scope, flow=scope.flow).expect(number, estimate=estimate)


def add_results(files: Mapping[str, Media]) -> None:
    """Names what the run that the caller is in was for, to be shown at its end.

    Args:
        files: Each with a name.
    """
    scope = current_scope()
    if scope is not None:
        run_status_of(scope.journal.scope, flow=scope.flow).results.update(files)


_showing: set[asyncio.Task[None]] = set()


def _show_progress(board: RunStatus) -> None:
    if not board.progress.is_due:
        return
    # Nobody waits for the bar; the set only keeps the task from being collected as garbage.
    task = asyncio.ensure_future(board.progress.report(board.percent, description=board.line))
    _showing.add(task)
    task.add_done_callback(_showing.discard)


def _emit(event: JobEvent) -> None:
    emit_event(
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
            "cost": None if event.cost is None else str(event.cost),
            "currency": event.currency,
            "run_seconds": event.run_seconds,
            "output": event.output,
        },
    )

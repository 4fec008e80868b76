"""Cancels the tasks of a flow run, and detects in the run's process that the run was cancelled."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from uuid import UUID

from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.logging.loggers import flow_run_logger

from rh_prefect.artifacts import Page
from rh_prefect.blocks.lookup import RECORDED
from rh_prefect.errors import ConfigError, RunningHubError
from rh_prefect.flow_runs.run_queries_and_scopes import FlowScope, has_ended, is_suspended, scope_of
from rh_prefect.pipelines.rounds_across_runs import leave_rounds
from rh_prefect.prefect_api import FAILURES, ask, disconnect
from rh_prefect.settings import get_settings
from rh_prefect.works.journal.journal import UnreadableRecord
from rh_prefect.works.journal.scope import Scope, forbid_attempt
from rh_prefect.works.journal.spool import Spool
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.run_cancellation import CancelReport, cancel_scope

if TYPE_CHECKING:
    from rh_prefect.flow_runs.progress_observer import RunProgress  # it starts the watch


async def cancel_run(scope: Scope, *, by: str) -> CancelReport:
    """Cancels a run's tasks, each on the account that paid for it; runs on the loop thread."""
    if isinstance(scope, FlowScope):
        # An earlier attempt may have been abandoned while its process, disconnected from Prefect, continued.
        attempts = range(scope.attempt, 0, -1)
        await asyncio.gather(*(forbid_attempt(scope.journal, attempt, by=by) for attempt in attempts))
    spool = Spool(get_settings().state_dir / "spool")
    report = await cancel_scope(scope, RECORDED.provider_of, by=by, has_ended=has_ended, spool=spool)
    try:
        if (works := await scope.works()) is not None:
            await leave_rounds(scope.journal, works.rounds)
    except UnreadableRecord as error:  # the report says which tasks are cancelled
        report.failed.setdefault(scope.journal.scope, error.message)
    return report


EVERY: Final = 5.0
"""Seconds between two checks, each of which is one small request for all jobs of the run."""

_log = logging.getLogger("rh_prefect")
_watches: dict[UUID, tuple[asyncio.Event, asyncio.Task[None]]] = {}
"""The task that watches each flow run, and the event that ends the watch early when the process exits."""


def watch(status: RunProgress) -> None:
    """Checks at intervals whether a run was cancelled, until its jobs or the run have ended.

    A call for a run that is already watched has no effect.
    """
    page = status.page
    if page is not None and page.flow_run_id not in _watches and status.has_work:
        ends = asyncio.Event()
        task = asyncio.ensure_future(_watch(status, page, ends))
        _watches[page.flow_run_id] = ends, task
        task.add_done_callback(lambda _: _watches.pop(page.flow_run_id, None))


async def _watch(status: RunProgress, page: Page, ends: asyncio.Event) -> None:
    is_on = True
    while is_on and status.has_work:
        with suppress(TimeoutError):
            await asyncio.wait_for(ends.wait(), EVERY)
        is_on = await _look(page, is_last=ends.is_set()) and not ends.is_set()


async def _look(page: Page, *, is_last: bool) -> bool:
    """Cancels the tasks of a run if the run was cancelled; returns whether to check again."""
    try:
        flow_run = await ask(lambda api: api.read_flow_run(page.flow_run_id))
    except ObjectNotFound:
        return False
    except (*FAILURES, ConfigError):
        return True
    state = flow_run.state
    if state is not None and (state.is_cancelling() or state.is_cancelled()):
        # While the process exits, Prefect's log handler cannot start the thread that sends lines to the dashboard.
        await _cancel(flow_run, _log if is_last else flow_run_logger(flow_run), page.flow)
        return False
    return state is None or not (state.is_final() or is_suspended(state))


async def _cancel(flow_run: FlowRun, log: logging.Logger | logging.LoggerAdapter[logging.Logger], flow: str) -> None:
    try:
        report = await cancel_run(scope_of(flow_run, flow), by="the run's own process")
    except RunningHubError as error:
        # The hook, or `reconcile`, tries again and reports it.
        log.warning("some tasks could not be cancelled at RunningHub yet, and may be charged: %s", error.message)
    else:
        for job, why in report.failed.items():
            log.warning("%s: could not be cancelled yet, and may be charged: %s", job, why)
        if report.cancelled:  # else another process has cancelled them, and says so
            log.info("the run is cancelled: cancelled %d task(s) at RunningHub", len(report.cancelled))


async def _last_look() -> None:
    """Checks all watched runs once more at process exit, which often comes a second after a cancellation."""
    # Each watch looks itself, with the Prefect API of its run; the present settings may name another API.
    looking = list(_watches.values())
    for ends, _ in looking:
        ends.set()
    await asyncio.gather(*(task for _, task in looking), return_exceptions=True)
    await disconnect()


LOOP.on_close(_last_look)
# The watches run on the event loop of the parent, which a forked child does not have.
os.register_at_fork(after_in_child=_watches.clear)

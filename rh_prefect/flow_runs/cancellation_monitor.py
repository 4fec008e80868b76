"""Notices that a flow run is being cancelled while its own process lives.

The cancellation hook comes after that process has gone, which takes a flow that blocks half a minute, and is called by
a worker only. So the process itself looks now and then how its run is, and once more when it ends.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Final
from uuid import UUID

import httpx
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.logging.loggers import flow_run_logger

from rh_prefect.connection import connect, disconnect
from rh_prefect.errors import ConfigError, RunningHubError
from rh_prefect.flow_runs.cancellation import cancel_run
from rh_prefect.flow_runs.queries import scope_of
from rh_prefect.flow_runs.run_status import RunStatus
from rh_prefect.jobs.loop_thread import LOOP

EVERY: Final = 3.0
"""Seconds between two looks: one small request for each process that has paid jobs, however many they are."""

_log = logging.getLogger("rh_prefect")
_watched: dict[UUID, tuple[asyncio.Event, asyncio.Task[None]]] = {}
"""What each watch waits for between its looks: that the process ends."""


def watch(board: RunStatus) -> None:
    """Looks after a run from now on, until its jobs have ended or it has; on the loop thread.

    Args:
        board: The root flow run's; watching it twice has no effect.
    """
    if board.page is not None and board.page.flow_run_id not in _watched and board.has_work:
        run = board.page.flow_run_id
        ends = asyncio.Event()
        task = asyncio.ensure_future(_watch(board, run, ends))
        _watched[run] = ends, task
        task.add_done_callback(lambda _: _watched.pop(run, None))


async def _watch(board: RunStatus, run: UUID, ends: asyncio.Event) -> None:
    is_on = True
    while is_on and board.has_work:
        with suppress(TimeoutError):
            await asyncio.wait_for(ends.wait(), EVERY)
        is_on = await _look(board, run, is_last=ends.is_set()) and not ends.is_set()


async def _look(board: RunStatus, run: UUID, *, is_last: bool) -> bool:
    """Cancels what a run has submitted, if it is cancelled; tells whether to look again."""
    try:
        connection = await connect()
        async with connection.gate:
            flow_run = await connection.client.read_flow_run(run)
    except (httpx.HTTPError, ConfigError):
        return True
    except ObjectNotFound:
        return False
    state = flow_run.state
    if state is not None and (state.is_cancelling() or state.is_cancelled()):
        # Once the process is ending, Prefect's handler can no longer start what sends a line to the dashboard.
        await _cancel(flow_run, _log if is_last else flow_run_logger(flow_run), board.page.flow if board.page else "")
        return False
    return state is None or not (state.is_final() or state.is_paused())


async def _cancel(flow_run: FlowRun, log: logging.Logger | logging.LoggerAdapter[logging.Logger], flow: str) -> None:
    try:
        report = await cancel_run(scope_of(flow_run, flow), by="the run's own process")
    except RunningHubError as error:
        # The hook, or `reconcile`, does it again and says so.
        log.warning("not all could be cancelled at RunningHub yet: %s", error.message)
    else:
        log.info("the run is cancelled: cancelled %d task(s) at RunningHub", len(report.cancelled))


async def _last_look() -> None:
    """A run that is cancelled ends its process within a second or two, mostly between two looks."""
    # By the watches themselves: they know the Prefect API of their run, which is not what the settings name by now.
    looking = list(_watched.values())
    for ends, _ in looking:
        ends.set()
    await asyncio.gather(*(task for _, task in looking), return_exceptions=True)
    await disconnect()


LOOP.on_close(_last_look)

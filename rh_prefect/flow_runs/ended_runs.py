"""Finds flow runs that have ended, or are being cancelled, and may have left something at RunningHub."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound

from rh_prefect.connection import connect
from rh_prefect.errors import ConfigError
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.queries import BATCH

_PAGE: Final = 200
"""Prefect's default limit of a page: a longer one may be refused."""
_ENDED: Final = [StateType.CANCELLED, StateType.CRASHED, StateType.FAILED]


async def ended_run(flow_run_id: UUID) -> FlowRun:
    """Reads one flow run, whatever its state.

    Args:
        flow_run_id: The flow run.

    Raises:
        ConfigError: There is no such flow run.
    """
    connection = await connect()
    try:
        async with connection.gate:
            return await connection.client.read_flow_run(flow_run_id)
    except ObjectNotFound as error:
        raise ConfigError(
            f"There is no flow run {flow_run_id}. What to do: see `rh-prefect jobs list`, and check PREFECT_API_URL."
        ) from error


async def ended_runs(*, hours: float) -> AsyncIterator[FlowRun]:
    """Lists the flow runs that are being cancelled, and those that did not complete, the newest end first.

    Args:
        hours: How long ago they may have ended.
    """
    since = datetime.now(UTC) - timedelta(hours=hours)
    cancelling = FlowRunFilter(state=_in(StateType.CANCELLING))
    ended = FlowRunFilter(state=_in(*_ENDED), end_time=FlowRunFilterEndTime(after_=since))
    seen: set[UUID] = set()
    for wanted in (cancelling, ended):
        async for flow_run in _all(wanted):
            # A run that ends meanwhile moves the pages on, so that one may be seen twice.
            if flow_run.id not in seen:
                seen.add(flow_run.id)
                yield flow_run


async def has_records(journal: FlowRunJournal) -> bool:
    """Tells whether a flow run has paid jobs, in its own scope or in that of a batch; one or two requests.

    Args:
        journal: The flow run's.
    """
    async for _ in journal.keys():
        return True
    return bool(await journal.job(BATCH))


def _in(*types: StateType) -> FlowRunFilterState:
    return FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types)))


async def _all(wanted: FlowRunFilter) -> AsyncIterator[FlowRun]:
    connection = await connect()
    offset, full = 0, True
    while full:
        async with connection.gate:
            page = await connection.client.read_flow_runs(
                flow_run_filter=wanted, sort=FlowRunSort.END_TIME_DESC, limit=_PAGE, offset=offset
            )
        for flow_run in page:
            yield flow_run
        full, offset = len(page) == _PAGE, offset + _PAGE

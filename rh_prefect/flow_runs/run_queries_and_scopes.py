"""Queries the Prefect API about other flow runs: finds their scopes and the runs that have paid jobs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterStartTime,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from rh_prefect.blocks.lookup import load_storage
from rh_prefect.errors import ConfigError, InputError
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.log_entry_storage import PAGE
from rh_prefect.media.store import MediaStore
from rh_prefect.prefect_api import FAILURES, api_address, ask, ask_repeatedly, failure_of, is_available, patience
from rh_prefect.settings import get_settings
from rh_prefect.works.journal.journal import FolderJournal, Journal, UnreadableRecord
from rh_prefect.works.journal.scope import Scope, find_scope
from rh_prefect.works.journal.works_journal import WorksJournal, find_works, named_works, options_of_records
from rh_prefect.works.run_ledger import RecordsLocation, read_location

_log = logging.getLogger("rh_prefect")


class FlowScope(Scope):
    """The scope whose jobs belong to one flow run, with the journal of this run."""

    async def works(self) -> WorksJournal | None:
        """Opens the records of the works that the run shares with other runs; None if the run shares none."""
        return await works_of(self.journal)


async def works_of(run: Journal) -> WorksJournal | None:
    """Opens the records of the works that a flow run shares with other runs; None if the flow run shares none."""
    location = await read_location(run)
    if location is None:
        return None
    return await open_works_at(location)


async def open_works_at(location: RecordsLocation, store: MediaStore | None = None) -> WorksJournal:
    """Opens the records at a location, by default with the options of the storage block that the location names."""
    if store is None and location.storage is not None:
        store = await load_storage(location.storage)
    return WorksJournal(location.url, options=options_of_records(location.url, store, get_settings()))


def run_folder(flow_run: FlowRun) -> str:
    """Returns a flow run's short name for file names: the day of its creation, and the end of its id.

    The start of an id may be a time stamp, which runs that start together share.
    """
    end = flow_run.id.hex[-12:]
    return f"{flow_run.created:%Y-%m-%d}-{end}" if flow_run.created is not None else end


def scope_of(flow_run: FlowRun, flow_name: str) -> FlowScope:
    """Returns the scope of a flow run, as a caller outside of the run knows it, such as a hook or a command."""
    return FlowScope(
        journal=FlowRunJournal(flow_run.id),
        run=run_folder(flow_run),
        flow=flow_name,
        attempt=max(flow_run.run_count, 1),
        details={"flow_run": str(flow_run.id), "flow_run_name": flow_run.name},
    )


async def recorded_scope(flow_run: FlowRun) -> FlowScope:
    """Returns the scope of a flow run whose flow is read first."""
    return scope_of(flow_run, await flow_name_of(flow_run))


def is_flow_run(scope: str) -> bool:
    """Returns whether the name of a scope is a flow run's id, which is a UUID."""
    try:
        UUID(scope)
    except ValueError:
        return False
    return True


async def has_ended(flow_run: str) -> bool | None:
    """Returns whether a flow run has ended, according to its state in Prefect.

    Returns None if Prefect does not know the run or does not respond. A run that is suspended, paused, scheduled or
    awaiting a retry has not ended.
    """
    if not is_flow_run(flow_run) or not is_available():
        return None
    try:
        found = await ask(lambda api: api.read_flow_run(UUID(flow_run)))
    except (ObjectNotFound, ConfigError, *FAILURES):
        return None
    return found.state is not None and found.state.is_final()


def journal_of(scope: str, store: MediaStore | None = None) -> Journal:
    """Returns the journal of a scope: of a flow run, of works that runs share, or of a scope outside of flows.

    `store` is the storage of the calls outside of flows; by default RH_STORAGE_URL.
    """
    if not is_flow_run(scope):
        settings = get_settings()
        return find_works(scope, settings, store) or named_works(settings, store).notes_of(scope)
    if not PREFECT_API_URL.value():
        raise ConfigError(
            f"The journal of flow run {scope} is in the Prefect API, but PREFECT_API_URL is not set. "
            "What to do: set PREFECT_API_URL to the API that your flows use, as in "
            "`export PREFECT_API_URL=http://127.0.0.1:4200/api`."
        )
    return FlowRunJournal(scope)


async def scope_named(scope: str, store: MediaStore | None = None) -> Scope:
    """Returns a scope by its name; see `journal_of`. Raises `ConfigError` or `InputError` if there is none."""
    journal = journal_of(scope, store)
    if isinstance(journal, WorksJournal):
        raise InputError(
            f"{scope} is the folder of the jobs that runs share, not a run. Nothing was sent. What to do: name "
            "the run or the scope that uses these jobs, as `rh-prefect jobs list` shows it."
        )
    if not isinstance(journal, FolderJournal):
        return await recorded_scope(await read_flow_run(scope))
    works = named_works(get_settings(), store)
    if scope not in await asyncio.to_thread(works.scopes):
        raise InputError(
            f"{scope}: no run and no scope in {works.url} has this name. Nothing was sent. What to do: look up the "
            "name with `rh-prefect jobs list`, and check RH_RECORDS and RH_STORAGE_URL; if the storage is a block, "
            "pass --storage BLOCK."
        )
    return await find_scope(works, scope)


async def latest_runs() -> AsyncIterator[tuple[FlowRun, str, int]]:
    """Yields the flow runs with paid jobs among the latest 30, each with its flow's name and its number of jobs."""
    names: dict[UUID, str] = {}
    # Prefect sorts scheduled runs by the time at which they are expected to start.
    started, latest = FlowRunFilter(start_time=FlowRunFilterStartTime(is_null_=False)), FlowRunSort.START_TIME_DESC
    for flow_run in await ask(lambda api: api.read_flow_runs(flow_run_filter=started, sort=latest, limit=30)):
        if jobs := await paid_jobs(FlowRunJournal(flow_run.id), name=flow_run.name):
            if flow_run.flow_id not in names:
                names[flow_run.flow_id] = await flow_name_of(flow_run)
            yield flow_run, names[flow_run.flow_id], len(jobs)


_ENDED: Final = [StateType.CANCELLED, StateType.CRASHED, StateType.FAILED]


async def read_flow_run(flow_run_id: UUID | str, *, patience: float = 0.0) -> FlowRun:
    """Reads one flow run; raises `ConfigError` if it does not exist or cannot be read.

    If the API does not respond, the request is repeated for `patience` seconds.
    """
    what = f"The flow run {flow_run_id} cannot be read"
    absent = ConfigError(
        f"There is no flow run {flow_run_id}. What to do: copy the run's id again from `rh-prefect jobs list` or "
        "from the dashboard, and check that PREFECT_API_URL is the address of the server on which the flow ran."
    )
    if not is_flow_run(str(flow_run_id)):
        raise absent
    try:
        return await ask_repeatedly(lambda api: api.read_flow_run(UUID(str(flow_run_id))), what=what, patience=patience)
    except ObjectNotFound as error:
        raise absent from error
    except FAILURES as error:
        answer, advice = failure_of(error)
        raise ConfigError(f"{what}: the Prefect API at {api_address()}: {answer}. What to do: {advice}.") from error


def is_suspended(state: State[Any]) -> bool:
    """Returns whether a run is suspended, and so has no process; the process of a paused run is still alive."""
    return state.is_paused() and state.state_details.pause_reschedule


async def flow_name_of(flow_run: FlowRun) -> str:
    """Reads the name of a flow run's flow."""
    what = f"The flow of flow run {flow_run.id} cannot be read"
    return (await ask_repeatedly(lambda api: api.read_flow(flow_run.flow_id), what=what, patience=patience())).name


async def find_flow_runs(
    states: Sequence[StateType] = (),
    *,
    name: str | None = None,
    tags: Sequence[str] = (),
    ended_after: datetime | None = None,
    sort: FlowRunSort = FlowRunSort.ID_DESC,
) -> AsyncIterator[FlowRun]:
    """Yields the flow runs that meet all given conditions, and reads them page by page; `name` is that of the state."""
    state = FlowRunFilterState(
        type=FlowRunFilterStateType(any_=list(states)), name=FlowRunFilterStateName(any_=[name]) if name else None
    )
    chosen = FlowRunFilter(
        state=state if states else None,
        tags=FlowRunFilterTags(all_=list(tags)) if tags else None,
        end_time=FlowRunFilterEndTime(after_=ended_after) if ended_after is not None else None,
    )
    offset, is_more = 0, True

    async def read_page(api: PrefectClient) -> list[FlowRun]:
        return await api.read_flow_runs(flow_run_filter=chosen, sort=sort, limit=PAGE, offset=offset)

    while is_more:
        page = await ask(read_page)
        for flow_run in page:
            yield flow_run
        is_more, offset = len(page) == PAGE, offset + PAGE


async def ended_runs(*, hours: float) -> list[FlowRun]:
    """Returns the flow runs being cancelled, then unsuccessful runs that ended in the last `hours`, latest first."""
    since = datetime.now(UTC) - timedelta(hours=hours)
    cancelling = find_flow_runs([StateType.CANCELLING], sort=FlowRunSort.END_TIME_DESC)
    ended = find_flow_runs(_ENDED, ended_after=since, sort=FlowRunSort.END_TIME_DESC)
    # By id, because a run that ends meanwhile shifts the pages, so that a run may be listed twice.
    return list({one.id: one for runs in (cancelling, ended) async for one in runs}.values())


async def paid_jobs(journal: FlowRunJournal, *, name: str = "") -> list[str]:
    """Returns the jobs of a flow run that were or may have been submitted, and the works that a pipeline run claimed.

    A journal also contains records of other jobs: of calls before they submit, of reused results and, in a pipeline's
    run, of chosen takes and of other runs' tasks. A journal that cannot be read is logged, and counts as empty.
    """
    try:
        names = [name.partition("-") async for name in journal.names()]
    except UnreadableRecord as error:
        _log.warning("flow run %s is left out: %s", name or journal.scope, error.message)
        return []
    return list(dict.fromkeys(job for job, _, record in names if record.startswith(("intent-", "claim-"))))

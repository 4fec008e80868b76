"""The saved state of a batch: which flow run's journal holds its jobs, and the number of this attempt.

The journal of the flow run that first ran a batch stays the batch's journal: every later run, in any flow run, finds
there what was paid for. The state lies in the store, as `batches/<id>/state/<n>.json`: one file a run, each created
exclusively, so that two processes that begin a batch together agree. Where the store cannot create a file exclusively,
it lies in RH_RECORDS.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rh_prefect.errors import ConfigError, JournalError, MediaError
from rh_prefect.flow_runs.flow_scope import FlowScope
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.queries import ATTEMPTS_OF_A_BATCH, BATCH, RecordedScope, recorded_scope
from rh_prefect.flows.batch.batch_plan import Stage
from rh_prefect.media.input_files import file_state
from rh_prefect.media.store import MediaStore, lasting_place
from rh_prefect.settings import get_settings
from rh_prefect.works.journal.journal import FolderJournal, NotExclusive

_PLACE = "batchplace"
"""Begins the keys of a flow run's records of the batches that it began: `batchplace-1` names the first one."""

FOLDER = "batches"
"""Where batches keep state and report, in the store."""


class State(BaseModel):
    """One run of a batch.

    Attributes:
        token: Tells this very creation from any other.
        at: When it began, ISO 8601, UTC; for people.
        scope: The flow run whose journal holds the batch's jobs.
        run: Its short name, used in file names.
        flow: The name of its flow, used in file names.
        flow_run: The flow run that this is.
        run_count: Its attempt.
        attempt: The batch's attempt: what failed in an earlier one may be paid for again.
        first: The first attempt whose payments count together with this one's; see `Scope.first_attempt`.
        about: What the batch is, for people.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    token: str = Field(default_factory=lambda: uuid.uuid4().hex)
    at: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    scope: str
    run: str
    flow: str
    flow_run: str
    run_count: int
    attempt: int
    first: int
    about: dict[str, Any] = Field(default_factory=dict)


def batch_id(identity: object) -> str:
    """Returns an id of 16 hex digits that is computed from a batch's definition."""
    text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class StatePlace:
    """The storage location of the states of batches."""

    url: str
    options: Mapping[str, object] = field(default_factory=dict, repr=False)

    def journal(self, batch: str) -> FolderJournal:
        """Opens the state of a batch."""
        return FolderJournal(f"{self.url}/{FOLDER}", scope=batch, options=self.options)


async def find_state_place(store: MediaStore) -> StatePlace:
    """Finds the place for the states of batches that write to a store: the store, or else RH_RECORDS.

    Raises a `ConfigError` if neither can create a file exclusively, or if a worker would delete RH_RECORDS.
    """
    own = StatePlace(store.url, store.options_for(store.url))
    reason = await _unfit(own)
    if reason is None:
        return own
    records = get_settings().records
    if records is None:
        raise ConfigError(
            f"batch: its state cannot be stored in {store.url}, where two processes could create the same "
            "file, so that both would pay for the rows. No row was read. What to do: set RH_RECORDS to a "
            "folder or an S3 bucket that every machine that runs this batch shares, or write the outputs "
            "to one."
        )
    other = StatePlace(lasting_place(records).rstrip("/"))
    reason = await _unfit(other)
    if reason is not None:
        raise ConfigError(
            f"batch: its state cannot be stored in {store.url}, nor in RH_RECORDS. No row was read. {reason.message}"
        )
    return other


async def _unfit(place: StatePlace) -> NotExclusive | None:
    try:
        await place.journal("probe").check()
    except NotExclusive as error:
        return error
    except JournalError:
        return None  # another error, which the check of the store reports
    return None


async def enter(batch: str, place: StatePlace, here: FlowScope, *, about: Mapping[str, Any]) -> RecordedScope:
    """Starts a run of a batch, or continues one of the same attempt of the same flow run; returns its jobs' scope.

    Raises:
        ConfigError: The flow run whose journal it uses is not known to this Prefect API.
        JournalError: The state cannot be kept there.
    """
    files = place.journal(batch)
    try:
        state = await _begin(files, batch, here, about)
    except JournalError as error:
        raise JournalError(f"The state of batch {batch} cannot be stored: {error.message}") from error
    await _note(state, batch, here)
    return RecordedScope(
        journal=FlowRunJournal(state.scope),
        run=state.run,
        flow=state.flow,
        attempt=state.attempt,
        first=state.first,
        details={**here.details, "batch": batch},
    )


async def _begin(files: FolderJournal, batch: str, here: FlowScope, about: Mapping[str, Any]) -> State:
    while True:
        runs = _runs(await files.job("state"))
        mine = (here.journal.scope, here.attempt)
        known = next((run for run in runs if (run.flow_run, run.run_count) == mine), None)
        lender = runs[0] if runs else None
        if lender is not None and lender.scope != here.journal.scope:
            await _check(lender, batch, files)
        if known is not None:
            return known
        attempt = runs[-1].attempt + 1 if runs else await _first_attempt(batch, here)
        same = (run.attempt for run in runs if run.flow_run == mine[0] and run.run_count >= here.first_attempt)
        state = State(
            scope=lender.scope if lender else here.journal.scope,
            run=lender.run if lender else here.run,
            flow=lender.flow if lender else here.flow,
            flow_run=here.journal.scope,
            run_count=here.attempt,
            attempt=attempt,
            first=next(same, attempt),
            about=dict(about),
        )
        if await files.create(f"state-{len(runs) + 1}", state.model_dump(mode="json")):
            return state


async def _first_attempt(batch: str, here: FlowScope) -> int:
    """Returns the number of a batch's first attempt in the journal of a flow run that begins it; see `first_of_batch`.

    The place among the batches of the flow run is created exclusively: a flow run may begin several at the same time.
    """
    places = await here.journal.job(_PLACE)
    while not any(place["batch"] == batch for place in places.values()):
        await here.journal.create(f"{_PLACE}-{len(places) + 1}", {"batch": batch})
        places = await here.journal.job(_PLACE)
    (mine,) = (_number(key) for key, place in places.items() if place["batch"] == batch)
    return mine * ATTEMPTS_OF_A_BATCH + 1


def _runs(records: Mapping[str, Mapping[str, Any]]) -> list[State]:
    try:
        return [State.model_validate(records[key]) for key in sorted(records, key=_number)]
    except ValidationError as error:
        raise JournalError(
            f"its format is not the one of this version ({error.error_count()} field(s) wrong). What to "
            "do: use the version of this package that started the batch, or another output location."
        ) from error


def _number(key: str) -> int:
    return int(key.rpartition("-")[2])


async def _check(lender: State, batch: str, files: FolderJournal) -> None:
    try:
        await recorded_scope(lender.scope)
    except ConfigError as error:
        raise ConfigError(
            f"Batch {batch} was begun by the flow run {lender.scope}, whose journal says what is paid for, and this "
            "Prefect API does not know it. What to do: set PREFECT_API_URL to the API that it ran on. If that flow run "
            f"was deleted, delete {files.url}/{batch} to start over; `reuse` serves what lies in the store already."
        ) from error


async def _note(state: State, batch: str, here: FlowScope) -> None:
    """Records the batch's state in the flow run's journal, so that a cancellation of the flow run finds it."""
    await here.journal.create(f"{BATCH}-{batch}-{state.attempt}", state.model_dump(mode="json"))


def mark_of(
    stages: Sequence[Stage],
    params: Sequence[Mapping[str, object]],
    *,
    options_for: Callable[[str], Mapping[str, object]],
) -> str:
    """Returns a fingerprint of the state of a row's input files; if it changed, the row's jobs read the content."""
    found = [
        _state(one, options_for)
        for stage, step in zip(stages, params)
        for param in stage.model.file_params
        for one in _addresses(step.get(param.name))
    ]
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:16] if found else ""


def _addresses(value: object) -> Iterator[str]:
    if isinstance(value, list | tuple):
        for one in value:
            yield from _addresses(one)
    elif isinstance(value, str):
        yield value


def _state(address: str, options_for: Callable[[str], Mapping[str, object]]) -> str:
    """Returns a file's state; a unique text if the file's storage reports none."""
    try:
        stamp = file_state(address, options=options_for(address)).stamp
    except MediaError:
        stamp = None
    return stamp.text if stamp is not None else uuid.uuid4().hex

"""Computes the costs of tasks, each counted once, from the journals of all runs and the results in a storage.

Only the journals contain failed, cancelled and lost tasks and earlier attempts. But a journal is deleted with its flow
run; the stored results remain.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from uuid import UUID

from prefect.client.schemas.sorting import FlowRunSort

from rh_prefect.blocks.lookup import load_storage
from rh_prefect.errors import RunningHubError
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.run_queries_and_scopes import find_flow_runs, open_works_at
from rh_prefect.media.storage_urls import shown_url
from rh_prefect.media.store import MediaStore
from rh_prefect.prefect_api import FAILURES, api_address
from rh_prefect.settings import get_settings
from rh_prefect.works import stored_result
from rh_prefect.works.journal.costs_and_budget import CURRENCY, Charge, charge_of, costs_of
from rh_prefect.works.journal.job_records_and_state import Submit, jobs_of
from rh_prefect.works.journal.journal import Journal, UnreadableRecord
from rh_prefect.works.journal.record_types import Intent
from rh_prefect.works.journal.works_journal import WorksJournal, default_works
from rh_prefect.works.run_ledger import RecordsLocation, read_location
from rh_prefect.works.stored_result import StoredResult

_AT_ONCE = 16
"""Number of journals that are read concurrently."""


@dataclass(frozen=True, slots=True)
class TaskCharge:
    """The cost, or the possible cost, of one task at RunningHub, with the names to which reports assign it."""

    run: str  # The scope of its job: a flow run's id, or a name
    model: str  # The model's name
    account: str  # The account that paid
    at: str  # When it ended, or if it has no end, when it was submitted. ISO 8601, UTC
    charge: Charge  # The cost, or the possible cost
    site: str  # RunningHub's host
    task_id: str | None  # None if it is not known
    store: str  # URL of the storage for its outputs
    pipeline: str = ""  # The pipeline's name; empty for a job of no pipeline
    step: str = ""  # The step's address, as in `each[A-17].clip`; empty for a job of no pipeline
    flow: str = ""  # The flow or the pipeline that made it; `call` for a call outside of flows
    label: str = ""  # The caller's name for the output


@dataclass(frozen=True, slots=True)
class Charges:
    """The charges of all tasks, one per task; `unread` lists the locations that could not be read, with the reasons."""

    tasks: tuple[TaskCharge, ...]
    unread: Mapping[str, str]


async def charges(
    store: MediaStore, *, with_prefect: bool, default: WorksJournal | None = None, records: str | None = None
) -> Charges:
    """Returns the charges for all tasks that were or may have been paid for, in any storage.

    Locations are read concurrently, with a limit on journals. An unreadable location does not prevent the reading of
    other locations. `default` contains the records of the default storage, if that may be a storage other than `store`.
    `records` is the location of shared works, by default `store`.
    """
    works = RecordsLocation(url=(records or store.url).rstrip("/"))
    reader = _Reader()
    places = [reader.read_works(works, store), reader.read_results(store)]
    if default is not None:
        reader.add(default)
    await asyncio.gather(*places, *([reader.read_flow_runs()] if with_prefect else []))
    await reader.read_other_works()
    return Charges(tuple(once_each(reader.recorded, reader.from_results)), reader.unread)


async def charges_of(storage: str | None, *, with_prefect: bool) -> tuple[MediaStore, Charges]:
    """Opens a block's storage; returns the storage, and all charges in it and in other recorded locations."""
    store, settings = await load_storage(storage), get_settings()
    default = None if settings.records else default_works(settings, store)
    return store, await charges(store, with_prefect=with_prefect, default=default, records=settings.records)


class _Reader:
    """Reads and collects the charges of all locations, and the reasons why locations cannot be read."""

    def __init__(self) -> None:
        self.recorded: list[TaskCharge] = []  # In the journals
        self.from_results: list[TaskCharge] = []  # In the stored results
        self.unread: dict[str, str] = {}  # The locations that could not be read, each with the reason
        self._read: set[str] = set()  # The places of shared works that were read, by shown URL
        self._others: dict[str, list[RecordsLocation | WorksJournal]] = {}  # How to open each place, by shown URL
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._api_error = ""
        self._skipped = 0

    @asynccontextmanager
    async def _reading(self, place: str) -> AsyncIterator[None]:
        """Runs a `with` block as soon as fewer than `_AT_ONCE` others run, and collects its error."""
        async with self._gate:
            try:
                yield
            except RunningHubError as error:
                self.unread.setdefault(place, error.message)

    async def read_flow_runs(self) -> None:
        """Reads the journals of all flow runs."""
        try:
            found = [flow_run.id async for flow_run in find_flow_runs(sort=FlowRunSort.START_TIME_ASC)]
        except (*FAILURES, RunningHubError) as error:
            api = "" if isinstance(error, RunningHubError) else f" of the Prefect API at {api_address()}"
            self.unread[f"flow runs{api}"] = str(error) or type(error).__name__
            return
        await asyncio.gather(*map(self._read_flow_run, found))
        if self._skipped:
            self.unread[f"{self._skipped} further flow runs"] = self._api_error

    async def _read_flow_run(self, flow_run_id: UUID) -> None:
        journal = FlowRunJournal(flow_run_id)
        async with self._reading(journal.scope):
            if self._api_error:  # each further run would wait for the API in vain, for a minute or more
                self._skipped += 1
                return
            try:
                self.recorded.extend(await _recorded(journal))
                location = await read_location(journal)
            except RunningHubError as error:
                if not isinstance(error, UnreadableRecord):
                    self._api_error = error.message
                raise
            if location is not None:
                self.add(location)

    def add(self, place: RecordsLocation | WorksJournal) -> None:
        """Adds a place of shared works; each place is read once, since a submission without a task id has no name."""
        ways = self._others.setdefault(shown_url(place.url), [])
        # Locations of many flow runs differ in their tokens, and each further way may wait for a storage in vain.
        opened_with = [one.storage for one in ways if isinstance(one, RecordsLocation)]
        if isinstance(place, WorksJournal) or place.storage not in opened_with:
            ways.append(place)

    async def read_works(self, place: RecordsLocation | WorksJournal, store: MediaStore | None = None) -> None:
        """Reads the shared works in a place, a location by default with the options of the storage that it names."""
        async with self._reading(_works_in(place.url)):
            works = place if isinstance(place, WorksJournal) else await open_works_at(place, store)
            self.recorded.extend(await _recorded(works))
            self._read.add(shown_url(place.url))
            self.unread.pop(_works_in(place.url), None)  # another way to open the place failed before

    async def read_other_works(self) -> None:
        """Reads the shared works in the places that were added: the default one, and those of flow runs."""
        await asyncio.gather(*map(self._read_by_one_of, self._others.values()))

    async def _read_by_one_of(self, ways: Sequence[RecordsLocation | WorksJournal]) -> None:
        """Reads the shared works in a place; a way to open it may fail, for example if its block was deleted."""
        for place in ways:
            if shown_url(place.url) not in self._read:
                await self.read_works(place)

    async def read_results(self, store: MediaStore) -> None:
        """Reads all stored results of a storage."""
        damaged: list[str] = []
        async with self._reading(f"results in {store.url}"):
            self.from_results = await asyncio.to_thread(
                lambda: [_of_result(one, store) for one in stored_result.read_all(store, damaged)]
            )
        self.unread |= dict.fromkeys(map(store.uri, damaged), "the stored result is damaged")


def _works_in(url: str) -> str:
    return f"works of pipelines in {shown_url(url)}"


def once_each(recorded: Sequence[TaskCharge], from_results: Iterable[TaskCharge]) -> list[TaskCharge]:
    """Merges the charges from journals and stored results, so that each task id occurs once."""
    unnamed = [one for one in recorded if one.task_id is None]
    found: dict[tuple[str, str], TaskCharge] = {}
    for one in (*recorded, *from_results):
        if one.task_id is None:
            continue
        known = found.setdefault((one.site, one.task_id), one)
        # A cost that RunningHub reports takes precedence over a price from before the submit, and that over no cost.
        if _weakness(known.charge) > _weakness(one.charge):
            found[one.site, one.task_id] = replace(known, charge=one.charge, at=one.at)
    return [*unnamed, *found.values()]


def _weakness(charge: Charge) -> tuple[bool, bool]:
    return bool(charge.costs.unknown), charge.is_estimate


async def _recorded(journal: Journal) -> list[TaskCharge]:
    return [
        one
        async for view in jobs_of(journal)
        for submit in view.submits
        for task in _tasks_of(submit)
        if (one := _of_submit(journal.scope, task)) is not None
    ]


def _tasks_of(submit: Submit) -> Sequence[Submit]:
    """Returns one submission for each of its tasks; a late task id beside another is a second task."""
    if submit.late is None or submit.task_id is None or submit.late_task_id is None:
        return [submit]
    return [replace(submit, late=None), Submit(submit.n, submit.intent, answer=submit.late)]


def _of_submit(scope: str, submit: Submit) -> TaskCharge | None:
    charge, intent = charge_of(submit), submit.intent
    if charge is None:
        return None
    run = intent.flow_run or scope
    at = submit.end.at if submit.end is not None else intent.at
    return _charged(intent, charge, run=run, at=at, task_id=submit.task_id or submit.late_task_id, store=intent.store)


def _of_result(one: StoredResult, store: MediaStore) -> TaskCharge:
    run = one.flow_run or one.job.rpartition("/")[0]
    charge = Charge(one.cost, is_spent=True, currency=one.currency or CURRENCY, costs=costs_of(one))
    return _charged(one, charge, run=run, at=one.ended_at, task_id=one.task_id, store=store.url)


def _charged(
    one: Intent | StoredResult, charge: Charge, *, run: str, at: str, task_id: str | None, store: str
) -> TaskCharge:
    label = one.label or ""
    return TaskCharge(
        run=run,
        model=one.model,
        account=one.account,
        at=at,
        charge=charge,
        site=one.site,
        task_id=task_id,
        store=store,
        pipeline=one.pipeline,
        # The label of a call is no step; an id in a step's address may contain the words.
        step=re.sub(r", take \d+$", "", label) if one.pipeline else "",
        flow=one.flow,
        label=label,
    )

"""Computes the cost of each task, counted once, from the journals of all runs and the manifests of a storage.

The journals know of what failed, was cancelled, was lost or was an earlier attempt. The manifests outlive the journals,
which are deleted with their flow runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from prefect.client.schemas.sorting import FlowRunSort

from rh_prefect.blocks.lookup import load_storage
from rh_prefect.errors import RunningHubError
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.queries import find_flow_runs
from rh_prefect.jobs.journal.costs import COINS, Charge, Costs, charge_of
from rh_prefect.jobs.journal.job_records import Submit, jobs_of
from rh_prefect.jobs.journal.journal import FolderJournal, Journal, UnreadableRecord, folder_scopes
from rh_prefect.jobs.outputs import manifest
from rh_prefect.jobs.outputs.manifest import Manifest
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.run_claims import RecordsPlace, read_place
from rh_prefect.pipelines.works_store import WorksJournal

_AT_ONCE = 16
"""How many journals are read together."""


@dataclass(frozen=True, slots=True)
class TaskCharge:
    """What one task cost, or may have cost.

    Attributes:
        run: The scope of its job: a flow run's id, or a name.
        model: The model's name.
        account: Who paid.
        at: When it ended; of one without an end, when it was submitted. ISO 8601, UTC.
        charge: How much.
        site: RunningHub's host.
        task_id: None where it is not known.
        store: URL of the place for its outputs.
        pipeline: The pipeline's name; empty for a job of no pipeline.
        step: The step's address, as in `each[A-17].clip`.
    """

    run: str
    model: str
    account: str
    at: str
    charge: Charge
    site: str
    task_id: str | None
    store: str
    pipeline: str = ""
    step: str = ""


@dataclass(frozen=True, slots=True)
class Charges:
    """What all tasks cost, each task once; `unread` says by scope which journals could not be read, and why."""

    tasks: tuple[TaskCharge, ...]
    unread: Mapping[str, str]


async def charges(store: MediaStore, *, with_prefect: bool, journal_url: str, records: str | None = None) -> Charges:
    """Lists every task that was or may have been paid for, regardless of where its outputs are.

    Args:
        store: Whose manifests are read.
        with_prefect: Whether there is a Prefect API, which holds the journals of flow runs.
        journal_url: Where the journals of named scopes are.
        records: Where the works of pipelines are recorded; None for the storage.

    Raises:
        JournalError: The place of the journals cannot be read.
    """
    journals: list[Journal] = []
    if with_prefect:
        flow_runs = find_flow_runs(sort=FlowRunSort.START_TIME_ASC)
        journals = [FlowRunJournal(flow_run.id) async for flow_run in flow_runs]
    scopes = await asyncio.to_thread(folder_scopes, journal_url)
    journals += [FolderJournal(journal_url, scope=scope) for scope in scopes]
    works = (records or store.url).rstrip("/")
    own = WorksJournal(works, options=store.options_for(works))
    journals.append(own)
    recorded: list[TaskCharge] = []
    unread: dict[str, str] = {}
    places: dict[str, RecordsPlace] = {}

    async def read(journal: Journal) -> None:
        try:
            recorded.extend(await _recorded(journal))
            place = await read_place(journal) if isinstance(journal, FlowRunJournal) else None
            if place is not None and place.url != own.url:
                places[place.url] = place
        except UnreadableRecord as error:
            unread[journal.scope] = error.message

    for start in range(0, len(journals), _AT_ONCE):
        await asyncio.gather(*map(read, journals[start : start + _AT_ONCE]))
    # Pipelines of other storages record their works there, as do those that ran with another RH_RECORDS.
    for place in places.values():
        try:
            options = (await load_storage(place.storage)).options_for(place.url)
            await read(WorksJournal(place.url, options=options))
        except RunningHubError as error:
            unread[place.url] = error.message
    made = await asyncio.to_thread(lambda: [_of_manifest(one, store) for one in manifest.read_all(store)])
    return Charges(tuple(once_each(recorded, made)), unread)


def once_each(recorded: Sequence[TaskCharge], made: Iterable[TaskCharge]) -> list[TaskCharge]:
    """Merges the charges from journals and manifests, by task id."""
    unnamed = [one for one in recorded if one.task_id is None]
    found: dict[tuple[str, str], TaskCharge] = {}
    for one in (*recorded, *made):
        if one.task_id is None:
            continue
        known = found.setdefault((one.site, one.task_id), one)
        # What RunningHub reports stands for more than a price from before the submit, and that for more than nothing.
        if _weakness(known.charge) > _weakness(one.charge):
            found[one.site, one.task_id] = replace(known, charge=one.charge, at=one.at)
    return [*unnamed, *found.values()]


def _weakness(charge: Charge) -> tuple[bool, bool]:
    return bool(charge.costs.unknown), charge.is_estimate


async def _recorded(journal: Journal) -> list[TaskCharge]:
    found = [(journal.scope, submit) async for view in jobs_of(journal) for submit in view.submits]
    return [one for scope, submit in found if (one := _of_submit(scope, submit)) is not None]


def _of_submit(scope: str, submit: Submit) -> TaskCharge | None:
    charge, intent = charge_of(submit), submit.intent
    if charge is None:
        return None
    is_work = bool(intent.flow_run)
    return TaskCharge(
        run=intent.flow_run or scope,
        model=intent.model,
        account=intent.account,
        at=submit.end.at if submit.end is not None else intent.at,
        charge=charge,
        site=intent.site,
        task_id=submit.task_id or submit.late_task_id,
        store=intent.store,
        pipeline=intent.flow if is_work else "",
        step=(intent.label or "").partition(", take ")[0] if is_work else "",
    )


def _of_manifest(one: Manifest, store: MediaStore) -> TaskCharge:
    costs = Costs.of(one.cost, one.currency)
    return TaskCharge(
        run=one.job.rpartition("/")[0],
        model=one.model,
        account=one.account,
        at=one.ended_at,
        charge=Charge(costs if one.coins is None else costs + Costs.of(one.coins, COINS)),
        site=one.site,
        task_id=one.task_id,
        store=store.url,
    )

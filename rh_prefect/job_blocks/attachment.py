"""Rebuilds a job from nothing but its task id: it is queried, waited for and fetched, and never submitted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from functools import cache
from typing import Any

from rh_prefect.blocks.lookup import load_engine, load_storage
from rh_prefect.client import is_task_id
from rh_prefect.errors import InputError
from rh_prefect.flow_runs.job_observer import run_observer
from rh_prefect.flow_runs.scope import current_scope
from rh_prefect.job_blocks.job_handle import Handle, background
from rh_prefect.job_blocks.tracked_scope import TrackedScope
from rh_prefect.jobs.accounts.account import Member
from rh_prefect.jobs.engine import JobEngine
from rh_prefect.jobs.events import Observer
from rh_prefect.jobs.journal.identity import base_hash
from rh_prefect.jobs.journal.job_records import JobRecords
from rh_prefect.jobs.journal.journal import by_job
from rh_prefect.jobs.journal.process import current_owner
from rh_prefect.jobs.journal.records import Answer, Intent
from rh_prefect.jobs.outputs import manifest as manifests
from rh_prefect.jobs.outputs.manifest import Manifest
from rh_prefect.jobs.outputs.result import Result
from rh_prefect.media.store import MediaStore

_SCOPE = "attached"


class PassingJournal:
    """Records that last as long as this object: of a task that was started elsewhere there is nothing to remember.

    See `rh_prefect.jobs.journal.journal.Journal`.
    """

    scope = _SCOPE

    def __init__(self) -> None:
        """Starts empty."""
        self._records: dict[str, dict[str, Any]] = {}

    async def create(self, key: str, record: Mapping[str, Any]) -> bool:
        """Creates a record exclusively."""
        return bool(self._records.setdefault(key, dict(record))["token"] == record["token"])

    async def read(self, key: str) -> dict[str, Any] | None:
        """Reads one record; None where there is none."""
        return self._records.get(key)

    async def job(self, job_key: str) -> dict[str, dict[str, Any]]:
        """Reads all records of one job, by full key."""
        return {key: record for key, record in self._records.items() if key.startswith(f"{job_key}-")}

    async def request(self, prefix: str) -> dict[str, dict[str, Any]]:
        """Reads all records of the jobs whose keys begin alike, by full key."""
        return {key: record for key, record in self._records.items() if key.startswith(prefix)}

    async def keys(self) -> AsyncIterator[str]:
        """Lists the keys of all jobs."""
        for key in by_job(self._records):
            yield key

    async def jobs(self) -> AsyncIterator[tuple[str, dict[str, dict[str, Any]]]]:
        """Reads all jobs."""
        for key, records in by_job(self._records).items():
            yield key, records


async def attach(task_id: str, *, credentials: str | None, storage: str | None, label: str | None) -> Handle:
    """Finds a task; runs on the loop thread. See `RunningHubJobRun.attach`.

    Args:
        task_id: RunningHub's task id.
        credentials: Name of the credentials block.
        storage: Name of the storage block.
        label: A name for the output.

    Raises:
        InputError: This is no task id.
        TaskNotFound: RunningHub does not know it.
    """
    if not is_task_id(task_id):
        raise InputError(
            f"{task_id!r} is no task id: RunningHub's ids are digits only, and one of ComfyUI's own gets its machine "
            "before it, as in proxy.PROMPT_ID. Nothing was asked."
        )
    desk = await load_engine(credentials)
    store = await load_storage(storage)
    known = await asyncio.to_thread(_manifest_of, store, task_id)
    # What is in the storage already needs no account; any of them will do for the record.
    paid_on = desk.pool.members[0] if known is not None else await desk.pool.having(task_id)
    place, observer = _place(), run_observer()
    intent = _intent(task_id, paid_on, place, store, storage=storage, label=label)

    @cache
    def work() -> asyncio.Task[Result]:
        return background(_fetch(intent, task_id, desk, place, store, observer, known))

    if known is None:
        ticket = Answer(outcome="ticket", task_id=task_id)
        records = JobRecords(place.journal, task_id)
        await records.intent(1, intent)
        await records.answer(1, ticket)
    job = known.job if known is not None else f"{_SCOPE}/{task_id}"
    return Handle(task_id=task_id, job=job, scope=place, accounts=desk.pool.accounts, observer=observer, work=work)


async def _fetch(
    intent: Intent,
    key: str,
    desk: JobEngine,
    place: TrackedScope,
    store: MediaStore,
    observer: Observer,
    known: Manifest | None,
) -> Result:
    if known is not None:
        return known.result(store)
    result = await desk.bring_home(intent, key, scope=place, store=store, observer=observer)
    if result is None:
        raise AssertionError("a job with a ticket ends with a result or an error")
    return result


def _manifest_of(store: MediaStore, task_id: str) -> Manifest | None:
    """What the storage has of a task already, whichever job it was: fetched twice it would count twice in `spend`."""
    names = [name for name in store.list(manifests.FOLDER) if name.endswith(f"/{task_id}.json")]
    found = (manifests.read(store, name) for name in names)
    return next((one for one in found if one is not None), None)


def _place() -> TrackedScope:
    here = current_scope()
    return TrackedScope(
        journal=PassingJournal(),
        run=here.run if here is not None else _SCOPE,
        flow=here.flow if here is not None else "call",
        details=here.details if here is not None else {},
    )


def _intent(
    task_id: str,
    paid_on: Member,
    place: TrackedScope,
    store: MediaStore,
    *,
    storage: str | None,
    label: str | None,
) -> Intent:
    """The record that a task of our own would have; what was asked for is not known, so its id stands for it."""
    site, payload = paid_on.client.site, {"taskId": task_id}
    return Intent(
        owner=current_owner(),
        account=paid_on.name,
        site=site,
        credentials=paid_on.block,
        storage=storage,
        store=store.url,
        model=f"task/{task_id}",
        endpoint="query",
        payload=payload,
        base=base_hash(site=site, endpoint="query", payload=payload),
        label=label,
        run=place.run,
        flow=place.flow,
    )

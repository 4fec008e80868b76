"""Confirms the end of a recorded job and collects its outputs, without running its flow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final

from prefect.types import SecretDict

from rh_prefect.blocks.lookup import RECORDED, load_storage
from rh_prefect.blocks.storage import MediaStorage
from rh_prefect.client import TaskView
from rh_prefect.display_texts import beginning_of_prompt
from rh_prefect.errors import RunningHubError
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.progress_observer import FILES_KEPT, RunObserver, RunProgress
from rh_prefect.flow_runs.run_queries_and_scopes import has_ended, is_flow_run, journal_of, scope_named, works_of
from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore
from rh_prefect.settings import get_settings
from rh_prefect.works import stored_result
from rh_prefect.works.accounts.poller import is_settled
from rh_prefect.works.events import JobEvent, JobEventState
from rh_prefect.works.journal.costs_and_budget import Costs, charges_of
from rh_prefect.works.journal.job_records_and_state import JobRecords, JobView, Submit, split_job
from rh_prefect.works.journal.record_types import End, Intent, ResultRecord
from rh_prefect.works.journal.scope import FolderScope, Scope
from rh_prefect.works.journal.works_journal import WorksJournal, named_works
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.pool_services import pool_services
from rh_prefect.works.result import Result, end_of
from rh_prefect.works.run_cancellation import CancelReport
from rh_prefect.works.run_ledger import Notes
from rh_prefect.works.work_runner import WorkRunner

_AT_A_TIME: Final = 8
"""Number of results that are read concurrently."""

_log = logging.getLogger("rh_prefect")


async def records_of(job: str, n: int, *, flow_run: str | None = None, store: MediaStore | None = None) -> JobRecords:
    """Returns the records of a submission: of a run's own job, or of a shared work.

    `store` is the storage of the calls outside of flows; by default RH_STORAGE_URL.
    """
    scope, key = split_job(job)
    run = flow_run or scope
    if is_flow_run(run):
        journal = FlowRunJournal(run)
        if scope == run and await JobRecords(journal, key).submission(n) is not None:
            return JobRecords(journal, key)
        works = await works_of(journal)
    else:
        works = named_works(get_settings(), store)
    if works is not None:
        records = JobRecords(works, key)
        if works.scope == scope or (scope == run and await records.submission(n) is not None):
            return records
    return JobRecords(journal_of(scope, store), key)


async def queried(submit: Submit, task_id: str) -> TaskView:
    """Queries RunningHub for a task, with the account that paid for it; call it on the loop thread."""
    return await (await RECORDED.provider_of(submit.intent)).query(task_id)


async def record_end(submit: Submit, view: TaskView, *, records: JobRecords) -> End | None:
    """Records the end of a task, and returns the record; None if the task still runs or an output is missing."""
    if not is_settled(view):
        return None
    attempt = await _attempt(submit.intent.flow_run or records.journal.scope, submit, view)
    currency = await _currency(submit) if view.cost is not None else None
    return await records.end(submit.n, end_of(submit, view, attempt=attempt, currency=currency))


async def _currency(submit: Submit) -> str | None:
    """Returns the currency of the account that paid; None if the account cannot be asked now."""
    try:
        return await (await RECORDED.account_of(submit.intent)).prices.currency()
    except RunningHubError:
        return None


async def _attempt(scope: str, submit: Submit, view: TaskView) -> int:
    # Which attempt may pay for a failed job again depends on the attempt in which it failed; a success counts in all.
    if view.status == "SUCCESS":
        return submit.intent.attempt
    return max((await scope_named(scope)).attempt, submit.intent.attempt)


async def store_of(intent: Intent) -> MediaStore:
    """Opens the storage that a job's record names; raises `ConfigError` if the storage block no longer exists."""
    if intent.storage is not None or not intent.store:
        return await load_storage(intent.storage)
    return MediaStorage(url=intent.store, options=SecretDict(get_settings().storage_options)).get_store()


async def collect_result(view: JobView, scope: Scope) -> Result | None:
    """Downloads a paid job's results, and submits nothing; None if nothing was paid. Call it on the loop thread."""
    if view.last is None:
        return None
    if (known := await collected_result(view)) is not None:
        return known  # the account that paid may be gone
    intent = view.last.intent
    store = await store_of(intent)
    shared = pool_services([await RECORDED.account_of(intent)], settings=get_settings(), find=RECORDED.find)
    works, observer = await _works_with(view, scope), RunObserver(_log, None)
    pipeline = scope.pipeline if isinstance(scope, FolderScope) else ""
    runner = WorkRunner(shared, scope, store, works, observer=observer, pipeline=pipeline, has_ended=has_ended)
    done = await runner.collect(intent, view.key)
    return None if done is None else done.result


async def _works_with(view: JobView, scope: Scope) -> WorksJournal | None:
    """Returns the shared records that contain a job; None if the job belongs to the run itself."""
    works = await scope.works()
    is_there = works is not None and await JobRecords(works, view.key).submission(1) is not None
    return works if is_there else None


async def collected_result(
    view: JobView, *, open_store: Callable[[Intent], Awaitable[MediaStore]] = store_of
) -> Result | None:
    """Returns the result of a job if it was collected before; sends no request to RunningHub."""
    if view.last is None:
        return None
    intent = view.last.intent
    store, task = await open_store(intent), ResultRecord(task_id=view.last.task_id or "", base=intent.base)
    stored = await LOOP.in_file_thread(stored_result.read, store, stored_result.name_of(task))
    if stored is None or not await LOOP.in_file_thread(stored_result.is_whole, store, stored):
        return None
    return stored.result(store)


async def recorded_progress(scope: Scope, report: CancelReport | None = None) -> RunProgress:
    """Returns the progress of a cancelled run, whose process has ended, from the run's records.

    With `report`, the progress also has the files, and says why a job continues or may be charged.
    """
    status, intent = RunProgress(), None
    found = [(scope.journal.scope, one) async for one in scope.jobs()]
    if (works := await scope.works()) is not None:
        found += [(works.scope, one) async for one in (await Notes.of(scope)).jobs()]
    jobs = {f"{place}/{view.key}": view for place, view in found}
    files = {} if report is None else await _first_files(jobs)
    for job, view in jobs.items():
        if view.last is not None:
            intent = view.last.intent
            status.update(_recorded_event(view, view.last, job, report, files.get(job, ())))
    with suppress(RunningHubError):  # without its storage, the report of the run has neither links nor pictures
        status.store = await store_of(intent) if intent is not None and report is not None else None
    return status


async def _first_files(jobs: Mapping[str, JobView]) -> dict[str, tuple[Media, ...]]:
    """Reads the files of as many jobs as a report shows, by job; each storage is opened once."""
    gate, stores = asyncio.Semaphore(_AT_A_TIME), dict[tuple[str | None, str | None], asyncio.Future[MediaStore]]()

    async def open_store(intent: Intent) -> MediaStore:
        name = (intent.storage, intent.store)
        if name not in stores:
            stores[name] = asyncio.ensure_future(store_of(intent))
        return await stores[name]

    async def read(view: JobView) -> tuple[Media, ...]:
        async with gate:
            with suppress(RunningHubError):  # a storage that cannot be read now hides nothing else
                return result.outputs if (result := await collected_result(view, open_store=open_store)) else ()
        return ()

    ended = {job: view.last.end for job, view in jobs.items() if view.last is not None}
    shown = [job for job, end in ended.items() if end is not None and end.status == "SUCCESS"][:FILES_KEPT]
    return dict(zip(shown, await asyncio.gather(*(read(jobs[job]) for job in shown)), strict=True))


_ENDS: Final[dict[str, JobEventState]] = {"SUCCESS": "succeeded", "FAILED": "failed", "CANCELLED": "cancelled"}


def _recorded_event(
    view: JobView, submit: Submit, job: str, report: CancelReport | None, files: tuple[Media, ...]
) -> JobEvent:
    intent, end = submit.intent, submit.end
    state: JobEventState = _ENDS.get(end.status if end else "", "unknown" if submit.state == "unknown" else "running")
    reason = end.reason if end else ""
    if submit.state == "refused" and submit.answer is not None and submit.answer.retry != "throttled":
        state, reason = "failed", submit.answer.reason
    if state == "cancelled":
        reason = f"task {submit.task_id} was cancelled"
    if report is not None and submit.task_id in report.continued:
        reason = f"continues as task {submit.task_id}: another run waits for it"
    if report is not None and job in report.failed:
        reason = f"could not be cancelled and may continue and be charged: {report.failed[job]}"
    return JobEvent(
        state,
        job,
        intent.model,
        label=intent.label,
        task_id=submit.task_id,
        message=reason,
        costs=Costs.total(charge.costs for charge in charges_of(view).values() if charge is not None),
        run_seconds=end.run_seconds if end else None,
        output=files[0].uri if files else None,
        files=files,
        prompt=beginning_of_prompt(intent.payload),
    )


def end_of_cancelled(status: RunProgress) -> str:
    """Returns a sentence about the outcome of a cancelled run."""
    if not status.rows:
        return "The run was cancelled before it submitted a job; nothing was charged."
    return f"The run was cancelled: {status.summary}."

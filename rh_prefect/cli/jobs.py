"""`rh-prefect jobs`: shows paid jobs, and resolves open jobs."""

from __future__ import annotations

import asyncio
import json
import mimetypes
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from rh_prefect.cli.options import Json, Storage
from rh_prefect.cli.output import print_json, print_rows
from rh_prefect.cli.prefect_server import is_configured
from rh_prefect.errors import InputError, JournalError, OutputsExpired, RunningHubError, TaskNotFound
from rh_prefect.settings import get_settings
from rh_prefect.works import manual_repair
from rh_prefect.works.events import summary_of
from rh_prefect.works.journal.costs_and_budget import ended_costs
from rh_prefect.works.journal.job_records_and_state import JobRecords, JobView, read_job, split_job
from rh_prefect.works.journal.journal import UnreadableRecord, run_together
from rh_prefect.works.journal.scope import LOCAL_RUN, FolderScope, RecordedRun, read_run
from rh_prefect.works.journal.spool import Spool
from rh_prefect.works.journal.works_journal import WorksJournal, named_works
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.run_ledger import Notes

if TYPE_CHECKING:
    from rh_prefect.client import TaskView
    from rh_prefect.media.store import MediaStore
    from rh_prefect.works.journal.job_records_and_state import Submit
    from rh_prefect.works.journal.journal import Journal
    from rh_prefect.works.journal.record_types import Intent, Record
    from rh_prefect.works.journal.scope import Scope

_RUNS = 30
"""Number of the latest runs that are read."""

_KEY_SHOWN, _WHOLE_KEY = 12, 40
"""Number of digits of a job's key in a list, and of the whole key; commands accept any number between."""

_HEADER = ("job", "state", "task", "what", "cost")
_UNKNOWN = ("unknown", "open")
"""States of submissions whose outcome is not recorded."""

_KINDS = frozenset({"image", "video", "audio"})
"""Kinds of files that a result's extension identifies."""


Run = Annotated[str, Parameter(help="A flow run's id, or the name of a run or a scope outside of flows.")]
Job = Annotated[
    str,
    Parameter(
        help="`<run>/<key>`, as `list` shows it, or a name that an error shows; the first 12 digits of the key are "
        "enough."
    ),
]


async def list_(run: Run | None = None, *, storage: Storage = None, as_json: Json = False) -> None:
    """List the jobs of a run, or the latest runs that have jobs."""
    store = await _store(storage)
    if run is None:
        works = named_works(get_settings(), store)
        runs = await _runs(works)
        print_json(runs) if as_json else _print_runs(**runs, place=works.url)
        return
    jobs = await _jobs_in(run, store)
    if as_json:
        print_json([_as_json(run, view, problem) for _, view, problem in jobs])
    elif jobs:
        print_rows([_HEADER, *(_row(run, view, problem) for _, view, problem in jobs)])
    else:
        print(f"no job is recorded in {run}")


async def show_(job: Job, *, storage: Storage = None, as_json: Json = False) -> None:
    """Show all records of one job."""
    journal, key = await _find(job, await _store(storage))
    view = await read_job(journal, key)
    # The records that runs share list no results with the submissions.
    found = view.result or await JobRecords(journal, key).read_result()
    result = found and _data(found)
    if as_json:
        submits = [{"n": one.n, "state": one.state, **_records(one)} for one in view.submits]
        print_json({"job": f"{split_job(job)[0]}/{key}", "submits": submits, "result": result})
        return
    for one in view.submits:
        print(f"submit {one.n}: {one.state}")
        for name, record in _records(one).items():
            print(f"  {name}: {json.dumps(record, ensure_ascii=False)}")
    if result:
        print(f"result: {json.dumps(result, ensure_ascii=False)}")


def _records(submit: Submit) -> dict[str, dict[str, Any]]:
    found = {name: getattr(submit, name) for name in ("intent", "answer", "resolution", "end", "lost", "late")}
    return {name: _data(record) for name, record in found.items() if record is not None}


def _data(record: Record) -> dict[str, Any]:
    return record.model_dump(mode="json", exclude={"token"}, exclude_none=True)


async def _find(job: str, store: MediaStore | None) -> tuple[Journal, str]:
    """Returns the journal of a job, and the job's complete key; lists show only the first digits of a key."""
    from rh_prefect.flow_runs.recorded_job_collection import records_of

    scope, key = split_job(job)
    if not _KEY_SHOWN <= len(key) < _WHOLE_KEY:
        return (await records_of(job, 1, store=store)).journal, key
    # The journal of a run also has its claims of shared works.
    found = sorted({name.partition("-")[0] async for name in _journal(scope, store).names() if name.startswith(key)})
    if len(found) > 1:
        raise InputError(
            f"{job}: several jobs have these first digits: {', '.join(found)}. Nothing was changed. What to do: "
            "give more digits of the job."
        )
    key = found[0] if found else key
    return (await records_of(f"{scope}/{key}", 1, store=store)).journal, key


async def adopt_(
    job: Job | None = None, task_id: str | None = None, *, spool: bool = False, storage: Storage = None
) -> None:
    """Record which task an unknown submission created; the next run waits for that task, without paying.

    Args:
        task_id: RunningHub's task id, from its call log.
        spool: Record all task ids that only this machine has, because their journal could not be written.
    """
    store = await _store(storage)
    if spool:
        await _replay_spool(store)
        return
    if job is None or task_id is None:
        raise InputError(
            "jobs adopt: a job and a task id are required. Nothing was recorded. What to do: run `rh-prefect jobs "
            "adopt RUN/KEY TASK_ID`."
        )
    journal, key = await _find(job, store)
    intent = (await read_job(journal, key)).submits[-1].intent
    unchecked = ""
    try:
        task = await _task(intent, task_id)
    except TaskNotFound as error:
        same = "copy the id from RunningHub's call log again"
        await _check_account(f"{job}: it was submitted", intent, f"task {task_id} exists", same=same)
        raise InputError(
            f"{job}: the account that submitted the job has no task {task_id}. Nothing was recorded. What to do: "
            f"{same}."
        ) from error
    except RunningHubError as error:
        unchecked = f"task {task_id} could not be verified, and is recorded without a check: {error}\n"
    else:
        _check_kind(job, intent, task)
    others = await _other_unknown(intent.flow_run or journal.scope, key, store)
    await manual_repair.adopt(journal, key, task_id)
    print(
        f"{unchecked}RunningHub does not report which request created a task. Check in the call log that task "
        f"{task_id} was created by a request to {intent.request_words} at {intent.at}; otherwise this job gets the "
        "result of another task."
    )
    if others:
        print("Other submissions of the run whose outcome is unknown, to which the task could belong:")
        print_rows(others, indent="  ")
    print(f"{job}: task {task_id} is recorded for this job. What to do: {_continuation(journal)}.")


async def _other_unknown(run: str, key: str, store: MediaStore | None) -> list[tuple[str, str]]:
    """Returns the submissions of a run whose outcome is unknown, each with its request; omits one job."""
    try:
        jobs = await _jobs_in(run, store)
    except RunningHubError as error:
        return [(run, f"the run's other jobs cannot be listed: {error}")]
    damaged = [(f"{run}/{view.key[:_KEY_SHOWN]}", problem) for _, view, problem in jobs if problem]
    return damaged + [
        (f"{run}/{view.key[:_KEY_SHOWN]}", f"{last.intent.request_words}, submitted at {last.intent.at}")
        for _, view, _ in jobs
        if (last := view.last) is not None and last.state in _UNKNOWN and view.key != key
    ]


def _continuation(journal: Journal) -> str:
    """Returns a clause about how to continue a job whose task exists."""
    if isinstance(journal, WorksJournal):  # a scope that `jobs collect` and `jobs cancel` do not accept
        return "run the pipeline again, or repeat the call, which waits for the task"
    return (
        f"run the flow run again, which waits for the task; or run `rh-prefect jobs collect {journal.scope}`; or, if "
        f"you no longer need the task, run `rh-prefect jobs cancel {journal.scope}`"
    )


def _print_payable(job: str, journal: Journal, what: str) -> None:
    is_shared = isinstance(journal, WorksJournal)
    run = "The next run of the pipeline, or the next call," if is_shared else f"The next run of {journal.scope}"
    print(f"{job}: recorded as {what}. {run} submits the job again and pays for a new task.")


async def mark_refused_(
    job: Job, *, every: Annotated[bool, Parameter(name="--all")] = False, storage: Storage = None
) -> None:
    """Record that an unknown submission was not accepted; the next run submits it again.

    Args:
        every: JOB is a run: mark all of its unknown submissions.
    """
    store = await _store(storage)
    if every:
        await _mark_all_refused(job, store)
        return
    journal, key = await _find(job, store)
    # The task id may exist on this machine only; then the submission was accepted after all.
    async for _ in manual_repair.replay_spool(_spool(), journal):
        pass
    await manual_repair.mark_refused(journal, key)
    _print_payable(job, journal, "not accepted")


async def mark_lost_(job: Job, *, same_account: bool = False, storage: Storage = None) -> None:
    """Record that a job's task or its files no longer exist at RunningHub; the next run pays for a new task.

    Args:
        same_account: The account that is set now is the one that paid: only its key or its name has changed.
    """
    journal, key = await _find(job, await _store(storage))
    view = await read_job(journal, key)
    if view.last is not None and manual_repair.may_be_lost(view.last):
        await _check_lost(job, view.last, journal, same_account=same_account)
        if view.state == "ended":
            await _check_files_lost(job, view, journal)
    await manual_repair.mark_lost(journal, key)
    _print_payable(job, journal, "lost")


async def recover_(run: str, *, storage: Storage = None) -> None:
    """Write the records of a run again, after Prefect's database was restored from an older backup.

    Args:
        run: The flow run's id.
    """
    from rh_prefect.blocks.lookup import load_storage

    scope, store = await _scope(run), await load_storage(storage)
    try:
        recovered = await manual_repair.recover(scope.journal, store)
        print(f"Restored from results: {len(recovered)} job(s). If you run {run} again, you do not pay for them again.")
    finally:  # all but the jobs of unreadable records may be restored
        print(
            "Tasks whose results were not downloaded cannot be restored. Look for such tasks in RunningHub's call log "
            "before you run the flow again, because the flow would pay for them again."
        )


async def collect_(run: Run, *, storage: Storage = None) -> None:
    """Download the results that a run has paid for; waits for running tasks, and neither submits nor cancels a task."""
    from rh_prefect.flow_runs.recorded_job_collection import collect_result

    found = failed = False
    async for scope, view in _collectable(run, await _store(storage)):
        if not view.tickets:
            continue
        found = True
        try:
            result = await LOOP.call(collect_result(view, scope))
        except RunningHubError as error:
            # A failure must not stop the other downloads, whose links expire.
            failed = True
            print(f"NOT collected: {scope.journal.scope}/{view.key} ({_what(view)}): {error.message}")
        else:
            if result is not None and result.damaged:
                failed = True
                print(f"DAMAGED: {result.job} ({_what(view)}): {summary_of(result)}")
            elif result is not None:
                print(f"{result.job}: {', '.join(media.uri for media in result.outputs) or result.record}")
    if not found:
        raise InputError(
            f"{run}: nothing was collected, because the run has no task of its own; the tasks of a pipeline belong to "
            f"all of its runs. What to do: run `rh-prefect jobs list {run}`. If it is the run of a pipeline, run the "
            "pipeline again, which downloads the results of its tasks."
        )
    if failed:
        raise SystemExit(1)


async def cancel_(run: Run, *, storage: Storage = None) -> None:
    """Cancel the tasks of a run at RunningHub."""
    from rh_prefect.flow_runs.cancellation import cancel_run

    scope = await _scope(run, await _store(storage))
    report = await LOOP.call(cancel_run(scope, by="rh-prefect jobs cancel"))
    lines = [
        *(f"cancelled: task {task_id}" for task_id in report.cancelled),
        *(f"already ended: task {task_id}" for task_id in report.finished),
        *(f"continues: task {task_id}, because another run waits for it" for task_id in report.continued),
        *(f"NOT cancelled: {job}: {why}" for job, why in report.failed.items()),
    ]
    nothing = (
        f"nothing to cancel: {run} has no running task at RunningHub; a process that is executing the run submits no "
        "more jobs"
    )
    print("\n".join(lines) or nothing)
    if report.failed:
        raise SystemExit(1)


async def _runs(works: WorksJournal) -> dict[str, list[dict[str, Any]]]:
    runs: list[dict[str, Any]] = []
    if is_configured():
        from rh_prefect.flow_runs.run_queries_and_scopes import latest_runs

        runs = [
            {
                "id": str(flow_run.id),
                "name": flow_run.name,
                "flow": flow,
                "state": flow_run.state.name if flow_run.state else None,
                "since": flow_run.state.timestamp.isoformat(timespec="seconds") if flow_run.state else None,
                "jobs": jobs,
            }
            async for flow_run, flow, jobs in latest_runs()
        ]
    names = await asyncio.to_thread(works.scopes)
    newest = sorted(filter(LOCAL_RUN.fullmatch, names), reverse=True)[:_RUNS]
    recorded = await asyncio.gather(*(_read_run(works, name) for name in newest))
    return {
        "runs": [asdict(one) for one in recorded if one is not None],
        "flow_runs": runs,
        "scopes": [{"name": name} for name in names if not LOCAL_RUN.fullmatch(name)],
    }


async def _read_run(works: WorksJournal, name: str) -> RecordedRun | None:
    """Reads a run; if its records cannot be read, the error stands for its state."""
    try:
        return await read_run(works, name)
    except JournalError as error:
        return RecordedRun(name, "", error.message, 0)


def _print_runs(
    runs: list[dict[str, Any]], flow_runs: list[dict[str, Any]], scopes: list[dict[str, Any]], *, place: str
) -> None:
    if runs:
        print(f"runs of pipelines with paid jobs, newest first, in {place}:")
        print_rows((_run_row(one, one["name"], one["pipeline"]) for one in runs), indent="  ")
        print("continue a run: repeat its command, or its call in Python, with the same parameters")
    if flow_runs:
        print("flow runs with paid jobs, newest first, each with its state in Prefect and the time of this state:")
        print_rows(
            (_run_row(one, one["id"], one["since"] or "", one["flow"], one["name"]) for one in flow_runs), indent="  "
        )
        print(
            "continue a flow run: for a deployment, with Retry in the dashboard; for `rh-prefect run` or `batch`, by "
            'repeating the command; for your own Python code, with rh_prefect.resume(your_flow, "ID")'
        )
        if any(one["state"] == "Running" for one in flow_runs):
            print(
                "if its process is killed, a flow run stays Running in Prefect until it is continued or marked crashed"
            )
    elif is_configured():
        print("none of the latest flow runs has a paid job")
    elif not runs:
        print(f"no run is recorded in {place}")
    if scopes:
        print(f"scopes outside of flows, in {place}:")
        print("\n".join(f"  {one['name']}" for one in scopes))
    if not is_configured():
        print(
            "flow runs are not included, because PREFECT_API_URL is not set. For those on this machine, run `prefect "
            "server start`, and set PREFECT_API_URL=http://127.0.0.1:4200/api"
        )


def _run_row(run: Mapping[str, Any], name: str, *more: str) -> tuple[object, ...]:
    return name, f"{run['jobs']:4} job(s)", run["state"] or "?", *more


async def _jobs_in(run: str, store: MediaStore | None) -> list[tuple[str, JobView, str]]:
    """Returns a run's jobs by time, including shared works: each with its scope, and the error of an unreadable job."""
    own = await _scope(run, store)
    works = await own.works()
    # A pipeline's run holds only the claims of its works, whose records are in the storage.
    found = list[tuple[str, JobView, str]]()
    try:
        async for view in own.jobs():
            if view.last is not None or works is None:
                found.append((own.journal.scope, view, ""))
    except UnreadableRecord as error:
        found.append((own.journal.scope, JobView(error.job_key), error.message))

    async def read(works: WorksJournal, work: str, n: int) -> list[tuple[str, JobView, str]]:
        try:
            submit = await JobRecords(works, work).submission(n)
        except JournalError as error:
            return [(works.scope, JobView(work), error.message)]
        is_own = submit is not None and submit.intent.flow_run == own.journal.scope
        return [(works.scope, JobView(work, (submit,)), "")] if submit is not None and is_own else []

    if works is None:
        return found
    reading = (read(works, work, n) for work, n in (await Notes.of(own)).claims)
    async for rows in run_together(reading, at_once=16):
        found += rows
    return sorted(found, key=lambda row: row[1].submits[0].intent.at if row[1].submits else "")


def _as_json(run: str, view: JobView, problem: str) -> dict[str, object]:
    last, costs = view.last, ended_costs(view)
    about: dict[str, object] = {"state": problem or "empty", "task_id": None, "model": None, "label": None}
    if last is not None:
        about = {"state": _state(last), "task_id": last.task_id, "model": last.intent.model, "label": last.intent.label}
    return {
        "job": f"{run}/{view.key}",
        **about,
        "costs": {unit: str(amount) for unit, amount in costs.amounts.items()},
        "unknown": costs.unknown,
    }


def _state(submit: Submit) -> str:
    return submit.end.status.lower() if submit.end and submit.state == "ended" else submit.state


async def _collectable(run: str, store: MediaStore | None) -> AsyncIterator[tuple[Scope, JobView]]:
    """Yields the jobs whose results will be downloaded; for a flow run, without its shared works."""
    scope = await _scope(run, store)
    async for view in scope.jobs():
        yield scope, view
    if isinstance(scope, FolderScope):
        async for view in (await Notes.of(scope)).jobs():
            yield scope, view


def _row(run: str, view: JobView, problem: str) -> tuple[object, ...]:
    last, name = view.last, f"{run}/{view.key[:_KEY_SHOWN]}"
    if last is None:
        return name, problem or "empty", "", "", ""
    return name, _state(last), last.task_id or "-", _what(view), ended_costs(view) or ""


def _what(view: JobView) -> str:
    intent = view.submits[-1].intent
    return f"{intent.label}: {intent.model}" if intent.label else intent.model


def _check_kind(job: str, intent: Intent, task: TaskView) -> None:
    """Raises an error if the results of a task are not of the kind that the job's model makes."""
    from rh_prefect.catalog.registry import get, is_known

    if not is_known(intent.endpoint):
        return
    output = get(intent.endpoint).output
    kinds = {str(mimetypes.guess_type(f"x.{one.type}")[0]).partition("/")[0] for one in task.outputs if one.url}
    if kinds and output in _KINDS and kinds <= _KINDS - {output}:
        raise InputError(
            f"{job}: task {task.task_id} made {' and '.join(sorted(kinds))}, but {intent.endpoint} makes {output}, so "
            f"this is not the task of the job. Nothing was recorded. What to do: look for a task of {intent.endpoint} "
            f"in RunningHub's call log, near the time {intent.at}. If there is one, adopt that task; if there is none, "
            f"run `rh-prefect jobs mark-refused {job}`."
        )


async def _mark_all_refused(run: str, store: MediaStore | None) -> None:
    """Marks the unknown submissions of a run; exits with 1 if one of them cannot be marked."""
    own = await _scope(run, store)
    journals = {one.scope: one for one in (own.journal, await own.works()) if one is not None}
    for journal in journals.values():
        async for _ in manual_repair.replay_spool(_spool(), journal):
            pass
    marked, left = 0, list[str]()
    for scope, view, problem in await _jobs_in(run, store):
        if problem:
            left.append(problem)
        if view.last is None or view.last.state not in _UNKNOWN:
            continue
        try:
            await manual_repair.mark_refused(journals[scope], view.key)
        except InputError as error:
            left.append(error.message)
        else:
            marked += 1
            print(f"{scope}/{view.key} ({_what(view)}, started at {view.last.intent.at}): recorded as not accepted")
    following = " The next run submits them again and pays." if marked else ""
    print(f"{run}: {marked} submission(s) recorded as not accepted.{following}")
    _end_with([f"NOT settled: {one}" for one in left])


def _end_with(left: Sequence[str]) -> None:
    """If something is left to do, prints it to stderr and exits with 1."""
    if left:
        print("\n".join(left), file=sys.stderr)
        sys.exit(1)


async def _check_lost(job: str, submit: Submit, journal: Journal, *, same_account: bool) -> None:
    """Raises an error if the task exists and its end is not recorded, or if the paying account was not queried."""
    task_id = submit.task_id or ""
    with suppress(TaskNotFound):
        status = (await _task(submit.intent, task_id)).status
        if submit.state == "ended":
            return
        raise InputError(
            f"{job}: task {task_id} exists at RunningHub ({status}), so it is not lost. Nothing was recorded. What to "
            f"do: {_continuation(journal)}."
        )
    if not same_account:
        same = f"run `rh-prefect jobs mark-lost {job} --same-account`"
        await _check_account(f"{job}: task {task_id} was paid for", submit.intent, "the task is lost", same=same)


async def _check_account(what: str, intent: Intent, unknown: str, *, same: str) -> None:
    """Raises an error if the present key is not of the account that paid, whose answer about a task would count.

    `what` was done on the account that paid, `unknown` is what only this account can tell, and `same` says what to do
    if both are the same account.
    """
    from rh_prefect.blocks.lookup import RECORDED

    asked = await LOOP.call(RECORDED.account_of(intent))
    if asked.name != intent.account:
        raise InputError(
            f"{what} on account {intent.account_words}, but the present key belongs to account {asked}. Only the "
            f"account that paid can tell whether {unknown}. Nothing was recorded. What to do: set the key of the "
            "account that paid, and run again. If both are the same account, with a renewed key or another name, "
            f"{same}."
        )


async def _check_files_lost(job: str, view: JobView, journal: Journal) -> None:
    """Raises an error if a job's files can still be downloaded; in this case, downloads them first."""
    from rh_prefect.flow_runs.recorded_job_collection import collect_result

    submit = view.submits[-1]
    if isinstance(journal, WorksJournal):
        raise InputError(
            f"{job}: task {submit.task_id} has succeeded, so it is not recorded as lost. What to do: to pay for a new "
            "result, run the pipeline again with --retake for this step, or repeat the call with another `take`."
        )
    seconds = get_settings().grace_seconds
    print(
        f"task {submit.task_id} has succeeded; the download of its files is tried again for up to {seconds:.0f} s",
        flush=True,
    )
    try:
        await LOOP.call(collect_result(view, await _scope(journal.scope)))
    except OutputsExpired:
        return
    raise InputError(
        f"{job}: task {submit.task_id} has succeeded, and its files are in the storage, so they are not lost. Nothing "
        f"was recorded. What to do: {_continuation(journal)}. This costs nothing."
    )


async def _task(intent: Intent, task_id: str) -> TaskView:
    """Queries a task with the account that submitted it."""
    from rh_prefect.blocks.lookup import RECORDED
    from rh_prefect.works.accounts.poller import query_repeatedly

    async def look() -> TaskView:
        return await query_repeatedly((await RECORDED.provider_of(intent)).query, task_id)

    return await LOOP.call(look())


async def _replay_spool(store: MediaStore | None) -> None:
    spool = _spool()
    scopes = sorted({entry.scope for entry in spool.entries()})
    if not scopes:
        print("no task ids are waiting on this machine")
    errors: dict[str, str] = {}
    late: list[str] = []
    for scope in scopes:
        try:
            async for task_id, is_used in manual_repair.replay_spool(spool, _journal(scope, store)):
                if is_used:
                    print(f"{scope}: task {task_id} is now recorded in its journal")
                else:
                    late.append(
                        f"NOT used: {scope}: task {task_id} is paid, but its submission was already recorded with "
                        "another outcome. It is now recorded as late, and counts as a cost. What to do: look for the "
                        "task in RunningHub's call log."
                    )
        except RunningHubError as error:  # the other task ids must be recorded all the same
            errors[scope] = error.message
    elsewhere = (
        "the journal does not have its submission. What to do: set RH_RECORDS and RH_STORAGE_URL to the values of the "
        "run that paid, or pass --storage with the block that it used, and run the command again."
    )
    _end_with(
        [
            *late,
            *(
                f"NOT recorded: {one.scope}/{one.key}: task {one.answer.task_id}: {errors.get(one.scope, elsewhere)}"
                for one in spool.entries()
                if one.answer.task_id is not None
            ),
        ]
    )


def _spool() -> Spool:
    return Spool(get_settings().state_dir / "spool")


async def _store(storage: str | None) -> MediaStore | None:
    """Opens the storage block that has the records of calls outside of flows, if the command names one."""
    from rh_prefect.blocks.lookup import load_storage

    return None if storage is None else await load_storage(storage)


def _journal(scope: str, store: MediaStore | None) -> Journal:
    # Prefect takes a second to import, which `--help` need not wait for.
    from rh_prefect.flow_runs.run_queries_and_scopes import journal_of

    return journal_of(scope, store)


async def _scope(run: str, store: MediaStore | None = None) -> Scope:
    from rh_prefect.flow_runs.run_queries_and_scopes import scope_named

    return await scope_named(run, store)

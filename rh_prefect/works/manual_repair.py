"""Repairs jobs by hand: resolves unknown submissions, restores lost records, and finds tasks without a record."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection
from datetime import datetime
from itertools import count

from rh_prefect.client import is_task_id
from rh_prefect.errors import InputError
from rh_prefect.media.store import MediaStore
from rh_prefect.works.journal.job_records_and_state import BY_A_PERSON, JobRecords, JobView, Submit, jobs_of, read_job
from rh_prefect.works.journal.journal import Journal, UnreadableRecord
from rh_prefect.works.journal.record_types import (
    FORMAT_KEY,
    Answer,
    End,
    Intent,
    Link,
    Lost,
    Resolution,
    current_owner,
    is_surely_dead,
)
from rh_prefect.works.journal.scope import begin_scope, is_empty
from rh_prefect.works.journal.spool import Spool
from rh_prefect.works.stored_result import StoredResult, read_all

_log = logging.getLogger("rh_prefect")


async def adopt(journal: Journal, key: str, task_id: str) -> None:
    """Records the task of an unknown submission; the next run waits for the task and pays nothing."""
    if not is_task_id(task_id):
        raise InputError(
            f"{task_id!r} is not a task id: RunningHub's ids contain only digits, and ComfyUI's ids begin with "
            "the name of the machine, as in proxy.PROMPT_ID. Nothing was recorded. What to do: copy the whole id."
        )
    async for view in jobs_of(journal):
        # `_resolve` checks the last submission of the job itself, with a more exact message. A task that came too late
        # for an earlier submission of the job is of the same request.
        is_own = view.key == key
        others = view.submits[:-1] if is_own else view.submits
        if any(task_id == one.task_id or (task_id == one.late_task_id and not is_own) for one in others):
            raise InputError(
                f"{journal.scope}/{key}: task {task_id} already belongs to {journal.scope}/{view.key}, and one task "
                "cannot belong to two jobs. Nothing was recorded. What to do: look for another task in RunningHub's "
                "call log, near the time that the job's error shows. If there is one, adopt that task; if there is "
                f"none, run `rh-prefect jobs mark-refused {journal.scope}/{key}`."
            )
    await _resolve(journal, key, Resolution(outcome="adopted", task_id=task_id, by=BY_A_PERSON))


async def mark_refused(journal: Journal, key: str) -> None:
    """Records that an unknown submission was not accepted; the next run submits the request again."""
    await _resolve(journal, key, Resolution(outcome="forgotten", by=BY_A_PERSON))


async def mark_lost(journal: Journal, key: str) -> None:
    """Records that a job's task, or the files of its result, no longer exist; the next run pays for a new task."""
    *_, submit = (await read_job(journal, key)).submits
    if not may_be_lost(submit):
        raise InputError(
            f"{journal.scope}/{key}: this job has neither a running task nor a result that could be lost. Nothing was "
            "recorded. What to do: check its state with `rh-prefect jobs show`."
        )
    if not await JobRecords(journal, key).create(submit.n, Lost(by=BY_A_PERSON, of_result=submit.state == "ended")):
        raise InputError(
            f"{journal.scope}/{key}: task {submit.task_id} was already marked as lost, and was found after all or has "
            "just been marked by another process. Nothing was recorded. What to do: run the job again. If its files "
            "are missing, pay for a new result with another `take`, or in a pipeline with --retake."
        )


def may_be_lost(submit: Submit) -> bool:
    """Returns whether a submission can be marked as lost: it has a running task, or a result with files."""
    return submit.state == "ticket" or (submit.state == "ended" and submit.has_succeeded)


async def _resolve(journal: Journal, key: str, resolution: Resolution) -> None:
    view = await read_job(journal, key)
    *_, submit = view.submits
    if submit.state == "open":
        submit = await _call_unknown(journal, view, submit)
    if submit.state != "unknown":
        task = f" (its last task is {submit.task_id})" if submit.task_id else ""
        raise InputError(
            f"{journal.scope}/{key}: this job has no submission with an unknown outcome{task}. Nothing was recorded. "
            "What to do: run the job again (this waits for a running task at no cost)."
        )
    if not await JobRecords(journal, key).create(submit.n, resolution):
        raise InputError(
            f"{journal.scope}/{key}: another process has just recorded the outcome of this job's submission. Nothing "
            f"was changed. What to do: run `rh-prefect jobs show {journal.scope}/{key}` to see the outcome."
        )


async def _call_unknown(journal: Journal, view: JobView, submit: Submit) -> Submit:
    if not is_surely_dead(submit.intent.owner):
        owner = submit.intent.owner
        raise InputError(
            f"{journal.scope}/{view.key}: its submission may still be in progress, in process {owner.pid} "
            f"on {owner.host}. What to do: end that process, and run the job again; the error "
            "then says what to do."
        )
    answer = Answer(outcome="unknown", reason="the process that posted it has ended unexpectedly", retry="unknown")
    await JobRecords(journal, view.key).create(submit.n, answer)
    *_, submit = (await read_job(journal, view.key)).submits
    return submit


async def replay_spool(spool: Spool, journal: Journal) -> AsyncIterator[tuple[str, bool]]:
    """Copies answers that exist only in this machine's spool into the journal of their scope.

    Yields each task id as soon as it is copied, because a later one may fail, with whether its job uses the task: it
    does not if another outcome was recorded before.
    If the journal does not have the submission of an answer, the answer belongs to a scope of the same name elsewhere,
    and stays on this machine.
    """
    for entry in [entry for entry in spool.entries() if entry.scope == journal.scope]:
        records, task_id = JobRecords(journal, entry.key), entry.answer.task_id
        submit = await records.submission(entry.n)
        if submit is None or submit.intent.token != entry.token:
            if task_id is not None:
                _log.warning(
                    "task %s was paid for by %s, which is not recorded in this journal, so its task id stays on this "
                    "machine. What to do: set RH_RECORDS and RH_STORAGE_URL to the values of the run that paid, then "
                    "run rh-prefect jobs adopt --spool",
                    task_id,
                    records.name,
                )
            continue
        settled = await records.settle(submit, entry.answer, by="this machine's spool")
        spool.drop(*entry.submission)
        if task_id is not None:
            yield task_id, settled.task_id == task_id


async def orphans(
    journal: Journal, requested: Collection[str], *, attempt: int, since: datetime | None = None
) -> AsyncIterator[JobView]:
    """Yields paid jobs of a scope that this start did not request, for example because prompts are random.

    A resume after a suspension has the attempt's number of the start before it: `since` is when it began.
    """

    def is_earlier(intent: Intent) -> bool:
        return intent.attempt != attempt or (since is not None and datetime.fromisoformat(intent.at) < since)

    def is_orphan(view: JobView) -> bool:
        return view.key not in requested and any(one.task_id and is_earlier(one.intent) for one in view.submits)

    async for view in jobs_of(journal):
        if is_orphan(view):
            yield view


async def recover(journal: Journal, store: MediaStore) -> list[str]:
    """Writes the records of a scope's jobs again, from the stored results in a store; returns the jobs' keys.

    Raises `UnreadableRecord` after the other jobs are restored.
    """
    stored, begin = await asyncio.to_thread(lambda: list(read_all(store))), f"{journal.scope}/"
    # Of several results of a job the last one is valid: the others were marked as lost.
    stored.sort(key=lambda one: one.ended_at)
    results = {one.job.removeprefix(begin): one for one in stored if one.job.startswith(begin)}
    lacks_format = await journal.read(FORMAT_KEY) is None and not await is_empty(journal)
    # The shared works of a scope have their records elsewhere; only the record of its format is written again.
    is_of_works = any(one.run.get("flow_run") == journal.scope for one in stored)
    if not (results or lacks_format or is_of_works):
        raise InputError(
            f"{store.url} contains no result of {journal.scope}'s jobs; nothing was recorded. What to do: use "
            "--storage to name the MediaStorage block that contains the run's outputs."
        )
    await begin_scope(journal)
    unreadable: dict[str, UnreadableRecord] = {}
    for key, one in results.items():
        records = JobRecords(journal, key)
        try:
            n = _number_of(one, await records.view())
        except UnreadableRecord as error:  # the other jobs would be paid for again
            unreadable[records.name] = error
            continue
        for record in _records(one, store):
            await records.create(n, record)
    if unreadable:
        first, *others = unreadable.values()
        raise first.with_others(others).with_note(
            f"These jobs were not restored: {', '.join(unreadable)}. All others were restored: "
            f"{len(results) - len(unreadable)} job(s)."
        )
    return list(results)


def _number_of(one: StoredResult, view: JobView) -> int:
    """Returns the number of the submission that made a result, or the first free one if its records are missing.

    With the number in the result, the records may leave a gap, which the next run would pay for.
    """
    known = (submit.n for submit in view.submits if submit.intent.at == one.submitted_at)
    return next(known, next(n for n in count(1) if view.find(n) is None))


def _records(one: StoredResult, store: MediaStore) -> tuple[Intent, Answer, End]:
    intent = Intent(
        at=one.submitted_at,
        owner=current_owner(),
        store=store.url,
        base=one.base,
        **one.requested,
    )
    answer = Answer(at=one.submitted_at, outcome="ticket", task_id=one.task_id)
    end = End(
        at=one.ended_at,
        status="SUCCESS",
        task_id=one.task_id,
        links=tuple(Link(text=text) for text in one.texts),
        **one.charged,
    )
    return intent, answer, end

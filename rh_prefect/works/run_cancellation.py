"""Cancels all submitted tasks of a run at RunningHub, and prevents new submissions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from rh_prefect.bounded_caches_and_locks import SingleFlight
from rh_prefect.client import TaskView
from rh_prefect.errors import ApiError, RunningHubError, TaskNotFound
from rh_prefect.works.accounts.poller import is_settled
from rh_prefect.works.journal.job_records_and_state import JobRecords, Submit
from rh_prefect.works.journal.journal import UnreadableRecord
from rh_prefect.works.journal.record_types import Intent, is_surely_dead
from rh_prefect.works.journal.scope import FolderScope, Scope, forbid_attempt, last_attempt
from rh_prefect.works.journal.spool import Spool
from rh_prefect.works.journal.works_journal import HasEnded, no_evidence
from rh_prefect.works.lifecycle import may_cancel
from rh_prefect.works.result import end_of
from rh_prefect.works.run_ledger import Notes, SharedRecords
from rh_prefect.works.runninghub.provider import RunningHub

PATIENCE = 20.0
"""Maximum seconds to wait for submissions in flight during a cancellation; Prefect kills the process after 30 s."""

UNTIL_INTENT = 12.0
"""Maximum seconds to wait for the intent of a noted claim, after the cancellation is recorded.

A process with an intent that is created later reads the cancellation before its POST, because its view of the flow
run's journal is at most `lifecycle_steps.BEFORE_CLAIM` seconds old. Outside of flows, each process reads the storage
after it has created its intent; then there is nothing to wait for.
"""

AT_ONCE = 16
"""Number of tasks that are cancelled at a time."""

POLLS_FOR_OUTPUTS = 5
"""Number of polls for the outputs of a task that had succeeded before its cancellation."""

_CURRENCY_SECONDS = 2.0
"""Seconds for which the request for a currency is repeated while RunningHub is busy; tasks wait to be cancelled."""

_CURRENCY_TIMEOUT = 5.0
"""Maximum seconds to wait for a currency, even if RunningHub does not answer."""

_ACCOUNTS = 1000
"""Maximum number of accounts whose currencies a cancellation stores."""

UNCLEAR = "it is unknown whether its submission was accepted"
_PAUSE = 0.5

_log = logging.getLogger("rh_prefect")


async def cancel_task(client: RunningHub, task_id: str) -> TaskView:
    """Cancels a task, and returns its state afterwards; `CANCELLED` if RunningHub no longer has the task."""
    refused: ApiError | None = None
    try:
        await client.cancel(task_id)
    except ApiError as error:
        # RunningHub may refuse for a task that has ended; the query shows it.
        if error.retry not in ("final", "pending"):
            raise
        refused = error
    view = await _after_cancelling(client, task_id)
    if view is not None and view.is_terminal:
        return view
    if refused is not None:
        raise refused
    # RunningHub accepted the cancellation, and it may take effect later or never; a task that is gone was cancelled.
    return view or TaskView(task_id=task_id, status="CANCELLED")


async def _after_cancelling(client: RunningHub, task_id: str) -> TaskView | None:
    """Returns a task's state; after a success, waits some seconds for the outputs. None if the task is not found."""
    try:
        view = await client.query(task_id)
        for _ in range(POLLS_FOR_OUTPUTS):
            if is_settled(view) or not view.is_terminal:
                break
            await asyncio.sleep(1.0)
            view = await client.query(task_id)
    except TaskNotFound:
        return None
    return view


Currencies: TypeAlias = SingleFlight[RunningHub, str | None]
"""The currencies of accounts; each is asked at most once, even if it has several names or does not answer."""


async def _currency_of(client: RunningHub) -> str | None:
    with suppress(RunningHubError, TimeoutError):  # then, the currency of the intent counts
        async with asyncio.timeout(_CURRENCY_TIMEOUT):
            return await client.currency(pace_seconds=_CURRENCY_SECONDS)
    return None


async def cancel_submission(
    client: RunningHub, submit: Submit, *, records: JobRecords, attempt: int, currencies: Currencies | None = None
) -> str:
    """Cancels the task of a submission, and records its end; returns the status of the task.

    The record of an end never changes. So neither a success without its files nor a cancellation that has not taken
    effect is recorded. Callers that wait for the task, or a later run, query it again before anything is paid.
    """
    last = await cancel_task(client, submit.task_id or "")
    if not is_settled(last):
        return last.status if last.is_terminal else "CANCELLED"
    known = SingleFlight() if currencies is None else currencies
    currency = await known.get(client, partial(_currency_of, client)) if last.cost is not None else None
    return (await records.end(submit.n, end_of(submit, last, attempt=attempt, currency=currency))).status


@dataclass(slots=True)
class CancelReport:
    """What happened to a run's tasks when the run was cancelled."""

    cancelled: list[str] = field(default_factory=list)  # Task ids that were cancelled
    finished: list[str] = field(default_factory=list)  # Task ids that had ended already
    # Job -> the reason why its task could not be cancelled, or why its existence is unknown
    failed: dict[str, str] = field(default_factory=dict)
    # Task ids that were not cancelled, because another run waits for them
    continued: list[str] = field(default_factory=list)


async def cancel_scope(
    scope: Scope,
    client_for: Callable[[Intent], Awaitable[RunningHub]],
    *,
    by: str,
    has_ended: HasEnded = no_evidence,
    spool: Spool | None = None,
) -> CancelReport:
    """Cancels all tasks that a run has submitted, and shared tasks that no other run waits for.

    First, the `cancel` record is created: from then on, a live process of the run submits nothing, and cancels a task
    that it has just submitted. Then the records are read, and each task is cancelled. Submissions in flight are read
    again until they have an answer, or until `PATIENCE` has passed; `spool` has answers of this machine that are not in
    the records. A noted claim without an intent is given up after `UNTIL_INTENT`.
    """
    await _forbid(scope, by=by)
    now = asyncio.get_running_loop().time()
    until_intent = now if isinstance(scope, FolderScope) else now + UNTIL_INTENT
    cancellation = _Cancellation(scope, client_for, spool, now + PATIENCE, until_intent)
    running = list[asyncio.Task[None]]()
    try:
        for listed in (_jobs_of(scope), _works_of(scope, has_ended)):
            try:
                async for one in listed:
                    running.append(asyncio.ensure_future(cancellation.cancel(*one)))
            except UnreadableRecord as error:
                cancellation.report.failed[f"{scope.journal.scope}/{error.job_key}"] = error.message
    finally:
        await asyncio.gather(*running)
    return cancellation.report


_Task: TypeAlias = tuple[JobRecords, int, Submit | None]
"""The records of a work, the number of a submission, and the submission if it was read already."""


async def _jobs_of(scope: Scope) -> AsyncIterator[_Task]:
    """Yields the newest submission of each job of the run."""
    async for view in scope.jobs():
        if view.last is not None:
            yield JobRecords(scope.journal, view.key), view.last.n, view.last


async def _works_of(scope: Scope, has_ended: HasEnded) -> AsyncIterator[_Task]:
    """Yields the submissions of shared works that the run has claimed or waited for, and that may be running."""
    if (works := await scope.works()) is not None:
        for work, n in (await Notes.of(scope)).unsettled:
            yield SharedRecords(works, work, scope, has_ended=has_ended), n, None


@dataclass(slots=True)
class _Cancellation:
    """Cancels the tasks of one run, several at a time; an error in one cancellation does not stop the others."""

    scope: Scope
    client_for: Callable[[Intent], Awaitable[RunningHub]]
    spool: Spool | None
    deadline: float  # The time of the loop after which submissions in flight are given up
    until_intent: float  # The time of the loop from which a claim without an intent is not submitted
    report: CancelReport = field(default_factory=CancelReport)
    currencies: Currencies = field(default_factory=lambda: SingleFlight(_ACCOUNTS))
    gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def cancel(self, records: JobRecords, n: int, submit: Submit | None) -> None:
        """Cancels the task of a submission as soon as it has an answer."""
        try:
            async with self.gate:
                submit = await self._answered(records, submit or await records.submission(n))
            while self._is_in_flight(submit) and asyncio.get_running_loop().time() < self.deadline:
                await asyncio.sleep(_PAUSE)
                submit = await self._answered(records, await records.submission(n))
            if submit is not None and not self._is_later(submit):
                async with self.gate:
                    await self._cancel(records, submit)
        except RunningHubError as error:
            self.report.failed[records.name] = error.message
        except Exception as error:
            _log.exception("%s: its task could not be cancelled", records.name)
            self.report.failed[records.name] = f"{type(error).__name__}: {error}"

    async def _answered(self, records: JobRecords, submit: Submit | None) -> Submit | None:
        """Records the answer to a submission if only this machine has it; returns the submission as it is recorded."""
        if submit is None or self.spool is None:
            return submit
        name = records.journal.scope, records.key, submit.n, submit.intent.token
        answer = self.spool.get(*name)
        if answer is None:
            return submit
        submit = await records.settle(submit, answer, by="this machine's spool")
        with suppress(OSError):
            self.spool.drop(*name)
        return submit

    def _is_own(self, submit: Submit) -> bool:
        return submit.intent.flow_run in ("", self.scope.journal.scope)

    def _is_later(self, submit: Submit) -> bool:
        """Returns whether a later attempt of the run has made a submission, which is a new decision to pay."""
        return self._is_own(submit) and submit.intent.attempt > self.scope.attempt

    def _is_in_flight(self, submit: Submit | None) -> bool:
        if submit is None:
            return asyncio.get_running_loop().time() < self.until_intent
        is_open = submit.state == "open" and not is_surely_dead(submit.intent.owner)
        return is_open and self._is_own(submit) and not self._is_later(submit)

    async def _cancel(self, records: JobRecords, submit: Submit) -> None:
        task_id, report = submit.task_id or "", self.report
        if submit.state in ("open", "unknown") and self._is_own(submit):
            report.failed[records.name] = UNCLEAR
        elif submit.state == "ticket" and not await may_cancel(records):
            report.continued.append(task_id)
        elif submit.state == "ticket":
            client = await self.client_for(submit.intent)
            status = await cancel_submission(
                client, submit, records=records, attempt=self.scope.attempt, currencies=self.currencies
            )
            (report.cancelled if status == "CANCELLED" else report.finished).append(task_id)


async def _forbid(scope: Scope, *, by: str) -> None:
    """Records that the run may submit nothing more; in a named scope, this applies to all its processes."""
    first = scope.attempt
    if isinstance(scope, FolderScope):
        first = min(first, await last_attempt(scope.journal, kind="cancel") + 1)
    # In order, so that an interruption leaves no gaps.
    for attempt in range(first, scope.attempt + 1):
        await forbid_attempt(scope.journal, attempt, by=by)

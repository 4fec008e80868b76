"""Cancels all submitted tasks of a run at RunningHub, and prevents new submissions."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from rh_prefect.caches_and_locks import LruCache
from rh_prefect.client import TaskView
from rh_prefect.errors import ApiError, RunningHubError, TaskNotFound
from rh_prefect.works.accounts.poller import is_settled
from rh_prefect.works.journal.job_records import JobRecords, JobView, Submit, jobs_of, read_job
from rh_prefect.works.journal.journal import Journal
from rh_prefect.works.journal.process_identity import is_surely_dead
from rh_prefect.works.journal.record_types import Intent
from rh_prefect.works.journal.scope import FolderScope, Scope, cancel_key, forbid_attempt, last_attempt
from rh_prefect.works.outputs.result import end_of

REMEMBER = 2.0
"""Maximum age in seconds of a "not cancelled" that is used without a new read."""

BEFORE_CLAIM = 10.0
"""The same before a claim, if the creation of the intent detects a cancellation and so prevents the POST."""

PATIENCE = 20.0
"""Seconds for which the cancelling process waits for submits in flight; Prefect's own grace is 30 s."""

AT_ONCE = 16
"""How many tasks are cancelled at a time."""

POLLS_FOR_OUTPUTS = 5
"""How often a task that had succeeded before its cancellation is polled again for its outputs."""

UNCLEAR = "it is unknown whether its submit was accepted"
_PAUSE = 0.5
_CACHE_SIZE = 1000
"""Number of attempts of runs for which a process stores whether they were cancelled."""

_log = logging.getLogger("rh_prefect")


class CancelWatch:
    """A check whether a run was cancelled, without reading its journal for each of its jobs."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._checks: LruCache[tuple[str, int], tuple[bool, float]] = LruCache(_CACHE_SIZE)
        self._turns: LruCache[tuple[str, int], asyncio.Lock] = LruCache(_CACHE_SIZE, make=asyncio.Lock)

    async def check(self, journal: Journal, attempt: int, *, max_age: float = REMEMBER) -> bool:
        """Whether an attempt of a run has a `cancel` record.

        Args:
            journal: The run's journal.
            attempt: The flow-run attempt: a run that is started again after a cancellation may submit again.
            max_age: Maximum age in seconds of a "not cancelled"; 0 always reads the journal.
        """
        key = (journal.scope, attempt)
        if journal.is_absent(cancel_key(attempt), max_age=max_age):
            return False
        # A read that started after this call counts as new, so that concurrent callers share one read.
        oldest = self._clock() - max_age
        if not self._is_cached(key, oldest):
            async with self._turns[key]:
                if not self._is_cached(key, oldest):
                    requested_at = self._clock()
                    cancelled = await journal.read(cancel_key(attempt)) is not None
                    self._checks[key] = (cancelled, requested_at)
        return self._checks[key][0]

    def _is_cached(self, key: tuple[str, int], oldest: float) -> bool:
        cached = self._checks.get(key)
        return cached is not None and (cached[0] or cached[1] > oldest)


class Cancels(Protocol):
    """The protocol of a client that can cancel and query tasks."""

    async def cancel(self, task_id: str) -> None:
        """Cancels a task."""

    async def query(self, task_id: str) -> TaskView:
        """Returns a task's state."""


async def cancel_task(
    client: Cancels, task_id: str, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> TaskView:
    """Cancels a task and returns its final state."""
    refused: ApiError | None = None
    try:
        await client.cancel(task_id)
    except ApiError as error:
        # RunningHub may refuse for a task that has ended; the query shows it.
        if error.retry not in ("final", "pending"):
            raise
        refused = error
    view = await _after_cancelling(client, task_id, sleep)
    if view is not None and view.is_terminal:
        return view
    if refused is not None:
        raise refused
    # RunningHub accepted the cancellation, and it may take effect later or never; a task that is gone was cancelled.
    return view or TaskView(task_id=task_id, status="CANCELLED")


async def _after_cancelling(
    client: Cancels, task_id: str, sleep: Callable[[float], Awaitable[None]]
) -> TaskView | None:
    """The current state of the task, a success with its outputs, which can be late; None if the task is not found."""
    try:
        view = await client.query(task_id)
        for _ in range(POLLS_FOR_OUTPUTS):
            if is_settled(view) or not view.is_terminal:
                break
            await sleep(1.0)
            view = await client.query(task_id)
    except TaskNotFound:
        return None
    return view


async def cancel_submission(client: Cancels, submit: Submit, *, records: JobRecords, attempt: int) -> str:
    """Cancels the task of a submission, and records its end.

    The record of an end is never changed, so that only a final state is recorded: neither a success whose files are not
    listed yet, nor a cancellation that has not taken effect. Who waits for the task, or a later run, queries it again
    before anything is paid.
    """
    last = await cancel_task(client, submit.task_id or "")
    if not is_settled(last):
        return last.status if last.is_terminal else "CANCELLED"
    return (await records.end(submit.n, end_of(submit, last, attempt=attempt, queued=None, ran=None))).status


def is_unclear(submit: Submit) -> bool:
    """Returns whether a submission may have been accepted, and no process will record whether it was."""
    return submit.state == "unknown" or (submit.state == "open" and is_surely_dead(submit.intent.owner))


@dataclass(slots=True)
class CancelReport:
    """The results of a run's tasks after the run was cancelled."""

    cancelled: list[str] = field(default_factory=list)  # Task ids that were cancelled
    finished: list[str] = field(default_factory=list)  # Task ids that had ended already
    # Job -> the reason why its task could not be cancelled, or why its existence is unknown
    failed: dict[str, str] = field(default_factory=dict)
    # Task ids that were not cancelled, because another run waits for them
    continued: list[str] = field(default_factory=list)

    def add(self, other: CancelReport) -> None:
        """Adds the results of other tasks of the run."""
        self.cancelled += other.cancelled
        self.finished += other.finished
        self.failed |= other.failed
        self.continued += other.continued


async def cancel_scope(
    scope: Scope,
    client_for: Callable[[Intent], Awaitable[Cancels]],
    *,
    by: str,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> CancelReport:
    """Cancels all tasks that a run has submitted.

    First the `cancel` record is written: from then on a living runner submits nothing, and cancels what it has just
    submitted. Then the scope is read, and each task is cancelled as soon as its job is. Jobs whose submit is in flight
    are read again, until it is answered or `PATIENCE` is over.

    Args:
        scope: The run.
        client_for: Returns a client for the account of an intent.
        by: Who cancels, for the record.
        clock: Monotonic seconds.
        sleep: Waits for submits in flight.
    """
    await _forbid(scope, by=by)
    cancellation = _Cancellation(scope, client_for, deadline=clock() + PATIENCE, clock=clock, sleep=sleep)
    await cancellation.run(view async for view in jobs_of(scope.journal) if _is_of(scope, view))
    return cancellation.report()


class _Cancellation:
    """The cancellation of one run's jobs: each as soon as it is read, and some at a time."""

    def __init__(
        self,
        scope: Scope,
        client_for: Callable[[Intent], Awaitable[Cancels]],
        *,
        deadline: float,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._scope = scope
        self._client_for = client_for
        self._deadline = deadline
        self._clock = clock
        self._sleep = sleep
        self._ended: dict[str, str] = {}
        self._failed: dict[str, str] = {}
        self._in_flight: dict[str, JobView] = {}

    async def run(self, views: AsyncIterator[JobView]) -> None:
        """Cancels jobs that have a ticket, and waits for pending submissions to get one, until the deadline."""
        async with _Workers(AT_ONCE) as workers:
            async for view in views:
                if self._sort(view):
                    await workers.start(self._cancel(view))
        while self._in_flight:
            if self._clock() < self._deadline:
                await self._sleep(_PAUSE)
            await self._check_in_flight(until=max(self._deadline, self._clock() + _PAUSE))
            if self._clock() >= self._deadline:
                break
        self._failed |= {self._job(view): UNCLEAR for view in self._in_flight.values()}

    def report(self) -> CancelReport:
        """Returns the result for each job."""
        return CancelReport(
            cancelled=[task for task, status in self._ended.items() if status == "CANCELLED"],
            finished=[task for task, status in self._ended.items() if status != "CANCELLED"],
            failed=self._failed,
        )

    async def _check_in_flight(self, *, until: float) -> None:
        """Reads the jobs again whose submit was in flight."""
        async with _Workers(AT_ONCE) as workers:
            for view in tuple(self._in_flight.values()):
                if self._clock() < until:
                    await workers.start(self._read_again(view))

    async def _read_again(self, earlier: JobView) -> None:
        view = await read_job(self._scope.journal, earlier.key)
        if self._sort(view):
            await self._cancel(view)

    def _sort(self, view: JobView) -> bool:
        """Classifies a job by its last submission; returns whether its task is to be cancelled."""
        self._in_flight.pop(view.key, None)
        if view.last is not None and is_unclear(view.last):
            self._failed[self._job(view)] = UNCLEAR
        elif view.state == "open":
            self._in_flight[view.key] = view
        return view.state == "ticket"

    async def _cancel(self, view: JobView) -> None:
        """Cancels a job's task and records its end; an error does not stop the others."""
        submit = view.last
        if submit is None or submit.task_id is None:
            return
        try:
            client, records = await self._client_for(submit.intent), JobRecords(self._scope.journal, view.key)
            status = await cancel_submission(client, submit, records=records, attempt=self._scope.attempt)
            self._ended[submit.task_id] = status
        except RunningHubError as error:
            self._failed[self._job(view)] = error.message
        except Exception as error:  # the other tasks are still cancelled
            _log.exception("%s: task %s could not be cancelled", self._job(view), submit.task_id)
            self._failed[self._job(view)] = f"{type(error).__name__}: {error}"

    def _job(self, view: JobView) -> str:
        return f"{self._scope.journal.scope}/{view.key}"


class _Workers:
    """Coroutines that run beside the caller, a limited number at a time; leaving the block waits for all of them."""

    def __init__(self, most: int) -> None:
        self._gate = asyncio.Semaphore(most)
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        while running := [task for task in self._running if not task.done()]:
            await asyncio.wait(running)
        for task in self._running:
            task.result()

    async def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Starts a coroutine as soon as the limit allows it."""
        await self._gate.acquire()
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        # A failed task stays, so that the exit of the block raises its error.
        if not task.cancelled() and task.exception() is None:
            self._running.discard(task)
        self._gate.release()


async def _forbid(scope: Scope, *, by: str) -> None:
    """Records that the run submits nothing more; in a named scope for all processes that have opened it."""
    first = scope.attempt
    if isinstance(scope, FolderScope):
        first = min(first, await last_attempt(scope.journal, kind="cancel") + 1)
    # In order, so that an interruption leaves no gaps.
    for attempt in range(first, scope.attempt + 1):
        await forbid_attempt(scope.journal, attempt, by=by)


def _is_of(scope: Scope, view: JobView) -> bool:
    """Returns whether a job is of this attempt or an earlier one."""
    return view.last is not None and view.last.intent.attempt <= scope.attempt

"""Cancel means cancel: what a run has submitted is cancelled at RunningHub, and nothing new is submitted."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from rh_prefect.client import TaskView
from rh_prefect.errors import ApiError, RunningHubError, TaskNotFound
from rh_prefect.jobs.accounts.poller import is_settled
from rh_prefect.jobs.care import jobs_of
from rh_prefect.jobs.ending import end_of
from rh_prefect.jobs.ledger.journal import Journal
from rh_prefect.jobs.ledger.owner import is_surely_dead
from rh_prefect.jobs.ledger.records import Cancelled, Intent, JobView, Submit
from rh_prefect.jobs.ledger.scope import FolderScope, Scope, last_attempt

REMEMBER = 2.0
"""Seconds for which "not cancelled" is believed where a fresh look is not needed."""

PATIENCE = 20.0
"""Seconds for which the cancelling process waits for submits in flight; Prefect's own grace is 30 s."""

LOOKS_FOR_OUTPUTS = 5
"""How often a task that had succeeded before its cancellation is asked again for outputs that it does not show yet."""


class CancelWatch:
    """Tells whether a run was cancelled, without asking its journal for each of its jobs."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts with nothing known."""
        self._clock = clock
        self._seen: dict[tuple[str, int], tuple[bool, float]] = {}
        self._turns: defaultdict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def look(self, journal: Journal, attempt: int, *, fresh: bool) -> bool:
        """Looks for the `cancel` record of an attempt of a run.

        Args:
            journal: The run's journal.
            attempt: The flow-run attempt: a run that is started again after a cancellation may submit again.
            fresh: Whether the journal itself must be asked.
        """
        key = (journal.scope, attempt)
        # What was asked after this call began is fresh, so that many who wait for their turn need one answer.
        oldest = self._clock() - (0.0 if fresh else REMEMBER)
        if not self._is_known(key, oldest):
            async with self._turns[key]:
                if not self._is_known(key, oldest):
                    asked_at = self._clock()
                    cancelled = await journal.read(f"cancel-{attempt}") is not None
                    self._seen[key] = (cancelled, asked_at)
        return self._seen[key][0]

    def _is_known(self, key: tuple[str, int], oldest: float) -> bool:
        cancelled, at = self._seen.get(key, (False, -math.inf))
        return cancelled or at > oldest


class Cancels(Protocol):
    """What is needed of a client."""

    async def cancel(self, task_id: str) -> None:
        """Cancels a task."""

    async def query(self, task_id: str) -> TaskView:
        """Asks how a task is."""


async def cancel_task(
    client: Cancels, task_id: str, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> TaskView:
    """Cancels a task and says what became of it.

    Args:
        client: Talks to RunningHub.
        task_id: The task.
        sleep: Waits for the outputs of a task that had succeeded.

    Returns:
        The task's last view: cancelled, or already ended.

    Raises:
        RunningHubError: It could not be cancelled; it may go on and cost.
    """
    refused: ApiError | None = None
    try:
        await client.cancel(task_id)
    except ApiError as error:
        # A task that has ended already may well be refused; the query tells.
        if error.retry not in ("final", "state"):
            raise
        refused = error
    view = await _after_cancelling(client, task_id, sleep)
    if view is not None and view.is_terminal:
        return view
    if refused is not None:
        raise refused
    # RunningHub accepted the cancellation and does not say CANCEL yet; nothing documents that it ever does.
    return TaskView(task_id=task_id, status="CANCELLED")


async def _after_cancelling(
    client: Cancels, task_id: str, sleep: Callable[[float], Awaitable[None]]
) -> TaskView | None:
    """The task as it is now, a success with its outputs, which can come seconds later; None where it is not known."""
    try:
        view = await client.query(task_id)
        for _ in range(LOOKS_FOR_OUTPUTS):
            if is_settled(view) or not view.is_terminal:
                break
            await sleep(1.0)
            view = await client.query(task_id)
    except TaskNotFound:
        return None
    return view


@dataclass(frozen=True, slots=True)
class CancelReport:
    """What became of a run's tasks when it was cancelled.

    Attributes:
        cancelled: Task ids that were cancelled.
        finished: Task ids that had ended already.
        failed: Job -> why its task could not be cancelled, or why nobody knows whether there is one.
    """

    cancelled: tuple[str, ...]
    finished: tuple[str, ...]
    failed: dict[str, str]


async def cancel_scope(
    scope: Scope,
    client_for: Callable[[Intent], Awaitable[Cancels]],
    *,
    by: str,
    since: int = 1,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> CancelReport:
    """Cancels all that a run has submitted.

    First the `cancel` record is written: from then on a living runner submits nothing, and cancels what it has just
    submitted. Then the scope is read until no submit is in flight.

    Args:
        scope: The run.
        client_for: Gives a client of the account that an intent names.
        by: Who cancels, for the record.
        since: The first attempt whose jobs are meant: a batch's jobs are not all that its journal holds.
        clock: Monotonic seconds.
        sleep: Waits for submits in flight.
    """
    await _forbid(scope, by=by)
    deadline = clock() + PATIENCE
    ended: dict[str, str] = {}
    while True:
        views = [view async for view in jobs_of(scope.journal) if _is_of(scope, view, since)]
        failed = await _cancel_running(views, scope, client_for, ended)
        if not any(_is_in_flight(view) for view in views) or clock() > deadline:
            break
        await sleep(0.5)
    unclear = {
        f"{scope.journal.scope}/{view.key}": "nobody knows whether its submit was accepted"
        for view in views
        if view.state in ("open", "unknown")
    }
    return CancelReport(
        cancelled=tuple(task for task, status in ended.items() if status == "CANCELLED"),
        finished=tuple(task for task, status in ended.items() if status != "CANCELLED"),
        failed=failed | unclear,
    )


async def _forbid(scope: Scope, *, by: str) -> None:
    """Records that nothing more is submitted; in a named scope by none of the processes that have opened it."""
    first = scope.attempt
    if isinstance(scope, FolderScope):
        first = min(first, await last_attempt(scope.journal, what="cancel") + 1)
    # In order, so that there are no gaps should this be cut off.
    for attempt in range(first, scope.attempt + 1):
        await scope.journal.create(f"cancel-{attempt}", Cancelled(by=by).model_dump(mode="json"))


def _is_of(scope: Scope, view: JobView, since: int) -> bool:
    """Whether a job is one of this attempt, or of an earlier one: a later run of a batch is not cancelled with it."""
    return view.last is not None and since <= view.last.intent.attempt <= scope.attempt


def _is_in_flight(view: JobView) -> bool:
    return view.state == "open" and view.last is not None and not is_surely_dead(view.last.intent.owner)


async def _cancel_running(
    views: list[JobView],
    scope: Scope,
    client_for: Callable[[Intent], Awaitable[Cancels]],
    ended: dict[str, str],
) -> dict[str, str]:
    """Cancels what has a ticket and no end; says what could not be cancelled, by job."""
    failed: dict[str, str] = {}
    for view in views:
        submit = view.last
        if submit is None or submit.state != "ticket" or submit.task_id is None:
            continue
        job = f"{scope.journal.scope}/{view.key}"
        try:
            ended[submit.task_id] = await _cancel_one(view.key, submit, scope, await client_for(submit.intent))
        except RunningHubError as error:
            failed[job] = error.message
    return failed


async def _cancel_one(key: str, submit: Submit, scope: Scope, client: Cancels) -> str:
    last = await cancel_task(client, submit.task_id or "")
    end = end_of(submit, last, scope=scope, queued=0.0, ran=0.0)
    await scope.journal.create(f"{key}-end-{submit.n}", end.model_dump(mode="json"))
    return end.status

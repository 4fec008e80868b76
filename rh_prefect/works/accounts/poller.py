"""Polls all running tasks of one account in one loop, with few requests. A failed poll never ends a job.

The next poll of a task is due after a fraction of its age, so the end of a short task is detected soon, and a long task
causes few requests. Only a terminal state that RunningHub reports ends a job. If several tasks run, one request counts
them. If the count has dropped, the tasks that have most likely ended are polled. While the counts show every end, other
polls are rare.

Where webhooks report ends, polls are rare, and a notification only causes a poll. After several ends without a
notification, polls are as frequent as without webhooks.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

from rh_prefect.client import TaskView
from rh_prefect.errors import AccountError, KeyRejected, RunningHubError, TaskNotFound
from rh_prefect.works.accounts.ended_task_estimator import DurationHistory, Search, counting_gap
from rh_prefect.works.accounts.limiter import Count

AGE_FRACTION = 0.05
LONGEST_GAP = 30.0
LONGEST_GAP_IF_COUNTED = 120.0
GOLDEN_RATIO = 0.618
"""Multiples of this number modulo 1 are evenly spread, for any count of them."""

OVERDUE_POLLS_PER_GAP = 4
"""Polls in the shortest gap of a task that runs longer than recent ones, since it can end at any moment."""

OVERDUE_POLLS_PER_GAP_OF_LAST = 20
"""The same if only one of many tasks still runs."""

OVERDUE_FRACTION = 0.25
"""Gap between polls of such a task, as a fraction of the time for which it is overdue."""

MAX_POLLS = 16
"""Maximum number of concurrent polls of one account."""

GRACE = 300.0
"""Seconds for which RunningHub must repeat an answer that would end a job: the task is unknown, the key is rejected, or
the task has succeeded without a file. A new task may be unknown at first, and a file can come later.
"""

MIN_REPEATS = 3
"""Minimum number of consecutive equal answers of this kind."""

FIRST_WITH_WEBHOOK = 30
"""Time until the first poll of a task with a webhook, in shortest gaps; at most `LONGEST_FIRST`."""

LONGEST_FIRST = 60.0
LATER_WITH_WEBHOOK = 120
"""Time between later polls of such a task, in shortest gaps; at most `LONGEST_LATER`."""

LONGEST_LATER = 240.0
MISSED_NOTIFICATIONS = 3
"""Number of consecutive ends without a notification after which polls are as frequent as without webhooks."""

CHECK_RECORDS_AFTER = 1.0
"""Seconds from the start of notifications to a check of the records for ends that were reported before."""

REMEMBERED = 4096
"""Maximum number of stored notifications without a waiting job: a task can end before its task id is recorded."""

IsRecorded: TypeAlias = Callable[[], Awaitable[bool]]
_log = logging.getLogger("rh_prefect")


def is_settled(view: TaskView) -> bool:
    """Returns whether a task has ended completely: if it succeeded, its outputs can be downloaded."""
    if view.status != "SUCCESS":
        return view.is_terminal
    return bool(view.outputs) and all(output.is_usable for output in view.outputs)


async def query_repeatedly(query: Callable[[str], Awaitable[TaskView]], task_id: str) -> TaskView:
    """Queries a task. If RunningHub does not know it, the query is repeated a second apart: one answer may be wrong."""
    for _ in range(MIN_REPEATS - 1):
        with suppress(TaskNotFound):
            return await query(task_id)
        await asyncio.sleep(1.0)
    return await query(task_id)


@dataclass(slots=True)
class Streak:
    """A counter of consecutive equal answers."""

    times: int = 0
    since: float = 0.0

    def note(self, now: float) -> None:
        """Counts one more equal answer."""
        self.since = self.since if self.times else now
        self.times += 1

    def has_lasted(self, seconds: float, *, now: float) -> bool:
        """Whether the answer was repeated often and long enough to be accepted."""
        return self.times >= MIN_REPEATS and now - self.since >= seconds

    def clear(self) -> None:
        """Resets the counter after another answer."""
        self.times = 0


@dataclass(slots=True, eq=False)
class _Task:
    task_id: str
    since: float
    done: asyncio.Future[TaskView | None]
    is_recorded: IsRecorded | None = None
    has_webhook: bool = False
    waiters: int = 0
    listeners: list[Callable[[TaskView], None]] = field(default_factory=list)
    status: tuple[str, int | None] = ("", None)
    failures: int = 0
    denials: Streak = field(default_factory=Streak)
    empty: Streak = field(default_factory=Streak)
    due: float = 0.0
    polled_at: float = field(init=False)
    ran_at: float = field(init=False)
    is_polling: bool = False
    is_notified: bool = False
    poll_due: float | None = None
    poll_again: bool = False


class Poller:
    """The waiting tasks of one account in this process, queried in one loop."""

    def __init__(
        self,
        query: Callable[[str], Awaitable[TaskView]],
        *,
        clock: Callable[[], float],
        shortest: float = 2.0,
        grace: float = GRACE,
        count: Callable[[int], Awaitable[Count | None]] | None = None,
    ) -> None:
        self._query = query
        self._clock = clock
        self._shortest = shortest
        self._grace = grace
        self._count = count
        self._count_due = math.inf
        self._is_counted = False
        self._ends = 0
        self._durations, self._search = DurationHistory(), Search()
        self._all_ran_at = -math.inf
        self._is_missing = False
        self._tasks: dict[str, _Task] = {}
        self._due: list[tuple[float, int, _Task]] = []
        self._order = itertools.count()
        self._wake = asyncio.Event()
        self._semaphore = asyncio.Semaphore(MAX_POLLS)
        self._loop_task: asyncio.Task[None] | None = None
        self._requests: set[asyncio.Task[None]] = set()
        self._is_receiving = False
        self._missed_notifications = 0
        self._early_notifications: dict[str, None] = {}

    async def wait(
        self,
        task_id: str,
        *,
        on_change: Callable[[TaskView], None] | None = None,
        is_recorded: IsRecorded | None = None,
        has_webhook: bool = False,
        age: float = 0.0,
    ) -> TaskView | None:
        """Waits until a task is terminal; `age` is in seconds since RunningHub accepted it, if they are known.

        `on_change` is called with each new status, including the last one. If `is_recorded` says that the end is
        recorded, RunningHub is not queried, and None is returned.
        """
        task = self._add(task_id, is_recorded, has_webhook=has_webhook, age=age)
        task.waiters += 1
        if on_change is not None:
            task.listeners.append(on_change)
        try:
            return await asyncio.shield(task.done)
        finally:
            task.waiters -= 1
            if on_change is not None:
                task.listeners.remove(on_change)
            if not task.waiters and self._is_current(task):
                del self._tasks[task_id]
                self._wake.set()

    def wake(self, task_id: str) -> None:
        """Queries a task now, after a notification that it has ended."""
        self._missed_notifications = 0
        task = self._tasks.get(task_id)
        if task is None:
            self._early_notifications[task_id] = None
            if len(self._early_notifications) > REMEMBERED:
                del self._early_notifications[next(iter(self._early_notifications))]
            return
        self._poll_now(task)

    def poll_often(self, task_id: str) -> None:
        """Polls a task now, and from now on as often as a task without a webhook."""
        task = self._tasks.get(task_id)
        if task is not None:
            task.has_webhook = False
            self._poll_now(task)

    def _poll_now(self, task: _Task) -> None:
        task.is_notified = True
        # A poll that is in flight may have been sent before the end.
        task.poll_again = task.is_polling
        if not task.is_polling:
            self._schedule(task, self._clock())

    def set_receiving(self, *, is_on: bool) -> None:
        """Sets whether notifications are received. When they start, the records are checked for missed ends."""
        was_on, self._is_receiving, self._missed_notifications = self._is_receiving, is_on, 0
        if is_on:
            self._check_records_soon()
        elif was_on:
            self._poll_all_often()
            self._count_soon()

    def _check_records_soon(self) -> None:
        """Schedules a check of the records, which sends no request to RunningHub."""
        soon = self._clock() + CHECK_RECORDS_AFTER
        for task in self._tasks.values():
            if task.has_webhook and not task.is_polling and task.due > soon:
                task.poll_due = task.due
                self._schedule(task, soon)

    def _poll_all_often(self) -> None:
        for task in self._without_webhook():
            if not task.is_polling:
                task.poll_due = None
                self._schedule(task, max(self._clock(), task.polled_at + self._gap(task)))

    def _expects_notification(self, task: _Task) -> bool:
        return task.has_webhook and self._is_receiving and self._missed_notifications < MISSED_NOTIFICATIONS

    def _is_current(self, task: _Task) -> bool:
        return self._tasks.get(task.task_id) is task

    def _add(self, task_id: str, is_recorded: IsRecorded | None, *, has_webhook: bool, age: float) -> _Task:
        task = self._tasks.get(task_id)
        if task is None:
            done: asyncio.Future[TaskView | None] = asyncio.get_running_loop().create_future()
            # If all waiters were cancelled, no caller retrieves the error.
            done.add_done_callback(lambda future: future.cancelled() or future.exception())
            task = self._tasks[task_id] = _Task(task_id, self._clock() - age, done, is_recorded, has_webhook)
            task.polled_at = task.ran_at = task.since
            task.is_notified = task_id in self._early_notifications
            self._early_notifications.pop(task_id, None)
            self._schedule(task, self._clock() + self._first_gap(task))
            if not self._expects_notification(task):
                self._count_soon()
        return task

    def _first_gap(self, task: _Task) -> float:
        if task.is_notified:
            return 0.0
        if self._expects_notification(task):
            return min(LONGEST_FIRST, FIRST_WITH_WEBHOOK * self._shortest)
        if self._is_counted or self._durations.is_known:
            return self._gap(task)
        # Equal tasks are polled at different ages, so that one of them soon shows that tasks of its age have ended.
        return min(self._shortest, 1.0) + self._shortest * (GOLDEN_RATIO * (len(self._tasks) - 1) % 1)

    def _schedule(self, task: _Task, due: float) -> None:
        task.due = due
        heapq.heappush(self._due, (due, next(self._order), task))
        self._wake.set()
        if self._loop_task is None or self._loop_task.done():
            self._loop_task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        while self._tasks:
            self._wake.clear()
            self._start_due_polls()
            if self._count_due <= self._clock():
                self._count_due = math.inf
                self._begin(self._take_count())
            next_due = min(self._count_due, self._due[0][0] if self._due else math.inf)
            try:
                await asyncio.wait_for(self._wake.wait(), None if next_due == math.inf else next_due - self._clock())
            except TimeoutError:
                continue

    def _start_due_polls(self) -> None:
        while self._due and self._due[0][0] <= self._clock():
            due, _, task = heapq.heappop(self._due)
            is_stale = due != task.due or task.is_polling or not self._is_current(task)
            if not is_stale:
                task.is_polling = True
                self._begin(self._poll(task))

    def _begin(self, request: Coroutine[None, None, None]) -> None:
        request_task = asyncio.ensure_future(request)
        self._requests.add(request_task)
        request_task.add_done_callback(self._requests.discard)

    def _count_soon(self) -> None:
        if self._count is not None:
            self._count_due = min(self._count_due, self._clock() + self._shortest)
            self._wake.set()

    async def _take_count(self) -> None:
        running, requested_at = sum(not task.done.done() for task in self._tasks.values()), self._clock()
        count = await self._request_count(running)
        if count is not None:
            self._is_missing = count.missing > 0
            if not self._is_missing and not count.others:
                self._all_ran_at = requested_at
            self._poll_likeliest(count.missing)
        now = self._clock()
        ages = [now - task.since for task in self._without_webhook()]
        # For a single task, a poll gives more information than a count.
        is_worth_it = len(ages) > 1
        if is_worth_it:
            is_missing = self._is_missing and self._search.is_trusted
            self._count_due = now + counting_gap(ages, shortest=self._shortest, is_missing=is_missing)
            self._wake.set()
        was_counted = self._is_counted
        # With tasks of others the count is unreliable: it stays equal if a task ends and another starts.
        self._is_counted = is_worth_it and count is not None and not count.others and self._search.is_trusted
        if was_counted and not self._is_counted:
            self._poll_all_often()

    async def _request_count(self, running: int) -> Count | None:
        if self._count is None or running < 2:
            return None
        try:
            return await self._count(running)
        except Exception as error:  # each task can still be polled
            _log.info("the account's tasks could not be counted, which only causes a delay: %s", error)
            return None

    def _poll_likeliest(self, missing: int) -> None:
        now = self._clock()
        polling = sum(task.is_polling for task in self._without_webhook())
        if missing and polling >= missing:
            return  # the polls in flight may find the ended tasks
        idle = [task for task in self._without_webhook() if not task.is_polling and task.due > now]
        idle.sort(key=lambda task: self._end_probability(task, now), reverse=True)
        for task in idle[: self._search.polls(max(0, missing - polling), ends=self._ends)]:
            self._schedule(task, now)

    def _end_probability(self, task: _Task, now: float) -> float:
        return self._durations.end_probability(self._ran_at(task) - task.since, now - task.since)

    def _ran_at(self, task: _Task) -> float:
        """The time at which a poll or a count last showed that the task runs."""
        return max(task.ran_at, self._all_ran_at)

    def _without_webhook(self) -> list[_Task]:
        return [task for task in self._tasks.values() if not task.done.done() and not self._expects_notification(task)]

    async def _poll(self, task: _Task) -> None:
        async with self._semaphore:
            was_notified, poll_due = task.is_notified, task.poll_due
            task.is_notified, task.poll_due = False, None
            is_record_check = poll_due is not None and not was_notified
            is_over = (was_notified or is_record_check) and await self._ended_elsewhere(task)
            if not is_over and not is_record_check:
                await self._query_task(task, was_notified=was_notified)
        gap = poll_due - self._clock() if is_record_check and poll_due is not None else self._gap(task)
        gap = 0.0 if task.poll_again else max(0.0, gap)
        task.is_polling = task.poll_again = False
        if not task.done.done() and self._is_current(task):
            self._schedule(task, self._clock() + gap)

    async def _ended_elsewhere(self, task: _Task) -> bool:
        try:
            is_recorded = task.is_recorded is not None and await task.is_recorded()
        except Exception as error:  # RunningHub can still be queried
            _log.info("task %s: could not check whether its end is recorded: %s", task.task_id, error)
            return False
        if is_recorded and not task.done.done():
            task.done.set_result(None)
        return is_recorded

    async def _query_task(self, task: _Task, *, was_notified: bool) -> None:
        task.polled_at = self._clock()
        try:
            view = await self._query(task.task_id)
        except (TaskNotFound, KeyRejected, AccountError) as error:
            await self._deny(task, error)
        except Exception as error:  # to stop polling would lose a paid task
            self._note_failure(task, error)
        else:
            self._take_view(task, view)
            if is_settled(view) and not was_notified and self._expects_notification(task):
                self._note_missed_notification()

    def _note_missed_notification(self) -> None:
        self._missed_notifications += 1
        if self._missed_notifications == MISSED_NOTIFICATIONS:
            _log.warning(
                "%d tasks have ended, but no webhook was received; tasks are polled as if no webhook "
                "were set. What to do: check that `rh-prefect webhook serve` is running and that "
                "RunningHub can reach it at RH_WEBHOOK_URL.",
                self._missed_notifications,
            )
            self._poll_all_often()
            self._count_soon()

    def _take_view(self, task: _Task, view: TaskView) -> None:
        task.failures = 0
        task.denials.clear()
        if view.is_terminal and not is_settled(view):
            task.empty.note(self._clock())
            if not task.empty.has_lasted(self._grace, now=self._clock()):
                return
        else:
            task.empty.clear()
        if (view.status, view.ahead) != task.status:
            task.status = view.status, view.ahead
            self._notify_waiters(task, view)
        if not view.is_terminal:
            task.ran_at = task.polled_at
        elif not task.done.done():
            # The task ended between the last time it was known to run and this poll.
            ran_at = min(self._ran_at(task), task.polled_at)
            was_known = self._durations.is_known
            self._durations.note((ran_at + task.polled_at) / 2 - task.since)
            self._ends += 1
            task.done.set_result(view)
            if self._durations.is_known and not was_known and not self._is_counted:
                self._poll_all_often()

    def _notify_waiters(self, task: _Task, view: TaskView) -> None:
        for callback in tuple(task.listeners):
            try:
                callback(view)
            except Exception:
                _log.exception("task %s: a listener failed on the status %s", task.task_id, view.status)

    async def _deny(self, task: _Task, error: RunningHubError) -> None:
        """Handles an answer that would end the wait for a paid task; it ends the wait only if it is repeated."""
        if await self._ended_elsewhere(task):
            return  # RunningHub deletes a task that was cancelled in the queue
        task.denials.note(self._clock())
        if not task.denials.has_lasted(self._grace, now=self._clock()):
            self._note_failure(task, error)
        elif not task.done.done():
            task.done.set_exception(error)

    def _note_failure(self, task: _Task, error: Exception) -> None:
        task.failures += 1
        if task.failures == 1:
            _log.info("task %s could not be queried, which only causes a delay: %s", task.task_id, error)

    def _gap(self, task: _Task) -> float:
        if repeats := task.empty.times or task.denials.times:
            return min(LONGEST_GAP, self._shortest * repeats)
        if self._expects_notification(task) and not task.failures:
            return min(LONGEST_LATER, LATER_WITH_WEBHOOK * self._shortest)
        age = self._clock() - task.since
        end = self._durations.estimate(age)
        until_end = max(self._shortest, age) if end is None else end - age
        if self._is_counted and not task.failures:
            return min(LONGEST_GAP_IF_COUNTED, until_end)
        by_age = max(self._shortest, AGE_FRACTION * age)
        overdue = self._durations.overdue(age)
        if overdue is not None:
            polls = OVERDUE_POLLS_PER_GAP_OF_LAST if len(self._tasks) == 1 else OVERDUE_POLLS_PER_GAP
            by_age = min(by_age, max(self._shortest / polls, OVERDUE_FRACTION * overdue))
        return min(LONGEST_GAP, min(until_end, by_age) * (1 + task.failures))

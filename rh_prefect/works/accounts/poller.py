"""Polls all running tasks of one account in one loop, with few requests. A failed poll never ends a job.

The next poll of a task is due after a fraction of its age, so the end of a short task is detected soon, and a long task
causes few requests. Only a terminal state that RunningHub reports ends a job. If several tasks run, one request counts
them. If the count has dropped, the tasks that were not polled for the longest time are polled. While the counts show
every end, other polls are rare.

If webhooks report ends, polls are rare, and a notification only causes a poll. After several ends without a
notification, polls are as frequent as without webhooks.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import math
from bisect import bisect_right
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

from rh_prefect.bounded_caches_and_locks import LruSet
from rh_prefect.client import TaskView
from rh_prefect.errors import AccountError, KeyRejected, RunningHubError, TaskNotFound
from rh_prefect.works.accounts.limiter import Count

AGE_FRACTION = 0.05
LONGEST_GAP = 30.0
LONGEST_GAP_IF_COUNTED = 120.0
GOLDEN_ANGLE = 137.5
"""Multiples of this angle modulo 360 degrees are evenly spread, for any count of them."""

OVERDUE_POLLS_PER_GAP = 4
"""Maximum polls per shortest gap for an overdue task; such a task runs longer than recent tasks and may end soon."""

OVERDUE_FRACTION = 0.25
"""Gap between polls of an overdue task, as a fraction of the time for which it is overdue."""

MIN_DURATIONS = 5
"""Minimum number of recorded durations from which the end of a task is estimated."""

DURATIONS = 200
"""Number of recent durations that are stored: the speed of models and of RunningHub changes."""

MARGIN = 1.008
"""Factor by which an estimated age is increased, so that the poll follows the end."""

POLLS_PER_END = 2
"""Number of tasks that are polled after a count, for each ended task that is not found yet."""

COUNTS_PER_JOB = 4.0
"""Approximate number of counts per job if many tasks run, independent of their durations."""

MAX_COUNT_GAP_PER_AGE = 0.03
"""Maximum gap between two counts, as a fraction of the youngest task's age."""

COUNTS_PER_GAP = 12
"""Maximum number of counts in the shortest gap between two polls of one task: one count is for all tasks."""

COUNTS_IN_SEARCH = 4
"""Factor by which counts are more frequent while an ended task is searched for."""

MAX_POLLS = 16
"""Maximum number of concurrent polls of one account."""

MIN_REPEATS = 3
"""Minimum number of consecutive answers that are needed to end a job after the grace time."""

FIRST_WITH_WEBHOOK = 30
"""Time until the first poll of a task with a webhook, as a multiple of the shortest gap; at most `LONGEST_FIRST`."""

LONGEST_FIRST = 60.0
LATER_WITH_WEBHOOK = 120
"""Time between later polls of a task with a webhook, as a multiple of the shortest gap; at most `LONGEST_LATER`."""

LONGEST_LATER = 240.0
MISSED_NOTIFICATIONS = 3
"""Number of consecutive ends without a notification after which polls are as frequent as without webhooks."""

REMEMBERED = 4096
"""Maximum number of stored notifications without a waiting job: a task can end before its task id is recorded."""

IsRecorded: TypeAlias = Callable[[], Awaitable[bool]]
_log = logging.getLogger("rh_prefect")


def is_settled(view: TaskView) -> bool:
    """Returns whether a task has ended completely, so that the outputs of a successful task can be downloaded."""
    if view.status != "SUCCESS":
        return view.is_terminal
    return bool(view.outputs) and all(output.is_usable for output in view.outputs)


async def query_repeatedly(query: Callable[[str], Awaitable[TaskView]], task_id: str) -> TaskView:
    """Queries a task until RunningHub finds it, up to three times, a second apart, because one answer may be wrong."""
    for _ in range(MIN_REPEATS - 1):
        with suppress(TaskNotFound):
            return await query(task_id)
        await asyncio.sleep(1.0)
    return await query(task_id)


@dataclass(slots=True)
class Streak:
    """A counter of consecutive equal answers."""

    times: int = 0
    since: float = field(init=False)

    def note(self, now: float, *, at_least: float) -> bool:
        """Counts one more equal answer; returns whether it was repeated often and long enough to be accepted."""
        if not self.times:
            self.since = now
        self.times += 1
        return self.times >= MIN_REPEATS and now - self.since >= at_least

    def clear(self) -> None:
        """Resets the counter after a different answer."""
        self.times = 0


@dataclass(slots=True, eq=False)
class _Task:
    task_id: str
    since: float
    done: asyncio.Future[TaskView | None]
    is_recorded: IsRecorded | None
    has_webhook: bool
    waiters: int = 0
    listeners: list[Callable[[TaskView], None]] = field(default_factory=list)
    status: tuple[str, int | None] = ("", None)
    failures: int = 0
    denials: Streak = field(default_factory=Streak)
    empty: Streak = field(default_factory=Streak)
    due: float = field(init=False)
    polled_at: float = field(init=False)
    ran_at: float = field(init=False)
    is_polling: bool = False
    is_notified: bool = False
    poll_again: bool = False


class DurationHistory:
    """The durations of an account's recent tasks."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=DURATIONS)
        self._sorted: list[float] = []

    def note(self, seconds: float) -> None:
        """Adds the duration of an ended task; drops the oldest duration if there are more than `DURATIONS`."""
        self._latest.append(seconds)
        self._sorted = sorted(self._latest)

    @property
    def is_known(self) -> bool:
        """Whether enough durations are recorded for an estimate."""
        return len(self._sorted) >= MIN_DURATIONS

    def estimate(self, age: float) -> float | None:
        """Estimates the age at which a running task of this age will end.

        The estimate is `MARGIN` times the median of all longer durations; None if fewer than `MIN_DURATIONS` are
        longer.
        """
        first = bisect_right(self._sorted, age)
        longer = len(self._sorted) - first
        return MARGIN * self._sorted[first + longer // 2] if longer >= MIN_DURATIONS else None

    def overdue(self, age: float) -> float | None:
        """Returns by how many seconds this age exceeds the greatest age with an estimate; None if it does not."""
        if not self.is_known:
            return None
        longest = self._sorted[-MIN_DURATIONS]
        return age - longest if age >= longest else None


class Poller:
    """Waits for the ends of one account's tasks; one loop queries all of them."""

    def __init__(
        self,
        query: Callable[[str], Awaitable[TaskView]],
        *,
        clock: Callable[[], float],
        shortest: float,
        grace: float,
        count: Callable[[int], Awaitable[Count | None]] | None = None,
    ) -> None:
        self._query = query
        self._clock = clock
        self._shortest = shortest
        self._grace = grace
        self._count = count
        self._count_due = math.inf
        self._is_counted = False
        self._durations = DurationHistory()
        self._all_ran_at = -math.inf
        self._missing = self._missed_notifications = 0
        self._searched_since = -math.inf
        self._tasks: dict[str, _Task] = {}
        self._due: list[tuple[float, int, _Task]] = []
        self._order = itertools.count()
        self._wake = asyncio.Event()
        self._semaphore = asyncio.Semaphore(MAX_POLLS)
        self._loop_task: asyncio.Task[None] | None = None
        self._requests: set[asyncio.Task[None]] = set()
        self._is_receiving = False
        self._early_notifications: LruSet[str] = LruSet(REMEMBERED)

    async def wait(
        self,
        task_id: str,
        *,
        on_change: Callable[[TaskView], None] = lambda _: None,
        is_recorded: IsRecorded | None = None,
        has_webhook: bool = False,
        age: float = 0.0,
    ) -> TaskView | None:
        """Waits until a task is terminal; `age` is the seconds since RunningHub accepted the task, or 0 if unknown.

        `on_change` is called with each new status, including the last one. If `is_recorded` says that the end is
        recorded, the wait ends without a query, and returns None.
        """
        task = self._add(task_id, is_recorded, has_webhook=has_webhook, age=age)
        task.waiters += 1
        task.listeners.append(on_change)
        try:
            return await asyncio.shield(task.done)
        finally:
            task.waiters -= 1
            task.listeners.remove(on_change)
            if not task.waiters and self._is_current(task):
                del self._tasks[task_id]
                self._wake.set()

    def wake(self, task_id: str) -> None:
        """Queries a task now, after a notification that it has ended."""
        self._missed_notifications = 0
        task = self._tasks.get(task_id)
        if task is None:
            self._early_notifications.add(task_id)
        else:
            self._poll_now(task)

    def poll_often(self, task_id: str) -> None:
        """Polls a task now, and from now on as often as if it had no webhook."""
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
        """Sets whether notifications are received. The next poll detects an end whose notification was missed."""
        was_on, self._is_receiving, self._missed_notifications = self._is_receiving, is_on, 0
        if was_on and not is_on:
            self._poll_all_often()

    def _poll_all_often(self) -> None:
        for task in self._without_webhook():
            if not task.is_polling:
                self._schedule(task, max(self._clock(), task.polled_at + self._gap(task)))
            self._count_soon()

    def _expects_notification(self, task: _Task) -> bool:
        return task.has_webhook and self._is_receiving and self._missed_notifications < MISSED_NOTIFICATIONS

    def _is_current(self, task: _Task) -> bool:
        return self._tasks.get(task.task_id) is task

    def _add(self, task_id: str, is_recorded: IsRecorded | None, *, has_webhook: bool, age: float) -> _Task:
        task = self._tasks.get(task_id)
        if task is None:
            done: asyncio.Future[TaskView | None] = asyncio.get_running_loop().create_future()
            # If all waiters were cancelled, no caller retrieves the error.
            done.add_done_callback(asyncio.Future.exception)
            task = self._tasks[task_id] = _Task(task_id, self._clock() - age, done, is_recorded, has_webhook)
            task.polled_at = task.ran_at = task.since
            if task_id in self._early_notifications:
                self._poll_now(task)
            else:
                self._schedule(task, self._clock() + self._first_gap(task))
            if not self._expects_notification(task):
                self._count_soon()
        return task

    def _first_gap(self, task: _Task) -> float:
        if self._expects_notification(task):
            return min(LONGEST_FIRST, FIRST_WITH_WEBHOOK * self._shortest)
        if self._is_counted or self._durations.is_known:
            return self._gap(task)
        # Equal tasks are polled at different ages, so that one of them soon shows that tasks of its age have ended.
        return min(self._shortest, 1.0) + self._shortest * (GOLDEN_ANGLE * (len(self._tasks) - 1) % 360) / 360

    def _schedule(self, task: _Task, due: float) -> None:
        task.due = due
        heapq.heappush(self._due, (due, next(self._order), task))
        if self._loop_task is None or self._loop_task.done():
            self._loop_task = asyncio.ensure_future(self._run())
        self._wake.set()

    async def _run(self) -> None:
        while self._tasks:
            self._start_due_polls()
            if self._count_due <= self._clock():
                self._count_due = math.inf
                self._begin(self._take_count())
            self._wake.clear()
            next_due = min(self._count_due, self._due[0][0] if self._due else math.inf)
            try:
                await asyncio.wait_for(self._wake.wait(), None if next_due == math.inf else next_due - self._clock())
            except TimeoutError:
                continue

    def _start_due_polls(self) -> None:
        while self._due and self._due[0][0] <= self._clock():
            due, _, task = heapq.heappop(self._due)
            is_stale = due != task.due or task.is_polling or task.done.done() or not self._is_current(task)
            if not is_stale:
                task.is_polling = True
                self._begin(self._poll(task))

    def _begin(self, request: Coroutine[None, None, None]) -> None:
        """Starts a request; an ended request is not kept, because it would keep its run's context in memory."""
        self._requests.add(task := asyncio.ensure_future(request))
        task.add_done_callback(self._requests.discard)

    def _count_soon(self) -> None:
        if self._count is not None:
            self._count_due = min(self._count_due, self._clock() + self._shortest)

    async def _take_count(self) -> None:
        tasks, requested_at = self._without_webhook(), self._clock()
        # For a single task, a poll gives more information than a count.
        is_worth_it = len(tasks) > 1
        count = await self._request_count() if is_worth_it else None
        if count is not None and not (count.missing or count.others):
            self._all_ran_at = requested_at
        is_searching = count is not None and self._search(count.missing)
        if is_worth_it:
            now = self._clock()
            gap = self._counting_gap([now - task.since for task in tasks])
            self._count_due = now + (gap / COUNTS_IN_SEARCH if is_searching else gap)
            self._wake.set()
        was_counted = self._is_counted
        # With tasks of others the count is unreliable: it stays equal if a task ends and another starts.
        self._is_counted = count is not None and not count.others
        if was_counted and not self._is_counted:
            self._poll_all_often()

    async def _request_count(self) -> Count | None:
        if self._count is None:
            return None
        try:
            return await self._count(sum(not task.done.done() for task in self._tasks.values()))
        except Exception as error:  # each task can still be polled
            _log.info("the account's tasks could not be counted, which only causes a delay: %s", error)
            return None

    def _search(self, missing: int) -> bool:
        """Polls the tasks that were last seen running the longest ago, each only once because the count may be wrong.

        Returns whether the search continues.
        """
        now = self._clock()
        if missing > self._missing:
            self._searched_since = now
        self._missing = missing
        tasks = self._without_webhook()
        idle = [task for task in tasks if not task.is_polling and task.polled_at < self._searched_since]
        is_polling = any(task.is_polling for task in tasks)  # one may find an ended task
        idle.sort(key=self._ran_at)
        for task in idle[: POLLS_PER_END * missing]:
            self._schedule(task, now)
        return bool(missing and (idle or is_polling))

    def _counting_gap(self, ages: list[float]) -> float:
        """Returns the time until the next count.

        The gap is a fraction of the expected time between two ends, so that each job costs about the same number of
        counts. If few tasks run, the age of the youngest task limits the gap.
        """
        # The mean age of n running tasks is half of their duration, so a task ends every 2 * age / n seconds.
        between_ends = 2 * sum(ages) / len(ages) ** 2
        longest = max(self._shortest, MAX_COUNT_GAP_PER_AGE * min(ages))
        return min(longest, max(self._shortest / COUNTS_PER_GAP, between_ends / COUNTS_PER_JOB))

    def _ran_at(self, task: _Task) -> float:
        """Returns the time at which a poll or a count last showed that the task was running."""
        return max(task.ran_at, self._all_ran_at)

    def _without_webhook(self) -> list[_Task]:
        return [task for task in self._tasks.values() if not task.done.done() and not self._expects_notification(task)]

    async def _poll(self, task: _Task) -> None:
        async with self._semaphore:
            was_notified, task.is_notified = task.is_notified, False
            if not (was_notified and await self._ended_elsewhere(task)):
                await self._query_task(task, was_notified=was_notified)
        due = self._clock() if task.poll_again else self._clock() + self._gap(task)
        task.is_polling = task.poll_again = False
        if not task.done.done() and self._is_current(task):
            self._schedule(task, due)

    async def _ended_elsewhere(self, task: _Task) -> bool:
        try:
            is_recorded = task.is_recorded is not None and await task.is_recorded()
        except Exception as error:  # RunningHub can still be queried
            _log.info("task %s: could not check whether its end is recorded: %s", task.task_id, error)
            return False
        if is_recorded:
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
                if not self._expects_notification(task):
                    self._poll_all_often()

    def _note_missed_notification(self) -> None:
        self._missed_notifications += 1
        if self._missed_notifications == MISSED_NOTIFICATIONS:
            _log.warning(
                "%d tasks have ended, but no webhook was received; tasks are polled as if no webhook "
                "were set. What to do: check that `rh-prefect webhook serve` is running and that "
                "RunningHub can reach it at RH_WEBHOOK_URL.",
                self._missed_notifications,
            )

    def _take_view(self, task: _Task, view: TaskView) -> None:
        task.failures = 0
        task.denials.clear()
        if view.is_terminal and not is_settled(view):
            if not task.empty.note(self._clock(), at_least=self._grace):
                return
        else:
            task.empty.clear()
        if (view.status, view.ahead) != task.status:
            task.status = view.status, view.ahead
            self._notify_waiters(task, view)
        if not view.is_terminal:
            task.ran_at = task.polled_at
        else:
            # The task ended between the last time it was known to run and this poll.
            ran_at = min(self._ran_at(task), task.polled_at)
            was_known = self._durations.is_known
            self._durations.note((ran_at + task.polled_at) / 2 - task.since)
            self._missing = 0
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
        """Handles an answer that would end the wait for a paid task; only a repeated answer ends the wait."""
        if await self._ended_elsewhere(task):
            return  # RunningHub deletes a task that was cancelled in the queue
        if task.denials.note(self._clock(), at_least=self._grace):
            task.done.set_exception(error)
        else:
            self._note_failure(task, error)

    def _note_failure(self, task: _Task, error: Exception) -> None:
        task.failures += 1
        if task.failures == 1:
            _log.info("task %s could not be queried, which only causes a delay: %s", task.task_id, error)

    def _gap(self, task: _Task) -> float:
        if task.empty.times:
            return min(LONGEST_GAP, self._shortest * task.empty.times)
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
            by_age = min(by_age, max(self._shortest / OVERDUE_POLLS_PER_GAP, OVERDUE_FRACTION * overdue))
        return min(LONGEST_GAP, min(until_end, by_age) * (1 + task.failures))

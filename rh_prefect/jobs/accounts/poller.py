"""Polls all running tasks of one account in one loop with few requests; a job does not fail when polls fail.

The next poll of a task is due after a fraction of its age, so a short task is noticed soon, and a long one causes few
requests. A failed poll never ends a job: only RunningHub's own terminal state does. Several tasks are counted: one
request says for all of them whether one has ended, and those that most likely have are polled. While the counts show
every end, other polls are rare.

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
from dataclasses import dataclass, field
from typing import TypeAlias

from rh_prefect.client import TaskView
from rh_prefect.errors import AccountError, KeyRejected, RunningHubError, TaskNotFound
from rh_prefect.jobs.accounts.ended_task_estimator import CountPacer, DurationHistory, Search
from rh_prefect.jobs.accounts.limiter import Count

AGE_FRACTION = 0.05
LONGEST_GAP = 30.0
LONGEST_GAP_IF_COUNTED = 120.0
OVERDUE_POLLS_IN_A_GAP = 20
"""How many polls of the last of many tasks fit into the shortest gap, when it is overdue."""

IN_FLIGHT = 16
GRACE = 300.0
"""Seconds for which RunningHub must repeat an answer that would end a job: that the task is unknown (a new one may be,
at first), that the key is rejected, that the task has succeeded without a file (which can come later)."""

DENIALS_THAT_COUNT = 3
"""How many times in a row RunningHub must give such an answer, for any length of the gaps."""

FIRST_WITH_WEBHOOK = 30
"""The time until the first poll of a task with a webhook, in shortest gaps; at most `LONGEST_FIRST`."""

LONGEST_FIRST = 60.0
LATER_WITH_WEBHOOK = 120
"""The time between later polls of such a task, in shortest gaps; at most `LONGEST_LATER`."""

LONGEST_LATER = 240.0
MISSED_NOTICES = 3
"""How many ends in a row a poll must find before their webhooks, until webhooks are taken to be lost."""

CHECK_RECORDS_AFTER = 1.0
"""Seconds from the start of notifications to a look at the records for ends that were reported before."""

REMEMBERED = 4096
"""How many notified ends without a waiting job are remembered: an end can come before its ticket is recorded."""

IsKnown: TypeAlias = Callable[[], Awaitable[bool]]
_log = logging.getLogger("rh_prefect")


def is_settled(view: TaskView) -> bool:
    """Checks whether a task has ended completely: if it succeeded, its outputs can be downloaded."""
    if view.status != "SUCCESS":
        return view.is_terminal
    return bool(view.outputs) and all(output.is_usable for output in view.outputs)


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
        """Whether the answer was repeated often enough to be accepted."""
        return self.times >= DENIALS_THAT_COUNT and now - self.since >= seconds

    def clear(self) -> None:
        """Starts again after another answer."""
        self.times = 0


@dataclass(slots=True, eq=False)
class _Watched:
    task_id: str
    since: float
    done: asyncio.Future[TaskView | None]
    is_known: IsKnown | None = None
    has_webhook: bool = False
    waiters: int = 0
    listeners: list[Callable[[TaskView], None]] = field(default_factory=list)
    status: str = ""
    failures: int = 0
    denials: Streak = field(default_factory=Streak)
    empty: Streak = field(default_factory=Streak)
    due: float = 0.0
    polled_at: float = 0.0
    ran_at: float = 0.0
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
        """Starts without tasks.

        Args:
            query: Asks RunningHub for one task.
            clock: Monotonic seconds.
            shortest: The shortest time between two polls of a task of which nothing else is known, in seconds.
            grace: See `GRACE`.
            count: Asks RunningHub how many of so many tasks have ended; None where it does not say.
        """
        self._query = query
        self._clock = clock
        self._shortest = shortest
        self._grace = grace
        self._count = count
        self._count_due = math.inf
        self._is_counted = False
        self._ends = 0
        self._lengths, self._search, self._pacer = DurationHistory(), Search(), CountPacer()
        self._all_ran_at = -math.inf
        self._is_missing = False
        self._watched: dict[str, _Watched] = {}
        self._due: list[tuple[float, int, _Watched]] = []
        self._order = itertools.count()
        self._wake = asyncio.Event()
        self._gate = asyncio.Semaphore(IN_FLIGHT)
        self._loop_task: asyncio.Task[None] | None = None
        self._requests: set[asyncio.Task[None]] = set()
        self._is_receiving = False
        self._missed_notices = 0
        self._early_notices: dict[str, None] = {}

    async def wait(
        self,
        task_id: str,
        *,
        on_change: Callable[[TaskView], None] | None = None,
        is_known: IsKnown | None = None,
        has_webhook: bool = False,
        age: float = 0.0,
    ) -> TaskView | None:
        """Waits until a task is terminal.

        Args:
            task_id: RunningHub's task id.
            on_change: Called with each new state, the last one included.
            is_known: Whether the end is recorded already, so that RunningHub need not be queried.
            has_webhook: Whether a webhook reports the end.
            age: Seconds since RunningHub took the task, as far as they are known.

        Returns:
            The terminal view, of a success without usable outputs where these do not come; None where `is_known` said
            yes.

        Raises:
            TaskNotFound: RunningHub keeps saying that it does not know the task.
            KeyRejected: RunningHub keeps saying that the key may not ask; the task goes on.
            AccountError: RunningHub keeps saying that the account may not ask; the task goes on.
        """
        watched = self._watch(task_id, is_known, has_webhook=has_webhook, age=age)
        watched.waiters += 1
        if on_change is not None:
            watched.listeners.append(on_change)
        try:
            return await asyncio.shield(watched.done)
        finally:
            watched.waiters -= 1
            if on_change is not None:
                watched.listeners.remove(on_change)
            if not watched.waiters and self._is_watched(watched):
                del self._watched[task_id]
                self._wake.set()

    def wake(self, task_id: str) -> None:
        """Queries a task now, after a notice that it has ended."""
        self._missed_notices = 0
        watched = self._watched.get(task_id)
        if watched is None:
            self._early_notices[task_id] = None
            if len(self._early_notices) > REMEMBERED:
                del self._early_notices[next(iter(self._early_notices))]
            return
        self._poll_now(watched)

    def poll_often(self, task_id: str) -> None:
        """Polls a task at once, and from now on as often as one without webhooks."""
        watched = self._watched.get(task_id)
        if watched is not None:
            watched.has_webhook = False
            self._poll_now(watched)

    def _poll_now(self, watched: _Watched) -> None:
        watched.is_notified = True
        # A poll that is in flight may have been sent before the end.
        watched.poll_again = watched.is_polling
        if not watched.is_polling:
            self._schedule(watched, self._clock())

    def set_receiving(self, *, is_on: bool) -> None:
        """Sets whether ends are notified from now on; earlier notifications may have been missed."""
        was_on, self._is_receiving, self._missed_notices = self._is_receiving, is_on, 0
        if is_on:
            self._check_records_soon()
        elif was_on:
            self._poll_all_often()
            self._count_soon()

    def _check_records_soon(self) -> None:
        """Schedules a look at the records soon, which sends nothing to RunningHub."""
        soon = self._clock() + CHECK_RECORDS_AFTER
        for watched in self._watched.values():
            if watched.has_webhook and not watched.is_polling and watched.due > soon:
                watched.poll_due = watched.due
                self._schedule(watched, soon)

    def _poll_all_often(self) -> None:
        for watched in self._without_webhook():
            if not watched.is_polling:
                watched.poll_due = None
                self._schedule(watched, max(self._clock(), watched.polled_at + self._gap(watched)))

    def _expects_notice(self, watched: _Watched) -> bool:
        return watched.has_webhook and self._is_receiving and self._missed_notices < MISSED_NOTICES

    def _is_watched(self, watched: _Watched) -> bool:
        return self._watched.get(watched.task_id) is watched

    def _watch(self, task_id: str, is_known: IsKnown | None, *, has_webhook: bool, age: float) -> _Watched:
        watched = self._watched.get(task_id)
        if watched is None:
            done: asyncio.Future[TaskView | None] = asyncio.get_running_loop().create_future()
            # No caller is left that would raise the failure.
            done.add_done_callback(lambda future: future.cancelled() or future.exception())
            watched = self._watched[task_id] = _Watched(task_id, self._clock() - age, done, is_known, has_webhook)
            watched.polled_at = watched.ran_at = watched.since
            watched.is_notified = task_id in self._early_notices
            self._early_notices.pop(task_id, None)
            self._schedule(watched, self._clock() + self._first_gap(watched))
            if not self._expects_notice(watched):
                self._count_soon()
        return watched

    def _first_gap(self, watched: _Watched) -> float:
        if watched.is_notified:
            return 0.0
        if self._expects_notice(watched):
            return min(LONGEST_FIRST, FIRST_WITH_WEBHOOK * self._shortest)
        return self._gap(watched) if self._is_counted else min(self._shortest, 1.0)

    def _schedule(self, watched: _Watched, due: float) -> None:
        watched.due = due
        heapq.heappush(self._due, (due, next(self._order), watched))
        self._wake.set()
        if self._loop_task is None or self._loop_task.done():
            self._loop_task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        while self._watched:
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
            due, _, watched = heapq.heappop(self._due)
            is_stale = due != watched.due or watched.is_polling or not self._is_watched(watched)
            if not is_stale:
                watched.is_polling = True
                self._begin(self._poll(watched))

    def _begin(self, request: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(request)
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    def _count_soon(self) -> None:
        if self._count is not None:
            self._count_due = min(self._count_due, self._clock() + self._shortest)
            self._wake.set()

    async def _take_count(self) -> None:
        running, asked_at = [watched for watched in self._watched.values() if not watched.done.done()], self._clock()
        count = await self._ask_for_count(len(running))
        if count is not None:
            self._is_missing = count.missing > 0
            if not self._is_missing and not count.others:
                self._all_ran_at = asked_at
            self._poll_likeliest(count.missing)
        now = self._clock()
        tasks = [(self._ran_at(watched) - watched.since, now - watched.since) for watched in self._without_webhook()]
        # A poll of one single task tells more than a count.
        is_worth_it = len(tasks) > 1
        if is_worth_it:
            is_missing = self._is_missing and self._search.is_trusted
            gap = self._pacer.gap(tasks, shortest=self._shortest, lengths=self._lengths, is_missing=is_missing)
            self._count_due = self._clock() + gap
            self._wake.set()
        was_counted = self._is_counted
        # Tasks of others hide the ends of ours: where one ends and another begins, the number stays.
        self._is_counted = is_worth_it and count is not None and not count.others and self._search.is_trusted
        if was_counted and not self._is_counted:
            self._poll_all_often()

    async def _ask_for_count(self, running: int) -> Count | None:
        if self._count is None or running < 2:
            return None
        try:
            return await self._count(running)
        except Exception as error:  # each task can still be polled
            _log.info("the account's tasks could not be counted, which only causes a delay: %s", error)
            return None

    def _poll_likeliest(self, missing: int) -> None:
        now = self._clock()
        polling = sum(watched.is_polling for watched in self._without_webhook())
        if missing and polling >= missing:
            return  # those polls may find them
        idle = [watched for watched in self._without_webhook() if not watched.is_polling and watched.due > now]
        idle.sort(key=lambda one: self._odds(one, now), reverse=True)
        for watched in idle[: self._search.polls(max(0, missing - polling), ends=self._ends)]:
            self._schedule(watched, now)

    def _odds(self, watched: _Watched, now: float) -> float:
        return self._lengths.odds(seen=self._ran_at(watched) - watched.since, age=now - watched.since)

    def _ran_at(self, watched: _Watched) -> float:
        """When the task was last known to run: it was polled, or all tasks were counted."""
        return max(watched.ran_at, self._all_ran_at)

    def _without_webhook(self) -> list[_Watched]:
        """The tasks without webhooks."""
        return [one for one in self._watched.values() if not one.done.done() and not self._expects_notice(one)]

    async def _poll(self, watched: _Watched) -> None:
        async with self._gate:
            (was_notified, poll_due), watched.is_notified, watched.poll_due = (
                (watched.is_notified, watched.poll_due),
                False,
                None,
            )
            is_record_check = poll_due is not None and not was_notified
            is_over = (was_notified or is_record_check) and await self._ended_elsewhere(watched)
            if not is_over and not is_record_check:
                await self._query_task(watched, was_notified=was_notified)
        gap = poll_due - self._clock() if is_record_check and poll_due is not None else self._gap(watched)
        gap = 0.0 if watched.poll_again else max(0.0, gap)
        watched.is_polling = watched.poll_again = False
        if not watched.done.done() and self._is_watched(watched):
            self._schedule(watched, self._clock() + gap)

    async def _ended_elsewhere(self, watched: _Watched) -> bool:
        try:
            known = watched.is_known is not None and await watched.is_known()
        except Exception as error:  # RunningHub can still be queried
            _log.info("task %s: could not check whether its end is recorded: %s", watched.task_id, error)
            return False
        if known and not watched.done.done():
            watched.done.set_result(None)
        return known

    async def _query_task(self, watched: _Watched, *, was_notified: bool) -> None:
        watched.polled_at = self._clock()
        try:
            view = await self._query(watched.task_id)
        except (TaskNotFound, KeyRejected, AccountError) as error:
            await self._deny(watched, error)
        except Exception as error:  # to stop polling would lose a paid task
            self._note_failure(watched, error)
        else:
            self._take_view(watched, view)
            if is_settled(view) and not was_notified and self._expects_notice(watched):
                self._note_missed_notice()

    def _note_missed_notice(self) -> None:
        self._missed_notices += 1
        if self._missed_notices == MISSED_NOTICES:
            _log.warning(
                "%d tasks have ended, but no webhook was received; tasks are polled as if no webhook "
                "were set. What to do: check that `rh-prefect webhook serve` is running and that "
                "RunningHub can reach it at RH_WEBHOOK_URL.",
                self._missed_notices,
            )
            self._poll_all_often()
            self._count_soon()

    def _take_view(self, watched: _Watched, view: TaskView) -> None:
        watched.failures = 0
        watched.denials.clear()
        if view.is_terminal and not is_settled(view):
            watched.empty.note(self._clock())
            if not watched.empty.has_lasted(self._grace, now=self._clock()):
                return
        if view.status != watched.status:
            watched.status = view.status
            self._notify_waiters(watched, view)
        if not view.is_terminal:
            watched.ran_at = watched.polled_at
        elif not watched.done.done():
            # It ended somewhere between the two.
            ran_at = min(self._ran_at(watched), watched.polled_at)
            self._lengths.note((ran_at + watched.polled_at) / 2 - watched.since)
            self._ends += 1
            watched.done.set_result(view)

    def _notify_waiters(self, watched: _Watched, view: TaskView) -> None:
        for callback in tuple(watched.listeners):
            try:
                callback(view)
            except Exception:
                _log.exception("task %s: a listener failed on the status %s", watched.task_id, view.status)

    async def _deny(self, watched: _Watched, error: RunningHubError) -> None:
        """Takes an answer that would end the wait for a paid task; a single one only causes a delay."""
        if await self._ended_elsewhere(watched):
            return  # such as a task that was cancelled in the queue: RunningHub forgets it
        watched.denials.note(self._clock())
        if not watched.denials.has_lasted(self._grace, now=self._clock()):
            self._note_failure(watched, error)
        elif not watched.done.done():
            watched.done.set_exception(error)

    def _note_failure(self, watched: _Watched, error: Exception) -> None:
        watched.failures += 1
        if watched.failures == 1:
            _log.info("task %s could not be queried, which only causes a delay: %s", watched.task_id, error)

    def _gap(self, watched: _Watched) -> float:
        if doubts := watched.empty.times or watched.denials.times:
            return min(LONGEST_GAP, self._shortest * doubts)
        if self._expects_notice(watched) and not watched.failures:
            return min(LONGEST_LATER, LATER_WITH_WEBHOOK * self._shortest)
        age = self._clock() - watched.since
        guess = self._lengths.guess(seen=age)
        until_guess = max(self._shortest, age) if guess is None else max(self._shortest / 4, guess - age)
        if self._is_counted and not watched.failures:
            return min(LONGEST_GAP_IF_COUNTED, until_guess)
        # The last one of many, which is overdue, may end at any moment.
        is_overdue = len(self._watched) == 1 and guess is None and self._lengths.is_known
        by_age = min(
            until_guess,
            max(
                self._shortest / (OVERDUE_POLLS_IN_A_GAP if is_overdue else 1),
                (0 if is_overdue else AGE_FRACTION) * age,
            ),
        )
        return min(LONGEST_GAP, by_age * (1 + watched.failures))

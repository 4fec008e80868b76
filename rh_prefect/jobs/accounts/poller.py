"""Waits for all running tasks of one account: one loop, few requests, and no short deadline.

The next look at a task is due after a fraction of its age, so a short task is noticed soon and a long one is not asked
about all the time. A failing look is a blip, never the end of a job: only RunningHub's own terminal state ends it.

Several tasks are counted: one request says for all of them whether one has ended, and those that most likely have are
looked at. While a count tells of every end, other looks are sparse.

Where somebody tells of ends, looks are sparse, and what is told is only ever a reason to look at once. Ends that are
found by looking where they should have been told of make the looks as frequent again as without.
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
from rh_prefect.jobs.accounts.completion_estimator import CountPacer, DurationHistory, Search
from rh_prefect.jobs.accounts.limiter import Count

AGE_FRACTION = 0.05
LONGEST_GAP = 30.0
LONGEST_GAP_IF_COUNTED = 120.0
OVERDUE_LOOKS_IN_A_GAP = 20
"""How many looks at the last of many tasks there are in the shortest gap, when it is overdue."""

IN_FLIGHT = 16
GRACE = 300.0
"""Seconds for which bad news about a task must last until they are believed: that RunningHub does not know it (a fresh
one may be unknown at first), that the key may not ask, that it has succeeded without a file (which can come later)."""

DENIALS_THAT_COUNT = 3
"""How often in a row RunningHub must say so, however long the gaps are."""

FIRST_IF_TOLD = 30
"""The first look at a task of whose end somebody will tell, in shortest gaps; at most `LONGEST_FIRST`."""

LONGEST_FIRST = 60.0
LATER_IF_TOLD = 120
"""The gap between later looks at such a task, in shortest gaps; at most `LONGEST_LATER`."""

LONGEST_LATER = 240.0
SURPRISES_THAT_COUNT = 3
"""How many ends in a row a poll must find before their webhooks, until webhooks are taken to be lost."""

PEEK_AFTER = 1.0
"""Seconds after ends can be heard of (again) at which what was told meanwhile is looked for among what is recorded."""

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
    is_told: bool = False
    waiters: int = 0
    seen: list[Callable[[TaskView], None]] = field(default_factory=list)
    status: str = ""
    blips: int = 0
    denials: Streak = field(default_factory=Streak)
    empty: Streak = field(default_factory=Streak)
    due: float = 0.0
    looked: float = 0.0
    ran_at: float = 0.0
    busy: bool = False
    told: bool = False
    look_at: float | None = None
    again: bool = False


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
        """Starts idle.

        Args:
            query: Asks RunningHub for one task.
            clock: Monotonic seconds.
            shortest: The shortest gap between two looks at one task of which nothing else is known, in seconds.
            grace: Seconds for which bad news about a task must last until they are believed.
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
        self._asking: set[asyncio.Task[None]] = set()
        self._hears = False
        self._surprises = 0
        self._told_early: dict[str, None] = {}

    async def wait(
        self,
        task_id: str,
        *,
        on_change: Callable[[TaskView], None] | None = None,
        is_known: IsKnown | None = None,
        is_told: bool = False,
        age: float = 0.0,
    ) -> TaskView | None:
        """Waits until a task is terminal.

        Args:
            task_id: RunningHub's task id.
            on_change: Called with each new state, the last one included.
            is_known: Whether the end is recorded already, so that RunningHub need not be asked.
            is_told: Somebody will tell of the end.
            age: Seconds since RunningHub took the task, as far as they are known.

        Returns:
            The terminal view, of a success without usable outputs where these do not come; None where `is_known` said
            yes.

        Raises:
            TaskNotFound: RunningHub keeps saying that it does not know the task.
            KeyRejected: RunningHub keeps saying that the key may not ask; the task goes on.
            AccountError: RunningHub keeps saying that the account may not ask; the task goes on.
        """
        watched = self._watch(task_id, is_known, is_told=is_told, age=age)
        watched.waiters += 1
        if on_change is not None:
            watched.seen.append(on_change)
        try:
            return await asyncio.shield(watched.done)
        finally:
            watched.waiters -= 1
            if on_change is not None:
                watched.seen.remove(on_change)
            if not watched.waiters and self._is_watched(watched):
                del self._watched[task_id]
                self._wake.set()

    def wake(self, task_id: str) -> None:
        """Queries a task now, after a notice that it has ended."""
        self._surprises = 0
        watched = self._watched.get(task_id)
        if watched is None:
            self._told_early[task_id] = None
            if len(self._told_early) > REMEMBERED:
                del self._told_early[next(iter(self._told_early))]
            return
        self._look_now(watched)

    def poll_often(self, task_id: str) -> None:
        """Polls a task at once, and from now on as often as one without webhooks."""
        watched = self._watched.get(task_id)
        if watched is not None:
            watched.is_told = False
            self._look_now(watched)

    def _look_now(self, watched: _Watched) -> None:
        watched.told = True
        # A look that is under way may have asked before the end.
        watched.again = watched.busy
        if not watched.busy:
            self._schedule(watched, self._clock())

    def hears(self, *, is_on: bool) -> None:
        """Sets whether ends are notified from now on; earlier notifications may have been missed."""
        was_on, self._hears, self._surprises = self._hears, is_on, 0
        if is_on:
            self._peek()
        elif was_on:
            self._look_often()
            self._count_soon()

    def _peek(self) -> None:
        """Has the records looked at soon, without asking RunningHub."""
        soon = self._clock() + PEEK_AFTER
        for watched in self._watched.values():
            if watched.is_told and not watched.busy and watched.due > soon:
                watched.look_at = watched.due
                self._schedule(watched, soon)

    def _look_often(self) -> None:
        for watched in self._untold():
            if not watched.busy:
                watched.look_at = None
                self._schedule(watched, max(self._clock(), watched.looked + self._gap(watched)))

    def _is_told_of(self, watched: _Watched) -> bool:
        return watched.is_told and self._hears and self._surprises < SURPRISES_THAT_COUNT

    def _is_watched(self, watched: _Watched) -> bool:
        return self._watched.get(watched.task_id) is watched

    def _watch(self, task_id: str, is_known: IsKnown | None, *, is_told: bool, age: float) -> _Watched:
        watched = self._watched.get(task_id)
        if watched is None:
            done: asyncio.Future[TaskView | None] = asyncio.get_running_loop().create_future()
            # No caller is left that would raise the failure.
            done.add_done_callback(lambda future: future.cancelled() or future.exception())
            watched = self._watched[task_id] = _Watched(task_id, self._clock() - age, done, is_known, is_told)
            watched.looked = watched.ran_at = watched.since
            watched.told = task_id in self._told_early
            self._told_early.pop(task_id, None)
            self._schedule(watched, self._clock() + self._first_gap(watched))
            if not self._is_told_of(watched):
                self._count_soon()
        return watched

    def _first_gap(self, watched: _Watched) -> float:
        if watched.told:
            return 0.0
        if self._is_told_of(watched):
            return min(LONGEST_FIRST, FIRST_IF_TOLD * self._shortest)
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
            self._start_due_looks()
            if self._count_due <= self._clock():
                self._count_due = math.inf
                self._begin(self._take_count())
            next_due = min(self._count_due, self._due[0][0] if self._due else math.inf)
            try:
                await asyncio.wait_for(self._wake.wait(), None if next_due == math.inf else next_due - self._clock())
            except TimeoutError:
                continue

    def _start_due_looks(self) -> None:
        while self._due and self._due[0][0] <= self._clock():
            due, _, watched = heapq.heappop(self._due)
            is_stale = due != watched.due or watched.busy or not self._is_watched(watched)
            if not is_stale:
                watched.busy = True
                self._begin(self._look(watched))

    def _begin(self, asking: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(asking)
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    def _count_soon(self) -> None:
        if self._count is not None:
            self._count_due = min(self._count_due, self._clock() + self._shortest)
            self._wake.set()

    async def _take_count(self) -> None:
        running, asked = [watched for watched in self._watched.values() if not watched.done.done()], self._clock()
        count = await self._ask_for_count(len(running))
        if count is not None:
            self._is_missing = count.missing > 0
            if not self._is_missing and not count.others:
                self._all_ran_at = asked
            self._look_at_likeliest(count.missing)
        now = self._clock()
        tasks = [(self._ran_at(watched) - watched.since, now - watched.since) for watched in self._untold()]
        # One task alone is better looked at than counted.
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
            self._look_often()

    async def _ask_for_count(self, running: int) -> Count | None:
        if self._count is None or running < 2:
            return None
        try:
            return await self._count(running)
        except Exception as error:  # each task can still be polled
            _log.info("the account's tasks could not be counted, which only causes a delay: %s", error)
            return None

    def _look_at_likeliest(self, missing: int) -> None:
        now = self._clock()
        looking = sum(watched.busy for watched in self._untold())
        if missing and looking >= missing:
            return  # those looks may find them
        idle = [watched for watched in self._untold() if not watched.busy and watched.due > now]
        idle.sort(key=lambda one: self._odds(one, now), reverse=True)
        for watched in idle[: self._search.looks(max(0, missing - looking), ends=self._ends)]:
            self._schedule(watched, now)

    def _odds(self, watched: _Watched, now: float) -> float:
        return self._lengths.odds(seen=self._ran_at(watched) - watched.since, age=now - watched.since)

    def _ran_at(self, watched: _Watched) -> float:
        """When the task was last known to run: it was looked at, or all tasks were counted."""
        return max(watched.ran_at, self._all_ran_at)

    def _untold(self) -> list[_Watched]:
        """The tasks without webhooks."""
        return [one for one in self._watched.values() if not one.done.done() and not self._is_told_of(one)]

    async def _look(self, watched: _Watched) -> None:
        async with self._gate:
            (was_told, look_at), watched.told, watched.look_at = (watched.told, watched.look_at), False, None
            is_peek = look_at is not None and not was_told
            is_over = (was_told or is_peek) and await self._ended_elsewhere(watched)
            if not is_over and not is_peek:
                await self._ask(watched, was_told=was_told)
        gap = look_at - self._clock() if is_peek and look_at is not None else self._gap(watched)
        gap = 0.0 if watched.again else max(0.0, gap)
        watched.busy = watched.again = False
        if not watched.done.done() and self._is_watched(watched):
            self._schedule(watched, self._clock() + gap)

    async def _ended_elsewhere(self, watched: _Watched) -> bool:
        try:
            known = watched.is_known is not None and await watched.is_known()
        except Exception as error:  # RunningHub can still be asked
            _log.info("task %s: could not check whether its end is recorded: %s", watched.task_id, error)
            return False
        if known and not watched.done.done():
            watched.done.set_result(None)
        return known

    async def _ask(self, watched: _Watched, *, was_told: bool) -> None:
        watched.looked = self._clock()
        try:
            view = await self._query(watched.task_id)
        except (TaskNotFound, KeyRejected, AccountError) as error:
            await self._deny(watched, error)
        except Exception as error:  # to stop polling would lose a paid task
            self._blip(watched, error)
        else:
            self._saw(watched, view)
            if is_settled(view) and not was_told and self._is_told_of(watched):
                self._was_surprised()

    def _was_surprised(self) -> None:
        self._surprises += 1
        if self._surprises == SURPRISES_THAT_COUNT:
            _log.warning(
                "%d tasks have ended, but no webhook was received; tasks are polled as if no webhook "
                "were set. What to do: check that `rh-prefect webhook serve` is running and that "
                "RunningHub can reach it at RH_WEBHOOK_URL.",
                self._surprises,
            )
            self._look_often()
            self._count_soon()

    def _saw(self, watched: _Watched, view: TaskView) -> None:
        watched.blips = 0
        watched.denials.clear()
        if view.is_terminal and not is_settled(view):
            watched.empty.note(self._clock())
            if not watched.empty.has_lasted(self._grace, now=self._clock()):
                return
        if view.status != watched.status:
            watched.status = view.status
            self._tell(watched, view)
        if not view.is_terminal:
            watched.ran_at = watched.looked
        elif not watched.done.done():
            # It ended somewhere between the two.
            ran_at = min(self._ran_at(watched), watched.looked)
            self._lengths.note((ran_at + watched.looked) / 2 - watched.since)
            self._ends += 1
            watched.done.set_result(view)

    def _tell(self, watched: _Watched, view: TaskView) -> None:
        for callback in tuple(watched.seen):
            try:
                callback(view)
            except Exception:
                _log.exception("task %s: a listener failed on the status %s", watched.task_id, view.status)

    async def _deny(self, watched: _Watched, error: RunningHubError) -> None:
        """Takes an answer that would end the wait for a paid task; one alone is a blip."""
        if await self._ended_elsewhere(watched):
            return  # such as a task that was cancelled in the queue: RunningHub forgets it
        watched.denials.note(self._clock())
        if not watched.denials.has_lasted(self._grace, now=self._clock()):
            self._blip(watched, error)
        elif not watched.done.done():
            watched.done.set_exception(error)

    def _blip(self, watched: _Watched, error: Exception) -> None:
        watched.blips += 1
        if watched.blips == 1:
            _log.info("task %s could not be queried, which only causes a delay: %s", watched.task_id, error)

    def _gap(self, watched: _Watched) -> float:
        if doubts := watched.empty.times or watched.denials.times:
            return min(LONGEST_GAP, self._shortest * doubts)
        if self._is_told_of(watched) and not watched.blips:
            return min(LONGEST_LATER, LATER_IF_TOLD * self._shortest)
        age = self._clock() - watched.since
        guess = self._lengths.guess(seen=age)
        until_guess = max(self._shortest, age) if guess is None else max(self._shortest / 4, guess - age)
        if self._is_counted and not watched.blips:
            return min(LONGEST_GAP_IF_COUNTED, until_guess)
        # The last one of many, which is overdue, may end at any moment.
        is_overdue = len(self._watched) == 1 and guess is None and self._lengths.is_known
        by_age = min(
            until_guess,
            max(
                self._shortest / (OVERDUE_LOOKS_IN_A_GAP if is_overdue else 1),
                (0 if is_overdue else AGE_FRACTION) * age,
            ),
        )
        return min(LONGEST_GAP, by_age * (1 + watched.blips))

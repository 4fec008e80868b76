"""Waits for all running tasks of one account: one loop, few requests, and no short deadline.

The next look at a task is due after a fraction of its age, so a short task is noticed soon and a long one is not asked
about all the time. A failing look is a blip, never the end of a job: only RunningHub's own terminal state ends it.

Where somebody tells of ends, looks are sparse, and what is told is only ever a reason to look at once. Ends that are
found by looking where they should have been told of make the looks as frequent again as without.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from rh_prefect.client.wire import TaskView
from rh_prefect.errors import AccountError, KeyRejected, RunningHubError, TaskNotFound

AGE_FRACTION = 0.1
LONGEST_GAP = 30.0
IN_FLIGHT = 16
MISSES_THAT_COUNT = 3
"""How often RunningHub must say that it does not know a task until it is believed: a fresh one may be unknown at
first."""

EMPTY_LOOKS = 30
"""How often a success without outputs is looked at again: they can come seconds later (RunningHub's own client does
so)."""

FIRST_IF_TOLD = 30
"""The first look at a task of whose end somebody will tell, in shortest gaps; at most `LONGEST_FIRST`."""

LONGEST_FIRST = 60.0
LATER_IF_TOLD = 120
"""The gap between later looks at such a task, in shortest gaps; at most `LONGEST_LATER`."""

LONGEST_LATER = 240.0
SURPRISES_THAT_COUNT = 3
"""How many ends in a row must be found without having been told of until nobody is believed to tell: one that had just
come may be on its way."""

REMEMBERED = 4096
"""How many told ends are remembered of which nobody knows here yet: an end can be told of before its ticket is
recorded."""

IsKnown: TypeAlias = Callable[[], Awaitable[bool]]
_log = logging.getLogger("rh_prefect")


def is_settled(view: TaskView) -> bool:
    """Tells whether a task has ended and has what it is going to have."""
    return view.is_terminal and (view.status != "SUCCESS" or bool(view.outputs))


@dataclass(slots=True, eq=False)
class _Watched:
    task_id: str
    since: float
    done: asyncio.Future[TaskView | None]
    is_known: IsKnown | None = None
    waiters: int = 0
    seen: list[Callable[[TaskView], None]] = field(default_factory=list)
    status: str = ""
    misses: int = 0
    blips: int = 0
    empty_looks: int = 0
    due: float = 0.0
    busy: bool = False
    told: bool = False
    again: bool = False


class Poller:
    """One account's waiting room in this process."""

    def __init__(
        self,
        query: Callable[[str], Awaitable[TaskView]],
        *,
        clock: Callable[[], float],
        shortest: float = 2.0,
    ) -> None:
        """Starts idle.

        Args:
            query: Asks RunningHub for one task.
            clock: Monotonic seconds.
            shortest: The shortest gap between two looks at one task, in seconds.
        """
        self._query = query
        self._clock = clock
        self._shortest = shortest
        self._watched: dict[str, _Watched] = {}
        self._due: list[tuple[float, int, _Watched]] = []
        self._order = itertools.count()
        self._wake = asyncio.Event()
        self._gate = asyncio.Semaphore(IN_FLIGHT)
        self._loop_task: asyncio.Task[None] | None = None
        self._looks: set[asyncio.Task[None]] = set()
        self._hears = False
        self._surprises = 0
        self._told_early: dict[str, None] = {}

    async def wait(
        self,
        task_id: str,
        *,
        on_change: Callable[[TaskView], None] | None = None,
        is_known: IsKnown | None = None,
    ) -> TaskView | None:
        """Waits until a task is terminal.

        Args:
            task_id: RunningHub's task id.
            on_change: Called with each new state, the last one included.
            is_known: Given where somebody will tell of the end: whether it is recorded, so that RunningHub need not be
                asked.

        Returns:
            The terminal view; None where `is_known` said yes.

        Raises:
            TaskNotFound: RunningHub keeps saying that it does not know the task.
            KeyRejected: The key may not ask; the task goes on.
            AccountError: The account may not ask; the task goes on.
        """
        watched = self._watch(task_id, is_known)
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
        """Looks at a task now: somebody said that it has ended."""
        self._surprises = 0
        watched = self._watched.get(task_id)
        if watched is None:
            self._told_early[task_id] = None
            if len(self._told_early) > REMEMBERED:
                del self._told_early[next(iter(self._told_early))]
            return
        watched.told = True
        # A look that is under way may have asked before the end.
        watched.again = watched.busy
        if not watched.busy:
            self._schedule(watched, self._clock())

    def hears(self, *, is_on: bool) -> None:
        """Learns whether somebody tells of ends."""
        if is_on == self._hears:
            return
        self._hears, self._surprises = is_on, 0
        if not is_on:
            self._look_often()

    def _look_often(self) -> None:
        for watched in self._watched.values():
            if watched.is_known is not None and not watched.busy:
                self._schedule(watched, self._clock() + self._gap(watched))

    def _is_told_of(self, watched: _Watched) -> bool:
        return watched.is_known is not None and self._hears and self._surprises < SURPRISES_THAT_COUNT

    def _is_watched(self, watched: _Watched) -> bool:
        return self._watched.get(watched.task_id) is watched

    def _watch(self, task_id: str, is_known: IsKnown | None) -> _Watched:
        watched = self._watched.get(task_id)
        if watched is None:
            done: asyncio.Future[TaskView | None] = asyncio.get_running_loop().create_future()
            # A failure that everybody has stopped waiting for is nobody's error.
            done.add_done_callback(lambda future: future.cancelled() or future.exception())
            watched = self._watched[task_id] = _Watched(task_id, self._clock(), done, is_known)
            watched.told = task_id in self._told_early
            self._told_early.pop(task_id, None)
            self._schedule(watched, self._clock() + self._first_gap(watched))
        return watched

    def _first_gap(self, watched: _Watched) -> float:
        if watched.told:
            return 0.0
        if self._is_told_of(watched):
            return min(LONGEST_FIRST, FIRST_IF_TOLD * self._shortest)
        return min(self._shortest, 1.0)

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
            delay = self._due[0][0] - self._clock() if self._due else None
            try:
                await asyncio.wait_for(self._wake.wait(), delay)
            except TimeoutError:
                continue

    def _start_due_looks(self) -> None:
        while self._due and self._due[0][0] <= self._clock():
            due, _, watched = heapq.heappop(self._due)
            is_stale = due != watched.due or watched.busy or not self._is_watched(watched)
            if not is_stale:
                watched.busy = True
                look = asyncio.ensure_future(self._look(watched))
                self._looks.add(look)
                look.add_done_callback(self._looks.discard)

    async def _look(self, watched: _Watched) -> None:
        async with self._gate:
            was_told, watched.told = watched.told, False
            if not (was_told and await self._ended_elsewhere(watched)):
                await self._ask(watched, was_told=was_told)
        gap = 0.0 if watched.again else self._gap(watched)
        watched.busy = watched.again = False
        if not watched.done.done() and self._is_watched(watched):
            self._schedule(watched, self._clock() + gap)

    async def _ended_elsewhere(self, watched: _Watched) -> bool:
        try:
            known = watched.is_known is not None and await watched.is_known()
        except Exception as error:  # whatever it is, RunningHub can still be asked
            _log.info("task %s: cannot see whether its end is recorded: %s", watched.task_id, error)
            return False
        if known and not watched.done.done():
            watched.done.set_result(None)
        return known

    async def _ask(self, watched: _Watched, *, was_told: bool) -> None:
        try:
            view = await self._query(watched.task_id)
        except TaskNotFound as error:
            watched.misses += 1
            if watched.misses >= MISSES_THAT_COUNT:
                self._fail(watched, error)
        except (KeyRejected, AccountError) as error:
            self._fail(watched, error)
        except Exception as error:  # whatever it is: to stop looking would be to lose a paid task
            self._blip(watched, error)
        else:
            self._saw(watched, view)
            if view.is_terminal and not was_told and self._is_told_of(watched):
                self._was_surprised()

    def _was_surprised(self) -> None:
        self._surprises += 1
        if self._surprises == SURPRISES_THAT_COUNT:
            _log.warning(
                "%d tasks have ended and no webhook told of it; ends are polled for as without one. What to do: see "
                "that `rh-prefect webhook serve` runs, and that RunningHub reaches it at RH_WEBHOOK_URL.",
                self._surprises,
            )
            self._look_often()

    def _saw(self, watched: _Watched, view: TaskView) -> None:
        watched.misses = watched.blips = 0
        if view.is_terminal and not is_settled(view) and watched.empty_looks < EMPTY_LOOKS:
            watched.empty_looks += 1
            return
        if view.status != watched.status:
            watched.status = view.status
            self._tell(watched, view)
        if view.is_terminal and not watched.done.done():
            watched.done.set_result(view)

    def _tell(self, watched: _Watched, view: TaskView) -> None:
        for callback in tuple(watched.seen):
            try:
                callback(view)
            except Exception:
                _log.exception("task %s: whoever watches it failed to take note of %s", watched.task_id, view.status)

    def _fail(self, watched: _Watched, error: RunningHubError) -> None:
        if not watched.done.done():
            watched.done.set_exception(error)

    def _blip(self, watched: _Watched, error: Exception) -> None:
        watched.blips += 1
        if watched.blips == 1:
            _log.info("task %s could not be looked at, which changes nothing but time: %s", watched.task_id, error)

    def _gap(self, watched: _Watched) -> float:
        if watched.empty_looks:
            return self._shortest
        if self._is_told_of(watched) and not watched.blips:
            return min(LONGEST_LATER, LATER_IF_TOLD * self._shortest)
        by_age = max(self._shortest, AGE_FRACTION * (self._clock() - watched.since))
        return min(LONGEST_GAP, by_age * (1 + watched.blips))

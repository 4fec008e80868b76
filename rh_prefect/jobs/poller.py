"""Waits for all running tasks of one account: one loop, few requests, and no short deadline.

The next look at a task is due after a fraction of its age, so a short task is noticed soon and a long one is not asked
about all the time. A failing look is a blip, never the end of a job: only RunningHub's own terminal state ends it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

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

_log = logging.getLogger("rh_prefect")


def is_settled(view: TaskView) -> bool:
    """Tells whether a task has ended and has what it is going to have."""
    return view.is_terminal and (view.status != "SUCCESS" or bool(view.outputs))


@dataclass(slots=True, eq=False)
class _Watched:
    task_id: str
    since: float
    done: asyncio.Future[TaskView]
    waiters: int = 0
    seen: list[Callable[[TaskView], None]] = field(default_factory=list)
    status: str = ""
    misses: int = 0
    blips: int = 0
    empty_looks: int = 0
    due: float = 0.0
    busy: bool = False
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

    async def wait(self, task_id: str, *, on_change: Callable[[TaskView], None] | None = None) -> TaskView:
        """Waits until a task is terminal.

        Args:
            task_id: RunningHub's task id.
            on_change: Called with each new state, the last one included.

        Returns:
            The terminal view.

        Raises:
            TaskNotFound: RunningHub keeps saying that it does not know the task.
            KeyRejected: The key may not ask; the task goes on.
            AccountError: The account may not ask; the task goes on.
        """
        watched = self._watch(task_id)
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
        watched = self._watched.get(task_id)
        if watched is None:
            return
        # A look that is under way may have asked before the end.
        watched.again = watched.busy
        if not watched.busy:
            self._schedule(watched, self._clock())

    def _is_watched(self, watched: _Watched) -> bool:
        return self._watched.get(watched.task_id) is watched

    def _watch(self, task_id: str) -> _Watched:
        watched = self._watched.get(task_id)
        if watched is None:
            done: asyncio.Future[TaskView] = asyncio.get_running_loop().create_future()
            # A failure that everybody has stopped waiting for is nobody's error.
            done.add_done_callback(lambda future: future.cancelled() or future.exception())
            watched = self._watched[task_id] = _Watched(task_id, self._clock(), done)
            self._schedule(watched, self._clock() + min(self._shortest, 1.0))
        return watched

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
            await self._ask(watched)
        gap = 0.0 if watched.again else self._gap(watched)
        watched.busy = watched.again = False
        if not watched.done.done() and self._is_watched(watched):
            self._schedule(watched, self._clock() + gap)

    async def _ask(self, watched: _Watched) -> None:
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
        by_age = max(self._shortest, AGE_FRACTION * (self._clock() - watched.since))
        return min(LONGEST_GAP, by_age * (1 + watched.blips))

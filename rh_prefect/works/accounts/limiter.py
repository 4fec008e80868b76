"""Limits the concurrent tasks of one account to keep rejections rare; RunningHub enforces the actual limit.

Tasks of a dead process and of other programs with the same key use slots too. So the limiter relies on RunningHub's
count (`queue/status`) and its rejections (421), not on a local count alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from rh_prefect.client.http_connections import chance
from rh_prefect.errors import RunningHubError

MAX_COUNT_AGE = 5.0
"""Maximum age in seconds at which a task count of `queue/status` is still used."""

MAX_COUNT_AGE_IF_FULL = 1.0
"""Maximum age in seconds of a count while other programs use all slots: only a new count shows a free slot."""

MAX_SUBMITS = 20
"""Maximum number of concurrent submissions, and so of submissions that RunningHub refuses before the limiter pauses."""

MAX_SUBMITS_ALONE = 50
"""Maximum number of concurrent submissions if no other program uses the account, whose count is then exact."""

LONGEST_PAUSE_WITH_ROOM = 5.0
"""Maximum pause in seconds after refusals while the account's count shows free slots."""

OTHERS_GRACE_SECONDS = 0.5
"""Seconds before use of a slot that another program has freed, because that program often starts a task there."""

COUNT_TIMEOUT = 2.0
"""Maximum seconds to wait for an account's count before jobs use the other accounts."""

LONGEST_PAUSE = 30.0
"""Maximum pause in seconds between two submissions, or between two requests for a file that its host refuses."""


def pause_seconds(refusals: int, *, jitter: float) -> float:
    """Returns the pause in seconds after refusals, with jitter: 1 to 2 s after one, doubled up to `LONGEST_PAUSE`."""
    longest: float = min(LONGEST_PAUSE, 2**refusals)
    return longest * (0.5 + jitter / 2)


@dataclass(frozen=True, slots=True)
class Count:
    """The number of an account's tasks, as reported by RunningHub."""

    missing: int  # The number of this process's tasks that the account no longer has
    others: int  # The number of the account's tasks that are not this process's


@dataclass(frozen=True, slots=True)
class Turn:
    """The position of a job among the waiting jobs of its run; runs get slots in the order of their requests."""

    run: str = ""  # The run that orders its jobs; empty for a job without an order, which keeps its place in the queue
    position: tuple[int, ...] = ()  # The run's jobs are served in the order of their positions

    def precedes(self, other: Turn) -> bool:
        """Returns whether this job is served before another job of the same run."""
        return bool(self.run) and self.run == other.run and self.position < other.position


class Waiter:
    """A job in the queues of one or several accounts; the first free account takes the job."""

    def __init__(self, preferred: Limiter | None, turn: Turn) -> None:
        self.preferred = preferred
        self.turn = turn
        self.assigned: asyncio.Future[Limiter] = asyncio.get_running_loop().create_future()


async def first_free(
    limiters: Sequence[Limiter],
    *,
    preferred: Limiter | None = None,
    turn: Turn | None = None,
    on_wait: Callable[[], None] = lambda: None,
) -> Limiter:
    """Waits until one of several accounts has a free slot, takes the slot, and returns its limiter.

    The preferred limiter, whose account has the job's inputs, comes first, then the other limiters in the given order.
    Call `submit_finished` after the submission, and `release` after the task's end.
    """
    waiter = Waiter(preferred, turn or Turn())
    counts = await refresh_counts(sorted(limiters, key=lambda limiter: limiter is not preferred))
    try:
        for limiter, count in counts.items():
            _add_when_counted(limiter, count, waiter)
        if not waiter.assigned.done():
            on_wait()
        return await waiter.assigned
    except asyncio.CancelledError:
        if not waiter.assigned.cancelled():
            # The slot was assigned at the moment of the cancellation.
            waiter.assigned.result().return_unused()
        raise
    finally:
        for limiter in limiters:
            limiter.remove(waiter)


def _add_when_counted(limiter: Limiter, count: asyncio.Task[None], waiter: Waiter) -> None:
    if count.done():
        limiter.add(waiter)
    else:
        count.add_done_callback(lambda _: limiter.add(waiter))


async def refresh_counts(limiters: Iterable[Limiter]) -> dict[Limiter, asyncio.Task[None]]:
    """Requests new task counts for accounts whose counts are old.

    Returns the request of each limiter. A request that has no response after `COUNT_TIMEOUT` is not stopped.
    """
    counts = {limiter: asyncio.ensure_future(limiter.refresh()) for limiter in limiters}
    await asyncio.wait(counts.values(), timeout=COUNT_TIMEOUT)
    return counts


class Limiter:
    """The slots of one account in this process, assigned in the order of the requests; see `Turn`."""

    def __init__(
        self,
        query_count: Callable[[], Awaitable[tuple[int | None, int | None]]],
        *,
        clock: Callable[[], float],
        jitter: Callable[[], float] = chance,
    ) -> None:
        self._query_count = query_count
        self._clock = clock
        self._jitter = jitter
        self._waiters: list[Waiter] = []
        self._limit: int | None = None
        self._held = self._others = self._announced = self._submitting = self._surplus = self._released = 0
        self._missing = 0
        self._missing_since = -math.inf
        self._counted_at: float | None = None
        self._paused_until = -math.inf
        self._was_full = False
        self._refused_at = -math.inf
        self._refusals = 0
        self._count_lock = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def held(self) -> int:
        """The number of slots that this process's tasks use."""
        return self._held

    @property
    def load(self) -> float:
        """The sum of the account's tasks and the reserved slots, divided by the number of the account's slots."""
        return (self._held + self._others + self._announced) / (self._limit or 1)

    def add(self, waiter: Waiter) -> None:
        """Adds a job to the queue.

        The positions of a run in the queue do not change. A job that precedes waiting jobs of its run takes the first
        of their positions, and each of these jobs moves to the run's next position.
        """
        if waiter.assigned.done():
            return
        waiters = self._waiters
        waiters.append(waiter)
        places = [n for n, one in enumerate(waiters) if one is waiter or waiter.turn.precedes(one.turn)]
        # The last one of these places was the new job's.
        for n, one in zip(places, [waiter, *(waiters[n] for n in places)]):
            waiters[n] = one
        self._admit()

    def remove(self, waiter: Waiter) -> None:
        """Removes a job from the queue; does nothing if the job is not in the queue."""
        with contextlib.suppress(ValueError):
            self._waiters.remove(waiter)

    def announce(self) -> None:
        """Reserves a slot for a job that is uploading its inputs to this account."""
        self._announced += 1

    def withdraw(self) -> None:
        """Removes the reservation of `announce`, because the job has a slot or needs none."""
        self._announced -= 1
        self._admit()

    def return_unused(self) -> None:
        """Releases a slot that was assigned to a job but not used."""
        self._submitting -= 1
        self._release()

    def submit_finished(self) -> None:
        """Records that the submission for a slot has an answer, or will not be sent."""
        self._submitting -= 1
        self._admit()

    def occupy(self) -> None:
        """Takes a slot for a task that is already running, even if no slot is free."""
        self._held += 1

    def release(self, *, full: bool = False) -> None:
        """Releases a slot; `full` says whether RunningHub refused the task because no slot was free.

        After such a refusal, the limiter assigns no slot for a while and counts the tasks again, because other programs
        use slots.
        """
        if not full:
            self._refusals = 0
        elif self._clock() >= self._paused_until:
            # Concurrent refusals have one cause, so they count once.
            self._refusals += 1
            self._paused_until = self._clock() + pause_seconds(self._refusals, jitter=self._jitter())
            self._counted_at = None
            self._refused_at = self._clock()
        self._release()

    async def count(self, polled: int) -> Count | None:
        """Requests the account's task count now, even if the last count is recent; None if there is no response.

        `polled` is the number of this process's tasks that are not known to have ended.
        """
        async with self._count_lock:
            released, self._surplus = self._released, polled - self._held
            running = await self._request_count()
            if running is None:
                return None
            missing = max(0, polled + self._others - running - (self._released - released))
            # Slots that were released in the meantime may have been counted.
            ended = self._ended_of_others(missing)
            self._others = max(self._others - ended, running - self._held - (self._released - released))
            # Without tasks of other programs the count is exact: it shows free slots before polls find the ended tasks.
            if self._limit is not None:
                self._surplus += self._limit - running
        self._admit()
        return Count(missing - ended, self._others)

    def _ended_of_others(self, missing: int) -> int:
        """Returns how many tasks of other programs were missing from all counts of the last `OTHERS_GRACE_SECONDS`."""
        if not self._missing or not missing:
            self._missing, self._missing_since = missing, self._clock()
        self._missing = min(self._missing, missing)
        if self._clock() - self._missing_since < OTHERS_GRACE_SECONDS:
            return 0
        ended = min(self._missing, self._others)
        self._missing -= ended
        return ended

    def _release(self) -> None:
        self._held = max(0, self._held - 1)
        self._released += 1
        self._missing = max(0, self._missing - 1)
        self._admit()

    async def refresh(self) -> None:
        """Requests the account's task count, if the last count is old."""
        async with self._count_lock:
            if self._counted_at is None or self._clock() - self._counted_at >= self._max_count_age():
                released = self._released
                running = await self._request_count()
                if running is not None:
                    self._others = max(0, running - self._held - (self._released - released))

    async def _request_count(self) -> int | None:
        # Set before the request, so that callers behind the lock do not each wait for the same timeout.
        self._counted_at = self._clock()
        try:
            self._limit, counted = await self._query_count()
        except RunningHubError:
            return None  # RunningHub still refuses tasks beyond the limit (421).
        running = self._held if counted is None else counted  # a machine counts no tasks
        self._counted_at = self._clock()
        self._shorten_pause(running)
        return running

    def _shorten_pause(self, running: int) -> None:
        """Ends or shortens the pause after a refusal if the account's count shows a free slot."""
        is_full = self._limit is not None and running >= self._limit
        if not is_full:
            # If the count showed a free slot at the refusal, the refusal had another cause.
            until = self._clock() if self._was_full else self._refused_at + LONGEST_PAUSE_WITH_ROOM
            self._paused_until = min(self._paused_until, until)
        self._was_full = is_full

    def _max_count_age(self) -> float:
        is_full_of_others = self._waiters and (self._others > 0 or self._clock() < self._paused_until)
        return MAX_COUNT_AGE_IF_FULL if is_full_of_others else MAX_COUNT_AGE

    def _admit(self) -> None:
        while self._has_free_slot() and (waiter := self._next_waiter()) is not None:
            self._held += 1
            self._surplus -= 1
            self._submitting += 1
            waiter.assigned.set_result(self)
        if self._waiters:
            self._refresh_later()

    def _next_waiter(self) -> Waiter | None:
        """Removes and returns the next job: the first job that does not prefer another account, or else the first job.

        A slot that is reserved for an uploading job is not given to a job that prefers another account.
        """
        waiting = [waiter for waiter in self._waiters if not waiter.assigned.done()]
        waiter = next((waiter for waiter in waiting if waiter.preferred in (None, self)), None)
        is_reserved = self._limit is not None and self._held + self._announced >= self._limit - self._others
        if waiter is None and waiting and not is_reserved:
            waiter = waiting[0]
        if waiter is not None:
            self._waiters.remove(waiter)
        return waiter

    def _has_free_slot(self) -> bool:
        is_alone = self._limit is not None and not self._others
        max_submits = MAX_SUBMITS_ALONE if is_alone else MAX_SUBMITS
        if self._clock() < self._paused_until or self._submitting >= max_submits:
            return False
        # One task is always allowed, since nothing notifies this process of the ends of others' tasks.
        if self._limit is None or self._held < max(1, self._limit - self._others):
            return True
        return self._surplus > 0 and is_alone

    def _refresh_later(self) -> None:
        if self._timer is not None:
            return
        longest = self._max_count_age()
        delay = min(longest, max(self._paused_until - self._clock(), 0.0) or longest)
        self._timer = asyncio.get_running_loop().call_later(delay, self._refresh_now)

    def _refresh_now(self) -> None:
        self._timer = None
        task = asyncio.ensure_future(self.refresh())
        task.add_done_callback(lambda _: self._admit())

"""Limits the concurrent tasks of one account to keep rejections rare; RunningHub enforces the actual limit.

A slot is freed by the *remote* state. A dead process's tasks still hold the account, and so do other programs on the
same key; so the number to believe is RunningHub's own (`queue/status`, and 421), never a local count alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from rh_prefect.errors import RunningHubError

ASK_EVERY = 5.0
"""Seconds for which an answer of `queue/status` is believed."""

ASK_WHILE_FULL = 1.0
"""The same while jobs wait and tasks of others fill the account: nothing else tells that these have ended."""

AT_ONCE = 20
"""How many submits may be on their way at once: one that is refused stops those behind it."""

AT_ONCE_ALONE = 50
"""The same where the account has no task of others, so that its count says exactly how much room there is."""

UNEXPLAINED = 5.0
"""The longest pause after refusals, in seconds, while the account says that it has room."""

OTHERS_PAUSE = 0.5
"""Seconds for which a slot that others left is theirs: where one of their tasks ends, they begin the next."""

DOUBTED = 60.0
"""Seconds for which, after a refusal, no slot is given that only the account's count says to be free."""

ANSWERS_SOON = 2.0
"""Seconds for which an account's count is waited for before the others are looked at."""

LONGEST_PAUSE = 30.0
"""The longest wait between two tries, in seconds."""


def pause_seconds(refusals: int, *, jitter: float) -> float:
    """How long to wait after the n-th refusal in a row.

    Args:
        refusals: From 1.
        jitter: 0 to 1; spreads those who were refused together.

    Returns:
        Seconds: doubling from about a second up to `LONGEST_PAUSE`.
    """
    longest = min(LONGEST_PAUSE, 2.0 ** min(refusals, 10))
    return longest * (0.5 + jitter / 2)


@dataclass(frozen=True, slots=True)
class Count:
    """The number of an account's tasks, as reported by RunningHub.

    Attributes:
        missing: How many of this process's tasks it no longer has.
        others: How many tasks it has that are not this process's.
    """

    missing: int
    others: int


class Place:
    """A job's position in the queue of one or several accounts; the first free account takes the job."""

    def __init__(self, home: Limiter | None) -> None:
        """Joins no line yet.

        Args:
            home: Where its inputs are already: there it goes before those that are at home elsewhere.
        """
        self.home = home
        self.given: asyncio.Future[Limiter] = asyncio.get_running_loop().create_future()


async def first_free(accounts: Sequence[Limiter], *, home: Limiter | None = None) -> Limiter:
    """Waits in the queues of several accounts until one has a free slot, and takes that slot.

    Call `posted` when the submit is over, and `release` when the task is.

    Args:
        accounts: In the order in which they are tried.
        home: The one where the job's inputs are already, which is tried first.

    Returns:
        The one whose slot was taken.
    """
    place = Place(home)
    counting = await counted(sorted(accounts, key=lambda one: one is not home))
    try:
        for one, count in counting.items():
            _join_when_counted(one, count, place)
        return await place.given
    except asyncio.CancelledError:
        if not place.given.cancelled():
            # The slot was given in the moment in which the caller stopped waiting for it.
            place.given.result().hand_back()
        raise
    finally:
        for one in accounts:
            one.leave(place)


def _join_when_counted(account: Limiter, count: asyncio.Task[None], place: Place) -> None:
    if count.done():
        account.join(place)
    else:
        count.add_done_callback(lambda _: account.join(place))


async def counted(accounts: Iterable[Limiter]) -> dict[Limiter, asyncio.Task[None]]:
    """Updates outdated task counts of accounts; an account that does not answer delays no job.

    Args:
        accounts: In the order in which they are asked.

    Returns:
        What goes on for those that have not answered soon, and is done for the others; in the same order.
    """
    counting = {one: asyncio.ensure_future(one.refresh()) for one in accounts}
    await asyncio.wait(counting.values(), timeout=ANSWERS_SOON)
    return counting


class Limiter:
    """The slots of one account in this process, assigned in the order of the requests."""

    def __init__(
        self,
        ask: Callable[[], Awaitable[tuple[int | None, int]]],
        *,
        clock: Callable[[], float],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Starts with no knowledge of the account.

        Args:
            ask: Asks RunningHub for (limit, tasks of the account that run or are queued); the limit may be unknown.
            clock: Monotonic seconds.
            jitter: Numbers from 0 to 1.
        """
        self._ask = ask
        self._clock = clock
        self._jitter = jitter
        self._waiting: deque[Place] = deque()
        self._expected = 0
        self._held = 0
        self._limit: int | None = None
        self._foreign = 0
        self._on_their_way = 0
        self._missing = 0
        self._missing_since = 0.0
        self._spare = 0
        self._doubted_until = 0.0
        self._returned = 0
        self._asked_at: float | None = None
        self._closed_until = 0.0
        self._is_seen_full = False
        self._refused_at = 0.0
        self._fulls = 0
        self._asking = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def held(self) -> int:
        """The number of slots that this process's tasks use."""
        return self._held

    @property
    def load(self) -> float:
        """The account's number of tasks relative to its capacity."""
        return (self._held + self._foreign + self._expected) / (self._limit or 1)

    async def acquire(self) -> None:
        """Waits, in line, until the account may take one more task, and takes the slot.

        Call `posted` when the submit is over, and `release` when the task is.
        """
        await first_free([self])

    def join(self, place: Place) -> None:
        """Adds a job to the queue."""
        if not place.given.done():
            self._waiting.append(place)
            self._admit()

    def leave(self, place: Place) -> None:
        """Removes a job from the queue, if it is in it."""
        with contextlib.suppress(ValueError):
            self._waiting.remove(place)

    def expect(self) -> None:
        """Announces a job that will wait for a slot here, while its inputs are being uploaded."""
        self._expected += 1

    def expect_no_more(self) -> None:
        """Withdraws the announcement of a job that has a slot, on any account, or needs none."""
        self._expected -= 1
        self._admit()

    def hand_back(self) -> None:
        """Releases an assigned slot that no job has used."""
        self._on_their_way -= 1
        self._give_back()

    def posted(self) -> None:
        """Records that the submission for a slot was answered, or will not be sent."""
        self._on_their_way -= 1
        self._admit()

    def hold(self) -> None:
        """Counts a running task, adopted after a crash, without waiting, even if the limit is exceeded."""
        self._held += 1

    def release(self, *, full: bool = False) -> None:
        """Gives a slot back.

        Args:
            full: RunningHub refused for want of a slot: the account holds more than this process knows of, so nothing
                is given out for a while and the account is asked again.
        """
        if not full:
            self._fulls = 0
        elif self._clock() >= self._closed_until:
            # Once for all that were refused together: they say one thing, not several in a row.
            self._fulls += 1
            self._closed_until = self._clock() + pause_seconds(self._fulls, jitter=self._jitter())
            self._asked_at = None
            self._refused_at = self._clock()
            self._doubted_until = self._clock() + DOUBTED
        self._give_back()

    async def count(self, watched: int) -> Count | None:
        """Requests the account's task count now, even if the last count is recent.

        Args:
            watched: How many tasks this process believes to run.

        Returns:
            What it says; None where it does not answer.
        """
        async with self._asking:
            returned, self._spare = self._returned, watched - self._held
            running = await self._ask_now()
            if running is None:
                return None
            missing = max(0, watched + self._foreign - running - (self._returned - returned))
            gone = self._gone_of_others(missing)
            self._foreign = max(self._foreign - gone, running - self._held)
            # Alone on the account, its count is exact: what it lacks is free, though it is not known yet which ended.
            self._spare += (self._limit or 0) - running
        self._admit()
        return Count(missing - gone, self._foreign)

    def _gone_of_others(self, missing: int) -> int:
        """What has been missing for a while, and of which no end was found, was not ours."""
        if not self._missing or not missing:
            self._missing, self._missing_since = missing, self._clock()
        self._missing = min(self._missing, missing)
        if self._clock() - self._missing_since < OTHERS_PAUSE:
            return 0
        gone = min(self._missing, self._foreign)
        self._missing -= gone
        return gone

    def _give_back(self) -> None:
        self._held = max(0, self._held - 1)
        self._returned += 1
        self._missing = max(0, self._missing - 1)
        self._admit()

    async def refresh(self) -> None:
        """Requests the account's task count, if the last count is old."""
        async with self._asking:
            max_age = ASK_WHILE_FULL if self._is_full_of_others() else ASK_EVERY
            if self._asked_at is None or self._clock() - self._asked_at >= max_age:
                running = await self._ask_now()
                if running is not None:
                    self._foreign = max(0, running - self._held)

    async def _ask_now(self) -> int | None:
        # Also where no answer comes: those behind must not wait for the same silence one after another.
        self._asked_at = self._clock()
        try:
            self._limit, running = await self._ask()
        except RunningHubError:
            return None  # Without an answer 421 still arbitrates.
        self._asked_at = self._clock()
        self._note_full(running)
        return running

    def _note_full(self, running: int) -> None:
        """Ends a pause after a refusal early, where the account was full by its own count and is not any more."""
        is_full = self._limit is not None and running >= self._limit
        if not is_full:
            # A job that is refused while the account counts a free slot is refused for another reason.
            until = self._clock() if self._is_seen_full else self._refused_at + UNEXPLAINED
            self._closed_until = min(self._closed_until, until)
        self._is_seen_full = is_full

    def _is_full_of_others(self) -> bool:
        return bool(self._waiting) and (self._foreign > 0 or self._clock() < self._closed_until)

    def _admit(self) -> None:
        while self._has_room() and (place := self._next()) is not None:
            self._held += 1
            self._spare -= 1
            self._on_their_way += 1
            place.given.set_result(self)
        if self._waiting:
            self._look_again_later()

    def _next(self) -> Place | None:
        """The next in line: the first whose inputs are not elsewhere, or else the first of all.

        A slot is kept for a job that is just bringing its inputs here; another job would have to bring its own
        first.
        """
        waiting = [place for place in self._waiting if not place.given.done()]
        place = next((place for place in waiting if place.home in (None, self)), None)
        is_kept = self._limit is not None and self._held + self._expected >= self._limit - self._foreign
        if place is None and waiting and not is_kept:
            place = waiting[0]
        if place is not None:
            self._waiting.remove(place)
        return place

    def _has_room(self) -> bool:
        is_alone = self._limit is not None and not self._foreign and self._clock() >= self._doubted_until
        if self._clock() < self._closed_until or self._on_their_way >= (AT_ONCE_ALONE if is_alone else AT_ONCE):
            return False
        # At least one of ours may always try, since no message says that other clients' tasks have ended.
        if self._limit is None or self._held < max(1, self._limit - self._foreign):
            return True
        return self._spare > 0 and not self._foreign and self._clock() >= self._doubted_until

    def _look_again_later(self) -> None:
        if self._timer is not None:
            return
        delay = max(self._closed_until - self._clock(), 0.0) or ASK_EVERY
        delay = min(delay, ASK_WHILE_FULL) if self._is_full_of_others() else delay
        self._timer = asyncio.get_running_loop().call_later(delay, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        task = asyncio.ensure_future(self.refresh())
        task.add_done_callback(lambda _: self._admit())

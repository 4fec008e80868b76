"""How many tasks one account may run at once: the account is the arbiter, this only keeps refusals rare.

A slot is freed by the *remote* state. A dead process's tasks still hold the account, and so do other programs on the
same key; so the number to believe is RunningHub's own (`queue/status`, and 421), never a local count alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Awaitable, Callable

from rh_prefect.errors import RunningHubError

ASK_EVERY = 5.0
"""Seconds for which an answer of `queue/status` is believed."""

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


class Slots:
    """The slots of one account in this process, given out in the order in which they were asked for."""

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
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._held = 0
        self._limit: int | None = None
        self._foreign = 0
        self._asked_at: float | None = None
        self._closed_until = 0.0
        self._fulls = 0
        self._asking = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def held(self) -> int:
        """Slots that this process's tasks hold."""
        return self._held

    async def acquire(self) -> None:
        """Waits, in line, until the account may take one more task, and takes the slot."""
        await self._refresh()
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self._admit()
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled():
                with contextlib.suppress(ValueError):
                    self._waiting.remove(place)
            else:
                # The slot was given in the very moment in which the caller stopped waiting for it.
                self._give_back()
            raise

    def hold(self) -> None:
        """Counts a task that already runs, adopted after a crash: over the limit if need be, never waiting."""
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
        self._give_back()

    def _give_back(self) -> None:
        self._held = max(0, self._held - 1)
        self._admit()

    async def _refresh(self) -> None:
        async with self._asking:
            if self._asked_at is not None and self._clock() - self._asked_at < ASK_EVERY:
                return
            # Also where no answer comes: those behind must not wait for the same silence one after another.
            self._asked_at = self._clock()
            try:
                limit, running = await self._ask()
            except RunningHubError:
                return  # Without an answer 421 still arbitrates.
            self._asked_at = self._clock()
            self._limit = limit
            self._foreign = max(0, running - self._held)

    def _admit(self) -> None:
        while self._waiting and self._has_room():
            place = self._waiting.popleft()
            if not place.cancelled():
                self._held += 1
                place.set_result(None)
        if self._waiting:
            self._look_again_later()

    def _has_room(self) -> bool:
        if self._clock() < self._closed_until:
            return False
        # At least one of ours may always try: if the others have gone, nobody would tell.
        return self._limit is None or self._held < max(1, self._limit - self._foreign)

    def _look_again_later(self) -> None:
        if self._timer is not None:
            return
        delay = max(self._closed_until - self._clock(), 0.0) or ASK_EVERY
        self._timer = asyncio.get_running_loop().call_later(delay, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        task = asyncio.ensure_future(self._refresh())
        task.add_done_callback(lambda _: self._admit())

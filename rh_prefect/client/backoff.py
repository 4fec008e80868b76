"""Waits out RunningHub's limits: a request that it did not accept for now is sent again, for a bounded time.

A code that means "wait" may come with any HTTP status, 200 included, so this looks at answers; what breaks on the way
is retried by `rh_prefect.client.transports`. Paid submits do not come through here: each of them has its own record.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from rh_prefect.client.responses import Answer
from rh_prefect.errors import Busy


class Backoff:
    """Sends again with growing pauses.

    Args:
        seconds: How long at most, from the first answer on; 0 never sends again.
        pause: Seconds before the second request; doubled for each later one.
        longest: The longest pause, in seconds.
        sleep: Waits.
        clock: Monotonic seconds.
        draw: Numbers from 0 to 1, for the jitter.
    """

    def __init__(
        self,
        seconds: float,
        *,
        pause: float = 0.5,
        longest: float = 8.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._seconds = seconds
        self._pause = pause
        self._longest = longest
        self._sleep = sleep
        self._clock = clock
        self._draw = draw

    async def send(self, once: Callable[[], Awaitable[Answer]], *, seconds: float | None = None) -> Answer:
        """Sends a request until it is accepted or refused for another reason.

        Args:
            once: Sends it once.
            seconds: A shorter limit than usual.

        Returns:
            The answer; the last one where the time is over.

        Raises:
            Busy: HTTP 429, and the time is over.
        """
        limit = self._seconds if seconds is None else min(seconds, self._seconds)
        began, tries = self._clock(), 0
        while True:
            wait = min(self._pause * 2.0**tries, self._longest) * (0.5 + self._draw() / 2)
            is_over = self._clock() - began + wait > limit
            try:
                answer = await once()
            except Busy as error:
                # Any other code was raised since the answer does not tell whether something was made.
                if is_over or error.code != "429":
                    raise
            else:
                if is_over or not answer.is_pace:
                    return answer
            tries += 1
            await self._sleep(wait)

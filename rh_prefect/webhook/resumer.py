"""Looks after suspended runs for as long as the receiver runs: right after an end, and by the clock."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from prefect.settings import PREFECT_API_URL

from rh_prefect.flow_runs.suspended_runs import Resumer
from rh_prefect.jobs.loop_thread import LOOP

BY_THE_CLOCK: Final = 60.0
"""Seconds between two looks at which RunningHub is asked: they find what no webhook tells of."""

SHORTEST: Final = 1.0
"""Seconds between two looks, however many ends are told of."""

AFTER_AN_END: Final = (1, 2, 4, 8, 16, 30)
"""In so many times the shortest pause it is looked again after an end, each time counted from the look before: the run
that waits for it may be just about to suspend."""

_log = logging.getLogger("rh_prefect")


class SuspendedRunResumer:
    """The receiver's one watch over suspended runs; idle where no Prefect API is configured."""

    def __init__(
        self,
        *,
        every: float = BY_THE_CLOCK,
        shortest: float = SHORTEST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts idle.

        Args:
            every: Seconds between two looks by the clock.
            shortest: Seconds between any two looks.
            clock: Monotonic seconds.
        """
        self._every = every
        self._shortest = shortest
        self._clock = clock
        self._waker = Resumer()
        self._lock = threading.Lock()
        self._is_started = False
        self._told = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins, once, however often it is called and on whatever thread."""
        with self._lock:
            if self._is_started or not PREFECT_API_URL.value():
                return
            self._is_started = True
        LOOP.submit(self._begin())

    def hear(self) -> None:
        """Learns that a task has ended; on the loop thread."""
        self._told.set()

    async def close(self) -> None:
        """Ends the watch, which may begin anew; on the loop thread."""
        with self._lock:
            self._is_started = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        LOOP.forget_closer(self.close)

    async def _begin(self) -> None:
        self._task = asyncio.ensure_future(self._run())
        LOOP.on_close(self.close)

    async def _run(self) -> None:
        due = self._clock()
        soon: list[float] = []
        while True:
            began = self._clock()
            asks = began >= due
            await self._look(asks=asks)
            due = began + self._every if asks else due
            pause = min(soon.pop(0) if soon else self._every, max(0.0, due - self._clock()))
            if await self._hears_within(pause):
                soon = [self._shortest * times for times in AFTER_AN_END]
            await asyncio.sleep(max(0.0, began + self._shortest - self._clock()))
            self._told.clear()

    async def _hears_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._told.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _look(self, *, asks: bool) -> None:
        try:
            await self._waker.look(asks=asks)
        except Exception as error:  # the Prefect API may be away for a while, and is asked again
            _log.warning("suspended runs cannot be looked after now: %s", error)

"""Answers that are held back until a test lets them go."""

from __future__ import annotations

import asyncio
import threading


class Gate:
    """Holds answers; a test in any thread sees them wait and lets them go."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    @property
    def held(self) -> int:
        """How many answers wait."""
        return len(self._held)

    async def wait(self, seconds: float) -> None:
        """Waits to be let go, at most so long."""
        event = asyncio.Event()
        with self._changed:
            self._held[event] = asyncio.get_running_loop()
            self._changed.notify_all()
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            pass
        finally:
            with self._changed:
                self._held.pop(event, None)

    def release(self) -> int:
        """Lets all answers go that wait now.

        Returns:
            How many they were.
        """
        with self._changed:
            for event, loop in self._held.items():
                loop.call_soon_threadsafe(event.set)
            return len(self._held)

    def wait_held(self, count: int = 1, *, seconds: float = 10.0) -> bool:
        """Blocks until so many answers wait.

        Returns:
            Whether they did in time.
        """
        with self._changed:
            return self._changed.wait_for(lambda: len(self._held) >= count, timeout=seconds)

"""One job that several calls wait for: it runs once, and stops when none is left that waits."""

from __future__ import annotations

import asyncio

from rh_prefect.jobs.result import Result


class Shared:
    """A job that several calls may wait for."""

    def __init__(self, task: asyncio.Task[Result | None]) -> None:
        self._task = task
        self._waiting = 0

    @property
    def is_ending(self) -> bool:
        """Whether its last caller has left it."""
        return self._task.cancelling() > 0

    def is_of(self, task: asyncio.Task[Result | None]) -> bool:
        """Whether this is the sharing of that task."""
        return self._task is task

    async def wait(self) -> Result | None:
        """Waits for the job; the last one who leaves it stops it."""
        self._waiting += 1
        try:
            return await asyncio.shield(self._task)
        except asyncio.CancelledError:
            if self._waiting == 1:
                self._task.cancel()
            raise
        finally:
            self._waiting -= 1

"""One job that several calls wait for: it runs once, and stops when none is left that waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from rh_prefect.jobs.outputs.result import Result
from rh_prefect.jobs.suspension import Detached
from rh_prefect.memory_cache import LruCache

REQUESTED_KEYS: LruCache[str, set[str]] = LruCache(500, make=set)
"""Scope -> keys that this process has asked for; what the journal has beyond them is an orphan. A flow run's are
dropped when it ends; where a scope is dropped because there are many, its jobs are read again from the journal."""


class SharedJob:
    """A job that several calls may wait for."""

    def __init__(self, task: asyncio.Task[Result | Detached | None]) -> None:
        self._task = task
        self._waiting = 0

    @property
    def is_ending(self) -> bool:
        """Whether its last caller has left it."""
        return self._task.cancelling() > 0

    def is_of(self, task: asyncio.Task[Result | Detached | None]) -> bool:
        """Whether this is the sharing of that task."""
        return self._task is task

    async def wait(self) -> Result | Detached | None:
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


class InFlightJobs:
    """The jobs that run at the moment."""

    def __init__(self) -> None:
        """Starts with none."""
        self._running: dict[tuple[str, str], SharedJob] = {}

    def has(self, scope: str, key: str) -> bool:
        """Whether a job runs, for other calls."""
        return (scope, key) in self._running

    async def once(
        self, scope: str, key: str, begin: Callable[[], Coroutine[Any, Any, Result | Detached | None]]
    ) -> Result | Detached | None:
        """Waits for a job, and begins it where no other call has.

        Args:
            scope: The scope's name.
            key: The job's key.
            begin: Runs the job.
        """
        name = (scope, key)
        shared = self._running.get(name)
        if shared is None or shared.is_ending:
            task = asyncio.ensure_future(begin())
            shared = self._running[name] = SharedJob(task)
            task.add_done_callback(lambda _: self._forget(name, task))
        return await shared.wait()

    def _forget(self, name: tuple[str, str], task: asyncio.Task[Result | Detached | None]) -> None:
        shared = self._running.get(name)
        if shared is not None and shared.is_of(task):
            del self._running[name]

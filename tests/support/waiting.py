"""Waits for conditions of other threads, processes and servers, which set no event of the test's loop."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable

NEVER = "it did not happen"


def wait_until(condition: Callable[[], object], *, seconds: float = 300.0) -> None:
    """Looks every few milliseconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, NEVER
        time.sleep(0.003)


async def until(
    condition: Callable[[], object], *, seconds: float = 300.0, said: Callable[[], str] = lambda: NEVER
) -> None:
    """Looks at a condition, which may be a coroutine function, until it holds; `said` is shown where it never does."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if await found if inspect.isawaitable(found) else found:
            return
        assert time.monotonic() < deadline, said()
        await asyncio.sleep(0.02)

"""An event loop whose clock jumps to the next timer: hours pass in milliseconds.

    @pytest.mark.virtual_time
    async def test_something() -> None:
        await asyncio.sleep(3600)

Nothing real may be waited for in it: no sockets, no threads. Where every coroutine waits for another, it says so.
"""

from __future__ import annotations

import asyncio
import selectors


class _Selector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everything waits, and nothing will ever happen")
        if not ready and timeout is not None:
            # A little more, as with any real clock: asyncio may call a timer a moment before it is due.
            self.now += timeout + 1e-6
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs timers at once, in order."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def now() -> float:
    return asyncio.get_running_loop().time()


def clock() -> float:
    """The same with another zero, for the code that is tested: no real clock begins with a test."""
    return now() + 1e6


async def settle(turns: int = 20) -> None:
    """Lets everything run that is ready, without letting time pass."""
    for _ in range(turns):
        await asyncio.sleep(0)

"""Jobs that are submitted together and then left to themselves, so that nobody has to stay for the sake of waiting.

While one of a round's jobs has no ticket yet, the others are waited for as ever, and what ends meanwhile is collected.
When the last one is in, whatever still runs at RunningHub is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict

T = TypeVar("T")
_log = logging.getLogger("rh_prefect")


class Detached(BaseModel):
    """A job that was paid for, and whose task goes on while nobody waits for it.

    Attributes:
        job: The job's full name.
        n: The number of its submit.
        task_id: RunningHub's task id.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    job: str
    n: int
    task_id: str


Verdict: TypeAlias = Literal["leave", "stay", "ended"]
"""Whether what runs may be left; `ended` says that all of it has ended meanwhile, so that there is none to wait for."""


class SuspendGroup:
    """Parties that each run one job after the other; none is left before all of them wait. Lives on the loop thread."""

    def __init__(self, decide: Callable[[Sequence[Detached]], Awaitable[Verdict]]) -> None:
        """Starts without a party.

        Args:
            decide: Asked when every party waits, with all that runs: whether it may be left now.
        """
        self._decide = decide
        self._busy = 0
        self._waiting: dict[Detached, Callable[[], None]] = {}
        self._over = asyncio.Event()
        self._deciding: asyncio.Task[None] | None = None

    @property
    def is_left(self) -> bool:
        """Whether it is over, and what still ran has been left."""
        return self._over.is_set()

    async def expect(self, parties: int) -> None:
        """Learns of so many more parties, before the first of them begins."""
        self._busy += parties

    async def end(self) -> None:
        """Learns that a party has nothing more to do."""
        self._busy -= 1
        self._look()

    async def wait(self, task: Detached, end: Coroutine[Any, Any, T], *, look: Callable[[], None]) -> T | None:
        """Waits for a task's end, or until the round is left.

        Args:
            task: What runs.
            end: Waits for its end.
            look: Has that notice at once an end that is recorded already.

        Returns:
            What `end` returns; None where the task was left.
        """
        ended, over = asyncio.ensure_future(end), asyncio.ensure_future(self._over.wait())
        self._waiting[task] = look
        self._busy -= 1
        self._look()
        try:
            await asyncio.wait({ended, over}, return_when=asyncio.FIRST_COMPLETED)
            return await ended if ended.done() else None
        finally:
            self._busy += 1
            self._waiting.pop(task, None)
            ended.cancel()
            over.cancel()

    @contextmanager
    def riding(self) -> Iterator[None]:
        """Has a party wait for what another one runs."""
        self._busy -= 1
        self._look()
        try:
            yield
        finally:
            self._busy += 1

    @property
    def _is_ripe(self) -> bool:
        return not self._busy and bool(self._waiting) and not self.is_left

    def _look(self) -> None:
        is_deciding = self._deciding is not None and not self._deciding.done()
        if self._is_ripe and not is_deciding:
            self._deciding = asyncio.ensure_future(self._settle())

    async def _settle(self) -> None:
        asked: set[Detached] = set()
        # Whoever goes on in the meantime may submit another job: it is asked again when that one is in.
        while self._is_ripe and asked != set(self._waiting):
            asked = set(self._waiting)
            try:
                verdict = await self._decide(list(self._waiting))
            except Exception as error:  # whatever it is: to stay and wait is what always works
                _log.warning("what runs is waited for here, and not left: %s", error)
                return
            if verdict == "leave" and self._is_ripe and asked == set(self._waiting):
                self._over.set()
            elif verdict == "ended":
                for look in tuple(self._waiting.values()):
                    look()

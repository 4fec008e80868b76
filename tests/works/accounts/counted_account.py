"""An account with slots in virtual time, and no RunningHub."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from rh_prefect.errors import RunningHubError
from rh_prefect.works.accounts.limiter import Limiter, first_free
from rh_prefect.works.journal.record_types import Intent
from tests.support.world.virtual_time import clock, now


class CountedAccount:
    """Answers `queue/status`, and notes when it is asked and the most tasks of its jobs."""

    def __init__(
        self,
        limit: int | None = 2,
        name: str = "a",
        *,
        block: str | None = None,
        site: str = "site",
        others: int = 0,
        answers_in: float = 0.05,
        error: RunningHubError | None = None,
    ) -> None:
        self.name, self.block = name, block
        self.provider = SimpleNamespace(site=site)
        self.limit, self.others, self.answers_in, self.error = limit, others, answers_in, error
        self.counted_at: list[float] = []
        self.most = 0
        self.limiter = Limiter(self._ask, clock=clock, jitter=lambda: 1.0)

    async def _ask(self) -> tuple[int | None, int]:
        self.counted_at.append(now())
        await asyncio.sleep(self.answers_in)
        if self.error is not None:
            raise self.error
        return self.limit, self.others + self.limiter.held

    def at(self, _: str) -> CountedAccount:
        return self

    def is_of(self, paid: Intent) -> bool:
        return self.name == paid.account

    def __str__(self) -> str:
        return self.name

    async def take(self) -> None:
        """Takes a slot and finishes its submission."""
        await first_free([self.limiter])
        self.limiter.submit_finished()

    async def start(self, count: int, *, finish: bool = True) -> list[asyncio.Task[Any]]:
        """Starts a number of acquisitions and waits until the free slots are assigned."""
        tasks = [asyncio.create_task(self.take() if finish else first_free([self.limiter])) for _ in range(count)]
        await asyncio.sleep(0.5)
        return tasks

    async def run(self, seconds: float) -> None:
        """A job that has a slot of this account."""
        self.limiter.submit_finished()
        self.most = max(self.most, self.limiter.held)
        await asyncio.sleep(seconds)
        self.limiter.release()

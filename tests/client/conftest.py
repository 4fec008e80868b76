from __future__ import annotations

import gc
import tracemalloc
from collections.abc import AsyncIterator, Awaitable

import pytest

from rh_prefect.client import Client
from tests.support.servers.scripted_server import WireServer

KEY = "canary0123456789abcdef0123456789"


@pytest.fixture
async def wire() -> AsyncIterator[WireServer]:
    async with WireServer() as server:
        yield server


@pytest.fixture
async def client(wire: WireServer) -> AsyncIterator[Client]:
    async with Client(KEY, base_url=wire.url, submit_timeout=60, pace_seconds=0) as made:
        yield made


@pytest.fixture
async def limited(wire: WireServer) -> AsyncIterator[Client]:
    """A client whose submits give up after 3 s, for tests of responses that never come."""
    async with Client(KEY, base_url=wire.url, submit_timeout=3, pace_seconds=0) as made:
        yield made


class Pauses(list[float]):
    """The pauses, in seconds, of what sleeps here; nothing waits."""

    async def sleep(self, seconds: float) -> None:
        self.append(seconds)

    def clock(self) -> float:
        return sum(self)


async def peak_memory(work: Awaitable[object]) -> int:
    """The most bytes that Python has allocated while something ran."""
    gc.collect()
    tracemalloc.start()
    try:
        await work
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

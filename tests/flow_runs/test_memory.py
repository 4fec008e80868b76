"""What a process that runs many flows keeps of those that have ended."""

from __future__ import annotations

import asyncio
import gc
import heapq
import time
from typing import Any

import prefect
import pytest
from prefect.context import FlowRunContext

import rh_prefect
from rh_prefect import generate, models
from rh_prefect.emulator import Emulator
from rh_prefect.works.journal.scope import REQUESTED_KEYS
from rh_prefect.works.loop_thread import LOOP

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server", "rh")]

RUNS = 6
KEPT = 2
"""Of how many runs something may be left: the poller runs in the context of the job that started it."""


@prefect.flow
async def plain() -> str:
    await generate(models.ZImageTurbo(prompt="a lighthouse"))
    return str(prefect.runtime.flow_run.id)


@rh_prefect.flow
async def ours() -> str:
    await generate(models.ZImageTurbo(prompt="a lighthouse"))
    return str(prefect.runtime.flow_run.id)


async def drop_cancelled_timers() -> None:
    """Removes the cancelled timers of this loop, which asyncio keeps, with their contexts, until they would be due."""
    loop: Any = asyncio.get_running_loop()
    loop._scheduled[:] = [timer for timer in loop._scheduled if not timer.cancelled()]
    heapq.heapify(loop._scheduled)
    loop._timer_cancelled_count = 0


async def kept(runs: set[str]) -> set[str]:
    """Of which flow runs there is a context still, which leads to all that the run had."""
    await drop_cancelled_timers()
    await LOOP.call(drop_cancelled_timers())
    gc.collect()
    contexts = [one for one in gc.get_objects() if type(one) is FlowRunContext and one.flow_run is not None]
    return {str(one.flow_run.id) for one in contexts if one.flow_run} & runs


async def test_a_flow_run_that_has_ended_is_not_kept() -> None:
    """A process keeps nothing of the flow runs that have ended in it, which took 1 MB each."""
    runs = {await plain() for _ in range(RUNS)}
    deadline = time.monotonic() + 300
    # What looks after a run looks every few seconds, and ends then.
    while len(await kept(runs)) > KEPT and time.monotonic() < deadline:  # noqa: ASYNC110 - it sets no event
        await asyncio.sleep(0.5)
    assert len(await kept(runs)) <= KEPT


async def test_what_a_run_asked_for_is_dropped_when_it_ends(rh: Emulator) -> None:
    """The keys that a flow run asked for are dropped when it ends."""
    run = await ours()
    assert len(rh.recorder.paid) == 1
    assert run not in REQUESTED_KEYS

"""A matrix of troubles: each cell is a flow run with one of them, and what must hold afterwards."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import fsspec.asyn

from rh_prefect.works.loop_thread import LOOP

SEED: Final = os.environ.get("RH_TEST_SEED", "1")
AT_ONCE: Final = 8
LONGEST: Final = 600.0
"""Seconds after which a run that goes wrong is taken for one that hangs."""

Cell = TypeVar("Cell")


async def all_hold(cells: Sequence[Cell], folder: Path, problems: Callable[[Cell, Path], Awaitable[list[str]]]) -> None:
    """Runs cells, a few at a time, each in a folder, and says what does not hold."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, cell: Cell) -> str:
        async with gate:
            began = time.monotonic()
            running = asyncio.ensure_future(problems(cell, folder / str(number)))
            await asyncio.wait([running], timeout=LONGEST)
            if running.done():
                wrong = await running
            else:
                wrong = [f"it hangs; at that moment:{hang_dump()}"]
                running.cancel()
                await asyncio.wait([running])
            print(f"{cell}: {time.monotonic() - began:.1f} s")
            return "".join(f"\n{cell}: {problem}" for problem in wrong)

    found = "".join(await asyncio.gather(*(one(number, cell) for number, cell in enumerate(cells))))
    assert not found, f"with RH_TEST_SEED={SEED}:{found}"


def drawn(cell: object) -> random.Random:
    """A cell's chance: the same with the same seed."""
    return random.Random(f"{SEED} {cell}")


def hang_dump() -> str:
    """What the tasks of this loop, of the package's and of fsspec's wait for."""
    loops = (asyncio.get_running_loop(), LOOP.loop, fsspec.asyn.loop[0])
    tasks = [task for loop in loops if loop is not None for task in asyncio.all_tasks(loop)]
    return "".join(f"\n--- {' > '.join(_awaited(task))}" for task in tasks)


def _awaited(task: asyncio.Task[Any]) -> Iterator[str]:
    """From the task's own coroutine to what it waits for; a task's own stack has the first of them only."""
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None)
        yield f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame else repr(awaited)[:200]
        awaited = getattr(awaited, "cr_await", None)

"""Dumps the stacks of all threads and tasks when a test hangs."""

from __future__ import annotations

import asyncio
import io
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec.asyn

from rh_prefect.works.loop_thread import LOOP


def hang_dump() -> str:
    """The stacks of all threads, and of all tasks of this loop, of the package's and of fsspec's."""
    said = io.StringIO()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        print(f"\n--- thread {names.get(ident)}", file=said)
        traceback.print_stack(frame, file=said)
    loops = {"this": asyncio.get_running_loop(), "the package's": LOOP.loop, "fsspec's": fsspec.asyn.loop[0]}
    for name, loop in loops.items():
        for task in asyncio.all_tasks(loop) if loop is not None else ():
            print(f"\n--- a task of {name} loop: {' > '.join(_awaited(task))}", file=said)
    return said.getvalue()


def _awaited(task: asyncio.Task[Any]) -> Iterator[str]:
    """From the task's own coroutine to what it waits for; a task's own stack has the first of them only."""
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None)
        yield f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame else repr(awaited)[:200]
        awaited = getattr(awaited, "cr_await", None)

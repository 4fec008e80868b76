"""A process that has everything imported and forks one process for each attempt: `python -m tests.support.attempt`.

Importing takes seconds and an attempt takes fewer, so that hundreds of attempts are affordable. It reads one order a
line, answers the process id of the attempt, and runs nothing itself: no thread, no loop and no connection is in it when
it forks.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import inspect
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefect import Flow

from rh_prefect import flows, resume, tasks  # noqa: F401 - all that an attempt needs is imported before it forks
from rh_prefect.flow_runs.prefect_internals import drain
from rh_prefect.flow_runs.resume import create
from rh_prefect.jobs.loop_thread import LOOP
from tests.support.chain import say

_END_WITH_PARENT = 1


def main() -> None:
    """Forks until its input ends; in the child it returns after the attempt."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # what has ended is gone
    print(json.dumps({"ready": os.getpid()}), flush=True)
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            _make_own(json.loads(line))
            return
        print(json.dumps({"pid": child}), flush=True)


def _make_own(order: dict[str, Any]) -> None:
    # Linux: whatever becomes of the test, its attempts end with the process that forked them.
    ctypes.CDLL(None).prctl(_END_WITH_PARENT, signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    null, log = os.open(os.devnull, os.O_RDONLY), os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(order["env"])
    # Processes that this one starts, as those of a process pool, find the program too.
    folder = str(Path(order["program"]).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, str(Path.cwd())])
    sys.path.insert(0, folder)
    sys.dont_write_bytecode = True  # an edit within one second would be served from the cache
    _attempt(order)


def _attempt(order: dict[str, Any]) -> None:
    form = getattr(importlib.import_module("program"), f"{order['form']}_form")
    try:
        run = order.get("run", "")
        if isinstance(form, Flow) and not run:
            run = str(LOOP.call_sync(create(form, order["parameters"])))
            say("run", id=run)
        if order["only_create"]:
            return
        made = resume(form, run, **order["resume"]) if isinstance(form, Flow) else form(**order["parameters"])
        asyncio.run(_awaited(made)) if inspect.isawaitable(made) else asyncio.run(drain())
        say("done")
    except (Exception, BaseExceptionGroup) as error:
        say("failed", errors=[_described(one) for one in _leaves(error)])
        raise SystemExit(1) from None


async def _awaited(made: Any) -> None:
    try:
        await made
    finally:
        await drain()


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


def _described(error: BaseException) -> dict[str, Any]:
    kinds = [kind.__name__ for kind in type(error).__mro__]
    return {"kinds": kinds, "message": str(error)}


if __name__ == "__main__":
    main()

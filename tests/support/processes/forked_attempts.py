"""Runs attempts of a program in processes forked from one that has everything imported.

Importing takes seconds and an attempt less, so hundreds of attempts are affordable. `python -m
tests.support.processes.forked_attempts` reads one order a line and prints the process id of the attempt. It has no
thread, no event loop and no connection when it forks.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import Flow

from rh_prefect import flows, resume, tasks  # noqa: F401 - imports all that an attempt needs before the fork
from rh_prefect.flow_runs.prefect_internals import drain
from rh_prefect.flow_runs.resume import create
from rh_prefect.works.loop_thread import LOOP
from tests.support.processes.program_report import say

ROOT = Path(__file__).parents[3]
PATIENCE = 600.0
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
    os.setpgid(0, 0)  # with the processes of its pools, which do not end with it
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
        made = resume(form, run) if isinstance(form, Flow) else form(**order["parameters"])
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


@dataclass(frozen=True)
class Attempt:
    """One process."""

    pid: int
    report: Path
    log: Path

    def wait(self, *, seconds: float = PATIENCE) -> None:
        """Waits until it has ended; kills it and fails where it does not."""
        deadline = time.monotonic() + seconds
        while self.is_running:
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"attempt {self.pid} hangs:\n{self.errors()}")
            time.sleep(0.05)
        self._kill_group()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet; the process that forked it reaps it at once."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self) -> None:
        """Kills it, if it runs, and what it has started."""
        if self.is_running:
            os.kill(self.pid, signal.SIGKILL)
        self._kill_group()

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def errors(self) -> str:
        """The end of what it wrote."""
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""


class Attempts:
    """Starts attempts.

    Args:
        process: The process that forks.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._started: list[Attempt] = []
        self._answer()

    def start(self, order: Mapping[str, Any], *, report: Path, log: Path) -> Attempt:
        """Forks a process that follows an order; see `tests.support.processes.forked_attempts`."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({**order, "log": str(log)}) + "\n")
        self._process.stdin.flush()
        attempt = Attempt(int(self._answer()["pid"]), report, log)
        self._started.append(attempt)
        return attempt

    def close(self) -> None:
        """Ends what runs."""
        for attempt in self._started:
            attempt.kill()
        self._process.kill()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process that forks has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def attempts(env: Mapping[str, str], *, log: Path) -> Iterator[Attempts]:
    """Starts the process that forks.

    Args:
        env: Its environment; Prefect reads its settings from it once.
        log: A file for what it writes to standard error.
    """
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.processes.forked_attempts"],
            env=dict(env),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    with process:
        try:
            made = Attempts(process)
            yield made
        finally:
            made.close()


if __name__ == "__main__":
    main()

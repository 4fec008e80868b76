"""Runs a pipeline in processes forked from one that has everything imported.

Importing takes seconds and an attempt less, so hundreds of attempts are affordable. `python -m
tests.support.processes.forked_attempts` reads one order a line and prints the process id of the attempt. It has no
thread, no event loop and no connection when it forks.
"""

from __future__ import annotations

import asyncio
import ctypes
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

from rh_prefect.errors import PipelineIncomplete
from rh_prefect.flow_runs.prefect_internals import drain
from rh_prefect.flows.pipeline import Pipeline, pipeline_flow

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
    asyncio.run(_run(order))


async def _run(order: dict[str, Any]) -> None:
    """Runs a pipeline and reports what became of its steps."""
    flow: Any = pipeline_flow(Pipeline.from_file(order["file"]))
    state = await flow(**order["params"], return_state=True)
    data = await state.aresult(raise_on_failure=False)
    result = data.result if isinstance(data, PipelineIncomplete) else data
    steps = {one.step: one.state for one in result.steps} if hasattr(result, "steps") else {}
    costs = {unit: str(amount) for unit, amount in result.costs.amounts.items()} if steps else {}
    report = {"name": state.name, "message": str(state.message), "steps": steps, "costs": costs}
    Path(order["report"]).write_text(json.dumps(report))
    await drain()


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
        self._process.stdin.write(json.dumps({**order, "report": str(report), "log": str(log)}) + "\n")
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

"""Runs attempts of a program in processes of their own, which one process forks; see `tests.support.attempt`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE = 240.0


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

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet; the process that forked it reaps it at once."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self) -> None:
        """Kills it, if it runs."""
        if self.is_running:
            os.kill(self.pid, signal.SIGKILL)

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
        """Forks a process that follows an order; see `tests.support.attempt`."""
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
            [sys.executable, "-m", "tests.support.attempt"],
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

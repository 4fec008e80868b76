"""Steers processes that run flows: starts them early, gives them an order, hears what they say, kills them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
PATIENCE = 90.0

Said = dict[str, Any]


class Child:
    """One process; it imports while its test does something else, and waits for its order.

    Args:
        env: Its environment.
        log: A file for what it writes to standard error.
    """

    def __init__(self, env: Mapping[str, str], *, log: Path) -> None:
        self.log = log
        self.said: list[Said] = []
        self._changed = threading.Condition()
        self._is_over = False
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.child"],
                env=dict(env),
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def order(self, do: str, flow: str, **more: object) -> None:
        """Gives the child its one order."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, "flow": flow, **more}) + "\n")
        self._process.stdin.flush()

    def wait_for(self, event: str, *, seconds: float = PATIENCE, **facts: object) -> Said:
        """Blocks until the child has said this."""
        self.wait_until_heard(event, 1, seconds=seconds, **facts)
        return self.heard(event, **facts)[0]

    def wait_until_heard(self, event: str, count: int, *, seconds: float = PATIENCE, **facts: object) -> None:
        """Blocks until the child has said this so many times."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.heard(event, **facts)) >= count or self._is_over, seconds)
        heard = self.heard(event, **facts)
        assert len(heard) >= count, f"{len(heard)} of {count} {event} {facts}; {self.said[-3:]}\n{self.errors()}"

    def heard(self, event: str, **facts: object) -> list[Said]:
        """All that it said of this kind."""
        return [one for one in self.said if one["event"] == event and facts.items() <= one.items()]

    def ended(self, *, seconds: float = PATIENCE) -> int:
        """Waits for its own end; its exit code."""
        code = self._process.wait(seconds)
        self._reader.join(10)
        return code

    def kill(self) -> None:
        """Kills it, as `kill -9` does; nothing if it has ended."""
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(10)

    def errors(self) -> str:
        """The end of what it wrote to standard error."""
        return self.log.read_text(errors="replace")[-3000:]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self.said.append(_parsed(line))
                self._changed.notify_all()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()


def _parsed(line: str) -> Said:
    try:
        said = json.loads(line)
    except ValueError:
        said = None
    return said if isinstance(said, dict) and "event" in said else {"event": "line", "text": line}


class Nursery:
    """Children of one test, which all end with it.

    Args:
        env: Their environment.
        folder: For their logs.
    """

    def __init__(self, env: Mapping[str, str], folder: Path, stack: ExitStack) -> None:
        self.env = dict(env)
        self._folder = folder
        self._stack = stack
        self._spare: list[Child] = []
        self.children: list[Child] = []

    def spare(self, count: int = 1) -> None:
        """Has children ready before they are needed: each needs some seconds to import."""
        self._spare += [self._new() for _ in range(count)]

    def run(self, flow: str, **order: object) -> Child:
        """Has a child run a flow; `run` names a flow run that is run again."""
        return self._ordered("run", flow, **order)

    def cancel(self, flow: str, run: str) -> Child:
        """Has a child call the flow's cancellation hooks."""
        return self._ordered("cancel", flow, run=run)

    def _ordered(self, do: str, flow: str, **order: object) -> Child:
        child = self._spare.pop(0) if self._spare else self._new()
        child.order(do, flow, **order)
        return child

    def _new(self) -> Child:
        log = self._folder / f"child-{len(self.children) + 1}.log"
        child = self._stack.enter_context(Child(self.env, log=log))
        self.children.append(child)
        return child


@contextmanager
def nursery(env: Mapping[str, str], folder: Path) -> Iterator[Nursery]:
    """Opens a nursery; see there."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        yield Nursery(env, folder, stack)


def command(env: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `rh-prefect` as a person does."""
    words = [sys.executable, "-m", "rh_prefect.cli", *arguments]
    return subprocess.run(words, env=dict(env), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)

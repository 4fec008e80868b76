"""The emulator in a separate process, for benchmarks: tasks take the time that their prompt names."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from rh_prefect.catalog import Model
from rh_prefect.emulator import Emulator, serve

_SECONDS = re.compile(r"([\d.]+) s$")


def prompt(seconds: float, number: int = 1) -> str:
    """Asks for a task that takes so long; with another number it is another request."""
    return f"paper boat {number}, {seconds:g} s"


def main() -> None:
    """Serves until its standard input ends; each line there is the account's new limit."""
    options = json.loads(sys.argv[1])
    serve(Emulator(clock="real", durations=_as_asked, long_side=64, **options), _ready)


def _as_asked(model: Model, payload: Mapping[str, object]) -> tuple[float, float]:  # noqa: ARG001 - its signature
    found = _SECONDS.search(str(payload.get("prompt", "")))
    return 0.0, float(found[1]) if found else 0.0


def _ready(rh: Emulator) -> None:
    print(rh.url, rh.key, flush=True)
    threading.Thread(target=_obey, args=(rh,), daemon=True).start()


def _obey(rh: Emulator) -> None:
    for line in sys.stdin:
        rh.keys.add("main", limit=int(line), secret=rh.key)


class EmulatorProcess:
    """A running emulator.

    Attributes:
        url: The API's address.
        key: The key.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self.url, self.key = process.stdout.readline().split()

    @property
    def env(self) -> dict[str, str]:
        """What a client in another process needs to know."""
        return {"RH_BASE_URL": self.url, "RH_API_KEY": self.key}

    def limit(self, slots: int) -> None:
        """Sets how many tasks may run at once."""
        assert self._process.stdin is not None
        print(slots, file=self._process.stdin, flush=True)

    def recorded(self) -> dict[str, Any]:
        """Everything that happened, without the benchmark's own requests."""
        recorded: dict[str, Any] = httpx.get(f"{self.url}/_emulator/recorder", timeout=60).json()
        recorded["requests"] = [one for one in recorded["requests"] if not one["path"].startswith("/_emulator")]
        return recorded


@contextmanager
def started(**options: Any) -> Iterator[EmulatorProcess]:
    """Runs an emulator.

    Args:
        options: The arguments of `Emulator` that can be written as JSON; `faults` as a list of objects.
    """
    faults = options.pop("faults", [])
    command = [sys.executable, "-m", "benchmarks.emulator_process", json.dumps(options)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            made = EmulatorProcess(process)
            if faults:
                httpx.post(f"{made.url}/_emulator/faults", json=faults).raise_for_status()
            yield made
        finally:
            process.terminate()


if __name__ == "__main__":
    main()

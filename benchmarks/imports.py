"""How long the package takes to start: `import rh_prefect` beside a bare interpreter, and `rh-prefect --help`."""

from __future__ import annotations

import statistics
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from benchmarks.report import Figure, show

ROUNDS = 15


def main() -> None:
    """Measures and prints."""
    bare = [sys.executable, "-c", "pass"]
    package = [sys.executable, "-c", "import rh_prefect"]
    shell = [str(Path(sysconfig.get_path("scripts")) / "rh-prefect"), "--help"]
    rounds = [_round([bare, package, shell], turn) for turn in range(ROUNDS + 1)][1:]  # the first one fills the caches
    added = statistics.median(imported - alone for alone, imported, _ in rounds)
    alone, _, helped = (statistics.median(column) for column in zip(*rounds, strict=True))
    note = f"median of {ROUNDS}"
    show(
        "Start-up",
        [
            Figure("import rh_prefect adds", added, 60, "ms", f"{note}, to {alone:.0f} ms of a bare interpreter"),
            Figure("rh-prefect --help", helped, 500, "ms", note),
        ],
    )


def _round(commands: list[list[str]], turn: int) -> list[float]:
    """Times each command once, each round in another order: what ran before leaves the machine warm or cold."""
    order = [(index + turn) % len(commands) for index in range(len(commands))]
    times = {index: _milliseconds(commands[index]) for index in order}
    return [times[index] for index in range(len(commands))]


def _milliseconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    main()

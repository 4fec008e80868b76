"""How long the package takes to start: `import rh_prefect`, `rh-prefect --help`, a first model and a first search."""

from __future__ import annotations

import statistics
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from benchmarks.report import Figure, show

ROUNDS = 15

_FIRST = """
import time
from rh_prefect import catalog, generate, models
from rh_prefect.catalog import search
began = time.perf_counter()
models.ZImageTurbo(prompt="a lighthouse")
made = time.perf_counter()
catalog.find("lipsync")
print((made - began) * 1000, (time.perf_counter() - made) * 1000)
"""


def main() -> None:
    """Measures and prints."""
    bare = [sys.executable, "-c", "pass"]
    package = [sys.executable, "-c", "import rh_prefect"]
    shell = [str(Path(sysconfig.get_path("scripts")) / "rh-prefect"), "--help"]
    rounds = [_round([bare, package, shell], turn) for turn in range(ROUNDS + 1)][1:]  # the first one fills the caches
    added = statistics.median(imported - alone for alone, imported, _ in rounds)
    alone, _, helped = (statistics.median(column) for column in zip(*rounds, strict=True))
    note = f"median of {ROUNDS}"
    firsts = [_first() for _ in range(ROUNDS)]
    model, search = (statistics.median(column) for column in zip(*firsts, strict=True))
    show(
        "Start-up",
        [
            Figure("import rh_prefect adds", added, 60, "ms", f"{note}, to {alone:.0f} ms of a bare interpreter"),
            Figure("rh-prefect --help", helped, 500, "ms", note),
            Figure(
                "first use of one model",
                model,
                30,
                "ms",
                f"{note}, after `generate` is imported; it reads the catalogue",
            ),
            Figure("first search", search, 50, "ms", f"{note}, after that"),
        ],
    )


def _round(commands: list[list[str]], turn: int) -> list[float]:
    """Times each command once, each round in another order: what ran before leaves the machine warm or cold."""
    order = [(index + turn) % len(commands) for index in range(len(commands))]
    times = {index: _milliseconds(commands[index]) for index in order}
    return [times[index] for index in range(len(commands))]


def _first() -> tuple[float, float]:
    """Makes the first input of a process, then searches; milliseconds of each."""
    done = subprocess.run([sys.executable, "-c", _FIRST], stdout=subprocess.PIPE, text=True, check=True)
    made, found = map(float, done.stdout.split())
    return made, found


def _milliseconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    main()

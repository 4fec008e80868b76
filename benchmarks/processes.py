"""Several processes that share one key: the makespan of all, and what the account refused."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.contenders import SLOTS, START_FOLDER
from benchmarks.harness import Bench, Run, finish
from benchmarks.report import Figure, show

SECONDS = 6.0
COUNTS = (2, 8)


def processes(bench: Bench) -> None:
    """Jobs of 6 s, divided among two and among eight processes on one key that start at the same moment."""
    figures = []
    for count in COUNTS:
        run = together(bench, [SECONDS] * (bench.jobs // count * count), count)
        figures += [
            run.figure(f"{count} processes: makespan / ideal", run.ratio, 1.1, "x"),
            Figure(f"{count} processes: refusals a job", run.refusals, 0.2, ""),
        ]
    show(f"{bench.jobs} jobs of {SECONDS:g} s in several processes on one key, {SLOTS} slots", figures)


def together(bench: Bench, seconds: Sequence[float], count: int) -> Run:
    """Divides jobs among processes; the makespan is the time from the common start to the last end."""
    folder = bench.new_folder("start")
    with bench.emulator(limit=SLOTS) as emulator:
        env = {START_FOLDER: str(folder)}
        started = [bench.start("ours", seconds[n::count], emulator, env=env) for n in range(count)]
        while len(list(folder.glob("ready-*"))) < count and all(process.poll() is None for process in started):
            time.sleep(0.01)
        (folder / "start").touch()
        parts = [finish(process) for process in started]
        measured = {name: sum(part[name] for part in parts) for name in ("done", "cpu", "prefect")}
        measured["seconds"] = max(part["seconds"] for part in parts)
        return Run("ours", list(seconds), measured, emulator.recorded(), bench.factor)

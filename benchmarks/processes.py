"""Several processes that share one key: the makespan of all, and what the account refused."""

from __future__ import annotations

import time

from benchmarks.contenders import SLOTS, START_FOLDER
from benchmarks.harness import Bench, Run, finish, ideal
from benchmarks.report import Figure, show

SECONDS = 6.0
COUNTS = (2, 8)


def processes(bench: Bench) -> None:
    """Jobs of 6 s, divided among two and among eight processes on one key that start at the same moment."""
    figures = []
    for count in COUNTS:
        run, makespan = _run(bench, count)
        ratio = makespan * bench.factor / ideal(run.seconds)
        figures += [
            run.figure(f"{count} processes: makespan / ideal", ratio, 1.1, "x"),
            Figure(f"{count} processes: refusals a job", run.refusals, 0.2, ""),
        ]
    show(f"{bench.jobs} jobs of {SECONDS:g} s in several processes on one key, {SLOTS} slots", figures)


def _run(bench: Bench, count: int) -> tuple[Run, float]:
    """Runs the jobs; returns what was measured, and the seconds from the common start to the last end."""
    each = [SECONDS] * (bench.jobs // count)
    folder = bench.new_folder("start")
    with bench.emulator(limit=SLOTS) as emulator:
        started = [bench.start("ours", each, emulator, env={START_FOLDER: str(folder)}) for _ in range(count)]
        while len(list(folder.glob("ready-*"))) < count and all(process.poll() is None for process in started):
            time.sleep(0.01)
        (folder / "start").touch()
        parts = [finish(process) for process in started]
        makespan = max(part["seconds"] for part in parts)
        measured = {name: sum(part[name] for part in parts) for name in ("done", "cpu", "prefect")}
        return Run("ours", each * count, {**measured, "seconds": makespan}, emulator.recorded(), bench.factor), makespan

"""How fast batches are: makespans against the ideal schedule and against the clients that people use today.

    python -m benchmarks.speed                      # every scene, on the true clock: about an hour
    python -m benchmarks.speed mix --jobs 20 --factor 10

With `--factor` the emulator's clock and every side's timers run so many times faster. CPU and connections do not, so
only the true clock is a measurement.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.report import Figure, show
from benchmarks.sides import SLOTS
from benchmarks.stage import Stage, stage
from tests.support.prefect_server import PrefectServer

SIDES = ("plain", "sdk", "ours")


@dataclass(frozen=True, slots=True)
class Bench:
    """What the scenes have in common.

    Attributes:
        folder: Theirs to write to.
        server: Prefect's server.
        factor: How many times faster every clock runs.
        jobs: How many jobs a scene has.
    """

    folder: Path
    server: PrefectServer
    factor: float
    jobs: int

    @contextmanager
    def stage(self, **options: Any) -> Iterator[Stage]:
        """Runs an emulator at this benchmark's pace."""
        with stage(factor=self.factor, **options) as made:
            yield made

    def start(self, side: str, seconds: Sequence[float], on: Stage) -> subprocess.Popen[str]:
        """Starts a side."""
        given = json.dumps({"seconds": list(seconds), "factor": self.factor})
        folder = self.folder / f"{side}-{next(_NUMBERS)}"
        env = {**self.server.env, **on.env, "RH_OUT": str(folder / "out"), "RH_STATE_DIR": str(folder / "state")}
        command = [sys.executable, "-m", "benchmarks.sides", side, given]
        log = (self.folder / "sides.log").open("a")
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=log, text=True)

    def run(self, side: str, seconds: Sequence[float], **options: Any) -> Run:
        """Runs a side on an emulator of its own."""
        with self.stage(**options) as on:
            measured = finish(self.start(side, seconds, on))
            return Run(side, list(seconds), measured, on.books(), self.factor)


_NUMBERS = count(1)


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Waits for a side; what it measured."""
    out, _ = process.communicate()
    lines = out.splitlines()
    if process.returncode or not lines:
        raise RuntimeError(f"a side ended with {process.returncode}: {out[-500:]}")
    measured: dict[str, Any] = json.loads(lines[-1])
    return measured


@dataclass(frozen=True, slots=True)
class Run:
    """One side's run through a scene, with the emulator's books."""

    side: str
    seconds: list[float]
    measured: dict[str, Any]
    books: dict[str, Any]
    factor: float

    @property
    def ratio(self) -> float:
        """The makespan, as a multiple of the ideal one."""
        return float(self.measured["seconds"]) * self.factor / ideal(self.seconds)

    @property
    def calls(self) -> float:
        """HTTP calls per job, downloads included."""
        return (len(self.books["requests"]) + len(self.books["downloads"])) / len(self.seconds)

    @property
    def refusals(self) -> float:
        """Refused submits per job."""
        return sum(not one["accepted"] for one in self.books["submissions"]) / len(self.seconds)

    @property
    def note(self) -> str:
        """What else there is to say."""
        per_job = {name: self.measured.get(name, 0) / len(self.seconds) for name in ("prefect", "journal", "store")}
        asked = self._asked()
        return (
            f"{self.measured['done']}/{len(self.seconds)} done in {self.measured['seconds'] * self.factor:.1f} s, "
            f"ideal {ideal(self.seconds):.0f} s; CPU {self.measured['cpu']:.0f} s; {self.calls:.2f} calls a job "
            f"({asked}); {per_job['prefect']:.1f} requests to Prefect a job"
            + (f", journal {per_job['journal']:.1f}, store {per_job['store']:.1f}" if self.side == "ours" else "")
            + (f"; {self.measured['errors'][0]}" if self.measured.get("errors") else "")
        )

    def _asked(self) -> str:
        paths = [one["path"] for one in self.books["requests"]]
        looks, counts = (sum(path.endswith(end) for path in paths) for end in ("/query", "/queue/status"))
        return f"{looks / len(self.seconds):.2f} looks, {counts / len(self.seconds):.2f} counts"


def ideal(seconds: Sequence[float], *, slots: int = SLOTS) -> float:
    """The makespan of the list schedule in the given order: each job begins where a slot is free first."""
    ends = [0.0] * slots
    for one in seconds:
        heapq.heappush(ends, heapq.heappop(ends) + one)
    return max(ends)


def mixed(jobs: int) -> list[float]:
    """60 % of 6 s, 30 % of 40 s, 10 % of 180 s, in an order that is always the same."""
    seconds = [6.0] * (jobs * 6 // 10) + [40.0] * (jobs * 3 // 10)
    seconds += [180.0] * (jobs - len(seconds))
    random.Random(4).shuffle(seconds)
    return seconds


def _against_peers(bench: Bench, title: str, seconds: list[float], aim: float) -> dict[str, Run]:
    runs = {side: bench.run(side, seconds) for side in SIDES}
    show(title, [Figure(f"{side}: makespan / ideal", run.ratio, aim, "x", run.note) for side, run in runs.items()])
    return runs


def mix(bench: Bench) -> None:
    """Jobs of very different lengths."""
    runs = _against_peers(bench, f"{bench.jobs} mixed jobs over {SLOTS} slots", mixed(bench.jobs), 1.05)
    mine, peer = runs["ours"], runs["plain"]
    show("HTTP calls a job, mixed", [Figure("ours", mine.calls, peer.calls, "", "aim: the fixed poll's of this run")])


def long(bench: Bench) -> None:
    """Jobs that all take a minute."""
    _against_peers(bench, f"{bench.jobs} jobs of 60 s", [60.0] * bench.jobs, 1.03)


def short(bench: Bench) -> None:
    """Jobs that all take 6 s."""
    runs = _against_peers(bench, f"{bench.jobs} jobs of 6 s", [6.0] * bench.jobs, 1.13)
    mine = runs["ours"]
    operations = (mine.measured["journal"] + mine.measured["store"]) / len(mine.seconds)
    show("Journal and store", [Figure("operations a job", operations, 8.01, "", "journal and store together")])


SCENES: dict[str, Callable[[Bench], None]] = {"short": short, "mix": mix, "long": long}


def main() -> None:
    """Runs scenes and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", nargs="*", choices=[[], *SCENES], help="default: all")
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--factor", type=float, default=1.0)
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="rh-bench-")))
        server = stack.enter_context(PrefectServer(folder / "prefect"))
        bench = Bench(folder, server, given.factor, given.jobs)
        for name in given.scenes or SCENES:
            print(f"\n[load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores]", end="", flush=True)
            SCENES[name](bench)


if __name__ == "__main__":
    main()

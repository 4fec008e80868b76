"""How fast batches are: makespans against the ideal schedule and against the clients that people use today.

    python -m benchmarks.speed                      # every scene, on the true clock: about an hour
    python -m benchmarks.speed mix --jobs 20 --factor 10

Prefect's server uses PostgreSQL if that is installed, else SQLite. With `--factor` the emulator's clock and every
contender's timers run so many times faster. CPU and connections do not, so only the true clock is a measurement.
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.contenders import SLOTS
from benchmarks.degraded import broken, shared
from benchmarks.file_transfer import throughput
from benchmarks.harness import Bench, Run, finish, ideal
from benchmarks.overhead import overhead
from benchmarks.pipeline_overhead import pipelines
from benchmarks.processes import processes
from benchmarks.recovery import failures, inputs, kills
from benchmarks.report import Figure, show
from benchmarks.waiting_jobs import waiting
from benchmarks.webhook_process import receiver
from tests.support.servers.postgres import PROGRAMS, postgres
from tests.support.servers.prefect_server import PrefectServer, free_port

CONTENDERS = ("plain", "fair", "sdk", "ours", "batch")

ROUNDS = 3
"""How often each contender runs jobs of 6 s, in turns: their makespans differ by some hundredths from run to run."""

CPU_OVER_SDK = 1.5
"""How many times the CPU of the sdk a job may cost; the sdk makes only the calls, without Prefect and records."""


def mixed(jobs: int) -> list[float]:
    """Twice so many jobs: 60 % of about 6 s, 30 % of 40 s, 10 % of 180 s, the longest first.

    So the ideal makespan is near the work per slot. With fewer jobs or another order, the longest jobs alone determine
    it, and most slots are idle meanwhile.
    """
    jobs *= 2
    seconds = [6.0] * (jobs * 6 // 10) + [40.0] * (jobs * 3 // 10)
    seconds += [180.0] * (jobs - len(seconds))
    return sorted(_varied(seconds), reverse=True)


def _varied(seconds: list[float]) -> list[float]:
    """Durations that differ by up to 20 %, always the same: a multiple of a fixed poll would favour its contender."""
    randomness = random.Random(4)
    return [round(one * randomness.uniform(0.8, 1.2), 1) for one in seconds]


def _against_peers(bench: Bench, title: str, seconds: list[float], aim: float, *, rounds: int = 1) -> dict[str, Run]:
    """Runs all contenders in turns; returns each one's run with the median makespan."""
    turns = [{contender: bench.run(contender, seconds) for contender in CONTENDERS} for _ in range(rounds)]
    runs = {
        one: sorted((turn[one] for turn in turns), key=lambda run: (not run.is_all_done, run.ratio))[rounds // 2]
        for one in CONTENDERS
    }
    sdk = runs["sdk"]
    aims = dict.fromkeys(("ours", "batch"), max(aim, sdk.ratio + 0.01) if sdk.is_all_done else aim)
    cpu = sdk.as_aim(CPU_OVER_SDK * sdk.cpu)
    show(
        f"{title}, ideal {ideal(seconds):.0f} s",
        [
            *(run.figure(f"{one}: makespan / ideal", run.ratio, aims.get(one, aim), "x") for one, run in runs.items()),
            *(run.figure(f"{one}: CPU of the client a job", run.cpu, cpu, "ms") for one, run in runs.items()),
        ],
    )
    return runs


def mix(bench: Bench) -> None:
    """Jobs of very different lengths."""
    seconds = mixed(bench.jobs)
    runs = _against_peers(bench, f"{len(seconds)} mixed jobs over {SLOTS} slots", seconds, 1.05)
    mine, peer = runs["ours"], runs["plain"]
    calls = Figure("HTTP calls a job", mine.calls, peer.as_aim(peer.calls), "", "aim: the fixed poll's of this run")
    show("ours, mixed", [calls, mine.operations_figure()])


def webhooks(bench: Bench) -> None:
    """Jobs of very different lengths, whose ends are reported by webhooks."""
    seconds = mixed(bench.jobs)
    with bench.emulator() as emulator, receiver(bench, emulator) as env:
        run = Run(
            "ours", seconds, finish(bench.start("ours", seconds, emulator, env=env)), emulator.recorded(), bench.factor
        )
    show(
        f"{len(seconds)} mixed jobs with webhooks",
        [
            run.figure("ours: makespan / ideal", run.ratio, 1.05, "x"),
            Figure("calls to the API a job", run.api_calls, 3.01, "", f"with the file host's {run.calls:.2f}"),
            run.operations_figure(),
        ],
    )


def long(bench: Bench) -> None:
    """Jobs that all take about a minute."""
    runs = _against_peers(bench, f"{bench.jobs} jobs of 48 to 72 s", _varied([60.0] * bench.jobs), 1.03)
    show("ours, 60 s", [runs["ours"].operations_figure()])


def short(bench: Bench) -> None:
    """Jobs that all take 6 s."""
    title = f"{bench.jobs} jobs of 6 s, a multiple of the sdk's poll of 2 s"
    runs = _against_peers(bench, title, [6.0] * bench.jobs, 1.05, rounds=ROUNDS)
    show("ours, 6 s", [runs["ours"].operations_figure()])


def instant(bench: Bench) -> None:
    """A thousand jobs that take no time, in one flow run: what the package and what Prefect alone can do."""
    jobs = 5 * bench.jobs
    runs = {contender: bench.run(contender, [0.0] * jobs) for contender in ("eager", "ours")}
    show(
        f"{jobs} jobs of 0 s; eager is a plain flow that asks for the end at once",
        [
            run.figure(f"{one}: seconds for 100 jobs", 100 * run.measured["seconds"] / jobs, 2, "s")
            for one, run in runs.items()
        ],
    )


def operations(bench: Bench) -> None:
    """What journal and store do for a job, with few jobs and with many."""
    few, many = (bench.run("ours", [6.0] * jobs) for jobs in (bench.jobs // 4, bench.jobs))
    note = f"{few.listings} with {len(few.seconds)} jobs, {many.listings} with {len(many.seconds)}; one more at the end"
    show(
        "Journal and store",
        [
            few.operations_figure(f"operations a job, {len(few.seconds)} jobs"),
            many.operations_figure(f"operations a job, {len(many.seconds)} jobs"),
            Figure("listings that more jobs add on their way", many.listings - few.listings, 1, "", note),
        ],
    )


SCENES: dict[str, Callable[[Bench], None]] = {
    "short": short,
    "mix": mix,
    "webhooks": webhooks,
    "long": long,
    "processes": processes,
    "instant": instant,
    "shared": shared,
    "broken": broken,
    "operations": operations,
    "kills": kills,
    "failures": failures,
    "inputs": inputs,
    "throughput": throughput,
    "overhead": overhead,
    "pipelines": pipelines,
    "waiting": waiting,
}


def main() -> None:
    """Runs scenes and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", nargs="*", choices=[[], *SCENES], help="default: all")
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--factor", type=float, default=1.0)
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="rh-bench-")))
        # On SQLite, Prefect answers 503 to some requests that meet at a run's start, and its client then waits for 2 s.
        database = stack.enter_context(postgres(free_port())) if PROGRAMS else None
        server = stack.enter_context(PrefectServer(folder / "prefect", database=database))
        bench = Bench(folder, server, given.factor, given.jobs)
        for name in given.scenes or SCENES:
            print(f"\n[load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores]", end="", flush=True)
            SCENES[name](bench)


if __name__ == "__main__":
    main()

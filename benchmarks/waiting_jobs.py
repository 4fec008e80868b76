"""What 2,000 waiting jobs cost one process: CPU, memory, stalls of its loops, and how late an end is noticed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.emulator_process import prompt
from benchmarks.harness import Bench, finish
from benchmarks.report import Figure, show
from benchmarks.rss import now

ENDING = 20
"""So many of them end while the others wait, at `ENDS` and every two seconds after."""

SETTLE = 60.0
WATCH = 60.0


def waiting(bench: Bench) -> None:
    """Two thousand jobs wait in one process."""
    jobs = 2000 if bench.jobs >= 200 else bench.jobs
    with bench.emulator(limit=jobs + 50) as emulator:
        given = json.dumps({"jobs": jobs, "factor": bench.factor})
        measured = finish(
            bench.python("benchmarks.waiting_jobs", given, emulator=emulator, out=bench.folder / "waiting")
        )
        late = _lateness(measured["noticed"], emulator.recorded()["submissions"])
        plain = finish(
            bench.python(__name__, json.dumps({"plain": jobs}), emulator=emulator, out=bench.folder / "plain")
        )
    load = f"{jobs} jobs, {measured['submitted']:.0f} s to submit them all"
    show(
        "Waiting in one process",
        [
            Figure("CPU while waiting", measured["cpu"] * 100, 25, "%", f"of one core, over {WATCH:.0f} s; {load}"),
            Figure(
                "memory", measured["memory"], 250, "MB", f"{plain['memory']:.0f} MB by tasks of Prefect that only sleep"
            ),
            Figure("longest stall of a loop", measured["stall"], 0.5, "s", "while waiting"),
            Figure("ends noticed late", late, 1.0, "", f"worst of {ENDING}, in parts of 10 % of its time or 2 s"),
        ],
    )


def _lateness(noticed: dict[str, float], submissions: list[dict[str, Any]]) -> float:
    worst = 0.0
    for one in submissions:
        if one["task_id"] in noticed:
            length = float(one["payload"]["prompt"].split()[-2])
            late = noticed[one["task_id"]] - one["time"] - length
            worst = max(worst, late / max(2.0, 0.1 * length))
    return worst


def main() -> None:
    """Holds the jobs and prints what it cost."""
    given = json.loads(sys.argv[1])
    if "plain" in given:
        asyncio.run(_sleep(given["plain"]))
    os.environ["RH_POLL_SECONDS"] = str(2.0 / given["factor"])
    asyncio.run(_wait(given["jobs"]))


async def _sleep(jobs: int) -> None:
    """Holds as many task runs of Prefect, and nothing else."""
    from prefect import flow, task

    begun: list[int] = []

    @task
    async def sleep(number: int) -> None:
        begun.append(number)
        await asyncio.sleep(36_000.0)

    @flow
    async def batch() -> None:
        work = [asyncio.ensure_future(sleep(number)) for number in range(jobs)]
        await _until(lambda: len(begun) == len(work), seconds=600.0)
        await asyncio.sleep(5.0)
        print(json.dumps({"memory": now() / 1e6}), flush=True)
        os._exit(0)

    await batch()


async def _wait(jobs: int) -> None:
    from rh_prefect import flow, generate_many, models
    from rh_prefect.flow_runs.progress_observer import listeners
    from rh_prefect.works.events import JobEvent
    from rh_prefect.works.loop_thread import LOOP

    submitted: list[float] = []
    noticed: dict[str, float] = {}
    measured: dict[str, Any] = {}
    began = time.monotonic()

    def listen(event: JobEvent) -> None:
        if event.state == "submitted":
            submitted.append(time.monotonic() - began)
        if event.state == "collecting" and event.task_id:
            noticed[event.task_id] = time.time()

    listeners.append(listen)
    # The first ones end when all have been submitted for a while.
    start = jobs / 25 + SETTLE
    ends = [start + 2.0 * n for n in range(ENDING)]
    lengths = [*ends, *[36_000.0] * (jobs - ENDING)]
    asked = [models.ZImageTurbo(prompt=prompt(one, number)) for number, one in enumerate(lengths)]

    @flow
    async def batch() -> None:
        work = asyncio.ensure_future(generate_many(asked))
        await _until(lambda: len(submitted) == jobs, seconds=600.0)
        await asyncio.sleep(5.0)
        stalls = [_Stalls(), _Stalls()]
        here, on_loop = asyncio.ensure_future(stalls[0].watch()), LOOP.submit(stalls[1].watch())
        cpu = time.process_time()
        await asyncio.sleep(WATCH)
        measured["cpu"] = (time.process_time() - cpu) / WATCH
        measured["stall"] = max(one.longest for one in stalls)
        here.cancel()
        on_loop.cancel()
        await _until(lambda: len(noticed) == ENDING, seconds=start + 2.0 * ENDING + 60.0)
        measured.update(submitted=max(submitted), memory=now() / 1e6, noticed=noticed)
        print(json.dumps(measured), flush=True)
        work.cancel()
        os._exit(0)

    await batch()


async def _until(condition: Callable[[], bool], *, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():  # it changes on another thread
        if time.monotonic() > end:
            print(f"the jobs were not ready after {seconds:.0f} s", flush=True)
            os._exit(1)  # the others would wait for hours
        await asyncio.sleep(0.5)


class _Stalls:
    """How long an event loop did not get to do what was due."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def watch(self) -> None:
        while True:
            due = time.monotonic() + 0.05
            await asyncio.sleep(0.05)
            self.longest = max(self.longest, time.monotonic() - due)


if __name__ == "__main__":
    main()

"""How a pipeline of many rows is planned and run: `python -m benchmarks.large_pipelines [SCENE...] [--rows N]`.

`plan` plans 50,000 rows of two steps. `run` runs 8,000 rows of two steps without Prefect's engine, on an emulator in a
separate process whose tasks take no time, so that planning has its largest share. Every 5 ms a signal shows where the
flow's thread is, and a task of its event loop notes the longest time between two of its turns. `batch` gives the
command `rh-prefect batch` on 8,000 rows of one model twice; its output goes to stderr. Each scene is a separate
process, which does not import the emulator. Memory is the peak of the whole process.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import gc
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from benchmarks.report import Figure, show

PIPELINE = """
name: large
params:
  rows: {type: table, columns: {sku: string, title: string}}
budget: 1000000
steps:
  each:
    foreach: $(params.rows)
    id: $(item.sku)
    steps:
      picture: {model: z-image/turbo, with: {prompt: "Product photo of $(item.title)", aspect_ratio: "9:16"}}
      clip: {model: kling-v2.6-pro-image-to-video, from: $(picture), with: {prompt: turn, duration: 5, sound: false}}
outputs: {clips: $(each.clip)}
"""
CHAIN = (
    PIPELINE.partition("      clip:")[0]
    + """\
      again: {model: z-image/turbo, with: {prompt: "$(item.title), after one of $(picture.size) bytes"}}
outputs: {pictures: $(each.again)}
"""
)
PLANNING = (
    "/pipelines/plan/",
    "/pipelines/pipeline.py",
    "/pipelines/run/run_budget.py",
    "/pipelines/run/step_scheduler.py",
)


def main() -> None:
    """Measures each scene in a separate process and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", nargs="*", choices=[[], "plan", "run", "batch"], help="default: plan and run")
    parser.add_argument("--rows", type=int, help="default: 50,000 in a plan, else 8,000")
    given = parser.parse_args()
    if "plan" in (given.scenes or ["plan"]):
        found = _measured("plan", given.rows or 50_000)
        figures = [Figure("CPU", found["cpu"], 15, "s"), Figure("peak memory", found["peak_mb"], 500, "MB")]
        show(f"Plan of {found['rows']} rows x 2 steps", figures)
    if "run" in (given.scenes or ["run"]):
        found = _measured("run", given.rows or 8_000)
        per_row = Figure("CPU of the process for a row", 1000 * found["cpu"] / found["rows"], 25, "ms")
        figures = [
            per_row,
            Figure("planning, of the CPU", 100 * found["planning"] / found["cpu"], 5, "%"),
            Figure("longest block of the flow's thread", found["block"], 0.2, "s", found["where"]),
            Figure("longest pass of the collector", found["collection"], 0.2, "s"),
            Figure("peak memory", found["peak_mb"], 300, "MB"),
        ]
        show(f"Run of {found['rows']} rows x 2 steps in {found['seconds']:.0f} s; {found['jobs']} paid jobs", figures)
    if "batch" in given.scenes:
        for number, found in enumerate(_measured("batch", given.rows or 8_000)["runs"]):
            figures = [
                Figure("CPU of the process for a row", 1000 * found["cpu"] / found["rows"], (25, 5)[number], "ms"),
                Figure("peak memory", found["peak_mb"], 300, "MB"),
            ]
            show(f"Batch of {found['rows']} rows in {found['seconds']:.0f} s: {found['said']}", figures)


def _measured(scene: str, rows: int) -> dict[str, Any]:
    from benchmarks.emulator_process import started  # would count in the memory of the measured process

    words = [sys.executable, "-X", "faulthandler", "-m", "benchmarks.large_pipelines", "one", scene, str(rows)]
    with started() as server, TemporaryDirectory(prefix="rh-bench-") as folder:
        server.limit(200)
        env = {key: value for key, value in os.environ.items() if key != "PREFECT_API_URL"}
        env |= _settings(server.url, server.key, Path(folder)) | {"PYTHONPATH": str(Path(__file__).parents[1])}
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, cwd=folder, env=env)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_plan(rows: int) -> dict[str, Any]:
    """Plans in this process."""
    from rh_prefect.pipelines.pipeline import Pipeline

    pipeline, table, began = Pipeline.from_text(PIPELINE), _rows(rows), time.process_time()
    plan = pipeline.plan_now(rows=table)
    return {"rows": rows, "steps": len(plan.instances), "cpu": time.process_time() - began, "peak_mb": _peak()}


def measure_run(rows: int) -> dict[str, Any]:
    """Runs in this process."""
    return asyncio.run(_run(rows))


async def _run(rows: int) -> dict[str, Any]:
    from rh_prefect import Pipeline

    watch, began, cpu = Watch(), time.monotonic(), time.process_time()
    beat = asyncio.ensure_future(watch.beat())
    watch.start()
    result = await Pipeline.from_text(CHAIN).run(rows=_rows(rows))
    watch.stop()
    beat.cancel()
    return {
        "rows": rows,
        "jobs": result.new,
        "seconds": time.monotonic() - began,
        "cpu": time.process_time() - cpu,
        "planning": watch.planning,
        "block": watch.longest,
        "where": watch.where,
        "collection": watch.collection,
        "peak_mb": _peak(),
    }


def measure_batch(rows: int) -> dict[str, Any]:
    """Gives the command twice."""
    with Path("rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["prompt"], *([f"mug {n}"] for n in range(rows))])
    return {"runs": [_batch(rows) for _ in range(2)]}


def _batch(rows: int) -> dict[str, Any]:
    words = [sys.executable, "-m", "rh_prefect.cli", "batch", "rows.csv", "--model", "z-image/turbo"]
    began, said = time.monotonic(), ""
    with subprocess.Popen([*words, "--budget", "1000000"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", file=sys.stderr, flush=True)
            said = line.strip() if " rows done" in line else said
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0
    return {
        "rows": rows,
        "seconds": time.monotonic() - began,
        "cpu": used.ru_utime + used.ru_stime,
        "said": said,
        "peak_mb": used.ru_maxrss // 1024,
    }


class Watch:
    """Looks where the thread of the event loop is, how long one turn of the loop takes, and a pass of the collector."""

    def __init__(self) -> None:
        """Is made in the main thread, which has the loop."""
        self.planning = 0.0  # seconds of the processor
        self.longest, self.where = 0.0, ""
        self.collection = 0.0  # seconds of the longest pass, in any thread
        self._began: dict[int, float] = {}
        self._seen, self._looked = "", time.thread_time()

    async def beat(self) -> None:
        """Notes how much of the processor each turn of the event loop takes; others may use the machine, too."""
        while True:
            await asyncio.sleep(0)
            before, self._seen = time.thread_time(), ""
            await asyncio.sleep(0.005)
            if time.thread_time() - before > self.longest:
                self.longest, self.where = time.thread_time() - before, self._seen

    def start(self) -> None:
        """Begins to look."""
        signal.signal(signal.SIGALRM, self._look)
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
        gc.callbacks.append(self._collect)

    def stop(self) -> None:
        """Looks no more."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.callbacks.remove(self._collect)

    def _collect(self, phase: str, _: dict[str, int]) -> None:
        now, thread = time.thread_time(), threading.get_ident()
        if phase == "start":
            self._began[thread] = now
        else:
            self.collection = max(self.collection, now - self._began.pop(thread, now))

    def _look(self, _: int, frame: FrameType | None) -> None:
        names = list[str]()
        while frame is not None:
            names.append(f"{frame.f_code.co_filename}:{frame.f_code.co_name}")
            frame = frame.f_back
        now = time.thread_time()
        self.planning += now - self._looked if any(part in name for name in names for part in PLANNING) else 0
        self._looked = now
        if not any("select" in name for name in names[:2]):
            self._seen = next((name for name in names if "/rh_prefect/" in name), names[0])


def _rows(rows: int) -> list[dict[str, str]]:
    return [{"sku": f"A-{n}", "title": f"mug {n}"} for n in range(rows)]


def _settings(url: str, key: str, folder: Path) -> dict[str, str]:
    return {
        "RH_API_KEY": key,
        "RH_BASE_URL": url,
        "RH_STORAGE_URL": str(folder / "out"),
        "RH_STATE_DIR": str(folder / "state"),
        "RH_POLL_SECONDS": "0.05",
        "RH_ALLOW_PRIVATE_LINKS": "1",
    }


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


SCENES = {"plan": measure_plan, "run": measure_run, "batch": measure_batch}

if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        print(json.dumps(SCENES[sys.argv[2]](int(sys.argv[3]))))
    else:
        main()

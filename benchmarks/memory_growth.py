"""How much one process grows over many flow runs with paid jobs, beside the same number of plain Prefect tasks.

    python -m benchmarks.memory_growth
    python -m benchmarks.memory_growth --runs 100 ours s3

Each contender runs in a separate process. The first flow runs of a contender are not measured: they import
modules and fill caches that have a fixed size.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prefect import flow, task

import rh_prefect
from benchmarks.emulator_process import EmulatorProcess, prompt
from benchmarks.harness import Bench, finish
from benchmarks.report import Figure, show
from benchmarks.rss import now
from tests.support.servers.prefect_server import PrefectServer
from tests.support.servers.s3 import S3Server

JOBS = 3
WARM_UP = 40
"""Flow runs before the measurement."""

LIMIT_MB = 20
KINDS_SHOWN = 12


@task
async def _nothing(number: int) -> int:
    await asyncio.sleep(0)
    return number


async def _job(number: int) -> Any:
    return await rh_prefect.generate(rh_prefect.models.ZImageTurbo(prompt=prompt(0, number)))


@flow(log_prints=False)
async def plain() -> None:
    """Plain tasks."""
    await asyncio.gather(*(_nothing(number) for number in range(JOBS)))


@flow(log_prints=False)
async def ours() -> None:
    """Paid jobs in Prefect's own flow, whose end this package does not see."""
    await asyncio.gather(*(_job(number) for number in range(JOBS)))


@rh_prefect.flow(log_prints=False)
async def hooked() -> None:
    """Paid jobs in this package's flow."""
    await asyncio.gather(*(_job(number) for number in range(JOBS)))


_FILE = """
name: pictures
params:
  rows: {type: table, columns: {prompt: string}}
budget: 1000
steps:
  each:
    foreach: $(params.rows)
    steps:
      picture: {model: z-image/turbo, with: {prompt: $(item.prompt)}}
outputs: {pictures: $(each.picture)}
"""

_NUMBERS = count(1)


async def pipeline() -> None:
    """Paid jobs of a pipeline, other ones in each run."""
    rows = [{"prompt": f"{next(_NUMBERS)}, {prompt(0)}"} for _ in range(JOBS)]
    await rh_prefect.Pipeline.from_text(_FILE).run(rows=rows)


CONTENDERS: dict[str, Callable[[], Awaitable[None]]] = {
    "plain": plain,
    "ours": ours,
    "hooked": hooked,
    "s3": ours,
    "pipeline": pipeline,
}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contenders", nargs="*", choices=[[], *CONTENDERS], help="default: all")
    parser.add_argument("--runs", type=int, default=300)
    given = parser.parse_args()
    contenders = dict.fromkeys(["plain", *(given.contenders or CONTENDERS)])  # its growth is subtracted
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="rh-bench-")))
        bench = Bench(folder, stack.enter_context(PrefectServer(folder / "prefect")), 1.0, JOBS)
        emulator = stack.enter_context(bench.emulator())
        grown = {
            contender: _measured(bench, contender, given.runs, emulator, _store(contender, folder, stack))
            for contender in contenders
        }
    own = grown.pop("plain")
    figures = [
        Figure(f"{contender}, over plain tasks", grew - own, LIMIT_MB, "MB", f"{grew:.1f} MB in all")
        for contender, grew in grown.items()
    ]
    show(f"Growth in {given.runs} flow runs of {JOBS} tasks each; plain tasks {own:.1f} MB", figures)


def _store(contender: str, folder: Path, stack: ExitStack) -> dict[str, str]:
    if contender != "s3":
        return {}
    (folder / "s3").mkdir()
    server = S3Server(folder / "s3")
    stack.callback(server.stop)
    server.start()
    return {"RH_STORAGE_URL": server.url("out"), "RH_STORAGE_OPTIONS": json.dumps(server.options)}


def _measured(bench: Bench, contender: str, runs: int, emulator: EmulatorProcess, env: dict[str, str]) -> float:
    given = json.dumps({"contender": contender, "runs": runs})
    measured = finish(
        bench.python(
            "benchmarks.memory_growth", "contender", given, emulator=emulator, out=bench.new_folder("out"), env=env
        )
    )
    note = ", ".join(f"{count} {kind}" for kind, count in measured["kinds"].items())
    held = f"{measured['holds']:.0f} MB in {measured['threads']} threads at the end"
    print(f"{contender}: {measured['grew']:.1f} MB, {held}; more objects: {note}", flush=True)
    return float(measured["grew"])


def measure(contender: str, runs: int) -> dict[str, Any]:
    """Runs one contender in this process; by how many MB it grew, and of which kinds there are more objects."""
    os.environ["RH_POLL_SECONDS"] = "0.02"
    return asyncio.run(_measure(CONTENDERS[contender], runs))


async def _measure(run: Callable[[], Awaitable[None]], runs: int) -> dict[str, Any]:
    for _ in range(WARM_UP):
        await run()
    gc.collect()
    before, kinds = now(), _kinds()
    for _ in range(runs):
        await run()
    gc.collect()
    more = (_kinds() - kinds).most_common(KINDS_SHOWN)
    held = {"holds": now() / 1e6, "threads": threading.active_count()}
    return {"grew": (now() - before) / 1e6, **held, "kinds": dict(more)}


def _kinds() -> Counter[str]:
    return Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects())


if __name__ == "__main__":
    if sys.argv[1:2] == ["contender"]:
        print(json.dumps(measure(**json.loads(sys.argv[2]))))
    else:
        main()

"""What a declared pipeline costs above the same chain in Python: both with the tasks of this package, turn by turn.

The chain in Python runs twice in each turn: with results that other runs share, as a pipeline's are, and with results
of its own flow run only, whose records are fewer. Neither writes a report or a page of its outputs, as a pipeline does.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal

from benchmarks.contenders import requests_to
from benchmarks.emulator_process import prompt
from benchmarks.harness import Bench, finish
from benchmarks.report import Figure, show

ROUNDS = 3
ITEMS = 50
SECONDS = (6.0, 12.0)
"""How long a picture and a clip take: the work of a run, beside which the cost of its pipeline counts."""

_FILE = """
name: chain
params:
  rows: {type: table, columns: {subject: string, move: string}}
budget: 1000
steps:
  each:
    foreach: $(params.rows)
    steps:
      picture: {model: z-image/turbo, with: {prompt: $(item.subject), aspect_ratio: "9:16"}}
      clip:
        model: kling-v2.6-pro-image-to-video
        from: $(picture)
        with: {prompt: $(item.move), duration: 5, sound: false}
outputs: {clips: $(each.clip)}
"""


def pipelines(bench: Bench) -> None:
    """A pipeline of pictures and clips beside the same chain as a Python flow."""
    with bench.emulator() as emulator:
        given = json.dumps({"factor": bench.factor})
        measured = finish(
            bench.python("benchmarks.pipeline_overhead", given, emulator=emulator, out=bench.folder / "pipelines")
        )
    for peer in ("shared", "own"):
        figures = [
            _compared("makespan", measured, peer, "seconds", 1.03, "s"),
            _compared("CPU of the process", measured, peer, "cpu", 1.1, "s"),
            _compared("requests to Prefect's API", measured, peer, "prefect", 1.1, ""),
        ]
        show(f"A pipeline of {2 * ITEMS} jobs beside a Python flow with {peer} results, median of {ROUNDS}", figures)


def _compared(what: str, measured: dict[str, Any], peer: str, name: str, aim: float, unit: str) -> Figure:
    declared, python = (statistics.median(turn[name] for turn in measured[one]) for one in ("declared", peer))
    note = f"{declared:.2f} to {python:.2f} {unit}"
    return Figure(f"{what}, pipeline / Python", declared / python, aim, "x", note.rstrip())


def main() -> None:
    """Measures and prints."""
    given = json.loads(sys.argv[1])
    os.environ["RH_POLL_SECONDS"] = str(2.0 / given["factor"])
    print(json.dumps(asyncio.run(_measure())))


async def _measure() -> dict[str, list[dict[str, float]]]:
    from rh_prefect import Pipeline, flow, generate, models

    logging.getLogger("prefect").setLevel(logging.WARNING)
    requests = requests_to(os.environ["PREFECT_API_URL"])
    declared_chain = Pipeline.from_text(_FILE)

    async def declared(rows: list[dict[str, str]]) -> None:
        await declared_chain.run(rows=rows)

    @flow
    async def python(rows: list[dict[str, str]], reuse: Literal["never", "always"]) -> None:
        async def one(row: dict[str, str]) -> None:
            picture = await generate(models.ZImageTurbo(prompt=row["subject"], aspect_ratio="9:16"), reuse=reuse)
            clip = models.KlingV26ProImageToVideo(
                image_url=picture.first_output, prompt=row["move"], duration="5", sound="false"
            )
            await generate(clip, reuse=reuse)

        await asyncio.gather(*map(one, rows))

    contenders: dict[str, Callable[[list[dict[str, str]]], Awaitable[None]]] = {
        "declared": declared,
        "shared": partial(python, reuse="always"),
        "own": partial(python, reuse="never"),
    }
    measured: dict[str, list[dict[str, float]]] = {contender: [] for contender in contenders}
    for turn in range(ROUNDS + 1):
        for contender, run in contenders.items():
            requests.clear()
            began, cpu = time.monotonic(), time.process_time()
            await run(_rows(f"{turn} {contender}"))
            spent = {"seconds": time.monotonic() - began, "cpu": time.process_time() - cpu}
            if turn:  # the first one opens connections
                measured[contender].append({**spent, "prefect": float(requests.total())})
    return measured


def _rows(name: str) -> list[dict[str, str]]:
    picture, clip = SECONDS
    return [{"subject": f"{name} {n}, {prompt(picture)}", "move": f"{n}, {prompt(clip)}"} for n in range(ITEMS)]


if __name__ == "__main__":
    main()

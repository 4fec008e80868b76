"""What this package adds to one call: `generate`, and a Prefect task that makes the same HTTP calls by hand."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from benchmarks.contenders import ENDPOINT, requests_to
from benchmarks.emulator_process import prompt
from benchmarks.harness import Bench, finish
from benchmarks.report import Figure, show

ROUNDS = 7
SECONDS = 6.0
"""How long a task takes: a quick picture."""


def overhead(bench: Bench) -> None:
    """One call as a Prefect task."""
    with bench.emulator() as emulator:
        given = json.dumps({"factor": bench.factor})
        measured = finish(bench.python("benchmarks.overhead", given, emulator=emulator, out=bench.folder / "overhead"))
    ours, bare = (statistics.median(measured[contender]) for contender in ("ours", "bare"))
    note = f"{ours:.2f} s to {bare:.2f} s, median of {ROUNDS}; adds {(ours - bare) * 1000:.0f} ms"
    asked = ", ".join(f"{count} {what}" for what, count in measured["requests"].items())
    show(
        "One call",
        [
            Figure("as a Prefect task / bare task", ours / bare, 1.15, "x", note),
            Figure("requests to Prefect a job", sum(measured["requests"].values()), 12, "", asked),
        ],
    )


def main() -> None:
    """Measures and prints."""
    given = json.loads(sys.argv[1])
    os.environ["RH_POLL_SECONDS"] = str(2.0 / given["factor"])
    print(json.dumps(_measure(given["factor"])))


def _measure(factor: float) -> dict[str, Any]:
    from prefect import task

    from rh_prefect import flow, generate, models

    url, headers = os.environ["RH_BASE_URL"], {"Authorization": f"Bearer {os.environ['RH_API_KEY']}"}
    out = Path(os.environ["RH_STORAGE_URL"])
    out.mkdir(parents=True, exist_ok=True)
    requests = requests_to(os.environ["PREFECT_API_URL"])
    measured: dict[str, Any] = {"ours": [], "bare": []}

    @task
    async def bare(text: str) -> None:
        async with httpx.AsyncClient(headers=headers, timeout=60) as client:
            await client.get(f"{url}/openapi/v2/queue/status")
            body = {"prompt": text, "aspectRatio": "9:16"}
            task_id = (await client.post(f"{url}/openapi/v2/{ENDPOINT}", json=body)).json()["taskId"]
            gap = 1.0 / factor
            while True:
                await asyncio.sleep(gap)
                answer = (await client.post(f"{url}/openapi/v2/query", json={"taskId": task_id})).json()
                if answer["status"] == "SUCCESS":
                    break
                gap = 2.0 / factor  # as `generate` looks at a young task
            (out / task_id).write_bytes((await client.get(answer["results"][0]["url"])).content)

    @flow
    async def calls() -> None:
        for turn in range(ROUNDS + 1):
            for contender in ("ours", "bare"):
                requests.clear()
                began = time.monotonic()
                text = prompt(SECONDS, turn)
                await (generate(models.ZImageTurbo(prompt=text)) if contender == "ours" else bare(text))
                if turn:  # the first one opens connections
                    measured[contender].append(time.monotonic() - began)
                if contender == "ours":
                    measured["requests"] = _kinds(requests)

    asyncio.run(calls())
    return measured


def _kinds(requests: Counter[str]) -> dict[str, int]:
    kinds: Counter[str] = Counter()
    for path, count in requests.items():
        kinds["journal" if "/input" in path else path.split("/")[1]] += count
    return dict(kinds)


if __name__ == "__main__":
    main()

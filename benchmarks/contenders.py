"""The contenders of the speed benchmark, each in a separate process: `python -m benchmarks.contenders NAME JSON`.

A contender runs jobs of the given seconds on `RH_BASE_URL` with `RH_API_KEY`, writes their files to `RH_STORAGE_URL`
and prints what it measured as JSON. `factor` shortens its own timers where the emulator's clock runs faster.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from benchmarks.emulator_process import prompt

ENDPOINT = "rhart-image/z-image/turbo"
SLOTS = 50
POLL = 5.0
SDK_POLL = 2.0
"""The sdk's default."""

START_FOLDER = "BENCHMARK_START_FOLDER"
"""Names the folder in which processes report that they are ready, and in which the file `start` starts them."""


def main() -> None:
    """Runs a contender."""
    name, given = sys.argv[1], json.loads(sys.argv[2])
    os.environ["RH_POLL_SECONDS"] = str(2.0 / given["factor"])
    print(json.dumps(CONTENDERS[name](given["seconds"], given["factor"])))


def ours(seconds: Sequence[float], factor: float) -> dict[str, Any]:  # noqa: ARG001 - set by RH_POLL_SECONDS
    """A flow of this package with `generate_many`."""
    from rh_prefect import generate_many, models

    asked = [models.ZImageTurbo(prompt=prompt(one, number)) for number, one in enumerate(seconds)]

    async def make() -> int:
        return len(await generate_many(asked))

    return _in_flow(make, len(seconds))


def batch(seconds: Sequence[float], factor: float) -> dict[str, Any]:  # noqa: ARG001 - set by RH_POLL_SECONDS
    """A flow of this package with a batch."""
    from rh_prefect.flows.batch.run import batch

    rows = [{"prompt": prompt(one, number)} for number, one in enumerate(seconds)]

    async def make() -> int:
        return (await batch(rows, model="z-image/turbo")).done

    return _in_flow(make, len(seconds))


def _in_flow(make: Callable[[], Awaitable[int]], jobs: int) -> dict[str, Any]:
    """Makes all jobs in a flow; `make` returns how many are done."""
    from rh_prefect import flow
    from rh_prefect.media.store import MediaStore

    requests, operations = requests_to(os.environ["PREFECT_API_URL"]), _operations_of(MediaStore)
    measured: dict[str, Any] = {}

    @flow(log_prints=False)
    async def scene() -> None:
        _start_together()
        requests.clear()
        began, cpu = time.monotonic(), time.process_time()
        try:
            measured["done"] = await make()
        except* Exception as errors:
            measured["done"] = jobs - len(errors.exceptions)
            measured["errors"] = [str(error)[:200] for error in errors.exceptions[:3]]
        measured.update(seconds=time.monotonic() - began, cpu=time.process_time() - cpu)
        measured["listings"] = _listings(_journal_of(requests) + operations)

    asyncio.run(scene())
    return {**measured, "prefect": requests.total(), "operations": dict(_journal_of(requests) + operations)}


def eager(seconds: Sequence[float], factor: float) -> dict[str, Any]:
    """The plain flow, for tasks that end at once."""
    return plain(seconds, factor, gap=lambda _: 0.0)


def fair(seconds: Sequence[float], factor: float) -> dict[str, Any]:
    """The plain flow with a poll every second at first, and then after a tenth of the task's age."""
    return plain(seconds, factor, gap=lambda age: max(1.0, 0.1 * age))


def plain(seconds: Sequence[float], factor: float, *, gap: Callable[[float], float] = lambda _: POLL) -> dict[str, Any]:
    """A plain Prefect flow with httpx and a fixed poll, as a user would write it; `gap` is by the task's age."""
    from prefect import flow, task

    url, headers = os.environ["RH_BASE_URL"], {"Authorization": f"Bearer {os.environ['RH_API_KEY']}"}
    out = Path(os.environ["RH_STORAGE_URL"])
    out.mkdir(parents=True, exist_ok=True)
    requests = requests_to(os.environ["PREFECT_API_URL"])
    measured: dict[str, Any] = {"done": 0}

    @task
    async def one_job(client: httpx.AsyncClient, gate: asyncio.Semaphore, text: str) -> None:
        async with gate:
            answer = await client.post(f"{url}/openapi/v2/{ENDPOINT}", json={"prompt": text, "aspectRatio": "9:16"})
            task_id, began = answer.json()["taskId"], time.monotonic()
            while True:
                await asyncio.sleep(gap((time.monotonic() - began) * factor) / factor)
                answer = await client.post(f"{url}/openapi/v2/query", json={"taskId": task_id})
                if answer.json()["status"] == "SUCCESS":
                    break
                if answer.json()["status"] == "FAILED":
                    raise RuntimeError(answer.text)
        (out / task_id).write_bytes((await client.get(answer.json()["results"][0]["url"])).content)
        measured["done"] += 1

    @flow
    async def batch() -> None:
        requests.clear()
        began, cpu = time.monotonic(), time.process_time()
        gate = asyncio.Semaphore(SLOTS)
        async with httpx.AsyncClient(headers=headers, timeout=60) as client:
            jobs = (one_job(client, gate, prompt(one, number)) for number, one in enumerate(seconds))
            await asyncio.gather(*jobs, return_exceptions=True)
        measured.update(seconds=time.monotonic() - began, cpu=time.process_time() - cpu)

    logging.getLogger("prefect").setLevel(logging.ERROR)  # Prefect cannot hash the client, and says so of each task
    asyncio.run(batch())
    return {**measured, "prefect": requests.total()}


def sdk(seconds: Sequence[float], factor: float) -> dict[str, Any]:
    """`runninghub-sdk` in a pool of 50 threads."""
    from runninghub_sdk import RunningHubClient

    out = Path(os.environ["RH_STORAGE_URL"])
    out.mkdir(parents=True, exist_ok=True)
    client = RunningHubClient(os.environ["RH_API_KEY"], base_url=os.environ["RH_BASE_URL"])

    def one_job(text: str) -> None:
        task = client.run_model_api(ENDPOINT, {"prompt": text, "aspectRatio": "9:16"})
        done = client.wait_for_query_v2_completion(task.task_id, poll_interval=SDK_POLL / factor)
        assert done.results is not None
        (out / task.task_id).write_bytes(httpx.get(done.results[0]["url"]).content)

    began, cpu = time.monotonic(), time.process_time()
    with ThreadPoolExecutor(SLOTS) as pool:
        jobs = [pool.submit(one_job, prompt(one, number)) for number, one in enumerate(seconds)]
    failed = [str(error)[:200] for job in jobs if (error := job.exception())]
    measured = {"seconds": time.monotonic() - began, "cpu": time.process_time() - cpu}
    return {**measured, "done": len(jobs) - len(failed), "errors": failed[:3], "prefect": 0}


CONTENDERS: dict[str, Callable[[Sequence[float], float], dict[str, Any]]] = {
    "ours": ours,
    "batch": batch,
    "plain": plain,
    "fair": fair,
    "eager": eager,
    "sdk": sdk,
}


def _start_together() -> None:
    """Waits for the others of a scene with several processes, whose imports take different times."""
    if not (folder := os.environ.get(START_FOLDER)):
        return
    Path(folder, f"ready-{os.getpid()}").touch()
    while not Path(folder, "start").exists():
        time.sleep(0.005)


def requests_to(url: str) -> Counter[str]:
    """Counts this process's requests to an address, by the line that httpx logs for each."""
    counts: Counter[str] = Counter()

    class Counting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            _, asked, *_ = record.args if isinstance(record.args, tuple) else ("", "")
            if str(asked).startswith(url):
                counts[str(asked).removeprefix(url)] += 1

    log = logging.getLogger("httpx")
    log.setLevel(logging.INFO)
    log.addHandler(Counting())
    log.propagate = False
    return counts


def _listings(operations: Counter[str]) -> int:
    return sum(count for what, count in operations.items() if what.endswith(": list"))


def _journal_of(requests: Counter[str]) -> Counter[str]:
    """Counts the journal's operations, by what they do."""
    counts: Counter[str] = Counter()
    for path, count in requests.items():
        if path.endswith("/input/filter"):
            counts["journal: list"] += count
        elif "/input" in path:
            counts["journal: create" if path.endswith("/input") else "journal: read"] += count
    return counts


def _operations_of(store: Any) -> Counter[str]:
    """Counts the calls of a store that reach its files, by what they do."""
    counts: Counter[str] = Counter()

    def counted(method: Callable[..., Any], what: Callable[..., str]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            counts[f"store: {what(*args)}"] += 1
            return method(*args, **kwargs)

        return call

    # The one way to a file by its name, and the one to a folder.
    store._at = counted(store._at, lambda _, __, doing: doing)
    store.list = counted(store.list, lambda *_: "list")
    return counts


if __name__ == "__main__":
    main()

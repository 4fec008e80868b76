"""How long a plan takes and how much memory: `python -m benchmarks.plans [ITEMS]`.

Without a number: 300 items of four steps with known results (aim: 2 s), 8,000 works that are new (aim: 15 s and
300 MB), the 300 items with their records on an S3 server that answers each request after 50 ms, first without
copies on this machine and then with them (aim: 2 s), and one pass of a run's budget over 250, 500 and 1,000 items of
four steps (aim: 0.1 s for 1,000). Each runs in a separate process. Memory is the peak of the whole
process; the seconds of the processor do not depend on what else the machine does.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from s3fs import S3FileSystem

from tests.support.servers.s3 import S3Server

if TYPE_CHECKING:
    from rh_prefect.media.media import Media

LATENCY = 0.05
"""Seconds."""

PIPELINE = """\
name: products
params:
  products: {type: table, columns: {sku: string, title: string, photo: image}}
steps:
  music: {model: suno-single-v5.5, with: {description: calm, make_instrumental: true}}
  each:
    foreach: $(params.products)
    id: $(item.sku)
    steps:
      picture:
        model: nano-banana-pro/edit-official-stable
        with: {image_urls: $(item.photo), prompt: "$(item.title) on white", resolution: 1k}
      clip: {model: kling-v2.6-pro-image-to-video, from: $(picture), with: {prompt: slow, duration: 5, sound: false}}
      large: {model: rh-video-upscaler, from: $(clip), with: {target_resolution: 1080p}}
      voice: {model: minimax/speech-2.8-hd, with: {text: "This is $(item.title)"}}
      video: {edit: mux, with: {video: $(large), audio: $(voice)}, save_as: products/$(id).mp4}
outputs: {videos: $(each.video)}
"""
_KINDS = {
    "suno-single-v5.5": "audio",
    "minimax/speech-2.8-hd": "audio",
    "nano-banana-pro/edit-official-stable": "image",
}


def main() -> None:
    """Measures all, or one."""
    if "stored" in sys.argv:
        print(json.dumps(measure_stored(int(sys.argv[1]))))
        return
    if "budget" in sys.argv:
        print(json.dumps(asyncio.run(measure_budget(int(sys.argv[1])))))
        return
    if len(sys.argv) > 1:
        print(json.dumps(asyncio.run(measure(int(sys.argv[1]), is_known="known" in sys.argv))))
        return
    budgets = tuple((items, "budget") for items in (250, 500, 1000))
    for items, state in ((300, "known"), (1999, "new"), (300, "stored"), *budgets):
        words = [sys.executable, "-m", "benchmarks.plans", str(items), state]
        print(subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip())


async def measure(items: int, *, is_known: bool) -> dict[str, Any]:
    """Plans a table of so many products.

    Args:
        items: Rows.
        is_known: Whether all results are there.
    """
    from rh_prefect.pipelines.pipeline import Pipeline
    from rh_prefect.pipelines.plan import KnownWork, KnownWorks, WorkQuery

    class Results(KnownWorks):
        def __init__(self) -> None:
            self.known: dict[str, KnownWork] = {}

        async def find(self, queries: Sequence[WorkQuery]) -> list[KnownWork | None]:
            return [self.known.get(query.work) for query in queries]

        def make(self, work: str, model: str) -> None:
            self.known[work] = KnownWork("=", (_file(work, model),))

    rows, results, pipeline = _rows(items), Results(), Pipeline.from_text(PIPELINE)
    for _ in range(4 if is_known else 0):  # each plan makes what the one before it lacks
        for one in (await pipeline.plan(products=rows, known=results)).instances:
            for work in one.works:
                results.make(work.key, one.model)
    wall, cpu = time.monotonic(), time.process_time()
    plan = await pipeline.plan(products=rows, known=results)
    seconds, of_processor = time.monotonic() - wall, time.process_time() - cpu
    return {
        "items": items,
        "works": sum(len(one.works) for one in plan.instances if one.is_paid),
        "problems": len(plan.problems),
        "states": dict(plan.counts),
        "seconds": round(seconds, 2),
        "processor_seconds": round(of_processor, 2),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


async def measure_budget(items: int) -> dict[str, Any]:
    """Asks a budget of whole items which steps of all items may start.

    Args:
        items: Rows.
    """
    from decimal import Decimal

    from rh_prefect.pipelines.pipeline import Pipeline
    from rh_prefect.pipelines.run.run_budget import RunBudget
    from rh_prefect.works.journal.costs_and_budget import SpendTracker, charges_in
    from rh_prefect.works.journal.journal import FolderJournal
    from rh_prefect.works.journal.scope import FolderScope

    text = PIPELINE.replace("steps:", "budget: {amount: 1000000, whole_items: true, item: 100}\nsteps:", 1)
    plan = await Pipeline.from_text(text).plan(products=_rows(items))
    with TemporaryDirectory() as folder:
        spending = SpendTracker(partial(charges_in, FolderScope(FolderJournal(folder, scope="run"))))
        budget = RunBudget(spending, Decimal(1_000_000))
        began = time.process_time()
        budget.consider(plan.budget, {("each", 0): plan.instances})
        refusals = [budget.refusal(one) for one in plan.instances]
        seconds = time.process_time() - began
    return {"items": items, "refused": len(refusals) - refusals.count(None), "budget_seconds": round(seconds, 3)}


def measure_stored(items: int) -> dict[str, Any]:
    """Plans a table of so many products whose results are recorded on an S3 server.

    Args:
        items: Rows.
    """
    with TemporaryDirectory() as folder:
        server = S3Server(Path(folder))
        server.start()
        try:
            return asyncio.run(_measure_stored(items, server, Path(folder) / "state"))
        finally:
            server.stop()


async def _measure_stored(items: int, server: S3Server, state_dir: Path) -> dict[str, Any]:
    from rh_prefect.media.store import MediaStore
    from rh_prefect.pipelines.known_works import open_records
    from rh_prefect.pipelines.pipeline import Pipeline
    from rh_prefect.settings import Settings
    from rh_prefect.works.journal.job_records_and_state import JobRecords
    from rh_prefect.works.journal.record_types import ResultRecord
    from rh_prefect.works.journal.works_journal import FILES, WorksJournal

    settings, store = Settings(state_dir=state_dir), MediaStore(server.url("plans"), options=server.options)
    works, pipeline, rows = WorksJournal(store.url, options=server.options), Pipeline.from_text(PIPELINE), _rows(items)

    async def record(work: str, model: str) -> None:
        file = _file(f"{FILES}/{work}", model)
        await asyncio.to_thread(store.write_bytes, file.uri, b"1")
        result = ResultRecord(task_id="1", flow_run="one", store=store.url, outputs=(file,))
        await JobRecords(works, work).create_result(result)

    for _ in range(4):  # each plan makes what the one before it lacks
        plan = await pipeline.plan(products=rows, known=open_records(store, settings))
        new = {work.key: one.model for one in plan.instances for work in one.works if one.is_paid and work.is_settled}
        await asyncio.gather(*(record(work, model) for work, model in new.items()))
    _answer_later()
    seconds = []
    for folder in ("new", "new"):  # the second plan finds the copies of the first
        began = time.monotonic()
        plan = await pipeline.plan(products=rows, known=open_records(store, Settings(state_dir=state_dir / folder)))
        seconds.append(round(time.monotonic() - began, 2))
    names = ("seconds_without_copies", "seconds_with_copies")
    return {"items": items, "states": dict(plan.counts), **dict(zip(names, seconds, strict=True))}


def _answer_later() -> None:
    """Has each request to S3 take `LATENCY` longer."""
    send = S3FileSystem._call_s3

    async def delayed(*given: Any, **options: Any) -> Any:
        await asyncio.sleep(LATENCY)
        return await send(*given, **options)

    S3FileSystem._call_s3 = delayed


def _rows(items: int) -> list[dict[str, Any]]:
    from rh_prefect.media.media import Media

    return [
        {
            "sku": f"A-{n}",
            "title": f"Mug {n}",
            "photo": Media(uri=f"{n}.jpg", kind="image", mime="image/jpeg", size=9, sha256=f"{n:064x}"),
        }
        for n in range(items)
    ]


def _file(name: str, model: str) -> Media:
    """The result of a model; its content follows from its name."""
    from rh_prefect.media.media import Media

    kind: Any = _KINDS.get(model, "video")
    return Media(uri=name, kind=kind, mime="", size=1, sha256=hashlib.sha256(name.encode()).hexdigest(), seconds=5.0)


if __name__ == "__main__":
    main()

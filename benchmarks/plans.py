"""How long a plan takes and how much memory: `python -m benchmarks.plans [ITEMS]`.

Without a number: 300 items of four steps with known results (aim: 2 s), and 8,000 works that are new (aim: 15 s and
300 MB). Each runs in a process of its own. Memory is the peak of the whole process; the seconds of the processor do not
depend on what else the machine does.
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
from typing import Any

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
    """Measures both, or one."""
    if len(sys.argv) > 1:
        print(json.dumps(asyncio.run(measure(int(sys.argv[1]), is_known="known" in sys.argv))))
        return
    for items, state in ((300, "known"), (1999, "new")):
        words = [sys.executable, "-m", "benchmarks.plans", str(items), state]
        print(subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip())


async def measure(items: int, *, is_known: bool) -> dict[str, Any]:
    """Plans a table of so many products.

    Args:
        items: Rows.
        is_known: Whether all results are there.
    """
    from rh_prefect.media.media import Media
    from rh_prefect.pipelines.pipeline import Pipeline
    from rh_prefect.pipelines.plan import KnownWork, NoWorks, WorkQuery

    class Results(NoWorks):
        def __init__(self) -> None:
            self.known: dict[str, KnownWork] = {}

        async def look(self, queries: Sequence[WorkQuery]) -> list[KnownWork | None]:
            return [self.known.get(query.work) for query in queries]

        def make(self, work: str, model: str) -> None:
            kind: Any = _KINDS.get(model, "video")
            sha256 = hashlib.sha256(work.encode()).hexdigest()
            self.known[work] = KnownWork(
                "=", (Media(uri=work, kind=kind, mime="", size=1, sha256=sha256, seconds=5.0),)
            )

    rows = [
        {
            "sku": f"A-{n}",
            "title": f"Mug {n}",
            "photo": Media(uri=f"{n}.jpg", kind="image", mime="image/jpeg", size=9, sha256=f"{n:064x}"),
        }
        for n in range(items)
    ]
    results, pipeline = Results(), Pipeline.from_text(PIPELINE)
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


if __name__ == "__main__":
    main()

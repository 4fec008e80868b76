"""Makes the pictures in docs/images: runs of each outcome on the emulator, and their reports in Prefect's dashboard.

PREFECT_API_URL names a Prefect server with its dashboard: `python -m benchmarks.doc_images [FOLDER]`.
"""

from __future__ import annotations

import asyncio
import base64
import os
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.states import Cancelling

from rh_prefect import assemble, flow, generate, models
from rh_prefect.emulator import Emulator
from rh_prefect.flow_runs.flow import cancel_remote_jobs
from rh_prefect.flow_runs.resume import create, rerun
from rh_prefect.flows import batch, spend
from rh_prefect.flows.pipeline import Pipeline
from tests.support.servers.browser import Page, browser
from tests.support.servers.emulator_env import HELPFUL, environment

IMAGES = Path("docs/images")
WIDTHS = (1440, 1000)
MOST_BYTES = 150_000
_COLORS = 64
"""Fewer colours make a picture of the dashboard three times smaller."""

PRODUCTS = """
name: products
params: {products: {type: table, columns: {sku: string, title: string}}}
steps:
  each:
    foreach: $(params.products)
    id: $(item.sku)
    steps:
      picture: {model: z-image/turbo, with: {prompt: "Product photo of $(item.title)", aspect_ratio: "16:9"}}
      clip:
        model: kling-v2.6-pro-image-to-video
        from: $(picture)
        with: {prompt: it turns, duration: 5, sound: false}
outputs: {clips: $(each.clip), pictures: $(each.picture)}
"""
REVIEW = """
name: portrait
steps:
  picture: {model: z-image/turbo, with: {prompt: "a portrait of a lighthouse keeper", aspect_ratio: "16:9"}, takes: 3}
  chosen: {review: $(picture), ask: "Which portrait?"}
  clip: {model: kling-v2.6-pro-image-to-video, from: $(chosen), with: {prompt: he looks up, duration: 5, sound: false}}
outputs: {clip: $(clip)}
"""
GOOD = [{"sku": f"A-{n}", "title": title} for n, title in enumerate(("a red mug", "a blue teapot", "a bread board"), 1)]
BAD = [*GOOD, {"sku": "A-4", "title": "a forbidden lamp"}]


@flow
async def lighthouse(prompt: str = "a lighthouse at dawn") -> str:
    """A picture that comes alive, with a voice."""
    photo = await generate(models.ZImageTurbo(prompt=prompt, aspect_ratio="16:9"), label="photo")
    motion = models.KlingV26ProImageToVideo(image_url=photo, prompt="waves", duration="5", sound="false")
    clip = await generate(motion, label="clip")
    voice = await generate(models.MinimaxSpeech28Hd(text="Far out, a light keeps watch."), label="voice")
    film = await assemble([clip], speech=voice)
    return film.film.uri


@flow
async def portraits() -> None:
    """Three portraits, one after another."""
    for style in ("in oil", "in ink", "in clay"):
        await generate(models.ZImageTurbo(prompt=f"a portrait {style}"), label=style)


async def _run(wanted: Any, *, until: Callable[[], bool] | None = None, **params: Any) -> UUID:
    """Runs a flow to its end, or until a condition holds, when it is cancelled; returns its flow run."""
    run = str(await create(wanted, params))
    task = asyncio.ensure_future(rerun(wanted, run))
    async with get_client() as client:
        if until is not None:
            while not until():  # noqa: ASYNC110, of a thread
                await asyncio.sleep(0.05)
            await client.set_flow_run_state(UUID(run), Cancelling(), force=True)
            await asyncio.wait([task])
            flow_run = await client.read_flow_run(UUID(run))
            await cancel_remote_jobs(flow=wanted, flow_run=flow_run, state=Cancelling())
    await asyncio.wait([task])
    print(wanted.name, run, task.exception() if not task.cancelled() else "cancelled")
    return UUID(run)


async def _artifact(run: UUID, what: str) -> UUID:
    async with get_client() as client:
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
        found = await client.read_artifacts(artifact_filter=of_run)
    return next(one.id for one in found if str(one.key).endswith(f"-{what}"))


async def _scenes(folder: Path) -> dict[str, tuple[UUID, str]]:
    """Makes the runs; returns the flow run and the artifact of each picture."""
    found: dict[str, tuple[UUID, str]] = {}
    products = Pipeline.from_text(PRODUCTS, name="products.yaml").flow()
    found["report-done"] = (await _run(products, products=GOOD), "report")
    found["plan"] = (found["report-done"][0], "plan")
    found["graph"] = (found["report-done"][0], "graph")
    found["report-nothing-new"] = (await _run(products, products=GOOD), "report")
    found["report-failed"] = (await _run(products, products=BAD), "report")
    found["report-over-budget"] = (await _run(products, products=BAD[2:], new=["*"], budget=2.0), "report")
    found["report-review"] = (await _run(Pipeline.from_text(REVIEW, name="portrait.yaml").flow()), "report")
    found["report-flow"] = (await _run(lighthouse), "report")
    rows = [{"prompt": f"a postcard of {city}"} for city in ("Rome", "a forbidden city", "Oslo")]
    found["report-batch"] = (await _run(batch, rows=rows, model="z-image/turbo"), "report")
    found["spend"] = (await _run(spend, budget=100.0), "report")
    with Emulator(clock="real", factor=0, fps=6) as slow:
        os.environ |= environment(slow, folder)
        seen = iter(range(1, 3))

        def until() -> bool:
            if len(slow.recorder.paid) == 1 and next(seen, 0) == 1:
                slow.clock.advance(3600)
            return len(slow.recorder.paid) == 2

        found["report-cancelled"] = (await _run(portraits, until=until), "report")
    return found


def shoot(page: Page, url: str, width: int, to: Path) -> None:
    """Takes a picture of a whole page of the dashboard."""
    page.size(width, 900)
    page.open(url)
    page.until("document.querySelector('.markdown, .p-markdown-renderer, .markdown-renderer, table, pre')")
    time.sleep(1)
    height = page.ask(
        "Math.max(...[...document.querySelectorAll('main, .app-router-view, body')].map(e => e.scrollHeight))"
    )
    page.size(width, max(500, min(int(height) + 40, 2400)))
    time.sleep(1)
    shot = base64.b64decode(page.call("Page.captureScreenshot", format="png")["data"])
    picture = Image.open(BytesIO(shot)).convert("RGB").quantize(_COLORS)
    picture.save(to, optimize=True)
    assert to.stat().st_size < MOST_BYTES, f"{to} has {to.stat().st_size} bytes"


def main(folder: Path, to: Path) -> None:
    """Makes all pictures."""
    with Emulator(long_side=480, fps=6, moderated=["forbidden"], assumptions=HELPFUL) as emulator:
        os.environ |= environment(emulator, folder)
        scenes = asyncio.run(_scenes(folder))
    dashboard = os.environ["PREFECT_API_URL"].removesuffix("/api")
    with browser() as page:
        for name, (run, what) in scenes.items():
            artifact = asyncio.run(_artifact(run, what))
            for width in WIDTHS:
                shoot(page, f"{dashboard}/artifacts/artifact/{artifact}", width, to / f"{name}-{width}.png")


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    with TemporaryDirectory() as scratch:
        main(Path(scratch), Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES)

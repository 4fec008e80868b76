"""Makes the pictures in docs/images: runs on the emulator as a terminal, a notebook and Prefect's dashboard show them.

PREFECT_API_URL names a Prefect server with its dashboard: `python -m benchmarks.doc_images [FOLDER]`.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from html import escape
from io import BytesIO, StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.states import Cancelling
from rich.console import Console
from rich.text import Text

from rh_prefect import Media, Pipeline, flow, generate, models
from rh_prefect.emulator import Emulator
from rh_prefect.flow_runs.flow import cancel_remote_jobs
from rh_prefect.flow_runs.resume_or_rerun import create, rerun
from rh_prefect.flows import batch, film, spend
from tests.support.servers.browser import Page, browser
from tests.support.servers.emulator_env import HELPFUL, environment
from website.terminal_picture import SVG_FORMAT

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
SPOKEN = Pipeline.from_text("""
params: {video: video, voice: audio}
steps: {film: {edit: mux, with: {video: $(params.video), audio: $(params.voice)}}}
outputs: {film: $(film)}
""")
GOOD = [{"sku": f"A-{n}", "title": title} for n, title in enumerate(("a red mug", "a blue teapot", "a bread board"), 1)]
BAD = [*GOOD, {"sku": "A-4", "title": "a forbidden lamp"}]


@flow
async def lighthouse(prompt: str = "a lighthouse at dawn") -> str:
    """A picture that comes alive, with a voice."""
    photo = await generate(models.ZImageTurbo(prompt=prompt, aspect_ratio="16:9"), label="photo")
    motion = models.KlingV26ProImageToVideo(image_url=photo, prompt="waves", duration="5", sound="false")
    clip = await generate(motion, label="clip")
    voice = await generate(models.MinimaxSpeech28Hd(text="Far out, a light keeps watch."), label="voice")
    film = await SPOKEN.run(video=clip.first_output, voice=voice.first_output)
    return film.output("film", Media).uri


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


_MOVES = re.compile(r"\x1b\].*?\x1b\\|\x1b\[(\d*)([A-Za-z])|\x1b\[\?\d+[hl]|[\r\n]|[^\x1b\r\n]+")


def terminal(to: Path, folder: Path, width: int) -> None:
    """Runs `film` in a terminal of this width, and draws its screen when most is in progress, and its last lines."""
    with Emulator(clock="real", factor=30, long_side=96, fps=6) as rh:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("RH_", "PREFECT_"))}
        env |= environment(rh, folder) | {"TERM": "xterm-256color", "NO_COLOR": "1", "HOME": str(folder)}
        words = ["run", "film", "--prompt", "A lighthouse at dawn", "--set", "shots=3"]
        main_end, end = pty.openpty()
        fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
        command = [sys.executable, "-m", "rh_prefect.cli", *words]
        run = subprocess.Popen(command, cwd=folder, env=env, stdin=end, stdout=end, stderr=end)
        os.close(end)
        screens = list(_screens(main_end))
        assert run.wait() == 0, screens[-1]
    # The time that is left is good once some jobs have ended.
    said_left = ["".join(lines).count(" left") for lines in screens[:-1]]
    busy = max(zip(said_left, screens), key=lambda pair: (pair[0] > 0, "".join(pair[1]).count("~")))[1]
    said = [*busy[-14:], "", "...", "", *screens[-1][-7:]]
    text = "\n".join(line.replace(str(folder), "~/films") for line in said)
    console = Console(record=True, width=width, file=StringIO())
    console.print(Text(f'$ rh-prefect {words[0]} film --prompt "{words[3]}" --set shots=3\n...\n{text}'))
    svg = console.export_svg(title="", code_format=SVG_FORMAT, unique_id="terminal")
    to.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n", encoding="utf-8")


def _screens(terminal: int) -> Iterator[list[str]]:
    """The lines of a terminal after each of its writes: `rich` moves up, erases a line and writes it again."""
    lines, at = [""], 0
    while True:
        try:
            text = os.read(terminal, 65536).decode(errors="replace")
        except OSError:  # the program has ended
            return
        for found in _MOVES.finditer(text):
            if found[0] == "\n":
                at += 1
                lines += [""] * (at >= len(lines))
            elif found[2] == "A":
                at = max(0, at - int(found[1] or 1))
            elif found[2] == "K":
                lines[at] = ""
            elif found[2] is None and found[0] != "\r" and not found[0].startswith("\x1b"):
                lines[at] += found[0]
        yield [line.rstrip() for line in lines]


async def _cells() -> list[tuple[str, Any]]:
    """The code of a notebook's cells, and what each shows."""
    picture = await generate(models.ZImageTurbo(prompt="a lighthouse at dawn", aspect_ratio="16:9"), scope="notebook")
    mugs = Pipeline.from_text(PRODUCTS, name="products.yaml")
    plan = await mugs.plan(products=GOOD)
    report = await batch([{"prompt": f"a poster of {place}"} for place in ("Rome", "Oslo")], model="z-image/turbo")
    return [
        ('await generate(models.ZImageTurbo(prompt="a lighthouse at dawn", aspect_ratio="16:9"))', picture),
        ("_.first_output", picture.first_output),
        ("await mugs.plan(products=products)", plan),
        (
            'await batch([{"prompt": "a poster of Rome"}, {"prompt": "a poster of Oslo"}], model="z-image/turbo")',
            report,
        ),
    ]


def notebook(page: Page, folder: Path, to: Path) -> None:
    """Takes a picture of what a notebook shows of results: the HTML of each, with its code above it."""
    cells = "".join(
        f"<pre>In [{n}]: {escape(code)}</pre>{value._repr_html_()}"
        for n, (code, value) in enumerate(asyncio.run(_cells()), 1)
    )
    style = "body {font: 14px sans-serif; margin: 2em} pre {background: #f5f5f5; padding: .6em}"
    file = folder / "notebook.html"
    file.write_text(f"<!doctype html><meta charset=utf-8><style>{style}</style>{cells}", encoding="utf-8")
    shoot(page, file.as_uri(), 1000, to)


async def _deployment() -> UUID:
    """Deploys `film`, whose form is shown."""
    deployment = await film.ato_deployment("desk")
    return await deployment.aapply()


def shoot(page: Page, url: str, width: int, to: Path, wanted: str = "") -> None:
    """Takes a picture of a whole page, when it has an element."""
    page.size(width, 900)
    page.open(url)
    page.until(
        f"document.querySelector('{wanted or '.markdown, .p-markdown-renderer, .markdown-renderer, table, pre'}')"
    )
    time.sleep(1)
    height = page.ask(
        "Math.max(...[...document.querySelectorAll('main, .app-router-view, body')].map(e => e.scrollHeight))"
    )
    page.size(width, max(500, min(int(height) + 40, 3200)))
    time.sleep(1)
    shot = base64.b64decode(page.call("Page.captureScreenshot", format="png")["data"])
    picture = Image.open(BytesIO(shot)).convert("RGB").quantize(_COLORS)
    picture.save(to, optimize=True)
    assert to.stat().st_size < MOST_BYTES, f"{to} has {to.stat().st_size} bytes"


def main(folder: Path, to: Path) -> None:
    """Makes all pictures."""
    with Emulator(long_side=480, fps=6, moderated=["forbidden"], assumptions=HELPFUL) as emulator:
        os.environ |= environment(emulator, folder)
        with browser() as page:
            notebook(page, folder, to / "notebook-1000.png")
        scenes = asyncio.run(_scenes(folder))
        form = asyncio.run(_deployment())
    for width in (60, 120):
        with TemporaryDirectory() as films:
            terminal(to / f"terminal-{width}.svg", Path(films), width)
    dashboard = os.environ["PREFECT_API_URL"].removesuffix("/api")
    with browser() as page:
        for width in WIDTHS:
            shoot(page, f"{dashboard}/deployments/deployment/{form}/run", width, to / f"form-{width}.png", "form")
        for name, (run, what) in scenes.items():
            artifact = asyncio.run(_artifact(run, what))
            for width in WIDTHS:
                shoot(page, f"{dashboard}/artifacts/artifact/{artifact}", width, to / f"{name}-{width}.png")


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    with TemporaryDirectory() as scratch:
        main(Path(scratch), Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES)

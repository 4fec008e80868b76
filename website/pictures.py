"""Pictures of the shipped pipelines: each runs with its example on an emulator, which makes the media."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rh_prefect.cli.choose_at_reviews import choose
from rh_prefect.cli.init import write_example
from rh_prefect.cli.options import Given
from rh_prefect.emulator import Emulator
from rh_prefect.flows.pipeline_run import run_here
from rh_prefect.media.edit.frames_and_thumbnails import contact_sheet, thumbnail
from rh_prefect.media.media import Media
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.run.result import PipelineResult

MOST = 6
"""Outputs on a picture."""

_FRAME = re.compile(r"width: (\d+), height: (\d+)")


def make_pictures(names: tuple[str, ...], folder: Path, to: Path) -> dict[str, str]:
    """Runs pipelines, and writes a contact sheet of the pictures and videos of each.

    Args:
        names: The shipped pipelines.
        folder: An empty folder, for inputs and outputs.
        to: The folder of the pictures.

    Returns:
        What is on each picture, as text; without the pipelines that make no picture.
    """
    with Emulator(long_side=320, fps=8, limit=50) as rh:
        for name in [one for one in os.environ if one.startswith("RH_")]:
            del os.environ[name]
        os.environ.update(
            PREFECT_API_URL="",
            RH_BASE_URL=rh.url,
            RH_API_KEY=rh.key,
            RH_STORAGE_URL=str(folder / "out"),
            RH_STATE_DIR=str(folder / "state"),
            RH_POLL_SECONDS="0.05",
            RH_ALLOW_PRIVATE_LINKS="1",
        )
        return {name: text for name in names if (text := _make(name, folder / name, to / f"{name}.jpg"))}


def _make(name: str, folder: Path, to: Path) -> str:
    folder.mkdir()
    file, params = write_example(name, folder / f"{name}.yaml")[:2]
    file.write_text(_smaller(file.read_text(encoding="utf-8")), encoding="utf-8")
    shown = list(_pictures(_run(file, params).outputs))[:MOST]
    if not shown:
        return ""
    to.parent.mkdir(parents=True, exist_ok=True)
    sheet = folder / "sheet.jpg"
    contact_sheet([Path(media.uri) for _, media in shown], sheet, captions=[caption for caption, _ in shown])
    to.write_bytes(thumbnail(sheet, max_bytes=120_000, side=960))
    return ", ".join(dict.fromkeys(caption.partition(" ")[0] for caption, _ in shown))


def _run(file: Path, params: Path) -> PipelineResult:
    """Runs a pipeline to its end; at each review, the first candidate is chosen."""
    while True:
        pipeline = Pipeline.from_file(file)
        end = asyncio.run(run_here(pipeline, Given(params=params).arguments(pipeline)))
        if end.is_failed:
            raise RuntimeError(f"{file.name}: {end.message}")
        reviews = [one.step for one in end.result.steps if one.state == "waits for review" and one.model == "review"]
        if not reviews:
            return end.result
        choose(file, *(f"{one}=1" for one in reviews), given=Given(params=params))


def _smaller(text: str) -> str:
    """A pipeline's text with frames of a quarter of the width and height: a sixteenth of the time."""
    return _FRAME.sub(
        lambda found: "width: {}, height: {}".format(*(int(one) // 8 * 2 for one in found.groups())), text
    )


def _pictures(outputs: Mapping[str, Any]) -> Iterator[tuple[str, Media]]:
    for name, value in outputs.items():
        values = value if isinstance(value, list) else [value]
        files = [one for one in values if isinstance(one, Media) and one.kind in ("image", "video")]
        for number, media in enumerate(files, 1):
            yield (name if len(files) == 1 else f"{name} {number}"), media

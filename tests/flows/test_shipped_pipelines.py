"""Every pipeline that comes with the package runs on an emulator, within its plan's price, and a second run is free."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import State

from rh_prefect.emulator import Emulator
from rh_prefect.flows.pipeline import NOTHING_NEW, WAITING, Pipeline, pipeline_flow
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.check import SHIPPED
from rh_prefect.pipelines.stored_works import open_records
from rh_prefect.settings import get_settings
from tests.pipelines.assets import photo, photos, sound, video
from tests.support import samples

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(300)]

LONG = pytest.mark.long
GIVEN: dict[str, Callable[[Path], dict[str, Any]]] = {
    "product-video": lambda folder: {"products": products(folder), "size": "1080p"},
    "film": lambda _: {"idea": "a lighthouse", "count": 2},
    "six-languages": lambda folder: {"video": video(folder / "v.mp4", 30)},
    "dub": lambda folder: {"video": video(folder / "v.mp4", 30)},
    "two-models": lambda folder: {
        "table": [{"line": f"line {n}", "photo": photo(folder / f"{n}.png", n)} for n in (1, 2)]
    },
    "weekly-news": lambda _: {
        "news": [{"title": f"T{n}", "summary": f"S{n}", "date": f"2026-11-0{n}"} for n in (1, 2)]
    },
    "formats": lambda folder: {
        "master": str(samples.mp4(folder / "v.mp4", seconds=4)),
        "logo": photo(folder / "logo.png"),
    },
    "storyboard": lambda folder: {
        "hero": photo(folder / "hero.png"),
        "opening": "a harbour",
        "scenes": [{"move": f"move {n}"} for n in range(2)],
    },
    "podcast-video": lambda folder: {
        "recording": sound(folder / "r.wav", 20),
        "chapters": [{"title": f"chapter {n}", "seconds": 10} for n in range(2)],
    },
    "model-shootout": lambda folder: {"photo": photo(folder / "photo.png"), "prompt": "the sea at night"},
    "3d-catalogue": lambda folder: {"photos": photos(folder / "photos", 2)},
    "house-style": lambda folder: {"photos": photos(folder / "photos", 1)},
}
LIP_SYNC = ("six-languages", "dub")
"""The plan takes the video's length, by which the files say it is billed; the emulator bills the shorter sound's."""

QUICK = ("film", "two-models")


def products(folder: Path) -> list[dict[str, str]]:
    rows = [{"sku": f"A-{n}", "title": f"Mug {n}", "mood": f"mood {n}"} for n in (1, 2)]
    return [rows[0], rows[1] | {"photo": photo(folder / "mug.jpg")}]


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=LONG) for name in GIVEN])
async def test_it_runs_within_its_price_and_a_second_run_is_free(rh: Emulator, tmp_path: Path, name: str) -> None:
    given = GIVEN[name](tmp_path)
    pipeline = without_blocks(name, tmp_path)
    price = (await pipeline.plan(given)).price
    assert (await pipeline.plan(given)).problems == []
    state, choices = await run(pipeline, given), {}
    while state.name == WAITING:
        choices |= await chosen(pipeline, given, choices)
        state = await run(pipeline, given, choices)
    assert state.is_completed(), state.message
    assert rh.recorder.charged <= price.most
    assert price.least <= rh.recorder.charged or name in LIP_SYNC
    submitted = len(rh.recorder.submissions)
    state = await run(pipeline, given, choices)
    assert (state.name, len(rh.recorder.submissions)) == (NOTHING_NEW, submitted), state.message


def without_blocks(name: str, folder: Path) -> Pipeline:
    """The pipeline with the environment's account and storage in place of blocks."""
    for file in SHIPPED.glob("*.yaml"):
        text = re.sub(r"(?m)^(credentials|storage): .*\n", "", file.read_text(encoding="utf-8"))
        (folder / file.name).write_text(text, encoding="utf-8")
    return Pipeline.from_file(folder / f"{name}.yaml")


async def run(pipeline: Pipeline, given: dict[str, Any], choices: dict[str, Any] | None = None) -> State[Any]:
    budget = Decimal(500)
    state: State[Any] = await pipeline_flow(pipeline)(
        **given, budget=budget, choices=choices or None, return_state=True
    )
    return state


async def chosen(pipeline: Pipeline, given: dict[str, Any], choices: dict[str, Any]) -> dict[str, Any]:
    """The first candidate of each review."""
    settings = get_settings()
    known = open_records(MediaStore(settings.storage_url), settings)
    plan = await pipeline.plan(given, known=known, choices=choices)
    waiting = [one for one in plan.instances if one.model == "review" and one.state == "r"]
    return {one.address: {"of": one.request["of"], "take": 1} for one in waiting}

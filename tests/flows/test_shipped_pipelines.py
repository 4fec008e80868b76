"""Shipped pipelines run on an emulator within their plans' prices, also if tasks fail; a second run is free."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.emulator import DEFAULT, Emulator, Fault
from rh_prefect.flows.local_pipeline import run_locally
from rh_prefect.flows.pipeline import Pipeline
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.check import SHIPPED
from rh_prefect.pipelines.known_works import StoredWorks, open_records
from rh_prefect.pipelines.run.result import NOTHING_NEW, WAITING, RunEnd
from rh_prefect.settings import get_settings
from tests.support.samples import media as samples
from tests.support.samples.pipeline_assets import photo, photos, sound, video
from tests.support.samples.small_frames import smaller
from tests.support.servers.emulator_env import environment

GIVEN: dict[str, Callable[[Path], dict[str, Any]]] = {
    "product-video": lambda folder: {"products": products(folder), "size": "1080p"},
    "film": lambda _: {"prompt": "a lighthouse", "shots": 2},
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
        "recording": sound(folder / "r.wav", 6),
        "chapters": [{"title": f"chapter {n}", "seconds": 3} for n in range(2)],
    },
    "model-shootout": lambda folder: {"photo": photo(folder / "photo.png"), "prompt": "the sea at night"},
    "3d-catalogue": lambda folder: {"photos": photos(folder / "photos", 2)},
    "house-style": lambda folder: {"photos": photos(folder / "photos", 1)},
}


def products(folder: Path) -> list[dict[str, str]]:
    rows = [{"sku": f"A-{n}", "title": f"Mug {n}", "mood": f"mood {n}"} for n in (1, 2)]
    return [rows[0], rows[1] | {"photo": photo(folder / "mug.jpg")}]


# tests/cli/test_example_runs.py has all of them, by the commands.
async def test_it_runs_within_its_price_and_a_second_run_is_free(rh: Emulator, tmp_path: Path) -> None:
    name = "two-models"
    given = GIVEN[name](tmp_path)
    pipeline = without_blocks(name, tmp_path)
    price = (await pipeline.plan(given)).price
    assert (await pipeline.plan(given)).problems == []
    state = await run(pipeline, given)
    choices: dict[str, Any] = {}
    while state.name == WAITING:
        choices |= await chosen(pipeline, given, choices)
        state = await run(pipeline, given, choices)
    assert not state.is_failed, state.message
    assert price.least <= rh.recorder.charged <= price.most
    submitted = len(rh.recorder.submissions)
    state = await run(pipeline, given, choices)
    assert (state.name, len(rh.recorder.submissions)) == (NOTHING_NEW, submitted), state.message


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Failed tasks are charged for, submissions are refused now and then, and a clip of 5 s has 121 frames."""
    assumed = replace(DEFAULT, refund_failed_models=False)
    faults = [
        Fault("submit", every=5, kind="code", code="421"),
        Fault("submit", every=3, kind="fail", code="1504"),
    ]
    with Emulator(long_side=64, fps=24, assumptions=assumed, faults=faults) as emulator:
        for name, value in environment(emulator, tmp_path).items():
            monkeypatch.setenv(name, value)
        yield emulator


@pytest.mark.parametrize(
    "name",
    [
        # Formats pays for nothing.
        pytest.param(name, marks=[] if name == "two-models" else [pytest.mark.long])
        for name in sorted(GIVEN.keys() - {"formats"})
    ],
)
async def test_it_stays_within_its_price_when_tasks_fail(faulty: Emulator, tmp_path: Path, name: str) -> None:
    given, choices = GIVEN[name](tmp_path), dict[str, Any]()
    pipeline = without_blocks(name, tmp_path)
    for _ in range(12):
        price = (await pipeline.plan(given, known=records(), choices=choices)).price
        before = faulty.recorder.charged
        state = await run(pipeline, given, choices, budget=Decimal(500) if price.is_open else None)
        # A parsed list and a review leave more to the next run than this plan knows; the budget holds all the same.
        assert faulty.recorder.charged - before <= price.most, state.message
        assert state.result.costs.amounts.get("CNY", Decimal(0)) == faulty.recorder.charged - before, state.message
        if state.name == WAITING:
            choices |= await chosen(pipeline, given, choices)
        elif not state.is_failed:
            break
        elif all(fault.every is None or fired for fault, fired in faulty.faults.fired()):
            faulty.faults.clear()  # the next run completes
    assert not state.is_failed, state.message
    assert len(faulty.recorder.paid) == len({one.task_id for one in faulty.recorder.paid})


def records() -> StoredWorks:
    """What the store knows now."""
    settings = get_settings()
    return open_records(MediaStore(settings.storage_url), settings)


def without_blocks(name: str, folder: Path) -> Pipeline:
    """The pipeline with the environment's account and storage in place of blocks."""
    for file in SHIPPED.glob("*.yaml"):
        text = re.sub(r"(?m)^(credentials|storage): .*\n", "", file.read_text(encoding="utf-8"))
        (folder / file.name).write_text(smaller(text), encoding="utf-8")
    return Pipeline.from_file(folder / f"{name}.yaml")


async def run(
    pipeline: Pipeline,
    given: dict[str, Any],
    choices: dict[str, Any] | None = None,
    budget: Decimal | None = Decimal(500),
) -> RunEnd:
    return await run_locally(pipeline, {**given, "budget": budget, "choices": choices or None})


async def chosen(pipeline: Pipeline, given: dict[str, Any], choices: dict[str, Any]) -> dict[str, Any]:
    """The first candidate of each review."""
    plan = await pipeline.plan(given, known=records(), choices=choices)
    waiting = [one for one in plan.instances if one.model == "review" and one.state == "r"]
    return {one.address: {"of": one.request["of"], "take": 1} for one in waiting}

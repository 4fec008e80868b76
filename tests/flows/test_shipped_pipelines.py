"""Shipped pipelines run on an emulator within their plans' prices if tasks fail."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.emulator import DEFAULT, Emulator, Fault
from rh_prefect.flows.pipeline import Pipeline
from rh_prefect.pipelines.check import SHIPPED
from rh_prefect.pipelines.run.result import WAITING
from tests.support.samples import media as samples
from tests.support.samples.pipeline_assets import photo, photos, smaller, sound, video
from tests.support.servers.emulator_env import StartEmulator
from tests.support.world.pipeline_flows import planned, run

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


@pytest.fixture
def faulty(start_rh: StartEmulator) -> Emulator:
    """Failed tasks are charged for, submissions are refused now and then, and a clip of 5 s has 121 frames."""
    faults = [Fault("submit", every=5, kind="code", code="421"), Fault("submit", every=3, kind="fail", code="1504")]
    assumed = replace(DEFAULT, refund_failed_models=False)
    return start_rh(long_side=64, fps=24, assumptions=assumed, faults=faults)


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
        price = (await planned(pipeline, **given, choices=choices)).price
        before, budget = faulty.recorder.charged, Decimal(500) if price.is_open else None
        state, result = await run(pipeline, **given, budget=budget, choices=choices or None)
        # A parsed list and a review leave more to the next run than this plan knows; the budget holds all the same.
        assert faulty.recorder.charged - before <= price.most, state.message
        assert result.costs.amounts.get("CNY", Decimal(0)) == faulty.recorder.charged - before, state.message
        if state.name == WAITING:
            waiting = (await planned(pipeline, **given, choices=choices)).instances
            reviews = [one for one in waiting if one.model == "review" and one.state == "r"]
            choices |= {one.address: {"of": one.request["of"], "take": 1} for one in reviews}
        elif state.is_completed():
            break
        elif all(fault.every is None or fired for fault, fired in faulty.faults.fired()):
            faulty.faults.clear()  # the next run completes
    assert state.is_completed(), state.message
    assert len(faulty.recorder.paid) == len({one.task_id for one in faulty.recorder.paid})


def without_blocks(name: str, folder: Path) -> Pipeline:
    """The pipeline with the environment's account and storage in place of blocks."""
    for file in SHIPPED.glob("*.yaml"):
        text = re.sub(r"(?m)^(credentials|storage): .*\n", "", file.read_text(encoding="utf-8"))
        (folder / file.name).write_text(smaller(text), encoding="utf-8")
    return Pipeline.from_file(folder / f"{name}.yaml")

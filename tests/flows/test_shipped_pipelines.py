"""Shipped pipelines run on an emulator within their plans' prices if tasks fail."""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.emulator import DEFAULT, Emulator, Fault
from rh_prefect.flows.pipeline import Pipeline
from rh_prefect.pipelines.check.checked_file import SHIPPED
from tests.support.samples.pipeline_assets import smaller, some, video
from tests.support.servers.emulator_env import StartEmulator
from tests.support.world.pipeline_flows import planned, run

NAMES = sorted({file.stem for file in SHIPPED.glob("*.yaml")} - {"formats", "assemble", "captions"})
"""Those that pay for something."""


@pytest.fixture
def faulty(start_rh: StartEmulator) -> Emulator:
    """Failed tasks are charged for, submissions are refused now and then, and a clip of 5 s has 121 frames."""
    faults = [Fault("submit", every=5, kind="code", code="421"), Fault("submit", every=3, kind="fail", code="1504")]
    assumed = replace(DEFAULT, refund_failed_models=False)
    return start_rh(long_side=64, fps=24, max_seconds=None, assumptions=assumed, faults=faults)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == "two-models" else [pytest.mark.long]) for name in NAMES],
)
async def test_it_stays_within_its_price_when_tasks_fail(faulty: Emulator, tmp_path: Path, name: str) -> None:
    pipeline, choices = without_blocks(name, tmp_path), dict[str, Any]()
    given = {key: some(key, param, tmp_path) for key, param in pipeline.file.params.items()}
    if name == "six-languages":
        given["video"] = video(tmp_path / "long.mp4", 30)  # speech in any language fits into it
    for _ in range(12):
        price = (await planned(pipeline, **given, choices=choices)).price
        before, budget = faulty.recorder.charged, Decimal(500) if price.is_open else None
        state, result = await run(pipeline, **given, budget=budget, choices=choices or None)
        # A parsed list and a review leave more to the next run than this plan knows; the budget holds all the same.
        assert faulty.recorder.charged - before <= price.most, state.message
        assert result.costs.amounts.get("CNY", Decimal(0)) == faulty.recorder.charged - before, state.message
        if state.name == "Waiting for review":
            waiting = (await planned(pipeline, **given, choices=choices)).instances
            reviews = [one for one in waiting if one.model == "review" and one.state == "r"]
            choices |= {one.address: {"of": one.request["of"], "take": 1} for one in reviews}
        elif not state.is_failed:
            break
        elif all(fault.every is None or fired for fault, fired in faulty.faults.fired()):
            faulty.faults.clear()  # the next run completes
    assert not state.is_failed, state.message
    assert len(faulty.recorder.paid) == len({one.task_id for one in faulty.recorder.paid})


def without_blocks(name: str, folder: Path) -> Pipeline:
    """The pipeline with the environment's account and storage in place of blocks."""
    for file in SHIPPED.glob("*.yaml"):
        text = re.sub(r"(?m)^(credentials|storage): .*\n", "", file.read_text(encoding="utf-8"))
        (folder / file.name).write_text(smaller(text), encoding="utf-8")
    return Pipeline.from_file(folder / f"{name}.yaml")

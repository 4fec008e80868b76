"""Runs of pipelines while a table, an input, a stored file or the storage changes: no results are mixed or lost."""

from __future__ import annotations

import asyncio
import csv
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.states import Cancelled

from rh_prefect import flow
from rh_prefect.emulator import Emulator
from rh_prefect.errors import ConfigError, PipelineIncomplete
from rh_prefect.flow_runs.leftover_tasks import reconcile_runs
from rh_prefect.flow_runs.rerun import create, rerun
from rh_prefect.flows.pipeline import Pipeline, pipeline_flow
from rh_prefect.pipelines.run.result import PipelineResult, summary
from rh_prefect.works.loop_thread import LOOP
from tests.support.servers.emulator_env import environment
from tests.support.world.pipeline_flows import PRODUCTS, in_flow_run, run, table

ONE = "name: mug\nsteps: {picture: {model: z-image/turbo, with: {prompt: mug}}}"
CLIP = "model: kling-v2.6-pro-image-to-video"


@pytest.fixture
def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """An emulator whose tasks end when its clock is advanced."""
    with Emulator(long_side=96, fps=6, clock="real", factor=0) as emulator:
        for name, value in environment(emulator, tmp_path).items():
            monkeypatch.setenv(name, value)
        yield emulator


async def paid(rh: Emulator, number: int) -> None:
    assert await asyncio.to_thread(rh.recorder.wait, lambda recorder: len(recorder.paid) == number)


async def end_of(rh: Emulator, running: asyncio.Future[Any]) -> Any:
    while not running.done():
        rh.clock.advance(20)
        await asyncio.sleep(0.1)
    return await running


def prompts(rh: Emulator) -> Sequence[str]:
    return sorted(str(one.payload["prompt"]) for one in rh.recorder.paid)


async def test_a_table_that_is_edited_during_a_run_counts_in_the_next_one(waiting: Emulator, tmp_path: Path) -> None:
    running = asyncio.ensure_future(run(PRODUCTS, products=table(tmp_path, a="mug", b="cup")))
    await paid(waiting, 2)
    table(tmp_path, c="bowl", a="MUG", b="cup")
    state, result = await end_of(waiting, running)
    assert state.is_completed(), state.message
    assert prompts(waiting) == ["Photo of cup", "Photo of mug", "a turn", "a turn"]
    assert [one.state for one in result.steps] == ["made"] * 5
    assert result.costs.amounts["CNY"] == waiting.recorder.charged


@in_flow_run
async def test_what_an_attempt_paid_for_a_row_that_is_gone_is_in_the_report(rh: Emulator, tmp_path: Path) -> None:
    products = pipeline_flow(Pipeline.from_text(PRODUCTS))
    flow_run = await create(products, {"products": table(tmp_path, a="mug", b="forbidden cup")})
    with pytest.raises(PipelineIncomplete):
        await rerun(products, flow_run)
    table(tmp_path, b="bowl")
    result: PipelineResult = await rerun(products, flow_run)
    assert {one.step: one.state for one in result.steps} == dict.fromkeys(
        ("each[b].picture", "each[b].clip", "sheet"), "made"
    )
    assert (result.costs.amounts["CNY"], rh.recorder.charged) == (Decimal("3.58"), Decimal("3.58"))
    assert summary(result) == "Steps: 3 made; paid 3.58 CNY, of which 1.79 CNY for steps that are not in its plan."
    rows = csv.DictReader(Path(result.report).read_text().splitlines())
    costs = [(row["state"], row["cost"]) for row in rows if row["cost"]]
    assert costs == [("made", "0.04 CNY"), ("made", "1.75 CNY"), ("not in the plan", "1.79 CNY")]


async def test_a_table_that_is_deleted_during_a_run_loses_nothing(waiting: Emulator, tmp_path: Path) -> None:
    path = table(tmp_path, a="mug")
    running = asyncio.ensure_future(run(PRODUCTS, products=path))
    await paid(waiting, 1)
    Path(path).unlink()
    _, result = await end_of(waiting, running)
    assert {one.step: one.state for one in result.steps} == dict.fromkeys(
        ("each[a].picture", "each[a].clip", "sheet"), "made"
    )


async def test_a_photo_that_is_edited_during_a_run_is_used_as_planned_or_not_at_all(
    waiting: Emulator, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.png"
    Image.new("RGB", (400, 300), "blue").save(photo)
    text = f"""
name: photo
params: {{photo: image}}
steps:
  picture: {{model: z-image/turbo, with: {{prompt: a mug}}}}
  clip: {{when: {{exists: $(picture)}}, {CLIP}, from: $(params.photo), with: {{prompt: it turns, duration: 5}}}}
  small: {{when: {{exists: $(picture)}}, edit: resize, with: {{file: $(params.photo), width: 32, height: 32}}}}
"""
    running = asyncio.ensure_future(run(text, photo=str(photo)))
    await paid(waiting, 1)
    Image.new("RGB", (400, 300), "red").save(photo)
    _, result = await end_of(waiting, running)
    assert prompts(waiting) == ["a mug"]
    reasons = {one.step: one.reason for one in result.steps if one.state == "failed"}
    assert "was changed" in reasons["clip"]
    assert "was changed" in reasons["small"]


async def test_a_changed_stored_result_is_downloaded_again_before_it_is_used(rh: Emulator, tmp_path: Path) -> None:
    text = """
name: changed
params: {more: {type: boolean, default: false}}
steps:
  picture: {model: z-image/turbo, with: {prompt: a mug}}
  copy: {when: $(params.more), model: z-image/turbo, with: {prompt: a mug}, save_as: mug.png}
  small: {when: $(params.more), edit: resize, with: {file: $(picture), width: 32, height: 32}, save_as: small.png}
"""
    await run(text)
    (stored,) = (tmp_path / "out" / "pipelines").glob("*.png")
    good = stored.read_bytes()
    Image.new("RGB", (400, 300), "red").save(stored)
    state, _ = await run(text, more=True)
    assert state.is_completed(), state.message
    assert stored.read_bytes() == good
    assert (tmp_path / "out" / "mug.png").read_bytes() == good
    assert len(rh.recorder.paid) == 1


@in_flow_run
async def test_an_attempt_with_another_place_of_records_pays_nothing(
    waiting: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mug = pipeline_flow(Pipeline.from_text(ONE))
    flow_run: UUID = await create(mug, {"budget": 0.05})
    running = asyncio.ensure_future(rerun(mug, flow_run))
    await paid(waiting, 1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    monkeypatch.setenv("RH_STORAGE_URL", str(tmp_path / "other"))
    with pytest.raises(
        ConfigError, match=r"would store its records in .*/other, but an earlier call of the flow run used .*/out"
    ):
        await end_of(waiting, asyncio.ensure_future(rerun(mug, flow_run)))
    assert len(waiting.recorder.paid) == 1
    monkeypatch.setenv("RH_STORAGE_URL", str(tmp_path / "out"))
    result: PipelineResult = await end_of(waiting, asyncio.ensure_future(rerun(mug, flow_run)))
    assert (result.steps[0].state, len(waiting.recorder.paid)) == ("made", 1)


@in_flow_run
async def test_a_cancellation_finds_the_works_of_a_flow_that_runs_pipelines(waiting: Emulator) -> None:
    @flow
    async def outer() -> None:
        await Pipeline.from_text(ONE).run(budget=1)

    flow_run = await create(outer, {})
    running = asyncio.ensure_future(rerun(outer, flow_run))
    await paid(waiting, 1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    async with get_client() as client:
        await client.set_flow_run_state(flow_run, Cancelled(), force=True)
    found = await LOOP.call(reconcile_runs(flow_run_id=flow_run))
    task = waiting.recorder.paid[0].task_id
    assert [one.task_id for one in found.findings if one.done == "cancelled"] == [task]
    assert waiting.recorder.cancelled == [task]

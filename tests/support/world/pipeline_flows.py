"""A pipeline that makes products' clips, and runs of pipelines, without a server and in flow runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State

from rh_prefect.emulator import Emulator
from rh_prefect.errors import PipelineIncomplete
from rh_prefect.flows.pipeline import pipeline_flow
from rh_prefect.flows.pipeline_run import run_here
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.known_works import open_records
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan import Plan, ReviewedPlan
from rh_prefect.pipelines.run.result import PipelineResult, RunEnd
from rh_prefect.settings import get_settings
from tests.support.samples.pipeline_assets import csv_file

PRODUCTS = """
name: products
params:
  products: {type: table, columns: {sku: string, title: string}}
steps:
  each:
    foreach: $(params.products)
    id: $(item.sku)
    steps:
      picture: {model: z-image/turbo, with: {prompt: "Photo of $(item.title)"}}
      clip: {model: kling-v2.6-pro-image-to-video, from: $(picture), with: {prompt: a turn, duration: 5, sound: false}}
  sheet: {edit: contact_sheet, with: {of: $(each.picture), captions: $(each.id)}, require: any, save_as: sheet.jpg}
outputs: {clips: $(each.clip), sheet: $(sheet)}
"""


async def run(pipeline: str | Pipeline, /, **params: Any) -> tuple[RunEnd, PipelineResult]:
    """Runs a pipeline without a server."""
    end = await run_here(_read(pipeline), params)
    return end, end.result


async def complete(pipeline: str | Pipeline, /, **params: Any) -> PipelineResult:
    """Runs a pipeline without a server, which completes."""
    end, result = await run(pipeline, **params)
    assert not end.is_failed, end.message
    return result


async def run_in_flow(
    pipeline: str | Pipeline, /, reviewed: ReviewedPlan | None = None, **params: Any
) -> tuple[State[Any], PipelineResult]:
    state = await pipeline_flow(_read(pipeline), reviewed=reviewed)(**params, return_state=True)
    data = await state.aresult(raise_on_failure=False)
    result = data.result if isinstance(data, PipelineIncomplete) else data
    assert isinstance(result, PipelineResult), data
    return state, result


def _read(pipeline: str | Pipeline) -> Pipeline:
    return Pipeline.from_text(pipeline, name="tests/pipeline.yaml") if isinstance(pipeline, str) else pipeline


def states(result: PipelineResult) -> dict[str, str]:
    return {one.step: one.state for one in result.steps}


def reasons(result: PipelineResult, state: str = "failed") -> dict[str, str]:
    """Why steps are in a state."""
    return {one.step: one.reason for one in result.steps if one.state == state}


def prompts(rh: Emulator) -> list[str]:
    """The prompts of what was paid for, sorted."""
    return sorted(str(one.payload["prompt"]) for one in rh.recorder.paid)


async def until_paid(rh: Emulator, number: int) -> None:
    assert await asyncio.to_thread(rh.recorder.wait, lambda recorder: len(recorder.paid) == number)


def table(folder: Path, **titles: str) -> str:
    return csv_file(folder / "products.csv", [{"sku": sku, "title": title} for sku, title in titles.items()])


async def planned(pipeline: str | Pipeline, /, **params: Any) -> Plan:
    """Plans a pipeline with the results that exist."""
    settings = get_settings()
    choices = params.pop("choices", {})
    known = open_records(MediaStore(settings.storage_url), settings)
    return await _read(pipeline).plan(params, known=known, choices=choices)

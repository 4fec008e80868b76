"""A pipeline that makes products' clips, and runs of pipelines, without a server and in flow runs."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pytest
from prefect.client.schemas.objects import State

from rh_prefect.errors import PipelineIncomplete
from rh_prefect.flows.local_pipeline import run_locally
from rh_prefect.flows.pipeline import pipeline_flow
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.known_works import open_records
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.run.result import PipelineResult, RunEnd
from rh_prefect.settings import get_settings

P = ParamSpec("P")
R = TypeVar("R")


def in_flow_run(test: Callable[P, R]) -> Callable[P, R]:
    """Marks a test that looks at a flow run, and needs a Prefect server."""
    return pytest.mark.prefect(pytest.mark.usefixtures("prefect_server")(test))


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


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run without a server has ended, as a test reads it of the state of a flow run."""

    end: RunEnd

    @property
    def name(self) -> str:
        return self.end.name

    @property
    def message(self) -> str:
        return self.end.message

    def is_failed(self) -> bool:
        return self.end.is_failed

    def is_completed(self) -> bool:
        return not self.end.is_failed


async def run(text: str, **params: Any) -> tuple[Ended, PipelineResult]:
    """Runs a pipeline without a server."""
    end = await run_locally(Pipeline.from_text(text), params)
    return Ended(end), end.result


async def run_in_flow(text: str, **params: Any) -> tuple[State[Any], PipelineResult]:
    """Runs a pipeline in a separate flow run."""
    state = await pipeline_flow(Pipeline.from_text(text))(**params, return_state=True)
    data = await state.aresult(raise_on_failure=False)
    result = data.result if isinstance(data, PipelineIncomplete) else data
    assert isinstance(result, PipelineResult), data
    return state, result


def table(folder: Path, **titles: str) -> str:
    path = folder / "products.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("sku", "title"), *titles.items()])
    return str(path)


async def planned(text: str, **params: Any) -> Plan:
    """Plans a pipeline with the results that exist."""
    settings = get_settings()
    return await Pipeline.from_text(text).plan(params, known=open_records(MediaStore(settings.storage_url), settings))

"""A run of a file that skips invalid items."""

from __future__ import annotations

from rh_prefect.emulator import Emulator
from rh_prefect.pipelines.run.result import PipelineResult
from tests.support.world.pipeline_flows import run

PICTURES = """
name: pictures
scope: pictures-1
invalid_items: skip
params:
  rows:
    type: table
    columns: {prompt: string, aspect_ratio: {type: string, optional: true}}
steps:
  each:
    foreach: $(params.rows)
    steps:
      picture:
        model: z-image/turbo
        with: {prompt: $(item.prompt), aspect_ratio: $(item.aspect_ratio)}
        same: separate
"""


async def test_an_invalid_row_fails_and_equal_rows_are_made_and_found_again(rh: Emulator) -> None:
    rows = [{"prompt": "a mug"}, {"prompt": "a jug", "aspect_ratio": "none"}, {"prompt": "a mug"}]
    state, result = await run(PICTURES, rows=rows)
    assert state.is_failed()
    assert states(result) == ["made", "failed", "made"]
    assert "aspect_ratio must be one of" in reason(result)
    assert len({file for one in result.steps for file in one.files}) == 2
    assert len(rh.recorder.paid) == 2
    rows[1]["aspect_ratio"] = "16:9"
    state, result = await run(PICTURES, rows=rows)
    assert (state.is_completed(), states(result)) == (True, ["reused", "made", "reused"])
    assert len(rh.recorder.paid) == 3


def states(result: PipelineResult) -> list[str]:
    return [one.state for one in sorted(result.steps, key=lambda one: one.step)]


def reason(result: PipelineResult) -> str:
    return next(one.reason for one in result.steps if one.state == "failed")

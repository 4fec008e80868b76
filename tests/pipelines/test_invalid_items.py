"""Rows and files that cannot be used: refused with the file, or skipped and reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan import Plan
from rh_prefect.pipelines.plan.planned_steps import PlannedStep
from tests.support.samples import media as samples

CLIPS = """\
invalid_items: skip
params:
  rows:
    type: table
    columns:
      photo: image
      prompt: {type: string, header: [prompt, Prompt]}
      duration: {enum: ["5", "10"], optional: true}
      name: {type: string, optional: true}
    other_columns: [author]
steps:
  each:
    foreach: $(params.rows)
    id: $(item.name)
    steps:
      clip:
        model: kling-v2.6-pro-image-to-video
        with: {image_url: $(item.photo), prompt: $(item.prompt), duration: $(item.duration), sound: false}
        same: separate
        save_as: clips/$(id).mp4
"""


async def plan_of(rows: Any, text: str = CLIPS) -> Plan:
    plan = await Pipeline.from_text(text).plan(rows=rows)
    assert [problem.head for problem in plan.problems] == []
    return plan


def wrong(plan: Plan) -> list[str]:
    return [next(iter(one.problems), "") for one in by_number(plan)]


def by_number(plan: Plan) -> list[PlannedStep]:
    return sorted(plan.instances, key=lambda one: one.numbers)


@pytest.fixture
def photo(tmp_path: Path) -> str:
    return str(samples.png(tmp_path / "photo.png"))


async def test_an_invalid_row_is_not_paid_for_and_the_others_are(photo: str, tmp_path: Path) -> None:
    row = {"photo": photo, "prompt": "waves"}
    rows = [row, {"prompt": "waves"}, {**row, "photo": str(tmp_path / "gone.png")}, {**row, "duration": "7"}, 5, row]
    plan = await plan_of(rows)
    good, empty, gone, option, no_row, last = wrong(plan)
    assert good == last == ""
    assert "photo is empty; the column is required" in empty
    assert "gone.png" in gone
    assert "duration takes 5 or 10, but '7' is a text" in option
    assert "each row is a mapping of columns to values, and 5 is a number" in no_row
    assert plan.counts == {"+": 2, "x": 4}
    assert [work.take for one in plan.instances for work in one.works] == [1, 2]
    assert plan.price.most == 2 * by_number(plan)[0].works[0].price.most


async def test_without_skipping_the_file_is_refused_with_each_row(photo: str) -> None:
    text = CLIPS.replace("invalid_items: skip\n", "")
    plan = await Pipeline.from_text(text).plan(rows=[{"photo": photo, "prompt": "x", "duration": "7"}, 5])
    heads = " ".join(problem.head for problem in plan.problems)
    assert "row 1: duration takes 5 or 10" in heads
    assert "row 2: each row is a mapping" in heads


async def test_a_row_whose_second_step_is_invalid_is_not_begun(photo: str) -> None:
    text = CLIPS.replace("name: {", "size: {type: string, optional: true}\n      name: {")
    text = text.replace("        save_as: clips/$(id).mp4\n", "")
    text += "      large: {model: rhart-video/video-upscaler, from: $(clip), with: {target_resolution: $(item.size)}}\n"
    row = {"photo": photo, "prompt": "waves"}
    plan = await plan_of([{**row, "size": "720p"}, {**row, "size": "no such", "prompt": "wind"}], text)
    first, second = plan.steps["each.clip"]
    assert (first.is_needed, second.is_needed, second.state) == (True, False, "=")
    assert plan.price.least == sum(work.price.least for one in plan.instances if one.item == "1" for work in one.works)


async def test_an_empty_cell_leaves_an_optional_parameter_out_and_a_column_has_several_names(photo: str) -> None:
    plan = await plan_of([{"photo": photo, "Prompt": "waves", "duration": " ", "author": "me"}])
    assert plan.instances[0].request.keys() == {"imageUrl", "prompt", "sound"}
    plan = await plan_of(
        [{"photo": photo, "Prompt": "waves", "prompt": "wind"}, {"photo": photo, "prompt": "x", "z": 1}]
    )
    both, unknown = wrong(plan)
    assert "a value in the columns prompt and Prompt, which are the same" in both
    assert "a value in the column 'z'" in unknown


async def test_items_of_one_id_are_numbered_where_invalid_ones_are_skipped(photo: str) -> None:
    row = {"photo": photo, "prompt": "waves", "name": "a"}
    plan = await plan_of([row, {**row, "prompt": "wind"}, {**row, "name": "b/c"}])
    assert [one.save_as for one in by_number(plan)[:2]] == ["clips/a.mp4", "clips/a-2.mp4"]
    assert "'b/c'" in wrong(plan)[2]


async def test_a_file_that_is_none_of_its_kind_is_skipped(tmp_path: Path) -> None:
    for name in ("a.png", "c.png"):
        samples.png(tmp_path / name, text=name)
    (tmp_path / "b.png").write_bytes(b"no picture")
    text = """\
invalid_items: skip
params: {photos: {type: files, of: image}}
steps:
  each: {foreach: $(params.photos), steps: {large: {model: hypir-ultra, from: $(item)}}}
"""
    plan = await Pipeline.from_text(text).plan(photos=str(tmp_path))
    assert [one.state for one in by_number(plan)] == ["+", "x", "+"]
    assert [one.item for one in by_number(plan)] == ["a", "b", "c"]
    assert "b.png" in wrong(plan)[1]
    refused = await Pipeline.from_text(text.partition("\n")[2]).plan(photos=str(tmp_path))
    assert "b.png" in refused.problems[0].head


async def test_a_cell_may_name_several_files(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        samples.png(tmp_path / name, text=name)
    (tmp_path / "rows.csv").write_text('photos,prompt\na.png; b.png,x\n"[""a.png""]",y\n')
    text = """\
params: {rows: {type: table, columns: {photos: {type: files, of: image}, prompt: string}}}
steps:
  each:
    foreach: $(params.rows)
    steps:
      clip: {model: cinematic-video-generator, with: {image_urls: $(item.photos), prompt: $(item.prompt)}}
"""
    plan = await plan_of(str(tmp_path / "rows.csv"), text)
    assert [len(one.request["imageUrls"]) for one in plan.instances] == [2, 1]

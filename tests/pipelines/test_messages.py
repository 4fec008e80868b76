"""The mistakes that the design names, each with its message, word for word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rh_prefect.pipelines.document import PipelineError
from rh_prefect.pipelines.file_model import RUN_OPTIONS
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.run.options import RunOptions
from tests.support.samples.pipeline_assets import photo
from tests.support.samples.pipeline_values import LOADERS

PARAMS = """\
name: film
params:
  photo: {type: image}
  photos: {type: files, of: image}
  ask: {type: boolean, default: false}
"""
TEXT = "model: rhart-text-g-3-flash-preview/text-to-text"
MOVES = "model: kling-v2.6-pro-image-to-video"

WRONG = {
    "a colon": (
        f"{PARAMS}steps:\n  a:\n    {TEXT}\n    with:\n      prompt: Close-up: a cat\n",
        "film.yaml:10:23: a colon and a blank begin a new key here; put the text in quotes",
    ),
    "a comment": (
        f"{PARAMS}steps:\n  a:\n    {TEXT}\n    with:\n      prompt: Product no #5 on a table\n",
        "film.yaml:10:15: '#5 on a table' is a comment here and is not part of prompt; put the text in quotes",
    ),
    "no": (
        f"{PARAMS}steps:\n  a: {{{MOVES}, from: $(params.photo), with: {{prompt: x, sound: no}}}}\n",
        "film.yaml:7:93: sound takes true or false; no is a text in YAML 1.2",
    ),
    "a condition": (
        f"{PARAMS}steps:\n  a: {{when: params.ask, model: z-image/turbo, with: {{prompt: x}}}}\n",
        "film.yaml:7:13: when takes a condition, and 'params.ask' is a text; did you mean $(params.ask)?",
    ),
    "a step below": (
        (
            f"{PARAMS}steps:\n  big: {{model: rh-video-upscaler, from: $(clip)}}\n"
            f"  clip: {{{MOVES}, from: $(params.photo), with: {{prompt: x}}}}\n"
        ),
        "film.yaml:7:41: clip is defined further down (line 8); a reference may only point up: move this step below it",
    ),
    "a list": (
        (
            f"{PARAMS}steps:\n  shots:\n    foreach: $(params.photos)\n    steps:\n"
            f"      clip: {{{MOVES}, from: $(item), with: {{prompt: x}}}}\n"
            "  big: {model: rh-video-upscaler, from: $(shots.clip)}\n"
        ),
        (
            "film.yaml:11:41: rh-video-upscaler takes one video for video_url, and $(shots.clip) is a list; "
            "use foreach: $(shots.clip), or edit: concat"
        ),
    ),
    # The design's list begins with the models for 4K, which the documentation does not have; the catalogue's search
    # ranks those first that are documented.
    "a model": (
        f"{PARAMS}steps:\n  a: {{model: kling, from: $(params.photo), with: {{prompt: x}}}}\n",
        (
            "film.yaml:7:14: there is no model kling; of the models that take one image the nearest are "
            "kling-v3.0-pro-image-to-video (video, 0.69 to 1.04 CNY per second), "
            "kling-v3.0-std-image-to-video (video, 0.52 to 0.78 CNY per second), "
            "kling-video-o3-pro-image-to-video (video, 0.69 to 0.87 CNY per second), "
            "kling-video-o3-std-image-to-video (video, 0.52 to 0.69 CNY per second), "
            "kling-v2.6-pro-image-to-video (video, 1.75 to 7.00 CNY per call)"
        ),
    ),
    "a question": (
        f"{PARAMS}steps:\n  one: {{review: $(params.photo), ask: Is it right?}}\n",
        "film.yaml:7:50: a text with ? needs quotes inside of braces",
    ),
    "a text as a link": (
        (
            f"{PARAMS}steps:\n  t: {{{TEXT}, with: {{prompt: x}}}}\n"
            f"  b: {{{MOVES}, with: {{image_url: $(t), prompt: x}}}}\n"
        ),
        "film.yaml:8:63: image_url takes a file of kind image, and $(t) is a text; a text is never used as a link",
    ),
}


@pytest.mark.parametrize("loader", LOADERS, ids=lambda loader: loader.__name__)
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_answered_with(name: str, loader: Any) -> None:
    text, message = WRONG[name]
    with pytest.raises(PipelineError) as caught:
        Pipeline.from_text(text, name="film.yaml", loader=loader)
    assert [problem.head for problem in caught.value.found] == [message]


def test_references_and_a_budget_need_nothing_else() -> None:
    Pipeline.from_text(
        "budget: 900\nparams: {seconds: {enum: [5, 10], default: 5}, photo: image}\nsteps:\n"
        f"  a: {{{MOVES}, from: $(params.photo), with: {{prompt: x, duration: $(params.seconds)}}}}\n"
    )


async def test_a_source_of_unknown_kind_can_be_what_a_model_needs() -> None:
    pipeline = Pipeline.from_text(
        "params: {model: string}\nsteps:\n  a: {model: $(params.model), with: {prompt: x}}\n"
        f"  b: {{{MOVES}, from: $(a), with: {{prompt: x, duration: 5, sound: false}}}}\n"
    )
    assert (await pipeline.plan(model="z-image/turbo")).problems == []


async def test_equal_requests_of_a_fan_out() -> None:
    pipeline = Pipeline.from_text(
        "params:\n  rows:\n    type: table\n    columns: {title: string}\nsteps:\n  each:\n"
        "    foreach: $(params.rows)\n    steps:\n      picture:\n        model: z-image/turbo\n"
        "        with: {prompt: a mug}\n",
        name="film.yaml",
    )
    plan = await pipeline.plan(rows=[{"title": f"t{n}"} for n in range(10)])
    assert [problem.head for problem in plan.problems] == [
        (
            "film.yaml:10:16: 10 items of each.picture ask for exactly the same and would be one result; for 10 "
            "different ones write takes: 10, or use $(item…) in it; same: true if this is meant"
        )
    ]


async def test_a_cell_in_a_column_without_a_name(tmp_path: Path) -> None:
    (tmp_path / "mugs.csv").write_text("title,,\na mug,in red,\n")
    pipeline = Pipeline.from_text(
        "params:\n  rows:\n    type: table\n    columns:\n        title: string\nsteps:\n  each:\n"
        "    foreach: $(params.rows)\n    steps:\n"
        "      picture: {model: z-image/turbo, with: {prompt: $(item.title)}}\n",
        name="film.yaml",
    )
    plan = await pipeline.plan(rows=str(tmp_path / "mugs.csv"))
    (problem,) = plan.problems
    assert "mugs.csv row 1: it has a cell in column 2, which has no name" in problem.head


async def test_an_empty_cell(tmp_path: Path) -> None:
    file = photo(tmp_path / "mug.png")
    cells = [f"t{n},{'' if n == 17 or 30 <= n < 42 else Path(file).name}" for n in range(1, 61)]
    (tmp_path / "autumn.csv").write_text("title,photo\n" + "\n".join(cells))
    pipeline = Pipeline.from_text(
        "params:\n  rows:\n    type: table\n    columns:\n        photo: image\nsteps:\n  each:\n"
        "    foreach: $(params.rows)\n    steps:\n"
        "      big: {edit: resize, with: {file: $(item.photo), width: 64, height: 64}}\n",
        name="film.yaml",
    )
    plan = await pipeline.plan(rows=str(tmp_path / "autumn.csv"))
    assert [problem.head for problem in plan.problems] == [
        (
            "film.yaml:5:9: autumn.csv row 17: photo is empty; the column is required. Fill it, or write photo: "
            "{type: image, optional: true} (and 12 further rows)"
        )
    ]


def test_the_names_that_a_parameter_may_not_have_are_those_of_the_options_of_a_run() -> None:
    assert tuple(RunOptions.__dataclass_fields__) == RUN_OPTIONS


def test_a_used_file_may_have_a_parameter_with_the_name_of_an_option(tmp_path: Path) -> None:
    used = "params: {budget: string}\nsteps: {p: {model: z-image/turbo, with: {prompt: $(params.budget)}}}\n"
    (tmp_path / "a&b.yaml").write_text(used)
    (tmp_path / "outer.yaml").write_text("steps: {u: {use: ./a&b.yaml, with: {budget: x}}}\n")
    assert Pipeline.from_file(tmp_path / "outer.yaml").name == "outer"
    with pytest.raises(PipelineError, match="budget is an option of every run"):
        Pipeline.from_text(used)

"""What check and plan say of rows and names, and what they do not say."""

from __future__ import annotations

from pathlib import Path

import pytest

from rh_prefect.pipelines.document import PipelineError
from rh_prefect.pipelines.pipeline import Pipeline
from tests.support.samples.pipeline_assets import photo

MOVES = "model: kling-v2.6-pro-image-to-video"


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


def test_a_used_file_may_have_a_parameter_with_the_name_of_an_option(tmp_path: Path) -> None:
    used = "params: {budget: string}\nsteps: {p: {model: z-image/turbo, with: {prompt: $(params.budget)}}}\n"
    (tmp_path / "a&b.yaml").write_text(used)
    (tmp_path / "outer.yaml").write_text("steps: {u: {use: ./a&b.yaml, with: {budget: x}}}\n")
    assert Pipeline.from_file(tmp_path / "outer.yaml").name == "outer"
    with pytest.raises(PipelineError, match="budget is an option of every run"):
        Pipeline.from_text(used)

"""Takes and choices from the file beside a pipeline's."""

from __future__ import annotations

from pathlib import Path

import pytest

from rh_prefect.errors import InputError
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.takes_file import Choices, read_choices, write_choices
from tests.pipelines.test_plan import ROWS, SHOTS, Records, run


def pipeline_in(folder: Path, takes: str) -> Pipeline:
    (folder / "shots.yaml").write_text(SHOTS)
    (folder / "shots.takes.yaml").write_text(takes)
    return Pipeline.from_file(folder / "shots.yaml")


async def test_a_take_of_the_file_counts_and_one_that_is_given_goes_before_it(tmp_path: Path) -> None:
    records, pipeline = Records(), pipeline_in(tmp_path, "takes: {'each[mug].picture': 3, each.clip: 2}\n")
    plan = await pipeline.plan(rows=ROWS, known=records)
    assert [one.works[0].take for one in plan.steps["each.picture"]] == [3, 1, 1]
    assert [one.works[0].take for one in plan.steps["each.clip"]] == [2, 2, 2]
    given = await pipeline.plan(rows=ROWS, takes={"each[mug].picture": 2})
    assert [one.works[0].take for one in given.steps["each.picture"]] == [2, 1, 1]


async def test_without_its_line_the_earlier_take_counts_again(tmp_path: Path) -> None:
    records, pipeline = Records(), pipeline_in(tmp_path, "takes: {'each[mug].picture': 2}\n")
    await run(pipeline, records, rows=ROWS)
    (tmp_path / "shots.takes.yaml").unlink()
    assert await run(pipeline, records, rows=ROWS) == 2
    (tmp_path / "shots.takes.yaml").write_text("takes: {'each[mug].picture': 2}\n")
    assert await run(pipeline, records, rows=ROWS) == 0


async def test_an_address_that_is_not_there_is_noted(tmp_path: Path) -> None:
    plan = await pipeline_in(tmp_path, "takes: {'each[cup].picture': 2}\n").plan(rows=ROWS)
    assert plan.notes == ["each[cup].picture has a take or a choice, and there is no such step or item."]


@pytest.mark.parametrize(
    "text", ["takes: 5", "takes: {a: 0}", "tkaes: {}", "takes: {'a b': 2}", "choices: {a: {take: 1}}"]
)
def test_what_is_not_a_takes_file_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.takes.yaml").write_text(text)
    with pytest.raises(InputError, match=r"x\.takes\.yaml"):
        read_choices(tmp_path / "x.takes.yaml")


@pytest.mark.parametrize("item", ["A]17", "a [b] c", "a\nb", "Ünï 'x': #"])
def test_the_id_of_any_item_can_be_written_and_read(item: str, tmp_path: Path) -> None:
    takes = {f"each[{item}].picture": 2}
    write_choices(tmp_path / "x.takes.yaml", Choices(takes))
    assert read_choices(tmp_path / "x.takes.yaml").takes == takes

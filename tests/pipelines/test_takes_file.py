"""Takes and choices from the file beside a pipeline's."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rh_prefect.errors import InputError
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan import Plan
from rh_prefect.pipelines.takes_file import Choices, add_choices, read_choices
from tests.support.samples.steps import PICTURE, of_rows, rows
from tests.support.world.planned_works import ROWS, SHOTS, plan_of, problems_of


def pipeline_in(folder: Path, takes: str = "", text: str = SHOTS) -> Pipeline:
    (folder / "x.yaml").write_text(text)
    if takes:
        (folder / "x.takes.yaml").write_text(f"takes: {{{takes}}}\n")
    return Pipeline.from_file(folder / "x.yaml")


async def test_a_take_of_the_file_counts_and_one_that_is_given_goes_before_it(tmp_path: Path) -> None:
    pipeline = pipeline_in(tmp_path, "'each[mug].picture': 3, each.clip: 2")
    plan = await plan_of(pipeline, rows=ROWS)
    assert [one.works[0].take for one in plan.steps["each.picture"]] == [3, 1, 1]
    assert [one.works[0].take for one in plan.steps["each.clip"]] == [2, 2, 2]
    given = await plan_of(pipeline, rows=ROWS, takes={"each[mug].picture": 2})
    assert [one.works[0].take for one in given.steps["each.picture"]] == [2, 1, 1]


async def test_an_address_that_is_not_there_is_noted(tmp_path: Path) -> None:
    plan = await plan_of(pipeline_in(tmp_path, "'each[cup].picture': 2"), rows=ROWS)
    assert plan.notes == ["each[cup].picture has a take or a choice, but there is no such step or item."]


@pytest.mark.parametrize(
    "text", ["takes: 5", "takes: {a: 0}", "tkaes: {}", "takes: {'a b': 2}", "choices: {a: {take: 1}}"]
)
def test_what_is_not_a_takes_file_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.takes.yaml").write_text(text)
    with pytest.raises(InputError, match=r"x\.takes\.yaml"):
        read_choices(tmp_path / "x.takes.yaml")


@pytest.mark.parametrize("text", ["# only a comment", "", "takes:\nchoices:\n"])
def test_a_takes_file_without_entries_is_one(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.takes.yaml").write_text(text)
    assert read_choices(tmp_path / "x.takes.yaml") == Choices()


def test_takes_of_many_items_with_any_ids_can_be_written_and_read(tmp_path: Path) -> None:
    items = ["A]17", "a [b] c", "a\nb", "Ünï 'x': #", *(f"{number}{'x' * 10_000}" for number in range(150))]
    takes = {f"each[{item}].picture": 2 for item in items}
    add_choices(tmp_path / "x.takes.yaml", takes)
    assert (tmp_path / "x.takes.yaml").stat().st_size > 2**20
    assert read_choices(tmp_path / "x.takes.yaml").takes == takes


def test_writers_at_once_keep_the_entries_of_each_other(tmp_path: Path) -> None:
    file = tmp_path / "x.takes.yaml"

    def write(own: int) -> None:
        for take in range(2, 12):
            add_choices(file, {f"each[{own}].picture": take}, {f"each[{own}].chosen": {"of": "a", "take": take}})

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(8)))
    found = read_choices(file)
    assert found.takes == {f"each[{own}].picture": 11 for own in range(8)}
    assert found.choices == {f"each[{own}].chosen": {"of": "a", "take": 11} for own in range(8)}
    assert list(tmp_path.iterdir()) == [file]


def test_a_take_that_is_used_without_an_entry_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "x.takes.yaml"
    assert not add_choices(file, {"music": 1})
    assert not file.exists()
    file.write_text("takes: {each.clip: 2}  # a comment")
    assert not add_choices(file, {"each[mug].clip": 2, "music": 1})
    assert "a comment" in file.read_text()


NUMBERED = of_rows("title: string", pic=PICTURE % "$(item.title)")


def takes_of(plan: Plan) -> dict[str, int]:
    return {str(one.request["prompt"]): one.works[0].take for one in plan.instances}


async def test_the_take_of_an_item_without_an_id_moves_with_the_item(tmp_path: Path) -> None:
    pipeline, file = pipeline_in(tmp_path, text=NUMBERED), tmp_path / "x.takes.yaml"
    plan = await plan_of(pipeline, rows=rows("a", "b"))
    add_choices(file, {"each[2].pic": 2}, items=plan.items_by_number)
    assert takes_of(await plan_of(pipeline, rows=rows("a", "b"))) == {"a": 1, "b": 2}
    longer = await plan_of(pipeline, rows=rows("new", "a", "b"))
    assert takes_of(longer) == {"new": 1, "a": 1, "b": 2}
    # A take of the item that has the number now: both lines stay.
    add_choices(file, {"each[2].pic": 5}, items=longer.items_by_number)
    assert takes_of(await plan_of(pipeline, rows=rows("b", "a"))) == {"a": 5, "b": 2}
    assert takes_of(await plan_of(pipeline, rows=rows("b", "a"), takes={"each[2].pic": 7})) == {"a": 7, "b": 2}


async def test_each_of_equal_items_without_an_id_has_a_take(tmp_path: Path) -> None:
    text = of_rows("title: string", pic=PICTURE % "$(item.title)" + ", same: separate")
    pipeline, given = pipeline_in(tmp_path, text=text), rows("mug", "jug", "mug")
    plan = await plan_of(pipeline, rows=given)
    add_choices(tmp_path / "x.takes.yaml", {"each[1].pic": 3}, items=plan.items_by_number)
    assert [one.works[0].take for one in (await plan_of(pipeline, rows=given)).instances] == [3, 1, 2]
    add_choices(tmp_path / "x.takes.yaml", {"each[3].pic": 4}, items=plan.items_by_number)
    assert [one.works[0].take for one in (await plan_of(pipeline, rows=given)).instances] == [3, 1, 4]


async def test_items_that_share_only_some_takes_are_equal(tmp_path: Path) -> None:
    text = of_rows("title: string", "id: $(item.title)", pic=PICTURE % "a cup" + ", takes: 2")
    [problem] = await problems_of(pipeline_in(tmp_path, "'each[b].pic': 2", text), rows=rows("a", "b"))
    assert "2 items of each.pic have the same request and would share one result" in problem


async def test_a_number_in_the_takes_file_without_its_item_is_a_problem(tmp_path: Path) -> None:
    [problem] = await problems_of(pipeline_in(tmp_path, "'each[2].pic': 2", NUMBERED), rows=rows("a", "b"))
    assert "each[2].pic: 2 names an item by its number" in problem
    line = re.search(r"write each\[2\]\.pic: (\{.*?\})", problem)
    assert line is not None
    pipeline = pipeline_in(tmp_path, f"'each[2].pic': {line.group(1)}", NUMBERED)
    assert takes_of(await plan_of(pipeline, rows=rows("a", "b"))) == {"a": 1, "b": 2}
    assert takes_of(await plan_of(pipeline, rows=rows("a", "b"), takes={"each[2].pic": 3})) == {"a": 1, "b": 3}

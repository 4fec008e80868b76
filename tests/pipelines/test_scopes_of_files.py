"""The scope of a file, and equal requests of items with separate results."""

from __future__ import annotations

from rh_prefect import catalog
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan import Plan
from rh_prefect.pipelines.plan.take_choice import EqualRequests
from rh_prefect.pipelines.plan.work_identity import request_base
from rh_prefect.works.journal.identity import work_id
from tests.support.world.planned_works import Records, run

PICTURES = """\
params: {rows: {type: table, columns: {title: string}}}
steps:
  each:
    foreach: $(params.rows)
    steps:
      picture: {model: z-image/turbo, with: {prompt: $(item.title)}, same: separate}
      large: {model: hypir-ultra, from: $(picture), same: separate}
"""
ROWS = [{"title": title} for title in ("mug", "jug", "mug")]


def scoped(name: str, text: str = PICTURES) -> Pipeline:
    return Pipeline.from_text(f"scope: {name}\n{text}")


def takes_of(plan: Plan, path: str = "each.picture") -> list[int]:
    return [work.take for one in plan.steps[path] for work in one.works]


async def test_results_of_a_scope_are_shared_by_its_runs_only() -> None:
    records = Records()
    assert await run(scoped("order-17"), records, rows=ROWS) == 6
    assert await run(scoped("order-17"), records, rows=ROWS) == 0
    assert await run(scoped("order-18"), records, rows=ROWS[:1]) == 2
    assert await run(Pipeline.from_text(PICTURES), records, rows=ROWS[:1]) == 2


async def test_a_work_of_a_scope_is_that_of_generate_in_the_scope() -> None:
    plan = await scoped("order-17").plan(rows=ROWS, site="host")
    base = request_base(site="host", endpoint=catalog.get("z-image/turbo").endpoint, params={"prompt": "mug"})
    assert plan.steps["each.picture"][2].works[0].key == work_id(base, 2, "order-17")


async def test_equal_requests_of_items_get_separate_takes() -> None:
    pipeline, records = Pipeline.from_text(PICTURES), Records()
    assert takes_of(await pipeline.plan(rows=ROWS)) == [1, 1, 2]
    assert await run(pipeline, records, rows=ROWS) == 6
    assert await run(pipeline, records, rows=ROWS[::-1]) == 0, "the results of equal items are interchangeable"
    assert await run(pipeline, records, rows=[*ROWS, {"title": "mug"}]) == 2


async def test_each_item_with_several_takes_has_its_own() -> None:
    two = PICTURES.replace("$(item.title)}, same", "$(item.title)}, takes: 2, same")
    pipeline = Pipeline.from_text(two)
    assert takes_of(await pipeline.plan(rows=ROWS)) == [1, 2, 1, 2, 3, 4]


async def test_a_run_keeps_the_takes_of_its_items_when_it_plans_again() -> None:
    """An item whose input came later took the result that an equal one was making."""
    pipeline, equal = Pipeline.from_text(PICTURES), EqualRequests()
    first = await pipeline.plan(rows=[{"title": "jug"}, {"title": "mug"}], equal=equal)
    again = await pipeline.plan(rows=[{"title": "mug"}, {"title": "mug"}], equal=equal)
    assert (takes_of(first), takes_of(again)) == ([1, 1], [2, 1])


async def test_a_new_take_is_that_of_no_other_item() -> None:
    pipeline, records = Pipeline.from_text(PICTURES), Records()
    await run(pipeline, records, rows=ROWS)
    plan = await pipeline.plan(rows=ROWS, known=records, takes={"each[1].picture": 2})
    assert sorted(takes_of(plan)) == [1, 1, 2], "which exist"
    new = await pipeline.plan(rows=ROWS, new=["each.picture"])
    assert sorted(new.new_takes.values()) == [1, 1, 2]
    assert takes_of(new) == list(new.new_takes.values())

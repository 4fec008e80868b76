"""The scope of a file, and equal requests of items with separate results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from rh_prefect import catalog
from rh_prefect.pipelines.plan import Plan
from rh_prefect.pipelines.plan.take_chooser import EqualRequests
from rh_prefect.pipelines.plan.work_identity import request_base
from rh_prefect.works.journal.identity import work_id
from tests.support.samples.steps import ANSWER, CLIP, PICTURE, of_rows, rows
from tests.support.world.planned_works import Records, plan_of, run, states

PICTURES = of_rows(
    "title: string",
    picture=PICTURE % "$(item.title)" + ", same: separate",
    large="model: hypir-ultra, from: $(picture), same: separate",
)
ROWS = rows("mug", "jug", "mug")
ORDER = f"scope: order-17\n{PICTURES}"


def takes_of(plan: Plan, path: str = "each.picture") -> list[int]:
    return [work.take for one in plan.steps[path] for work in one.works]


async def test_results_of_a_scope_are_shared_by_its_runs_only() -> None:
    records = Records()
    assert await run(ORDER, records, rows=ROWS) == 6
    assert await run(ORDER, records, rows=ROWS) == 0
    assert await run(f"scope: order-18\n{PICTURES}", records, rows=ROWS[:1]) == 2
    assert await run(PICTURES, records, rows=ROWS[:1]) == 2


async def test_a_work_of_a_scope_is_that_of_generate_in_the_scope() -> None:
    plan = await plan_of(ORDER, rows=ROWS, site="host")
    base = request_base(site="host", endpoint=catalog.get("z-image/turbo").endpoint, params={"prompt": "mug"})
    assert plan.steps["each.picture"][2].works[0].key == work_id(base, 2, "order-17")


async def test_equal_requests_of_items_get_separate_takes() -> None:
    records = Records()
    assert takes_of(await plan_of(PICTURES, rows=ROWS)) == [1, 1, 2]
    assert await run(PICTURES, records, rows=ROWS) == 6
    assert await run(PICTURES, records, rows=ROWS[::-1]) == 0, "the results of equal items are interchangeable"
    assert await run(PICTURES, records, rows=[*ROWS, {"title": "mug"}]) == 2


async def test_each_item_with_several_takes_has_its_own() -> None:
    two = PICTURES.replace("$(item.title)}, same", "$(item.title)}, takes: 2, same")
    assert takes_of(await plan_of(two, rows=ROWS)) == [1, 2, 1, 2, 3, 4]


async def test_a_run_keeps_the_takes_of_its_items_when_it_plans_again() -> None:
    """An item whose input came later took the result that an equal one was making."""
    equal = EqualRequests()
    first, again = [await plan_of(PICTURES, rows=rows(title, "mug"), equal=equal) for title in ("jug", "mug")]
    assert (takes_of(first), takes_of(again)) == ([1, 1], [2, 1])


class ChosenTakes(Records):
    """Records that also have the takes that runs have chosen."""

    def __init__(self) -> None:
        super().__init__()
        self.chosen: dict[str, Sequence[int]] = {}

    async def takes_of(self, choice: str, new: Sequence[int] = ()) -> Sequence[int]:
        return self.chosen.setdefault(choice, new) if new else self.chosen.get(choice, ())


MOODS = of_rows(
    "t: string",
    mood=ANSWER % "mood of $(item.t)" + ", parse: {object: {m: string}}",
    picture=PICTURE % "$(mood.m)" + ", same: separate",
    clip=(CLIP % "$(picture)").replace("slow", "$(item.t)"),
)


async def test_an_item_keeps_the_take_of_its_request_in_later_runs() -> None:
    records, equal = ChosenTakes(), EqualRequests()
    given: dict[str, Any] = {"rows": [{"t": "a"}, {"t": "b"}], "known": records}
    moods = (await plan_of(MOODS, **given)).steps["each.mood"]
    for mood in reversed(moods):  # that of the second item is known first
        records.answer(mood, {"m": "calm"})
        plan = await plan_of(MOODS, equal=equal, **given)
        records.make(plan)
    records.make(await plan_of(MOODS, equal=equal, **given))
    assert takes_of(plan) == [2, 1]
    again = await plan_of(MOODS, **given)
    assert (takes_of(again), states(again, "each.picture", "each.clip")) == ([2, 1], "====")
    given["rows"].insert(0, {"t": "c"})
    third = (await plan_of(MOODS, **given)).steps["each.mood"][0]
    records.answer(third, {"m": "calm"})
    assert takes_of(await plan_of(MOODS, **given)) == [3, 2, 1]


async def test_an_item_has_the_take_that_another_run_recorded_at_the_same_time() -> None:
    """Two items had each other's takes, and those of the next run were the ones of the other run."""

    class Race(ChosenTakes):
        async def takes_of(self, choice: str, new: Sequence[int] = ()) -> Sequence[int]:
            if new:
                self.chosen.setdefault(choice, [2])
            return await super().takes_of(choice, new)

    records, equal = Race(), EqualRequests()
    given: dict[str, Any] = {"rows": [{"t": "a"}, {"t": "b"}], "known": records, "equal": equal}
    moods = (await plan_of(MOODS, **given)).steps["each.mood"]
    records.answer(moods[0], {"m": "calm"})
    assert takes_of(await plan_of(MOODS, **given)) == [2, 1]
    assert takes_of(await plan_of(MOODS, **given)) == [2, 1], "also when the run plans again"
    records.answer(moods[1], {"m": "calm"})
    assert takes_of(await plan_of(MOODS, **given)) == [2, 1], "the recorded take is that of the first item"


async def mood_takes(records: ChosenTakes, titles: str) -> list[int]:
    """The takes of a new run, in which the answer for each row is known."""
    given: dict[str, Any] = {"rows": [{"t": title} for title in titles], "known": records}
    for mood in (await plan_of(MOODS, **given)).steps["each.mood"]:
        records.answer(mood, {"m": "calm"})
    return takes_of(await plan_of(MOODS, **given))


@pytest.mark.parametrize("titles", ["ba", "bc"])
async def test_items_have_the_recorded_takes_that_this_run_gave_to_other_items(titles: str) -> None:
    """Only a free take was moved to: each of two items kept the take that was recorded for the other one."""
    others = ChosenTakes()
    assert await mood_takes(others, "ab") == [1, 2]

    class Race(ChosenTakes):
        async def takes_of(self, choice: str, new: Sequence[int] = ()) -> Sequence[int]:
            return await super().takes_of(choice, others.chosen.get(choice, new) if new else ())

    records = Race()
    assert await mood_takes(records, titles) == [2, 1]
    assert await mood_takes(records, titles) == [2, 1], "the next run has the same takes"


async def test_a_recorded_take_is_not_given_to_an_item_whose_own_is_taken() -> None:
    records = ChosenTakes()
    assert (await mood_takes(records, "ab"), await mood_takes(records, "c")) == ([1, 2], [1])
    assert await mood_takes(records, "acb") == [1, 3, 2]


LATE_ID = of_rows(
    "sku: string, title: string",
    "id: $(naming)-$(item.sku)",
    picture=PICTURE % "$(item.title)" + ", same: separate",
    end="edit: title, with: {text: $(item.title), width: 64, height: 64, seconds: 1}",
).replace("steps:\n", f"steps:\n  naming: {{{ANSWER % 'a name'}}}\n", 1)


async def test_the_steps_of_an_item_wait_for_its_id() -> None:
    """With its number in place of the id, an item got another take, and a failure was listed under both addresses."""
    records, equal, pair = ChosenTakes(), EqualRequests(), [{"sku": sku, "title": "mug"} for sku in "ab"]
    first = await plan_of(LATE_ID, rows=pair, known=records, equal=equal)
    assert [(one.address, one.is_pending) for one in first.instances if one.item] == [
        (f"each[{number}].{step}", True) for step in ("picture", "end") for number in (1, 2)
    ]
    records.make(first)
    plan = await plan_of(LATE_ID, rows=pair, known=records, equal=equal)
    assert [one.address for one in plan.steps["each.picture"]] == ["each[a text-a].picture", "each[a text-b].picture"]
    assert (takes_of(plan), states(plan, "each.picture")) == ([1, 2], "++")
    records.make(plan)
    again = await plan_of(LATE_ID, rows=pair, known=records)
    assert (takes_of(again), states(again, "each.picture")) == ([1, 2], "==")
    failed = await plan_of(LATE_ID, rows=pair, failed=["naming"])
    assert {one.blocked_by for one in failed.instances if one.item} == {"naming"}


async def test_an_item_with_another_take_changes_no_other_item() -> None:
    """The next equal item had the result that a person had rejected for the first one."""
    plan = await plan_of(PICTURES, rows=ROWS, takes={"each[1].picture": 3})
    assert takes_of(plan) == [3, 1, 2]
    assert takes_of(await plan_of(PICTURES, rows=ROWS, takes={"each.picture": 3})) == [3, 3, 4]
    longer = await plan_of(PICTURES, rows=[*ROWS, {"title": "mug"}], takes={"each[1].picture": 3, "each[3].picture": 4})
    assert takes_of(longer) == [3, 1, 4, 5], "the fourth item has no result that another one gave up"


async def test_a_new_take_is_that_of_no_other_item() -> None:
    records = Records()
    await run(PICTURES, records, rows=ROWS)
    plan = await plan_of(PICTURES, rows=ROWS, known=records, takes={"each[1].picture": 2})
    assert takes_of(plan) == [2, 1, 3], "the third item has not the result that the first one gave up"
    new = await plan_of(PICTURES, rows=ROWS, new=["each.picture"])
    assert sorted(new.new_takes.values()) == [1, 1, 2]
    assert takes_of(new) == list(new.new_takes.values())

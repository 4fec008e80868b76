"""What runs of pipelines pay: budgets, whole items, failed tasks and refused answers, on an emulator."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import prefect
import pytest

from rh_prefect.emulator import DEFAULT, Emulator, Fault
from rh_prefect.errors import BudgetExceeded, PipelineIncomplete, PlanChanged
from rh_prefect.flow_runs.rerun import create, rerun
from rh_prefect.flows.local_pipeline import run_locally
from rh_prefect.flows.pipeline import Pipeline as FlowPipeline
from rh_prefect.flows.pipeline import pipeline_flow
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.known_works import open_records
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan import Plan, ReviewedPlan
from rh_prefect.pipelines.plan.planned_steps import PriceRange, Selection
from rh_prefect.pipelines.run.result import NOTHING_NEW, OVER_BUDGET, PipelineResult
from rh_prefect.pipelines.run.run_budget import run_limit
from rh_prefect.settings import get_settings
from tests.support.samples.pipeline_assets import photo
from tests.support.servers.emulator_env import environment
from tests.support.world.pipeline_flows import in_flow_run, run

PICTURES = """
name: pictures
{budget}
params: {{rows: {{type: table, columns: {{title: string}}}}}}
steps:
  each:
    foreach: $(params.rows)
    steps:
      picture: {{model: z-image/turbo, with: {{prompt: $(item.title)}}, attempts: {attempts}}}
      large: {{model: z-image/turbo, with: {{prompt: "$(item.title) again"}}, attempts: {attempts}}}
outputs: {{pictures: $(each.large)}}
"""

PRICE = Decimal("0.04")
"""Of one picture."""


@pytest.fixture
def rh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """An emulator that charges for failed tasks, too."""
    assumed = replace(DEFAULT, refund_failed_models=False)
    with Emulator(long_side=96, fps=6, assumptions=assumed) as emulator:
        for name, value in environment(emulator, tmp_path).items():
            monkeypatch.setenv(name, value)
        yield emulator


def pictures(*, budget: str = "", attempts: int = 1) -> str:
    return PICTURES.format(budget=f"budget: {budget}" if budget else "", attempts=attempts)


def rows(*titles: str) -> list[dict[str, str]]:
    return [{"title": title} for title in titles]


def fail(rh: Emulator, prompt: str, times: int = 1) -> None:
    """The next tasks of a prompt are accepted, paid for and fail."""
    rh.faults.add(Fault("submit", prompt=prompt, kind="fail", code="1504", times=times))


def costs_of(result: PipelineResult) -> dict[str, str]:
    return {one.step: one.cost for one in result.steps if one.cost}


async def test_the_report_lists_failed_tasks_that_were_charged(rh: Emulator) -> None:
    fail(rh, "a mug")
    fail(rh, "cup again", times=2)
    state, result = await run(pictures(attempts=2), rows=rows("a mug", "a cup", "a jug"))
    assert state.is_failed()
    assert result.costs.amounts == {"CNY": rh.recorder.charged}
    assert sum((Decimal(text.split()[0]) for text in costs_of(result).values()), Decimal(0)) == rh.recorder.charged


async def test_each_take_that_failed_is_named(rh: Emulator) -> None:
    rh.faults.add(Fault("submit", prompt="a cup", kind="cut"))
    _, result = await run("name: cups\nsteps: {cup: {model: z-image/turbo, takes: 2, with: {prompt: a cup}}}")
    (step,) = result.steps
    assert len(rh.recorder.paid) == 2
    assert ("take 1" in step.reason, "take 2" in step.reason) == (True, True), step.reason
    assert len(set(re.findall(r"jobs adopt (\S+)", step.reason))) == 2


async def test_whole_items_counts_failed_tasks(rh: Emulator) -> None:
    # Two items fit only if no task fails; the first item's failed task takes the room of the second's.
    fail(rh, "a mug", times=1)
    text = pictures(budget="{amount: 0.20, whole_items: true}", attempts=2)
    state, result = await run(text, rows=rows("a mug", "a cup", "a jug"))
    assert state.name == OVER_BUDGET, state.message
    states = {one.step: one.state for one in result.steps}
    for number in (1, 2, 3):
        both = {states[f"each[{number}].picture"], states[f"each[{number}].large"]}
        assert both in ({"made"}, {"failed"}, {"failed", "not run"}), states
    assert rh.recorder.charged <= Decimal("0.20")
    assert states["each[1].large"] == "made"


async def test_an_item_begins_when_what_others_left_is_enough(rh: Emulator) -> None:
    # At first 2 x 2 attempts are set aside for an item; without failures two items fit one after another.
    text = pictures(budget="{amount: 0.26, whole_items: true}", attempts=2)
    state, result = await run(text, rows=rows("a mug", "a cup"))
    assert state.is_completed(), state.message
    assert [one.state for one in result.steps] == ["made"] * 4


async def test_an_item_pays_no_more_than_its_own_budget(rh: Emulator) -> None:
    fail(rh, "a mug", times=1)
    state, result = await run(pictures(budget="{amount: 9, item: 0.12}", attempts=2), rows=rows("a mug", "a cup"))
    assert state.name == OVER_BUDGET, state.message
    states = {one.step: one.state for one in result.steps}
    assert states["each[2].picture"] == states["each[2].large"] == "made"
    assert "failed" in (states["each[1].picture"], states["each[1].large"])
    paid = [one for one in rh.recorder.paid if "mug" in str(one.payload)]
    assert sum((one.charged for one in paid), Decimal(0)) <= Decimal("0.12")


@in_flow_run
async def test_a_resumed_run_reports_and_counts_all_that_it_has_paid(rh: Emulator) -> None:
    fail(rh, "a cup again", times=1)
    flow = pipeline_flow(Pipeline.from_text(pictures()))
    run_id = await create(flow, {"rows": rows("a mug", "a cup"), "budget": 0.24, "require_new": True})
    with pytest.raises(PipelineIncomplete):
        await rerun(flow, run_id)
    result: Any = await rerun(flow, run_id)
    assert [one.state for one in result.steps] == ["made"] * 4
    assert result.costs.amounts == {"CNY": rh.recorder.charged} == {"CNY": PRICE * 5}
    assert result.new == 4


async def test_a_refused_answer_is_asked_for_again_and_is_no_further_take(rh: Emulator, tmp_path: Path) -> None:
    text = """
name: words
steps:
  words:
    model: rhart-text-g-3-flash-preview/text-to-text
    with: {prompt: Describe a mug}
    parse: {text: {max: 5}}
    attempts: 2
outputs: {words: $(words)}
"""
    state, result = await run(text, budget=1)
    assert state.is_failed()
    assert "does not match `parse`" in (state.message or "")
    assert len(rh.recorder.paid) == 2
    assert result.costs.amounts["CNY"] == rh.recorder.charged
    (work,) = (path.parent for path in (tmp_path / "out" / "works").glob("*/intent-1.json"))
    assert {path.stem for path in work.glob("intent-*")} == {"intent-1", "intent-2"}
    # Another shape takes the first answer; nothing is paid.
    state, result = await run(text.replace("max: 5", "max: 9000"), budget=1)
    assert state.is_completed(), state.message
    assert len(rh.recorder.paid) == 2
    assert (work / "intent-2.json").is_file()


async def test_nothing_more_is_paid_after_a_failure_that_is_to_stop_the_run(rh: Emulator) -> None:
    rh.faults.add(Fault("submit", prompt="a bad word", kind="code", code="301"))
    text = """
name: strict
steps:
  first: {model: z-image/turbo, with: {prompt: a bad word}, on_error: fail}
  other: {model: z-image/turbo, with: {prompt: a mug}}
  later: {model: kling-v2.6-pro-image-to-video, from: $(other), with: {prompt: it turns, duration: 5}}
"""
    state, result = await run(text, budget=5)
    assert state.is_failed()
    assert {one.step: one.state for one in result.steps} == {"first": "failed", "other": "made", "later": "not run"}
    assert result.steps[2].reason == "first failed, which has on_error: fail"
    assert len(rh.recorder.paid) == 1


async def test_a_step_whose_expect_does_not_hold_fails_unpaid(rh: Emulator) -> None:
    text = """
name: expecting
params: {count: integer}
steps:
  large: {model: z-image/turbo, with: {prompt: a bowl}, expect: {lt: [$(params.count), 3]}}
  other: {model: z-image/turbo, with: {prompt: a mug}}
"""
    state, result = await run(text, count=5, budget=5)
    assert state.is_failed()
    assert "large: the expect condition is false. Nothing was paid for it" in (state.message or "")
    assert {one.step: one.state for one in result.steps} == {"large": "failed", "other": "made"}
    assert len(rh.recorder.paid) == 1


EXPECTING = """
name: expecting
params: {rows: {type: table, columns: {title: string, size: integer}}}
steps:
  each:
    foreach: $(params.rows)
    id: $(item.title)
    steps:
      other: {model: z-image/turbo, with: {prompt: "another $(item.title)"}}
      picture: {model: z-image/turbo, with: {prompt: $(item.title)}, expect: {lt: [$(item.size), 3]}}
      small: {edit: resize, with: {file: $(picture or other), width: 64, height: 64}}
      clip: {model: kling-v2.6-pro-image-to-video, from: $(small), with: {prompt: it turns, duration: 5, sound: false}}
  some: {edit: contact_sheet, with: {of: $(each.small)}, require: any}
  all: {edit: contact_sheet, with: {of: $(each.small)}}
outputs: {some: $(some), all: $(all), clips: $(each.clip)}
"""


async def test_a_step_that_needs_one_whose_expect_is_false_is_blocked_by_it(rh: Emulator) -> None:
    given = [{"title": "mug", "size": 1}, {"title": "jug", "size": 5}]
    plan = await Pipeline.from_text(EXPECTING).plan(rows=given)
    assert not plan.problems
    state, result = await run(EXPECTING, rows=given, budget=5)
    assert state.is_failed()
    states = {one.step: one.state for one in result.steps}
    assert states == {
        "each[mug].other": "made",
        "each[jug].other": "made",
        "each[mug].picture": "made",
        "each[jug].picture": "failed",
        "each[mug].small": "made",
        "each[jug].small": "not run",
        "each[mug].clip": "made",
        "each[jug].clip": "not run",
        "some": "made",
        "all": "not run",
    }
    reasons = {one.reason for one in result.steps if one.state == "not run"}
    assert reasons == {"needs each[jug].picture, which failed"}
    assert result["some"] is not None
    assert plan.price.least <= rh.recorder.charged <= plan.price.most
    (clip,) = (one for one in plan.instances if one.address == "each[jug].clip")
    assert (clip.state, clip.note) == ("x", "it needs each[jug].picture, whose expect condition is false")


async def test_a_fan_out_over_a_list_whose_expect_is_false_has_no_items(rh: Emulator) -> None:
    text = """
params: {count: integer}
steps:
  script:
    model: rhart-text-g-3-flash-preview/text-to-text
    with: {prompt: Two shots}
    parse: {list: {picture: string}, at_most: 2}
    expect: {lt: [$(params.count), 3]}
  shots:
    foreach: $(script)
    steps: {still: {model: z-image/turbo, with: {prompt: a cup}, same: true}}
  later: {model: z-image/turbo, with: {prompt: a mug}, when: {gt: [$(script.count), 1]}}
"""
    state, result = await run(text, count=5, budget=5)
    assert state.is_failed()
    blocked = [(one.state, one.reason) for one in result.steps if one.step != "script"]
    assert blocked == [("not run", "needs script, which failed")] * 2
    assert not rh.recorder.paid


CONDITIONS = """
params: {count: integer}
steps:
  first: {model: z-image/turbo, with: {prompt: a bad word}, expect: {lt: [$(params.count), 3]}}
  after: {model: z-image/turbo, with: {prompt: a mug}, when: {exists: $(first)}}
  group: {when: {exists: $(first)}, steps: {cup: {model: z-image/turbo, with: {prompt: a cup}}}}
  each:
    foreach: [1, 2]
    where: {exists: $(first)}
    steps: {jug: {model: z-image/turbo, with: {prompt: "jug $(item)"}}}
"""


@pytest.mark.parametrize(("count", "paid"), [(1, 1), (5, 0)])
async def test_a_step_whose_condition_names_a_failed_step_is_not_run(rh: Emulator, count: int, paid: int) -> None:
    fail(rh, "a bad word")
    state, result = await run(CONDITIONS, count=count, budget=5)
    assert state.is_failed()
    first, *others = result.steps
    assert (first.step, first.state) == ("first", "failed")
    assert [(one.state, one.reason) for one in others] == [("not run", "needs first, which failed")] * 4
    assert len(rh.recorder.paid) == paid
    rh.faults.clear()
    state, result = await run(CONDITIONS, count=1, budget=5)
    assert [one.state for one in result.steps] == ["made"] * 5


USED = """
params: {word: string}
steps:
  first: {model: z-image/turbo, with: {prompt: $(params.word)}STRICT}
outputs: {first: $(first)}
"""

USING = """
steps:
  one: {use: ./used.yaml, with: {word: a bad word}STRICT}
  other: {model: z-image/turbo, with: {prompt: a mug}}
  later: {model: kling-v2.6-pro-image-to-video, from: $(other), with: {prompt: it turns, duration: 5}}
"""


@pytest.mark.parametrize(("inside", "outside"), [(True, False), (False, True), (False, False)])
async def test_on_error_holds_in_a_used_file(rh: Emulator, tmp_path: Path, *, inside: bool, outside: bool) -> None:
    rh.faults.add(Fault("submit", prompt="a bad word", kind="code", code="301"))
    for name, text, is_strict in (("used", USED, inside), ("using", USING, outside)):
        (tmp_path / f"{name}.yaml").write_text(text.replace("STRICT", ", on_error: fail" if is_strict else ""))
    later = (await run_locally(Pipeline.from_file(tmp_path / "using.yaml"), {"budget": 5})).result.steps[-1]
    stopped = ("not run", "one.first failed, which has on_error: fail")
    assert (later.state, later.reason) == (stopped if inside or outside else ("made", ""))


async def test_nothing_more_is_paid_for_while_the_storage_refuses_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Emulator(limit=1, long_side=96) as rh:
        for name, value in environment(rh, tmp_path).items():
            monkeypatch.setenv(name, value)
        blocked = tmp_path / "out" / "pipelines"  # where the files go; the records beside it can be written
        blocked.parent.mkdir()
        blocked.touch()
        state, result = await run(pictures(), rows=rows(*"abcdefgh"))
        assert state.is_failed()
        assert 3 <= len(rh.recorder.paid) < 8, "three refused outputs, and those of which a task ran then"
        unpaid = sum("this job was not submitted, and nothing was paid" in one.reason for one in result.steps)
        assert unpaid + len(rh.recorder.paid) == 16
        blocked.unlink()
        state, result = await run(pictures(), rows=rows(*"abcdefgh"))
        assert state.is_completed(), state.message
        assert len(rh.recorder.paid) == 16


async def test_works_of_earlier_runs_take_nothing_of_a_budget(rh: Emulator) -> None:
    borrowed = [f"old {number}" for number in range(10)]
    await run(pictures(), rows=rows(*borrowed))
    before = rh.recorder.charged
    assert before == 20 * PRICE
    fail(rh, "new 3 again")
    text, new = pictures(attempts=2), [f"new {number}" for number in range(6)]
    state, result = await run(text, rows=rows(*borrowed, *new), budget=0.50)
    # 12 new works for 0.48; the failed task is paid for, too, and its second attempt does not fit.
    assert state.name == OVER_BUDGET, state.message
    states = [one.state for one in result.steps]
    assert (states.count("reused"), states.count("made"), states.count("failed")) == (20, 11, 1)
    assert rh.recorder.charged - before == 12 * PRICE == result.costs.amounts["CNY"]


def test_a_budget_is_named_as_it_was_written() -> None:
    budgets = {str(run_limit(Plan("film"), PriceRange(), budget=one, counted=Decimal(0))) for one in (6, 6.0)}
    assert budgets == {"6"}


async def test_the_limit_of_the_machine_holds_for_any_budget(rh: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """RH_MAX_BUDGET; the smaller one counts."""
    monkeypatch.setenv("RH_MAX_BUDGET", "0.10")
    state, result = await run(pictures(), rows=rows("a mug"), budget=50)
    assert state.is_completed(), state.message
    state, result = await run(pictures(budget="{amount: 90, whole_items: true}"), rows=rows("a cup", "a jug"))
    assert state.name == OVER_BUDGET
    assert result.costs.amounts["CNY"] == 2 * PRICE
    with pytest.raises(BudgetExceeded, match=r"its budget is 0\.10"):
        await run(pictures(), rows=rows("a", "b", "c"), budget=50)
    assert rh.recorder.charged == 4 * PRICE


@in_flow_run
async def test_a_resumed_run_without_a_budget_may_pay_the_highest_price_of_what_is_left(rh: Emulator) -> None:
    fail(rh, "a cup again", times=1)
    flow = pipeline_flow(Pipeline.from_text(pictures()))
    run_id = await create(flow, {"rows": rows("a mug", "a cup")})
    with pytest.raises(PipelineIncomplete):
        await rerun(flow, run_id)
    result: Any = await rerun(flow, run_id)
    assert [one.state for one in result.steps] == ["made"] * 4
    assert rh.recorder.charged == PRICE * 5


async def test_a_run_in_python_makes_the_part_that_its_reviewed_plan_selects(rh: Emulator) -> None:
    pipeline = FlowPipeline.from_text(pictures())
    plan = await pipeline.plan(rows=rows("a mug", "a cup"), selection=Selection(items=frozenset({"2"})))
    reviewed = ReviewedPlan(plan.as_json())
    with pytest.raises(PlanChanged, match=r"the plan selects --items 2; .* Nothing was paid"):
        await pipeline.run(rows=rows("a mug", "a cup"), reviewed=reviewed, sample=1)
    await pipeline.run(rows=rows("a mug", "a cup"), reviewed=reviewed)
    assert {str(one.payload["prompt"])[:5] for one in rh.recorder.paid} == {"a cup"}


@in_flow_run
async def test_a_resumed_run_pays_no_more_than_its_reviewed_plan_in_all(rh: Emulator) -> None:
    fail(rh, "a cup again", times=1)
    pipeline = Pipeline.from_text(pictures(budget="9"))
    reviewed = ReviewedPlan((await pipeline.plan(rows=rows("a mug", "a cup"))).as_json())
    flow = pipeline_flow(pipeline, reviewed=reviewed)
    run_id = await create(flow, {"rows": rows("a mug", "a cup")})
    for _ in range(2):
        with pytest.raises(PipelineIncomplete):
            await rerun(flow, run_id)
    assert rh.recorder.charged == reviewed.most == PRICE * 4
    again: Any = await create(flow, {"rows": rows("a mug", "a cup")})
    assert [one.state for one in (await rerun(flow, again)).steps].count("made") == 1, "another run makes what is left"


async def test_whole_items_counts_the_selected_steps_only(rh: Emulator) -> None:
    text = pictures(budget="{amount: 0.08, whole_items: true}")
    state, result = await run(text, rows=rows("a mug", "a cup"), only=["each.picture"])
    assert state.is_completed(), state.message
    assert [one.state for one in result.steps if one.step.endswith("picture")] == ["made"] * 2


@pytest.mark.parametrize(
    ("written", "counted", "left", "limit"),
    [
        (None, "0", ("0.04", "0.08"), "0.08"),
        (9, "0", ("0.04", "0.08"), "0.08"),
        (9, "0", ("0.16", "0.32"), "0.32"),
        (9, "0.10", ("0.04", "0.08"), "0.18"),
        (9, "0.30", ("0.04", "0.08"), "0.32"),
        (0.05, "0", ("0.04", "0.08"), "0.05"),
    ],
)
def test_a_reviewed_plan_limits_a_run_to_the_price_of_what_is_left_of_it(
    rh: Emulator, written: float | None, counted: str, left: tuple[str, str], limit: str
) -> None:
    reviewed = ReviewedPlan({"price": {"most": 0.32, "open": False}, "steps": [], "budget": {"amount": 9}})
    price = PriceRange(Decimal(left[0]), Decimal(left[0]), Decimal(left[1]))
    plan = Plan("pictures")
    assert run_limit(plan, price, budget=written, counted=Decimal(counted), reviewed=reviewed, attempt=2) == Decimal(
        limit
    )


def test_a_reviewed_plan_of_unknown_price_limits_a_run_to_the_budget_that_was_reviewed(rh: Emulator) -> None:
    reviewed = ReviewedPlan({"price": {"most": 0.32, "open": True}, "steps": [], "budget": {"amount": 9}})
    price = PriceRange(PRICE, PRICE, PRICE, is_open=True)
    assert run_limit(Plan("pictures"), price, budget=500, counted=Decimal(0), reviewed=reviewed) == 9
    left = PriceRange(PRICE, PRICE, PRICE)
    counted = Decimal(1)  # for the step whose price was not known
    assert run_limit(Plan("pictures"), left, budget=500, counted=counted, reviewed=reviewed) == 9


TWO = """
name: {name}
steps:
  mug: {{model: z-image/turbo, with: {{prompt: "{name} mug"}}}}
  cup: {{model: z-image/turbo, with: {{prompt: "{name} cup"}}}}
"""


@in_flow_run
async def test_a_second_pipeline_of_a_flow_run_is_refused_if_the_first_has_spent_its_budget(rh: Emulator) -> None:
    first, second = (FlowPipeline.from_text(TWO.format(name=name)) for name in ("first", "second"))

    @prefect.flow
    async def both() -> None:
        await first.run(budget=0.10)
        await second.run(budget=0.10)

    with pytest.raises(BudgetExceeded, match=r"at least 0\.08 CNY, 0\.08 were spent before .* budget is 0\.1"):
        await both()
    assert len(rh.recorder.paid) == 2


@pytest.mark.parametrize(("attempt", "is_refused"), [(1, True), (2, False)])
def test_a_retry_makes_what_still_fits(rh: Emulator, attempt: int, *, is_refused: bool) -> None:
    price, counted = PriceRange(Decimal(5), Decimal(5), Decimal(5)), Decimal(8)
    with pytest.raises(BudgetExceeded) if is_refused else nullcontext():
        assert run_limit(Plan("pictures"), price, budget=10, counted=counted, attempt=attempt) == 10


@pytest.fixture
def dollars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """An emulator whose wallets are in USD."""
    with Emulator(long_side=96, fps=6, assumptions=replace(DEFAULT, currency="USD")) as emulator:
        for name, value in environment(emulator, tmp_path).items():
            monkeypatch.setenv(name, value)
        yield emulator


async def test_a_budget_counts_in_the_currency_of_the_account(dollars: Emulator) -> None:
    """The catalogue's prices are in CNY: they are no limit in USD, and are not compared with one."""
    of_three: Any = {"rows": rows("a mug", "a cup", "a jug")}
    for text, advice in (
        (pictures(), "needs a budget in USD"),
        (pictures(budget="{amount: 1, whole_items: true}"), "without `whole_items` and `item`"),
        (pictures(budget="{amount: 1, item: 1}"), "without `whole_items` and `item`"),
    ):
        with pytest.raises(BudgetExceeded, match=advice):
            await run(text, **of_three)
    assert not dollars.recorder.submissions
    state, result = await run(pictures(budget="0.17"), **of_three)  # 6 pictures are 0.24 CNY
    assert state.name == OVER_BUDGET, state.message
    assert result.costs.amounts == {"USD": dollars.recorder.charged}
    assert 0 < dollars.recorder.charged <= Decimal("0.17")


ONCE = """
name: once
steps:
  picture: {model: z-image/turbo, with: {prompt: a mug}, reuse: never, takes: 2}
  small: {edit: resize, with: {file: $(picture), width: 20, height: 20}}
outputs: {pictures: $(picture.takes), small: $(small)}
"""


async def test_a_step_that_reuses_nothing_is_paid_once_in_each_run_and_used(rh: Emulator) -> None:
    seen: set[str] = set()
    for number in (1, 2):
        state, result = await run(ONCE)
        assert state.is_completed() and state.name != NOTHING_NEW, state.message
        assert [one.state for one in result.steps] == ["made", "made"]
        assert result.costs.amounts == {"CNY": PRICE * 2}
        assert rh.recorder.charged == PRICE * 2 * number
        seen.update(one.sha256 for one in result["pictures"])
        assert result["small"] is not None
    assert len(seen) == 4


@in_flow_run
async def test_a_retry_keeps_the_takes_of_a_step_that_reuses_nothing(rh: Emulator) -> None:
    flow = pipeline_flow(Pipeline.from_text(ONCE))
    fail(rh, "a mug", times=1)
    run_id = await create(flow, {"budget": 1})
    with pytest.raises(PipelineIncomplete):
        await rerun(flow, run_id)
    result: Any = await rerun(flow, run_id)
    assert [one.state for one in result.steps] == ["made", "made"]
    assert rh.recorder.charged == PRICE * 3


SHAPES = """
name: shapes
steps:
  raw: {{model: rhart-text-g-3-flash-preview/text-to-text, with: {{prompt: {prompt}}}}}
  lines:
    model: rhart-text-g-3-flash-preview/text-to-text
    with: {{prompt: {prompt}}}
    parse: {{list: {{line: string}}, at_most: 5}}
  shots:
    model: rhart-text-g-3-flash-preview/text-to-text
    with: {{prompt: {prompt}}}
    parse: {{list: {{line: string, {field}: string}}, at_most: {count}}}
  each:
    foreach: $(shots)
    steps: {{picture: {{model: z-image/turbo, with: {{prompt: "$(item.line), $(item.{field})"}}}}}}
outputs: {{raw: $(raw), lines: $(lines), shots: $(shots)}}
"""
TWO_SHOTS = '"two shots as JSON, each shot has line and mood, about the sea"'


async def test_steps_that_read_one_answer_in_several_shapes_have_their_own_values(rh: Emulator) -> None:
    text = SHAPES.format(prompt=TWO_SHOTS, field="mood", count=5)
    plan = await Pipeline.from_text(text).plan()
    state, result = await run(text)
    assert state.is_completed(), state.message
    assert isinstance(result["raw"], str)
    assert [set(one) for one in result["lines"]] == [{"line"}] * len(result["shots"])
    pictures = [f"{one['line']}, {one['mood']}" for one in result["shots"]]
    assert sorted(str(one.payload["prompt"]) for one in rh.recorder.paid)[: len(pictures)] == sorted(pictures)
    assert len(rh.recorder.paid) == 1 + len(pictures)
    assert plan.price.least <= rh.recorder.charged <= plan.price.most


@pytest.mark.parametrize(("field", "count"), [("missing", 5), ("mood", 1)])
async def test_an_answer_that_does_not_fit_one_of_its_shapes_fails_that_step_only(
    rh: Emulator, field: str, count: int
) -> None:
    text = SHAPES.format(prompt=TWO_SHOTS, field=field, count=count)
    plan = await Pipeline.from_text(text).plan()
    state, result = await run(text)
    assert state.is_failed()
    states = {one.step: one.state for one in result.steps if not one.step.startswith("each")}
    assert states == {"raw": "made", "lines": "made", "shots": "failed"}
    assert len(rh.recorder.paid) == 1
    assert rh.recorder.charged <= plan.price.most


async def test_a_lower_at_most_of_a_parameter_counts_for_an_answer_that_exists(rh: Emulator) -> None:
    text = f"""
name: words
params: {{n: integer}}
steps:
  shots:
    model: rhart-text-g-3-flash-preview/text-to-text
    with: {{prompt: {TWO_SHOTS}}}
    parse: {{list: {{line: string}}, at_most: $(params.n)}}
outputs: {{shots: $(shots)}}
"""
    assert len((await run(text, n=5))[1]["shots"]) > 1
    state, _ = await run(text, n=1, budget=1)
    assert state.is_failed()
    assert "at most 1 are allowed" in (state.message or "")
    assert (await run(text, n=5))[0].name == NOTHING_NEW


async def plan_of(text: str, **params: Any) -> Plan:
    """Plans with the results of earlier runs."""
    settings = get_settings()
    return await Pipeline.from_text(text).plan(params, known=open_records(MediaStore(settings.storage_url), settings))


async def test_an_answer_that_does_not_fit_is_planned_and_paid_for_again(rh: Emulator) -> None:
    text = """
name: words
steps:
  words:
    model: rhart-text-g-3-flash-preview/text-to-text
    with: {prompt: Describe a mug}
    parse: {text: {max: MAX}}
outputs: {words: $(words)}
"""
    short, long = text.replace("MAX", "5"), text.replace("MAX", "9000")
    price = (await plan_of(short)).price
    for number in (1, 2):
        plan = await plan_of(short)
        assert (plan.instances[0].state, plan.price) == ("+", price)
        state, _ = await run(short)
        assert "does not match `parse`" in (state.message or "")
        assert rh.recorder.charged == price.most * number
    plan = await plan_of(long)  # its shape takes the first answer, and costs nothing
    assert (plan.instances[0].state, plan.price.most) == ("…", Decimal(0))
    state, _ = await run(long)
    assert state.is_completed(), state.message
    assert rh.recorder.charged == price.most * 2


LONGEST = """
name: longest
params: {photo: image, rows: {type: table, columns: {name: string, seconds: {enum: ["5", "10"]}}}}
steps:
  each:
    foreach: $(params.rows)
    steps:
      clip:
        model: kling-v2.6-pro-image-to-video
        from: $(params.photo)
        with: {prompt: $(item.name), duration: $(item.seconds), sound: false}
  best:
    foreach: $(each.clip)
    sort: {by: seconds, descending: true}
    limit: 1
    steps: {large: {model: topazlabs-video-upscale, from: $(item)}}
outputs: {large: $(best.large)}
"""


async def test_items_that_are_sorted_by_a_result_begin_when_all_results_are_there(rh: Emulator, tmp_path: Path) -> None:
    rh.faults.add(Fault("submit", kind="hold", seconds=3, prompt="long"))
    given = {
        "photo": photo(tmp_path / "photo.png"),
        "rows": [{"name": "short", "seconds": "5"}, {"name": "long", "seconds": "10"}],
    }
    price = (await plan_of(LONGEST, **given)).price
    state, result = await run(LONGEST, **given)
    assert state.is_completed(), state.message
    assert [one.seconds for one in result["large"]] == [pytest.approx(10, abs=0.3)]
    assert len(rh.recorder.paid) == 3
    assert price.least <= rh.recorder.charged <= price.most


async def test_the_price_counts_the_dearest_items_that_a_limit_can_leave(rh: Emulator, tmp_path: Path) -> None:
    text = """
name: later
params: {photo: image, rows: {type: table, columns: {name: string, seconds: {enum: ["5", "10"]}}}}
steps:
  word: {model: rhart-text-g-3-flash-preview/text-to-text, with: {prompt: "words only: calm"}}
  each:
    foreach: $(params.rows)
    where: {equals: [$(item.name), $(word)]}
    limit: 1
    steps:
      clip:
        model: kling-v2.6-pro-image-to-video
        from: $(params.photo)
        with: {prompt: $(item.name), duration: $(item.seconds), sound: false}
outputs: {clips: $(each.clip)}
"""
    rows_ = [{"name": "wild", "seconds": "5"}, {"name": "calm.", "seconds": "10"}, {"name": "x", "seconds": "5"}]
    given = {"photo": photo(tmp_path / "photo.png"), "rows": rows_}
    price = (await plan_of(text, **given)).price
    assert price.most == Decimal("3.52")
    state, _ = await run(text, **given)
    assert state.is_completed(), state.message
    assert price.least <= rh.recorder.charged <= price.most


async def test_an_output_of_rows_has_their_columns_only(rh: Emulator) -> None:
    text = pictures().replace("outputs: {", "outputs: {rows: $(each.item), ")
    assert (await run(text, rows=rows("a mug")))[1]["rows"] == rows("a mug")


async def test_a_lost_submission_is_counted_with_what_it_may_cost(rh: Emulator) -> None:
    rh.faults.add(Fault("submit", kind="cut", number=1, prompt="mug"))
    state, result = await run(pictures(), rows=rows("mug", "jug"))
    assert (result.open_submissions, str(result.open_costs), str(result.costs)) == (1, "0.04 CNY", "0.12 CNY")
    assert "paid 0.12 CNY; 1 submission has no known end and may cost 0.04 CNY more." in (state.message or "")


async def test_within_a_budget_an_item_that_has_failed_comes_after_those_that_were_never_tried(rh: Emulator) -> None:
    fail(rh, "a mug")
    text = pictures(budget="{amount: 0.12, whole_items: true, all_runs: true}")
    text = text.replace(next(line for line in text.splitlines() if "large:" in line), "").replace("large)", "picture)")
    await run(text, rows=rows("a mug"))
    _, result = await run(text, rows=rows("a mug", "a cup", "a jug"))
    made = {one.step for one in result.steps if one.state == "made"}
    assert made == {"each[2].picture", "each[3].picture"}, "of 0.12, the failed task has cost 0.04"
    assert rh.recorder.charged == 3 * PRICE


async def test_an_unlimited_run_makes_what_fits_no_budget(rh: Emulator) -> None:
    state, _ = await run(pictures(budget="unlimited"), rows=rows("a mug"))
    assert state.is_completed()
    assert rh.recorder.charged == 2 * PRICE

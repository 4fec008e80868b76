"""What runs of pipelines pay: budgets, whole items, failed tasks and refused answers, on an emulator."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import prefect
import pytest

from rh_prefect.emulator import DEFAULT, Emulator, Fault
from rh_prefect.errors import BudgetExceeded, PipelineIncomplete, PlanChanged
from rh_prefect.flow_runs.resume_or_rerun import create, rerun
from rh_prefect.flows.pipeline import Pipeline as FlowPipeline
from rh_prefect.flows.pipeline import pipeline_flow
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan import Plan, ReviewedPlan
from rh_prefect.pipelines.plan.planned_steps import PriceRange, Selection
from rh_prefect.pipelines.run.result import PipelineResult
from rh_prefect.pipelines.run.run_budget import run_limit
from tests.support.samples.pipeline_assets import photo
from tests.support.samples.steps import ANSWER, CLIP, PICTURE, RESIZE, further, group, of_rows, rows, steps
from tests.support.servers.emulator_env import StartEmulator
from tests.support.world.pipeline_flows import complete, planned, prompts, reasons, run, states

PRICE = Decimal("0.04")
"""Of one picture."""


@pytest.fixture
def rh(charging_rh: Emulator) -> Emulator:
    return charging_rh


def pictures(*, budget: str = "", attempts: int = 1) -> str:
    """A file that makes two pictures of each row."""
    attempted = f", attempts: {attempts}"
    text = of_rows(
        "title: string",
        picture=PICTURE % "$(item.title)" + attempted,
        large=PICTURE % "$(item.title) again" + attempted,
    )
    return (f"budget: {budget}\n" if budget else "") + text + "outputs: {pictures: $(each.large)}\n"


def fail(rh: Emulator, prompt: str, times: int = 1) -> None:
    """The next tasks of a prompt are accepted, paid for and fail."""
    rh.faults.add(Fault("submit", prompt=prompt, kind="fail", code="1504", times=times))


def costs_of(result: PipelineResult) -> dict[str, str]:
    return {one.step: one.cost for one in result.steps if one.cost}


async def test_the_report_lists_failed_tasks_that_were_charged(rh: Emulator) -> None:
    fail(rh, "a mug")
    fail(rh, "cup again", times=2)
    state, result = await run(pictures(attempts=2), rows=rows("a mug", "a cup", "a jug"))
    assert state.is_failed
    assert result.costs.amounts == {"CNY": rh.recorder.charged}
    assert sum((Decimal(text.split()[0]) for text in costs_of(result).values()), Decimal(0)) == rh.recorder.charged


async def test_each_take_that_failed_is_named(rh: Emulator) -> None:
    rh.faults.add(Fault("submit", prompt="a cup", kind="cut"))
    _, result = await run(steps(cup=PICTURE % "a cup" + ", takes: 2"))
    (step,) = result.steps
    assert len(rh.recorder.paid) == 2
    assert ("take 1" in step.reason, "take 2" in step.reason) == (True, True), step.reason
    assert len(set(re.findall(r"jobs adopt (\S+)", step.reason))) == 2


async def test_whole_items_counts_failed_tasks(rh: Emulator) -> None:
    # Two items fit only if no task fails; the first item's failed task takes the room of the second's.
    fail(rh, "a mug", times=1)
    text = pictures(budget="{amount: 0.20, whole_items: true}", attempts=2)
    state, result = await run(text, rows=rows("a mug", "a cup", "a jug"))
    assert state.name == "Over budget", state.message
    found = states(result)
    for number in (1, 2, 3):
        both = {found[f"each[{number}].picture"], found[f"each[{number}].large"]}
        assert both in ({"made"}, {"failed"}, {"failed", "not run"}), found
    assert rh.recorder.charged <= Decimal("0.20")
    assert found["each[1].large"] == "made"


async def test_an_item_begins_when_what_others_left_is_enough(rh: Emulator) -> None:
    # At first 2 x 2 attempts are set aside for an item; without failures two items fit one after another.
    text = pictures(budget="{amount: 0.26, whole_items: true}", attempts=2)
    result = await complete(text, rows=rows("a mug", "a cup"))
    assert [one.state for one in result.steps] == ["made"] * 4


async def test_an_item_pays_no_more_than_its_own_budget(rh: Emulator) -> None:
    fail(rh, "a mug", times=1)
    state, result = await run(pictures(budget="{amount: 9, item: 0.12}", attempts=2), rows=rows("a mug", "a cup"))
    assert state.name == "Over budget", state.message
    found = states(result)
    assert found["each[2].picture"] == found["each[2].large"] == "made"
    assert "failed" in (found["each[1].picture"], found["each[1].large"])
    paid = [one for one in rh.recorder.paid if "mug" in str(one.payload)]
    assert sum((one.charged for one in paid), Decimal(0)) <= Decimal("0.12")


async def resumed(text: str, **given: Any) -> PipelineResult:
    """Runs a flow run whose first attempt fails, and which then completes."""
    flow = pipeline_flow(Pipeline.from_text(text))
    run_id = await create(flow, given)
    with pytest.raises(PipelineIncomplete):
        await rerun(flow, run_id)
    result: PipelineResult = await rerun(flow, run_id)
    return result


@pytest.mark.parametrize("options", [{"budget": 0.24, "require_new": True}, pytest.param({}, marks=pytest.mark.long)])
@pytest.mark.prefect
async def test_a_resumed_run_reports_and_counts_all_that_it_has_paid(rh: Emulator, options: dict[str, Any]) -> None:
    """Without a budget, it may pay the highest price of what is left."""
    fail(rh, "a cup again", times=1)
    result = await resumed(pictures(), rows=rows("a mug", "a cup"), **options)
    assert [one.state for one in result.steps] == ["made"] * 4
    assert result.costs.amounts == {"CNY": rh.recorder.charged} == {"CNY": PRICE * 5}
    assert result.new == 4


async def test_a_refused_answer_is_asked_for_again_and_is_no_further_take(rh: Emulator, tmp_path: Path) -> None:
    text = steps(words=ANSWER % "Describe a mug" + ", parse: {text: {max: 5}}, attempts: 2")
    state, result = await run(text, budget=1)
    assert "does not match `parse`" in (state.message or "")
    assert len(rh.recorder.paid) == 2
    assert result.costs.amounts["CNY"] == rh.recorder.charged
    (work,) = (path.parent for path in (tmp_path / "out" / "works").glob("*/intent-1.json"))
    assert {path.stem for path in work.glob("intent-*")} == {"intent-1", "intent-2"}


async def test_nothing_more_is_paid_after_a_failure_that_is_to_stop_the_run(rh: Emulator) -> None:
    rh.faults.add(Fault("submit", prompt="a bad word", kind="code", code="301"))
    first = PICTURE % "a bad word" + ", on_error: fail"
    state, result = await run(steps(first=first, other=PICTURE % "a mug", later=CLIP % "$(other)"), budget=5)
    assert state.is_failed
    assert states(result) == {"first": "failed", "other": "made", "later": "not run"}
    assert result.steps[2].reason == "the run stopped because first failed (on_error: fail)"
    assert len(rh.recorder.paid) == 1


EXPECTING = of_rows(
    "title: string, size: integer",
    "id: $(item.title)",
    other=PICTURE % "another $(item.title)",
    picture=PICTURE % "$(item.title)" + ", expect: {lt: [$(item.size), 3]}",
    small=RESIZE % "$(picture or other)",
    clip=CLIP % "$(small)",
) + further(
    some="edit: contact_sheet, with: {of: $(each.small)}, require: any",
    all="edit: contact_sheet, with: {of: $(each.small)}",
)


async def test_a_step_that_needs_one_whose_expect_is_false_is_blocked_by_it(rh: Emulator) -> None:
    given = [{"title": "mug", "size": 1}, {"title": "jug", "size": 5}]
    plan = await Pipeline.from_text(EXPECTING).plan(rows=given)
    state, result = await run(EXPECTING + "outputs: {some: $(some)}\n", rows=given, budget=5)
    assert state.is_failed
    assert "each[jug].picture: the expect condition is false. Nothing was paid for this step" in (state.message or "")
    blocked = dict.fromkeys(("each[jug].small", "each[jug].clip", "all"), "needs each[jug].picture, which failed")
    assert reasons(result, "not run") == blocked
    assert Counter(states(result).values()) == {"made": 6, "failed": 1, "not run": 3}
    assert result["some"] is not None
    assert plan.price.least <= rh.recorder.charged <= plan.price.most


async def test_a_fan_out_over_a_list_whose_expect_is_false_has_no_items(rh: Emulator) -> None:
    parse = "parse: {list: {picture: string}, at_most: 2}"
    text = "params: {count: integer}\n" + steps(
        script=f"{ANSWER % 'Two shots'}, {parse}, expect: {{lt: [$(params.count), 3]}}",
        shots=group("foreach: $(script)", still=f"{PICTURE % 'a cup'}, same: true"),
        later=PICTURE % "a mug" + ", when: {gt: [$(script.count), 1]}",
    )
    state, result = await run(text, count=5, budget=5)
    assert state.is_failed
    blocked = [(one.state, one.reason) for one in result.steps if one.step != "script"]
    assert blocked == [("not run", "needs script, which failed")] * 2
    assert not rh.recorder.paid


async def test_a_report_shows_no_stand_in_for_a_text_that_was_not_made(rh: Emulator) -> None:
    text = "params: {count: integer}\n" + steps(
        script=f"{ANSWER % 'Two shots'}, expect: {{lt: [$(params.count), 3]}}",
        picture=PICTURE % "$(script)",
        styled=PICTURE % "$(script) in watercolour",
    )
    _, result = await run(text, count=5, budget=5)
    assert {one.step: one.subject for one in result.steps} == {"script": "", "picture": "", "styled": ""}


CONDITIONS = "params: {count: integer}\n" + steps(
    first=PICTURE % "a bad word" + ", expect: {lt: [$(params.count), 3]}",
    after=PICTURE % "a mug" + ", when: {exists: $(first)}",
    group=group("when: {exists: $(first)}", cup=PICTURE % "a cup"),
    each=group("foreach: [1, 2], where: {exists: $(first)}", jug=PICTURE % "jug $(item)"),
)


@pytest.mark.parametrize(("count", "paid"), [(1, 1), (5, 0)])
async def test_a_step_whose_condition_names_a_failed_step_is_not_run(rh: Emulator, count: int, paid: int) -> None:
    fail(rh, "a bad word")
    state, result = await run(CONDITIONS, count=count, budget=5)
    assert state.is_failed
    first, *others = result.steps
    assert (first.step, first.state) == ("first", "failed")
    assert [(one.state, one.reason) for one in others] == [("not run", "needs first, which failed")] * 4
    assert len(rh.recorder.paid) == paid
    rh.faults.clear()
    state, result = await run(CONDITIONS, count=1, budget=5)
    assert [one.state for one in result.steps] == ["made"] * 5


@pytest.mark.parametrize(("inside", "outside"), [(True, False), (False, True), (False, False)])
async def test_on_error_holds_in_a_used_file(rh: Emulator, tmp_path: Path, *, inside: bool, outside: bool) -> None:
    rh.faults.add(Fault("submit", prompt="a bad word", kind="code", code="301"))
    strict = {True: ", on_error: fail", False: ""}
    first = PICTURE % "$(params.word)" + strict[inside]
    (tmp_path / "used.yaml").write_text("params: {word: string}\n" + steps(first=first))
    one = "use: ./used.yaml, with: {word: a bad word}" + strict[outside]
    (tmp_path / "using.yaml").write_text(steps(one=one, other=PICTURE % "a mug", later=CLIP % "$(other)"))
    _, result = await run(Pipeline.from_file(tmp_path / "using.yaml"), budget=5)
    later = result.steps[-1]
    stopped = ("not run", "the run stopped because one.first failed (on_error: fail)")
    assert (later.state, later.reason) == (stopped if inside or outside else ("made", ""))


async def test_nothing_is_paid_for_while_the_storage_refuses_outputs(start_rh: StartEmulator, tmp_path: Path) -> None:
    rh = start_rh(limit=1)
    blocked = tmp_path / "out" / "pipelines"  # where the files go; the records beside it can be written
    blocked.parent.mkdir()
    blocked.touch()
    state, result = await run(pictures(), rows=rows(*"abcdefgh"))
    assert state.is_failed
    assert 3 <= len(rh.recorder.paid) < 8, "three refused outputs, and those of which a task ran then"
    unpaid = sum("this job was not submitted, and nothing was paid" in one.reason for one in result.steps)
    assert unpaid + len(rh.recorder.paid) == 16
    blocked.unlink()
    await complete(pictures(), rows=rows(*"abcdefgh"))
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
    assert state.name == "Over budget", state.message
    assert Counter(states(result).values()) == {"reused": 20, "made": 11, "failed": 1}
    assert rh.recorder.charged - before == 12 * PRICE == result.costs.amounts["CNY"]


def test_a_budget_is_named_as_it_was_written() -> None:
    budgets = {str(run_limit(Plan("film"), PriceRange(), budget=one, counted=Decimal(0))) for one in (6, 6.0)}
    assert budgets == {"6"}


async def test_the_limit_of_the_machine_holds_for_any_budget(rh: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """RH_MAX_BUDGET; the smaller one counts."""
    monkeypatch.setenv("RH_MAX_BUDGET", "0.10")
    await complete(pictures(), rows=rows("a mug"), budget=50)
    state, result = await run(pictures(budget="{amount: 90, whole_items: true}"), rows=rows("a cup", "a jug"))
    assert state.name == "Over budget"
    assert result.costs.amounts["CNY"] == 2 * PRICE
    assert any("the budget of the run is 0.10 (RH_MAX_BUDGET)" in one.reason for one in result.steps)
    with pytest.raises(BudgetExceeded, match=r"its budget is 0\.10 \(RH_MAX_BUDGET\)"):
        await run(pictures(), rows=rows("a", "b", "c"), budget=50)
    assert rh.recorder.charged == 4 * PRICE


async def test_a_run_in_python_makes_the_part_that_its_reviewed_plan_selects(rh: Emulator) -> None:
    pipeline = FlowPipeline.from_text(pictures())
    plan = await pipeline.plan(rows=rows("a mug", "a cup"), selection=Selection(items=frozenset({"2"})))
    reviewed = ReviewedPlan(plan.as_json())
    with pytest.raises(PlanChanged, match=r"the plan selects --items 2; .* Nothing was paid"):
        await pipeline.run(rows=rows("a mug", "a cup"), reviewed=reviewed, sample=1)
    await pipeline.run(rows=rows("a mug", "a cup"), reviewed=reviewed)
    assert {str(one.payload["prompt"])[:5] for one in rh.recorder.paid} == {"a cup"}


@pytest.mark.prefect
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
    result = await complete(text, rows=rows("a mug", "a cup"), only=["each.picture"])
    assert [one.state for one in result.steps if one.step.endswith("picture")] == ["made"] * 2


@pytest.mark.parametrize(
    ("written", "counted", "left", "is_open", "limit"),
    [
        (None, "0", ("0.04", "0.08"), False, "0.08"),
        (9, "0", ("0.04", "0.08"), False, "0.08"),
        (9, "0", ("0.16", "0.32"), False, "0.32"),
        (9, "0.10", ("0.04", "0.08"), False, "0.18"),
        (9, "0.30", ("0.04", "0.08"), False, "0.32"),
        (0.05, "0", ("0.04", "0.08"), False, "0.05"),
        (500, "0", ("0.04", "0.04"), True, "9"),
        (500, "1", ("0.04", "0.04"), True, "9"),  # 1 for the step whose price was not known
    ],
)
def test_a_reviewed_plan_limits_a_run_to_the_price_of_what_is_left_of_it(
    written: float | None, counted: str, left: tuple[str, str], is_open: bool, limit: str
) -> None:
    """If a price of the plan is not known, to the budget that was reviewed."""
    reviewed = ReviewedPlan({"price": {"most": 0.32, "open": is_open}, "steps": [], "budget": {"amount": 9}})
    price = PriceRange(Decimal(left[0]), Decimal(left[0]), Decimal(left[1]), is_open and counted == "0")
    given: Any = {"budget": written, "counted": Decimal(counted), "reviewed": reviewed, "attempt": 2}
    assert run_limit(Plan("pictures"), price, **given) == Decimal(limit)


@pytest.mark.prefect
async def test_a_second_pipeline_of_a_flow_run_is_refused_if_the_first_has_spent_its_budget(rh: Emulator) -> None:
    first, second = (
        FlowPipeline.from_text(f"name: {name}\n" + steps(mug=PICTURE % f"{name} mug", cup=PICTURE % f"{name} cup"))
        for name in ("first", "second")
    )

    @prefect.flow
    async def both() -> None:
        await first.run(budget=0.10)
        await second.run(budget=0.10)

    with pytest.raises(BudgetExceeded, match=r"at least 0\.08 CNY, 0\.08 were already spent .* budget is 0\.1"):
        await both()
    assert len(rh.recorder.paid) == 2


@pytest.mark.parametrize(("attempt", "is_refused"), [(1, True), (2, False)])
def test_a_retry_makes_what_still_fits(attempt: int, *, is_refused: bool) -> None:
    price, counted = PriceRange(Decimal(5), Decimal(5), Decimal(5)), Decimal(8)
    with pytest.raises(BudgetExceeded) if is_refused else nullcontext():
        assert run_limit(Plan("pictures"), price, budget=10, counted=counted, attempt=attempt) == 10


async def test_a_budget_counts_in_the_currency_of_the_account(start_rh: StartEmulator) -> None:
    """The catalogue's prices are in CNY: they are no limit in USD, and are not compared with one."""
    dollars = start_rh(assumptions=replace(DEFAULT, currency="USD"))
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
    assert state.name == "Over budget", state.message
    assert result.costs.amounts == {"USD": dollars.recorder.charged}
    assert 0 < dollars.recorder.charged <= Decimal("0.17")


SHOTS = ANSWER % '"two shots as JSON, each shot has line and mood, about the sea"'


def shapes(field: str, count: int) -> str:
    """A file that reads one answer in three shapes, of which the last has a field and a limit."""
    picture = PICTURE % f'"$(item.line), $(item.{field})"'
    return steps(
        raw=SHOTS,
        lines=SHOTS + ", parse: {list: {line: string}, at_most: 5}",
        shots=SHOTS + f", parse: {{list: {{line: string, {field}: string}}, at_most: {count}}}",
        each=group("foreach: $(shots)", picture=picture),
    )


async def test_steps_that_read_one_answer_in_several_shapes_have_their_own_values(rh: Emulator) -> None:
    text = shapes("mood", 5) + "outputs: {raw: $(raw), lines: $(lines), shots: $(shots)}\n"
    plan = await planned(text)
    result = await complete(text)
    assert isinstance(result["raw"], str)
    assert [set(one) for one in result["lines"]] == [{"line"}] * len(result["shots"])
    expected = sorted(f"{one['line']}, {one['mood']}" for one in result["shots"])
    assert prompts(rh)[: len(expected)] == expected
    assert len(rh.recorder.paid) == 1 + len(expected)
    assert plan.price.least <= rh.recorder.charged <= plan.price.most


@pytest.mark.parametrize(("field", "count"), [("missing", 5), ("mood", 1)])
async def test_an_answer_that_does_not_fit_one_shape_fails_that_step_only(rh: Emulator, field: str, count: int) -> None:
    plan = await planned(shapes(field, count))
    state, result = await run(shapes(field, count))
    assert state.is_failed
    assert states(result).items() >= {"raw": "made", "lines": "made", "shots": "failed"}.items()
    assert len(rh.recorder.paid) == 1
    assert rh.recorder.charged <= plan.price.most


async def test_a_lower_at_most_of_a_parameter_counts_for_an_answer_that_exists(rh: Emulator) -> None:
    text = "params: {n: integer}\n" + steps(shots=SHOTS + ", parse: {list: {line: string}, at_most: $(params.n)}")
    text += "outputs: {shots: $(shots)}\n"
    assert len((await run(text, n=5))[1]["shots"]) > 1
    state, _ = await run(text, n=1, budget=1)
    assert state.is_failed
    assert "at most 1 are allowed" in (state.message or "")
    assert (await run(text, n=5))[0].name == "Nothing new"


async def test_an_answer_that_does_not_fit_is_planned_and_paid_for_again(rh: Emulator) -> None:
    short, long = (steps(words=ANSWER % "A mug" + f", parse: {{text: {{max: {most}}}}}") for most in (5, 9000))
    price = (await planned(short)).price
    for number in (1, 2):
        plan = await planned(short)
        assert (plan.instances[0].state, plan.price) == ("+", price)
        state, _ = await run(short)
        assert "does not match `parse`" in (state.message or "")
        assert rh.recorder.charged == price.most * number
    plan = await planned(long)  # its shape takes the first answer, and costs nothing
    assert (plan.instances[0].state, plan.price.most) == ("…", Decimal(0))
    await complete(long)
    assert rh.recorder.charged == price.most * 2


async def test_items_that_are_sorted_by_a_result_begin_when_all_results_are_there(
    full_length_rh: Emulator, tmp_path: Path
) -> None:
    rh = full_length_rh
    rh.faults.add(Fault("submit", kind="hold", seconds=3, prompt="long"))
    best = "foreach: $(each.clip), sort: {by: seconds, descending: true}, limit: 1"
    large = "steps: {large: {model: topazlabs-video-upscale, from: $(item)}}"
    values = "with: {prompt: $(item.title), duration: $(item.seconds), sound: false}"
    clip = f"model: kling-v2.6-pro-image-to-video, from: $(params.photo), {values}"
    text = of_rows('title: string, seconds: {enum: ["5", "10"]}', clip=clip).replace("{rows", "{photo: image, rows", 1)
    text += further(best=f"{best}, {large}") + "outputs: {large: $(best.large)}\n"
    lengths = [{"title": "short", "seconds": "5"}, {"title": "long", "seconds": "10"}]
    given = {"photo": photo(tmp_path / "photo.png"), "rows": lengths}
    price = (await planned(text, **given)).price
    result = await complete(text, **given)
    assert [one.seconds for one in result["large"]] == [pytest.approx(10, abs=0.3)]
    assert len(rh.recorder.paid) == 3
    assert price.least <= rh.recorder.charged <= price.most


async def test_an_output_of_rows_has_their_columns_only(rh: Emulator) -> None:
    text = pictures().replace("outputs: {", "outputs: {rows: $(each.item), ")
    assert (await run(text, rows=rows("a mug")))[1]["rows"] == rows("a mug")


async def test_a_lost_submission_is_counted_with_what_it_may_cost(rh: Emulator) -> None:
    rh.faults.add(Fault("submit", kind="cut", number=1, prompt="mug"))
    state, result = await run(pictures(), rows=rows("mug", "jug"))
    assert (result.open_submissions, str(result.open_costs), str(result.costs)) == (1, "0.04 CNY", "0.12 CNY")
    assert "paid 0.12 CNY; 1 submission has no known end and may cost 0.04 CNY more." in (state.message or "")


@pytest.mark.prefect
async def test_two_runs_of_a_pipeline_in_a_flow_run_have_reports_of_their_own(rh: Emulator) -> None:
    pipeline = FlowPipeline.from_text(pictures())

    @prefect.flow
    async def twice() -> list[str]:
        given: Sequence[dict[str, Any]] = ({"sample": 1}, {"sample": 2}, {"sample": 2, "budget": 9})
        return [(await pipeline.run(rows=rows("a mug", "a cup"), **one)).report for one in given]

    part, whole, continued = await twice()
    assert continued == whole, "a run that continues with another budget replaces its report"
    reports = [csv.DictReader(Path(one).read_text().splitlines()) for one in (part, whole)]
    assert [[row["state"] for row in one].count("not run") for one in reports] == [2, 0]

"""Parts of the language: literals behind `or`, lists of texts, comparisons, defaults, merge keys and slugs."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any, cast

import pytest

from rh_prefect import catalog
from rh_prefect.errors import InputError
from rh_prefect.media.media import Media
from rh_prefect.models import ModelInput
from rh_prefect.pipelines.call_builder import known_values, request_of
from rh_prefect.pipelines.conditions import truth
from rh_prefect.pipelines.evaluation import follow, slug
from rh_prefect.pipelines.file_model import FanOutStep
from rh_prefect.pipelines.parsed_document import PipelineError
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan import Plan
from rh_prefect.pipelines.planning_values import ABSENT, File, Frame
from rh_prefect.pipelines.references import WrongReferenceError, parse
from rh_prefect.works.checked_request import as_request
from tests.support.samples.steps import ANSWER, CLIP, PICTURE, group, of_rows, rows, steps
from tests.support.world.planned_works import Records, plan_of, problems_of, states


def prompts(plan: Plan) -> list[str]:
    return [one.request["prompt"] for one in plan.instances]


@pytest.mark.parametrize(
    ("written", "fallback"),
    [
        ('$(a or "grey (dark)")', "grey (dark)"),
        ("$(a or b.c or 'x or y')", "x or y"),
        ("$(a or 5)", 5),
        ("$(a or -0.5)", -0.5),
        ('$(a or "")', ""),
        ("$(a or b)", None),
    ],
)
def test_a_literal_is_the_last_option_of_a_reference(written: str, fallback: object) -> None:
    (reference,) = parse(f"it's {written} isn't").references
    assert (reference.text, reference.fallback) == (written, fallback)
    assert reference.options[0] == ("a",)


@pytest.mark.parametrize("written", ['$("grey")', '$("grey" or a)', "$(5)x$(5 or a b)", '$(a or "grey" or b)'])
def test_a_literal_stands_behind_a_reference_only(written: str) -> None:
    with pytest.raises(WrongReferenceError):
        parse(written)


@pytest.mark.parametrize(
    ("given", "expected"), [({}, ("grey mug", "10")), ({"look": "red", "seconds": "5"}, ("red mug", "5"))]
)
async def test_a_literal_takes_the_place_of_an_absent_value(given: dict[str, str], expected: tuple[str, str]) -> None:
    text = "params: {look: {type: string, optional: true}, seconds: {enum: [5, 10], optional: true}}\n" + steps(
        a=PICTURE % """'$(params.look or "grey") mug'""",
        b="model: kling-v2.6-pro-image-to-video, from: $(a), with: {prompt: x, duration: $(params.seconds or 10)}",
    )
    first, second = (await plan_of(text, given)).instances
    assert (first.request["prompt"], second.request["duration"]) == expected


async def test_a_literal_is_taken_when_a_condition_is_decided() -> None:
    judge, words = ANSWER % "x" + ", parse: {object: {good: boolean}}", "when: $(judge.good), " + ANSWER % "y"
    text, records = steps(judge=judge, words=words, a=PICTURE % '$(words or "plain")'), Records()
    first = await plan_of(text)
    assert states(first) == "++>"
    records.answer(first.instances[0], {"good": False})
    second = await plan_of(text, known=records)
    assert (states(second), second.instances[2].request) == ("=x+", {"prompt": "plain"})


COLOURS = "params: {colours: {type: list, max: 2}}\n" + steps(
    each=group("foreach: $(params.colours), id: $(item)", a=PICTURE % "$(item)"),
    all="edit: join_text, with: {texts: $(params.colours)}",
)


@pytest.mark.parametrize("given", [["red", "blue"], "red, blue", '["red", "blue"]'])
async def test_a_list_parameter_takes_texts(given: object) -> None:
    plan = await plan_of(COLOURS, colours=given)
    assert [one.address for one in plan.instances] == ["each[red].a", "each[blue].a", "all"]
    assert plan.instances[2].request == {"texts": ["red", "blue"]}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("a,b,c", "colours has 3 items; at most 2 are allowed"),
        ([["a"]], "colours takes a list of strings, but one item is a list"),
    ],
)
async def test_a_list_parameter_takes_nothing_else(given: object, said: str) -> None:
    assert await problems_of(COLOURS, colours=given) == [said]


async def test_a_used_file_takes_a_list(tmp_path: Path) -> None:
    each = group("foreach: $(params.names)", a=PICTURE % "$(item)")
    (tmp_path / "inner.yaml").write_text("params: {names: list}\n" + steps(each=each))
    lists = {"a": "$(params.rows.title)", "b": "[$(params.name), c]"}
    uses = {step: f"use: ./inner.yaml, with: {{names: {names}}}" for step, names in lists.items()}
    outer = "params: {rows: {type: table, columns: {title: string}}, name: string}\n" + steps(**uses)
    (tmp_path / "outer.yaml").write_text(outer)
    plan = await plan_of(Pipeline.from_file(tmp_path / "outer.yaml"), {"rows": rows("x", "y"), "name": "z"})
    assert prompts(plan) == ["x", "y", "z", "c"]


@pytest.mark.parametrize(
    ("condition", "sold", "expected"),
    [
        ({"item.sold": {"gt": 1}}, 2, True),
        ({"item.sold": {"gte": 2, "lt": 5}}, 2, True),
        ({"item.sold": {"gte": 2, "lt": 5}}, 5, False),
        ({"item.sold": {"lte": 2}}, 2, True),
        ({"item.sold": {"lte": 2}}, 2.5, False),
        ({"item.sold": {"ne": 2}}, 2, False),
        ({"item.sold": {"ne": 2}}, ABSENT, True),
        ({"item.sold": {"equals": 2}}, 2, True),
        ({"item.sold": {"in": [1, 2]}}, 2, True),
        ({"item.sold": {"gte": 2}}, ABSENT, False),
        ({"not": {"item.sold": {"gt": 1}}}, 2, False),
        ({"any": [{"item.sold": {"gt": 9}}, {"lte": ["$(item.sold)", 2]}]}, 2, True),
        ({"ne": ["$(item.sold)", 3]}, 2, True),
    ],
)
def test_a_value_is_compared_by_its_name(condition: object, sold: object, *, expected: bool) -> None:
    step = FanOutStep.model_validate({"foreach": "$(params.rows)", "where": condition, "steps": {}})
    assert truth(step.where, Frame(names={"item": {"sold": sold}})) is expected


async def test_defaults_are_those_of_steps_of_a_kind() -> None:
    defaults = 'x-square: &square {with: {aspect_ratio: "1:1", prompt: y}}\n'
    defaults += 'defaults:\n  model: {attempts: 2, with: {aspect_ratio: "9:16"}}\n  edit: {require: any}\n'
    b, sheet = "model: z-image/turbo, attempts: 3, <<: *square", "edit: contact_sheet, with: {of: [$(a), $(b)]}"
    plan = await plan_of(defaults + steps(a=PICTURE % "x", b=b, group=group("", c=PICTURE % "z"), d=sheet))
    paid = [one for one in plan.instances if one.is_paid]
    assert [(one.attempts, one.request["aspectRatio"]) for one in paid] == [(2, "9:16"), (3, "1:1"), (2, "9:16")]
    assert plan.instances[-1].step.require == "any"


async def test_a_default_is_replaced_under_each_spelling_of_a_parameter_of_a_model() -> None:
    defaults = 'defaults:\n  model: {with: {aspect_ratio: "9:16"}}\n'
    plan = await plan_of(defaults + steps(a=PICTURE % 'x, aspectRatio: "1:1"', b=PICTURE % "y"))
    assert [one.request["aspectRatio"] for one in plan.instances] == ["1:1", "9:16"]


async def test_merged_keys_are_those_that_a_mapping_does_not_have() -> None:
    merged = f"x-one: &one {{{PICTURE % 'one'}, takes: 2}}\nx-two: &two {{takes: 3, attempts: 2}}\n"
    plan = await plan_of(merged + steps(a="<<: *one", b="<<: [*two, *one], with: {prompt: two}"))
    found = [(one.request["prompt"], len(one.works), one.attempts) for one in plan.instances]
    assert found == [("one", 2, 1), ("two", 3, 2)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Rêd & Blue!", "red-blue"), ("A_b/c", "a-b-c"), ("杯子 5", "杯子-5"), ("x" * 200, "x" * 80), ("A-17", "a-17")],
)
def test_a_slug_is_a_part_of_a_file_s_name(text: str, expected: str) -> None:
    assert slug(text) == expected


def test_a_text_without_letters_has_a_slug_of_its_own() -> None:
    assert len({slug(text) for text in ("!", "?", "", "--")}) == 4


@pytest.mark.parametrize("name", ["url", "read", "mime", "__class__"])
def test_a_file_has_only_the_fields_of_the_language(name: str) -> None:
    media = Media(uri="a.png", kind="image", mime="image/png", sha256="0" * 64, size=1)
    for file in (File("file", "a", media), File("file", "a")):
        assert follow(("a", name), Frame(names={"a": file})) is ABSENT


async def test_a_slug_can_be_saved_as_and_be_an_id() -> None:
    picture = PICTURE % "$(item.title)" + ", save_as: $(item.title.slug).png"
    plan = await plan_of(of_rows("title: string", "id: $(item.title.slug)", a=picture), rows=rows("Big / Mug"))
    assert [(one.address, one.save_as) for one in plan.instances] == [("each[big-mug].a", "big-mug.png")]


async def test_a_source_of_unknown_kind_can_be_what_a_model_needs() -> None:
    text = "params: {model: string}\n" + steps(a="model: $(params.model), with: {prompt: x}", b=CLIP % "$(a)")
    await plan_of(text, model="z-image/turbo")


def test_a_used_file_may_have_a_parameter_with_the_name_of_an_option(tmp_path: Path) -> None:
    used = "params: {budget: string}\n" + steps(p=PICTURE % "$(params.budget)")
    (tmp_path / "a&b.yaml").write_text(used)
    (tmp_path / "outer.yaml").write_text(steps(u="use: ./a&b.yaml, with: {budget: x}"))
    assert Pipeline.from_file(tmp_path / "outer.yaml").name == "outer"
    with pytest.raises(PipelineError, match="budget is an option of every run"):
        Pipeline.from_text(used)


async def test_a_parameter_that_the_catalogue_lacks_is_sent_unchecked() -> None:
    unchecked = 'x, unchecked: {camera: $(params.photo), aspectRatio: "32:9"}'
    text = "params: {photo: {type: string, default: night}}\n" + steps(a=PICTURE % unchecked)
    (one,) = (await plan_of(text)).instances
    assert (one.request, one.problems) == ({"prompt": "x", "camera": "night", "aspectRatio": "32:9"}, ())
    asked = request_of(one)
    assert isinstance(asked, ModelInput)
    read = catalog.read_parameters(asked.entry, asked.params(), unchecked=asked.unchecked)
    assert as_request(read.given) == one.request


async def test_a_deeply_nested_value_is_sent_as_it_is_hashed() -> None:
    text = "params: {v: any}\n" + steps(a=PICTURE % "x, unchecked: {zz: $(params.v)}")
    value = reduce(lambda inner, _: cast("Any", [inner]), range(100), "x")
    plan = await plan_of(text, v=value)
    (one,) = plan.instances
    assert known_values(one)["unchecked"]["zz"] == one.request["zz"] == plan.params["v"] == value


async def test_the_rows_of_a_request_have_only_the_cells_with_values(tmp_path: Path) -> None:
    columns = "index: integer, prompt: string, duration: {type: integer, optional: true}"
    shots = "model: kling-v3-4k-text-to-video, with: {multi_shot: true, shot_type: customize, prompt: x, duration: 10, "
    text = f"invalid_items: skip\nparams: {{rows: {{type: table, columns: {{{columns}}}}}}}\n" + steps(
        a=shots + "multi_prompt: $(params.rows)}", b=PICTURE % "x, unchecked: {all: {rows: $(params.rows)}}"
    )
    (tmp_path / "shots.csv").write_text("index,prompt,duration\n1,a cat,5\n2,a dog,\n")
    sent = [{"index": 1, "prompt": "a cat", "duration": 5}, {"index": 2, "prompt": "a dog"}]
    first, second = (await plan_of(text, rows=str(tmp_path / "shots.csv"))).instances
    assert known_values(first)["multi_prompt"] == first.request["multiPrompt"] == sent
    assert known_values(second)["unchecked"]["all"] == second.request["all"] == {"rows": sent}


def test_a_misspelt_parameter_of_a_model_with_an_incomplete_list_is_a_problem_too() -> None:
    model = next(model for model in catalog.models() if model.incomplete and not model.media_params)
    with pytest.raises(InputError, match=r"has no parameter zoom; .*unchecked: \{…\} takes others"):
        Pipeline.from_text(steps(a=f"model: {model.name}, with: {{zoom: 2}}"))


def test_check_notes_each_paid_request_with_the_day_of_the_run() -> None:
    text = "params: {day: {type: string, optional: true}}\n" + steps(
        a=PICTURE % "$(params.day or run.date)",
        b=PICTURE % "$$(run.date)",
        c=CLIP % "$(a)" + ", save_as: $(run.date).mp4",
    )
    note, escaped = Pipeline.from_text(text).plan_now().notes
    assert "run.date is part of a paid request" in note
    assert escaped == "pipeline.yaml:4: $$(run.date) is the text '$(run.date)', and not the value of run.date."


def test_check_notes_a_price_that_is_a_text() -> None:
    prompt = "'for $$(item.price), $$(item.cost), $$(f x), or $$( item.title )'"
    (note,) = Pipeline.from_text(of_rows("title: string, price: number", a=PICTURE % prompt)).plan_now(rows=[]).notes
    assert note == "pipeline.yaml:6: $$(item.price) is the text '$(item.price)', and not the value of item.price."

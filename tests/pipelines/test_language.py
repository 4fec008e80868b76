"""Parts of the language: literals behind `or`, lists of texts, comparisons, defaults, merge keys and slugs."""

from __future__ import annotations

from typing import Any

import pytest

from rh_prefect.pipelines.conditions import truth
from rh_prefect.pipelines.evaluation import slug
from rh_prefect.pipelines.file_model import FanOutStep
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan import KnownWork, Plan
from rh_prefect.pipelines.planning_values import ABSENT, Frame
from rh_prefect.pipelines.references import WrongReferenceError, parse
from tests.support.world.planned_works import Records

PICTURE = "model: z-image/turbo"


def planned(text: str, /, **params: Any) -> Plan:
    plan = Pipeline.from_text(text).plan_now(params)
    assert [one.head for one in plan.problems] == []
    return plan


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


def test_a_literal_takes_the_place_of_an_absent_value() -> None:
    text = f"""
params: {{look: {{type: string, optional: true}}, seconds: {{enum: [5, 10], optional: true}}}}
steps:
  a: {{{PICTURE}, with: {{prompt: '$(params.look or "grey") mug'}}}}
  b: {{model: kling-v2.6-pro-image-to-video, from: $(a), with: {{prompt: x, duration: $(params.seconds or 10)}}}}
"""
    first, second = planned(text).instances
    assert (first.request["prompt"], second.request["duration"]) == ("grey mug", "10")
    first, second = planned(text, look="red", seconds="5").instances
    assert (first.request["prompt"], second.request["duration"]) == ("red mug", "5")


async def test_a_literal_is_taken_when_a_condition_is_decided() -> None:
    model = "model: rhart-text-g-3-flash-preview/text-to-text"
    text = f"""
steps:
  judge: {{{model}, with: {{prompt: x}}, parse: {{object: {{good: boolean}}}}}}
  words: {{when: $(judge.good), {model}, with: {{prompt: y}}}}
  a: {{{PICTURE}, with: {{prompt: $(words or "plain")}}}}
"""
    pipeline, records = Pipeline.from_text(text), Records()
    first = await pipeline.plan(known=records)
    assert [one.state for one in first.instances] == ["+", "+", ">"]
    records.known[first.instances[0].works[0].key] = KnownWork("=", value={"good": False})
    second = await pipeline.plan(known=records)
    assert [one.state for one in second.instances] == ["=", "x", "+"]
    assert second.instances[2].request == {"prompt": "plain"}


@pytest.mark.parametrize("given", [["red", "blue"], "red, blue", '["red", "blue"]'])
def test_a_list_parameter_takes_texts(given: object) -> None:
    text = f"""
params: {{colours: {{type: list, max: 2}}}}
steps:
  each: {{foreach: $(params.colours), id: $(item), steps: {{a: {{{PICTURE}, with: {{prompt: $(item)}}}}}}}}
  all: {{edit: join_text, with: {{texts: $(params.colours)}}}}
"""
    plan = planned(text, colours=given)
    assert [one.address for one in plan.instances] == ["each[red].a", "each[blue].a", "all"]
    assert plan.instances[2].request == {"texts": ["red", "blue"]}
    wrong = Pipeline.from_text(text).plan_now({"colours": "a,b,c"})
    assert [one.message for one in wrong.problems] == ["colours has 3 texts; at most 2 are allowed"]
    wrong = Pipeline.from_text(text).plan_now({"colours": [["a"]]})
    assert [one.message for one in wrong.problems] == ["colours takes a list of texts, but in it this is a list"]


def test_a_used_file_takes_a_list(tmp_path: Any) -> None:
    (tmp_path / "inner.yaml").write_text(
        f"params: {{names: list}}\n"
        f"steps: {{e: {{foreach: $(params.names), steps: {{a: {{{PICTURE}, with: {{prompt: $(item)}}}}}}}}}}\n"
    )
    (tmp_path / "outer.yaml").write_text(
        "params: {rows: {type: table, columns: {title: string}}, name: string}\n"
        "steps:\n  a: {use: ./inner.yaml, with: {names: $(params.rows.title)}}\n"
        "  b: {use: ./inner.yaml, with: {names: [$(params.name), c]}}\n"
    )
    pipeline = Pipeline.from_file(tmp_path / "outer.yaml")
    plan = pipeline.plan_now({"rows": [{"title": "x"}, {"title": "y"}], "name": "z"})
    assert [one.head for one in plan.problems] == []
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


def test_defaults_are_those_of_steps_of_a_kind() -> None:
    plan = planned(f"""
x-square: &square {{with: {{aspect_ratio: "1:1", prompt: y}}}}
defaults:
  model: {{attempts: 2, with: {{aspect_ratio: "9:16"}}}}
  edit: {{require: any}}
steps:
  a: {{{PICTURE}, with: {{prompt: x}}}}
  b: {{{PICTURE}, attempts: 3, <<: *square}}
  group: {{steps: {{c: {{{PICTURE}, with: {{prompt: z}}}}}}}}
  d: {{edit: contact_sheet, with: {{of: [$(a), $(b)]}}}}
""")
    paid = [one for one in plan.instances if one.is_paid]
    assert [(one.attempts, one.request["aspectRatio"]) for one in paid] == [(2, "9:16"), (3, "1:1"), (2, "9:16")]
    assert plan.instances[-1].step.require == "any"


def test_merged_keys_are_those_that_a_mapping_does_not_have() -> None:
    plan = planned(f"""
x-one: &one {{{PICTURE}, takes: 2, with: {{prompt: one}}}}
x-two: &two {{takes: 3, attempts: 2}}
steps:
  a: {{<<: *one}}
  b: {{<<: [*two, *one], with: {{prompt: two}}}}
""")
    assert [(one.request["prompt"], len(one.works), one.attempts) for one in plan.instances] == [
        ("one", 2, 1),
        ("two", 3, 2),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Rêd & Blue!", "red-blue"), ("A_b/c", "a-b-c"), ("杯子 5", "杯子-5"), ("x" * 200, "x" * 80), ("A-17", "a-17")],
)
def test_a_slug_is_a_part_of_a_file_s_name(text: str, expected: str) -> None:
    assert slug(text) == expected


def test_a_text_without_letters_has_a_slug_of_its_own() -> None:
    assert len({slug(text) for text in ("!", "?", "", "--")}) == 4


def test_a_slug_can_be_saved_as_and_be_an_id() -> None:
    rows = [{"title": "Big / Mug"}]
    plan = planned(
        f"""
params: {{rows: {{type: table, columns: {{title: string}}}}}}
steps:
  each:
    foreach: $(params.rows)
    id: $(item.title.slug)
    steps: {{a: {{{PICTURE}, with: {{prompt: $(item.title)}}, save_as: $(item.title.slug).png}}}}
""",
        rows=rows,
    )
    assert [(one.address, one.save_as) for one in plan.instances] == [("each[big-mug].a", "big-mug.png")]

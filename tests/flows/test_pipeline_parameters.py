"""The parameters of a pipeline's flow and of its plans in Python."""

from __future__ import annotations

from prefect.utilities.callables import parameter_schema

from rh_prefect.flows.pipeline import Pipeline
from rh_prefect.pipelines.plan.planned_steps import NoWorks

DATED = """
params:
  date: string
  site: {enum: [shop], default: shop}
  look: {enum: [studio], optional: true}
steps: {a: {model: z-image/turbo, with: {prompt: "$(params.date) $(params.site)"}}}
"""


def test_an_enum_with_one_option_has_a_field_in_the_form() -> None:
    shown = parameter_schema(Pipeline.from_text(DATED).flow()).model_dump()["properties"]
    assert shown["site"]["enum"] == ["shop"]
    assert "const" not in shown["site"]
    assert [one.get("enum") for one in shown["look"]["anyOf"]] == [["studio"], None]


async def test_parameters_with_the_names_of_options_are_given_by_name() -> None:
    pipeline = Pipeline.from_text(DATED)
    plan = await pipeline.plan(date="Monday", known=NoWorks())
    assert plan.instances[0].request == {"prompt": "Monday shop"}
    plan = await pipeline.plan({"date": "Monday"}, date="2026-01-01", known=NoWorks())
    assert plan.instances[0].request == {"prompt": "Monday shop"}

"""The parameters of a pipeline's flow and of its plans in Python."""

from __future__ import annotations

from prefect.utilities.callables import parameter_schema

from rh_prefect.flows.pipeline import Pipeline
from rh_prefect.pipelines.plan.planned_steps import KnownWorks

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
    plan = await pipeline.plan(date="Monday", known=KnownWorks())
    assert plan.instances[0].request == {"prompt": "Monday shop"}
    plan = await pipeline.plan({"date": "Monday"}, date="2026-01-01", known=KnownWorks())
    assert plan.instances[0].request == {"prompt": "Monday shop"}


LIMITED = """
params:
  idea: {type: string, min: 3, max: 300, description: What the film shows}
  count: {type: integer, min: 1, max: 12, default: 6}
  clip: {type: video, max_mb: 50, max_seconds: 30, optional: true}
  ask: {type: boolean, default: false}
  photos: {type: files, of: image}
steps: {a: {model: z-image/turbo, with: {prompt: "$(params.idea)"}}}
"""


def test_the_form_describes_each_parameter_with_its_type_limits_and_default() -> None:
    shown = parameter_schema(Pipeline.from_text(LIMITED).flow()).model_dump()["properties"]
    words = {name: one["description"] for name, one in shown.items()}
    assert words["idea"] == "What the film shows. A text of 3 to 300 characters."
    assert words["count"] == "A whole number from 1 to 12. Default: 6."
    assert words["clip"] == "A path, URI or link of a file of type video, up to 50 MB, up to 30 s. It may be left out."
    assert words["ask"] == "True or false. Default: false."
    assert words["photos"] == "A folder, a prefix, or a pattern such as photos/*.jpg, of image files."
    own = list(LIMITED.split("steps:")[0].split("\n  "))[1:]
    last = sorted(shown, key=lambda name: shown[name]["position"])[len(own) :]
    assert "budget" in last
    assert all(words[name].startswith("Run option. ") for name in last)
    assert words["budget"].endswith(" empty for the file's budget. One call costs: z-image/turbo: 0.04 CNY per call.")
    assert shown["sample"]["minimum"] == 0
    assert "One call costs: z-image/turbo: 0.04 CNY per call." in str(Pipeline.from_text(LIMITED).flow().description)

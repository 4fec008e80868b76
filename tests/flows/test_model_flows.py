"""The forms of flows are exact, and the flow of one model can be deployed and run without a file of one's own."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

from rh_prefect import catalog
from rh_prefect.emulator import Emulator
from rh_prefect.errors import InputError, UnknownModelError
from rh_prefect.flow_runs.flow import cancel_remote_jobs, finish
from rh_prefect.flows import for_model
from rh_prefect.flows import model_flows as module
from rh_prefect.flows.pipeline import Pipeline as FlowPipeline
from rh_prefect.pipelines.file_model import RUN_OPTIONS
from rh_prefect.pipelines.parsed_document import PipelineError
from rh_prefect.pipelines.pipeline import Pipeline, pipeline_name
from rh_prefect.pipelines.plan import KnownWorks
from tests.support.samples.steps import PICTURE, steps

NULL = {"type": "null"}


def form(name: str) -> dict[str, dict[str, Any]]:
    fields: dict[str, dict[str, Any]] = for_model(name).parameters.model_dump()["properties"]
    kept = ("type", "enum", "default", "minimum", "maximum", "maxLength", "items", "anyOf")
    return {name: {key: field[key] for key in kept if key in field} for name, field in fields.items()}


def test_the_form_of_a_model_has_its_types_and_limits_and_no_default_that_would_be_sent() -> None:
    shown = form("kling-v2.6-pro-image-to-video")
    assert shown["duration"] == {"anyOf": [{"type": "string", "enum": ["5", "10"]}, NULL], "default": None}
    assert shown["prompt"] == {"type": "string", "maxLength": 2000}
    assert shown["image_url"] == {"type": "string"}
    assert shown["reuse"]["default"] == "never"
    assert form("google/veo3.1-fast/image-to-video-channel-low-price")["duration"]["anyOf"][0]["enum"] == ["8"]
    speed = form("minimax/speech-2.8-hd")["speed"]["anyOf"][0]
    assert (speed["minimum"], speed["maximum"]) == (0.5, 2)
    assert form("seedance-2.0-global/multimodal-video")["generate_audio"]["anyOf"][0] == {"type": "boolean"}


@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.long)])
def test_every_model_has_a_pipeline_and_a_form_that_explains_each_field(every: int) -> None:
    assert len({pipeline_name(model) for model in catalog.models()}) == len(catalog.models())
    for number, model in enumerate(catalog.models()[::every]):
        pipeline = Pipeline.of_model(model.name)
        assert list(pipeline.file.params) == [param.name for param in model.known_params]
        needed = {param.name for param in model.params if param.required and param.default is None}
        assert {name for name, param in pipeline.file.params.items() if not param.optional} == needed, model.name
        assert not set("/%&<>") & set(pipeline.name)
        assert pipeline.name == pipeline_name(model)
        if number % (40 // every) == 0:
            flow = for_model(model.name)
            fields = flow.parameters.properties
            assert list(fields)[-len(RUN_OPTIONS) :] == list(RUN_OPTIONS)
            assert [name for name, field in fields.items() if not field.get("description")] == []
            assert model.endpoint in (flow.description or "")
            assert (flow.on_cancellation_hooks, flow.on_completion_hooks) == ([cancel_remote_jobs], [finish])


def test_a_flow_is_found_by_any_name_and_by_its_entrypoint() -> None:
    made = for_model("z-image/turbo")
    assert made is for_model("ZImageTurbo") is module.z_image_turbo
    for entrypoint in ("rh_prefect.flows.model_flows.z_image_turbo", "rh_prefect.flows.model_flows:z_image_turbo"):
        assert load_flow_from_entrypoint(entrypoint) is made
    assert made._entrypoint == "rh_prefect.flows.model_flows:z_image_turbo"
    assert made.name == pipeline_name(catalog.get("z-image/turbo")) == "z-image-turbo"
    with pytest.raises(UnknownModelError, match="z-image/turbo"):
        for_model("z-image/turb")
    with pytest.raises(AttributeError, match="z_image_turbo"):
        module.z_image_turb  # noqa: B018  # the access is the test


async def test_it_sends_what_was_given_and_takes_the_result_of_another(rh: Emulator) -> None:
    photo = await for_model("z-image/turbo")(prompt="a lighthouse", aspect_ratio="1:1")
    clip = await for_model("kling-v2.6-pro-image-to-video")(image_url=photo["result"], prompt="waves", sound="false")
    assert (photo["result"].kind, clip["result"].kind) == ("image", "video")
    assert rh.recorder.paid[1].payload["duration"] == "5", "RunningHub's default, as the form says"
    with pytest.raises(PipelineError, match="duration"):
        await for_model("kling-v2.6-pro-image-to-video")(image_url=photo["result"], prompt="waves", duration="7")
    assert len(rh.recorder.paid) == 2


async def test_any_model_makes_a_new_result_in_each_run(rh: Emulator) -> None:
    for paid in (1, 2):
        done = await module.any_model("z-image/turbo", {"prompt": "a kite"})
        assert done["result"].kind == "image"
        assert len(rh.recorder.paid) == paid


@pytest.mark.parametrize("in_flow_run", [{}, pytest.param({"return_state": True}, marks=pytest.mark.prefect)])
@pytest.mark.parametrize("option", [{"budget": 0.0001}, {"only": None}])
async def test_an_option_among_the_parameters_of_any_model_is_refused(
    rh: Emulator, in_flow_run: dict[str, Any], option: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=rf"`params` contains {next(iter(option))}, which"):
        state = await module.any_model("z-image/turbo", {"prompt": "a", **option}, **in_flow_run)
        await state.aresult()
    assert not rh.recorder.paid


async def test_the_function_of_a_flow_pays_nothing_outside_of_a_flow(rh: Emulator) -> None:
    with pytest.raises(InputError, match="works only inside a flow"):
        await module.any_model.fn("z-image/turbo", {"prompt": "a kite"})
    state = await module.z_image_turbo.fn(prompt="a kite")
    assert "works only inside a flow" in state.message
    assert not rh.recorder.paid


DATED = "params: {date: string, site: {enum: [shop], default: shop}, look: {enum: [studio], optional: true}}\n"
DATED += steps(a=PICTURE % '"$(params.date) $(params.site)"')


def test_an_enum_with_one_option_has_a_field_in_the_form() -> None:
    shown = parameter_schema(FlowPipeline.from_text(DATED).flow()).model_dump()["properties"]
    assert shown["site"]["enum"] == ["shop"]
    assert "const" not in shown["site"]
    assert [one.get("enum") for one in shown["look"]["anyOf"]] == [["studio"], None]


async def test_parameters_with_the_names_of_options_are_given_by_name() -> None:
    pipeline = FlowPipeline.from_text(DATED)
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
    shown = parameter_schema(FlowPipeline.from_text(LIMITED).flow()).model_dump()["properties"]
    words = {name: one["description"] for name, one in shown.items()}
    assert words["idea"] == "What the film shows. A string of 3 to 300 characters."
    assert words["count"] == "A whole number from 1 to 12. Default: 6."
    assert words["clip"] == "The path, URI or link of a file of type video, up to 50 MB, up to 30 s. Optional."
    assert words["ask"] == "True or false. Default: false."
    assert words["photos"] == "A folder or a prefix with image files, or a pattern such as photos/*.jpg."
    own = list(LIMITED.split("steps:")[0].split("\n  "))[1:]
    last = sorted(shown, key=lambda name: shown[name]["position"])[len(own) :]
    assert "budget" in last
    assert all(words[name].startswith("Run option. ") for name in last)
    assert words["budget"].endswith(" empty for the file's budget. One call costs: z-image/turbo: 0.04 CNY per call.")
    assert shown["sample"]["minimum"] == 0
    assert "One call costs: z-image/turbo: 0.04 CNY per call." in str(
        FlowPipeline.from_text(LIMITED).flow().description
    )

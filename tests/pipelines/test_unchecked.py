"""Unknown parameters of models are problems; `unchecked` sends what the catalogue lacks."""

from __future__ import annotations

import pytest

from rh_prefect import catalog
from rh_prefect.errors import InputError
from rh_prefect.models import ModelInput
from rh_prefect.pipelines.call_builder import request_of
from rh_prefect.pipelines.document import PipelineError
from rh_prefect.pipelines.file_model import ModelStep
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan.planned_steps import PlannedStep
from rh_prefect.works.request_preparation import as_request


async def test_a_parameter_that_the_catalogue_lacks_is_sent_unchecked() -> None:
    text = """
params: {photo: {type: string, default: night}}
steps:
  a: {model: z-image/turbo, with: {prompt: x, unchecked: {camera: $(params.photo), aspectRatio: "32:9"}}}
"""
    (one,) = (await Pipeline.from_text(text).plan()).instances
    assert (one.request, one.problems) == ({"prompt": "x", "camera": "night", "aspectRatio": "32:9"}, ())
    asked = request_of(one)
    assert isinstance(asked, ModelInput)
    assert (
        as_request(catalog.read_parameters(asked.entry, asked.params(), unchecked=asked.unchecked).given) == one.request
    )


@pytest.mark.parametrize("name", ["image_url", "imageUrl"])
def test_a_text_is_no_unchecked_file(name: str) -> None:
    """It was opened and read, and then the run said that this was a defect."""
    text = f"""
params: {{title: string}}
steps:
  a:
    model: kling-v2.6-pro-image-to-video
    with: {{prompt: x, duration: 5, sound: false, unchecked: {{{name}: $(params.title)}}}}
"""
    with pytest.raises(PipelineError, match=r"image_url takes a file of kind image, but \$\(params.title\) is a text"):
        Pipeline.from_text(text)
    step = ModelStep.model_validate({"model": "kling-v2.6-pro-image-to-video"})
    instance = PlannedStep("clip", "", step, ("steps", "clip"), model=step.model)
    instance.values = {"unchecked": {name: "/etc/passwd"}, "prompt": "x", "duration": 5, "sound": False}
    with pytest.raises(InputError, match="clip: image_url takes a file, not a text"):
        request_of(instance)


def test_a_misspelt_parameter_of_a_model_with_an_incomplete_list_is_a_problem_too() -> None:
    model = next(model for model in catalog.models() if model.incomplete and not model.media_params)
    with pytest.raises(InputError, match=r"has no parameter zoom; .*unchecked: \{…\} takes others"):
        Pipeline.from_text(f"steps:\n  a: {{model: {model.name}, with: {{zoom: 2}}}}\n")

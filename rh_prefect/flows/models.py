"""The flow of each model, built on first use.

A deployment of a model's flow needs no separate file:
`prefect deploy rh_prefect.flows.models.z_image_turbo --name desk --pool media`
"""

from __future__ import annotations

from functools import cache

from rh_prefect.catalog import get, models, nearest
from rh_prefect.flows.pipeline import Pipeline, PipelineFlow, pipeline_flow

MODULE = "rh_prefect.flows.models"
"""The module from which the flow of each model can be imported."""


def for_model(name: str) -> PipelineFlow:
    """Returns the flow of a model, always the same object.

    It can be deployed by name, without writing a file: its entrypoint is
    `rh_prefect.flows.models.kling_v2_6_pro_image_to_video`. Its result has the output `result`.

    Args:
        name: Any name of the model.

    Raises:
        UnknownModelError: There is no such model.
    """
    return _flow(get(name).name)


@cache
def _flow(name: str) -> PipelineFlow:
    return pipeline_flow(Pipeline.of_model(name), module=MODULE, name=get(name).snake_name, reuse="never")


def __getattr__(name: str) -> PipelineFlow:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    entry = next((model for model in models() if model.snake_name == name), None)
    if entry is None:
        near = ", ".join(get(known).snake_name for known in nearest(name))
        raise AttributeError(f"module {__name__!r} has no flow {name!r}; the nearest are {near}")
    return for_model(entry.name)


def __dir__() -> list[str]:
    return sorted(model.snake_name for model in models())

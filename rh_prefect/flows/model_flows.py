"""The flow of each model, built on first use, and `any_model`.

A deployment of a model's flow needs no separate file:
`prefect deploy rh_prefect.flows.model_flows.z_image_turbo --name desk --pool media`
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

from pydantic import Field

from rh_prefect.catalog import get, models
from rh_prefect.catalog.registry import of_attribute
from rh_prefect.errors import InputError
from rh_prefect.flows.pipeline import Pipeline, local_result, pipeline_flow, run_in_flow
from rh_prefect.flows.pipeline_run import PipelineFlow, local_flow
from rh_prefect.pipelines.file_model import RUN_OPTIONS
from rh_prefect.pipelines.run.result import PipelineResult
from rh_prefect.works.job_options import Reuse

MODULE = "rh_prefect.flows.model_flows"
"""The module from which the flow of each model can be imported."""


def for_model(name: str) -> PipelineFlow:
    """Returns the flow of a model, always the same object.

    The flow can be deployed by name, without a file: an entrypoint is, for example,
    `rh_prefect.flows.model_flows.kling_v2_6_pro_image_to_video`. The result of the flow contains the output `result`.

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
    return for_model(of_attribute(name, module=__name__, kind="flow").name)


def __dir__() -> list[str]:
    return sorted(model.snake_name for model in models())


async def _any_model(
    model: Annotated[str, Field(min_length=1)],
    params: dict[str, Any],
    budget: Annotated[float, Field(ge=0)] | None = None,
    reuse: Reuse = "never",
    credentials: str | None = None,
    storage: str | None = None,
) -> Any:
    """Runs any model in the catalogue.

    Args:
        model: Any name of a model.
        params: The model's parameters, by name; a file is a path, a URI or a link.
        budget: Maximum cost of the run, in the account's currency. Empty: the price of the model.
        reuse: `never` makes a new result, and continues a run that stopped early; `always` uses the result of any run.
        credentials: Name of a RunningHubCredentials or RunningHubPool block; by default RH_API_KEY.
        storage: Name of a MediaStorage block; by default RH_STORAGE_URL.
    """
    options = {"budget": budget, "reuse": reuse, "credentials": credentials, "storage": storage}
    return await run_in_flow(Pipeline.of_model(model), _values(params, options))


async def _any_model_locally(model: str, params: dict[str, Any], **options: Any) -> PipelineResult:
    return await local_result(Pipeline.of_model(model), _values(params, {"reuse": "never", **options}))


def _values(params: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Returns the parameters and the options of a run; raises an error if an option is among the parameters."""
    if misplaced := [name for name in RUN_OPTIONS if name in params]:
        raise InputError(
            f"`params` contains {', '.join(misplaced)}, which no model has as a parameter. Nothing was sent. What to "
            "do: pass the options of `any_model` beside `params`; for other options of a run, use the model's flow."
        )
    return {**params, **options}


any_model = local_flow(_any_model, _any_model_locally, name="any-model", entrypoint=f"{MODULE}:any_model")

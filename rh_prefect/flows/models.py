"""Flows that run one model: `any_model`, and one flow per model, built on first use.

A deployment of a model's flow needs no separate file:
`prefect deploy rh_prefect.flows.models.z_image_turbo --name desk --pool media`
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Coroutine
from threading import RLock
from typing import Annotated, Any, Literal

from prefect import Flow
from pydantic import Field, WithJsonSchema

from rh_prefect.catalog import Model, Param, get, models, nearest
from rh_prefect.catalog.descriptions import docstring
from rh_prefect.catalog.input_class_builder import type_of
from rh_prefect.flow_runs.flow import flow, run_name
from rh_prefect.flow_runs.parameter_types import Attempts, Budget
from rh_prefect.media.media import MediaInput
from rh_prefect.models import any_input
from rh_prefect.tasks import endpoints
from rh_prefect.tasks.generate import generate
from rh_prefect.tasks.model_task import RETURNS, option_docs, options
from rh_prefect.tasks.paid_task import PaidTask
from rh_prefect.works.outputs.result import Result

HOME = "rh_prefect.flows.models"
"""Where every model's flow can be imported from."""

ModelFlow = Flow[..., Coroutine[Any, Any, Result]]

_FileBox = Annotated[MediaInput, WithJsonSchema({"type": "string"})]
"""A file in a form: one text box for a path, a URI or a link; a flow that calls this one may give a result."""

_OPTIONS = ("label", "reuse", "credentials", "storage")
"""The options of `generate` that a form offers; the others are for code."""

_LOCK = RLock()
_flows: dict[str, ModelFlow] = {}


def for_model(name: str) -> ModelFlow:
    """Gives the flow of a model; the same one each time.

    It can be deployed by name, without any file of your own: its entrypoint is
    `rh_prefect.flows.models.kling_v2_6_pro_image_to_video`.
    """
    model = get(name)
    with _LOCK:
        if model.name not in _flows:
            _flows[model.name] = _build(model)
        return _flows[model.name]


def flow_name(model: Model) -> str:
    """Returns the flow name of a model: the model's name without characters that Prefect rejects."""
    return re.sub(r"[/%&<>]", "-", model.name)


def _build(model: Model) -> ModelFlow:
    task: PaidTask[...] = getattr(endpoints, model.snake_name)

    async def run(**arguments: Any) -> Result:
        result: Result = await task(**arguments)
        return result

    run.__module__, run.__name__, run.__qualname__ = HOME, model.snake_name, model.snake_name
    chosen = {name: option_docs()[name] for name in _OPTIONS}
    run.__doc__ = docstring(model, options=chosen, returns=RETURNS)
    run.__signature__ = _signature(model)  # type: ignore[attr-defined]  # how `inspect` lets a function say its own
    return flow(name=flow_name(model), flow_run_name=run_name)(run)


def _signature(model: Model) -> inspect.Signature:
    keyword = inspect.Parameter.KEYWORD_ONLY
    params = [
        inspect.Parameter(param.name, keyword, default=_default(param), annotation=_annotation(param))
        for param in model.known_params
    ]
    return inspect.Signature([*params, *(options()[name] for name in _OPTIONS)], return_annotation=Result)


def _default(param: Param) -> object:
    if param.default is not None:
        return param.wire_default
    return inspect.Parameter.empty if param.required else None


def _annotation(param: Param) -> Any:
    if param.type == "enum" and len(param.options) == 1 and not param.multiple:
        # Pydantic makes a constant of a single choice, for which the dashboard has no field.
        only: Any = Literal.__getitem__(param.options)
        return Annotated[only, WithJsonSchema({"enum": list(param.options), "type": "string"})]
    kind = type_of(param, _FileBox)
    return kind if param.required or param.default is not None else kind | None


def __getattr__(name: str) -> ModelFlow:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    entry = next((model for model in models() if model.snake_name == name), None)
    if entry is None:
        near = ", ".join(get(known).snake_name for known in nearest(name))
        raise AttributeError(f"module {__name__!r} has no flow {name!r}; the nearest are {near}")
    return for_model(entry.name)


def __dir__() -> list[str]:
    return sorted(model.snake_name for model in models())


@flow(name="any-model", flow_run_name=run_name)
async def any_model(
    model: Annotated[str, Field(min_length=1)],
    params: dict[str, Any],
    is_custom: bool = False,
    price: Annotated[float, Field(gt=0)] | None = None,
    label: str | None = None,
    budget: Budget | None = None,
    attempts: Attempts = 3,
    credentials: str | None = None,
    storage: str | None = None,
) -> Result:
    """Run any model, or an endpoint that is not in the catalogue.

    Args:
        model: Any name of a model, or an endpoint, as in luma/uni-9/text-to-image.
        params: Its parameters. A file is written as {"file": "s3://bucket/photo.jpg"}.
        is_custom: Whether `model` is an endpoint that is not in the catalogue; only its files are checked.
        price: Price of one call of such an endpoint, for the budget; by default RunningHub is asked.
        label: Name of the output; part of its file name.
        budget: Maximum cost of the run, in the account's currency; no job that would exceed it starts. Empty: no limit.
        attempts: Tasks that the job may pay for until the run is resumed by hand, failed ones included.
        credentials: Name of a RunningHubCredentials or RunningHubPool block; by default RH_API_KEY.
        storage: Name of a MediaStorage block; by default RH_STORAGE_URL.
    """
    return await generate(
        any_input(model, params, is_custom=is_custom, price=price),
        label=label,
        budget=budget,
        attempts=attempts,
        credentials=credentials,
        storage=storage,
    )

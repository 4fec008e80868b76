"""Writes the pipeline of one model: the model's parameters, and one step that calls the model."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import yaml

from rh_prefect.catalog import Model, Param
from rh_prefect.catalog.descriptions import describe, summary
from rh_prefect.pipelines.batch_model_columns import column_of

RESULT = "result"
"""The name of the step and of the output."""


def pipeline_name(model: Model) -> str:
    """Returns the name of a model's pipeline: the model's name without characters that Prefect rejects."""
    return re.sub(r"[/%&<>]", "-", model.name)


def write_model(model: Model) -> str:
    """Returns the pipeline of a model, as YAML."""
    given = {param.name: f"$(params.{param.name})" for param in model.known_params}
    data = {
        "name": pipeline_name(model),
        "description": summary(model),
        "params": {param.name: _declared(param) for param in model.known_params},
        "steps": {RESULT: {"model": model.name, "with": given}},
        "outputs": {RESULT: f"$({RESULT})"},
    }
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)


def _declared(param: Param) -> dict[str, Any]:
    """Returns the declaration of a parameter, with the limits of numbers and strings that a deployment's form uses.

    If the model has a default, the parameter is optional and has no default here, because a request that contains the
    default counts as another work.
    """
    declared = column_of(param)
    if declared.get("type") in ("integer", "number"):
        declared |= {name: value for name in ("min", "max") if (value := getattr(param, name)) is not None}
    if declared.get("type") == "string" and param.max_length is not None:
        declared["max"] = param.max_length
    default = "" if param.default is None else f"RunningHub's default: {param.wire_default}"
    words = "; ".join(filter(None, [describe(replace(param, max_length=None)), default]))
    is_needed = param.required and param.default is None
    return declared | ({} if is_needed else {"optional": True}) | ({"description": words} if words else {})

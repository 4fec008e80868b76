"""The parameters of a pipeline's flow: those in its file, and the options that every pipeline has."""

from __future__ import annotations

import inspect
import re
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, WithJsonSchema

from rh_prefect.pipelines import pipeline as files
from rh_prefect.pipelines.file_model import RUN_OPTIONS, Param
from rh_prefect.pipelines.parameter_descriptions import call_prices, description_of
from rh_prefect.pipelines.run.options import RunOptions
from rh_prefect.works.job_options import Reuse


def signature_of(pipeline: files.Pipeline, reuse: Reuse | None = None) -> inspect.Signature:
    """Returns the signature of a pipeline's flow: keyword-only parameters with types and defaults.

    Args:
        pipeline: The pipeline.
        reuse: The default of the option `reuse`.
    """
    keyword = inspect.Parameter.KEYWORD_ONLY
    own = [
        inspect.Parameter(name, keyword, default=_default(param), annotation=_annotation(param))
        for name, param in pipeline.file.params.items()
    ]
    hints = inspect.get_annotations(RunOptions, eval_str=True)
    defaults = {name: RunOptions.__dataclass_fields__[name].default for name in RUN_OPTIONS} | {"reuse": reuse}
    common = [inspect.Parameter(name, keyword, default=defaults[name], annotation=hints[name]) for name in RUN_OPTIONS]
    return inspect.Signature([*own, *common])


def _default(param: Param) -> Any:
    if param.default is not None:
        return param.default
    return None if param.optional else inspect.Parameter.empty


def _annotation(param: Param) -> Any:
    """Returns an annotation whose form schema allows any value, because the pipeline's reader checks values."""
    kind = _kind(param)
    schema = TypeAdapter(kind | None if param.optional else kind).json_schema()
    for one in (schema, *schema.get("anyOf", ())):
        if "const" in one:  # of an enum with one option; Prefect's form has no field for it
            one["enum"] = [one.pop("const")]
    return Annotated[Any, WithJsonSchema(schema)]


def _kind(param: Param) -> Any:
    match param.kind:
        case "enum":
            return Literal.__getitem__(param.options)
        case "integer" | "number":
            number = int if param.kind == "integer" else float
            return Annotated[number, Field(ge=param.min, le=param.max)]
        case "boolean":
            return bool
        case "table":
            return str | list[dict[str, Any]]
        case "files":
            return str | list[str]
        case "list":
            shortest, longest = (None if one is None else int(one) for one in (param.min, param.max))
            return Annotated[list[str], Field(min_length=shortest, max_length=longest)]
        case "string":
            shortest, longest = (None if one is None else int(one) for one in (param.min, param.max))
            return Annotated[str, Field(min_length=shortest, max_length=longest)]
    return str


def docstring_of(pipeline: files.Pipeline) -> str:
    """Returns the docstring of a pipeline's flow, from which Prefect takes the descriptions in its form.

    Args:
        pipeline: The pipeline.
    """
    priced = [f"{model}: {price}" for model, price in call_prices(pipeline.checked).items()]
    prices = f"One call costs: {'; '.join(priced)}." if priced else ""
    options = [
        re.sub(r"^    (\w+): ", r"    \1: Run option. ", line)
        for line in (inspect.getdoc(RunOptions) or "").partition("Attributes:\n")[2].splitlines()
    ]
    # The form shows no other text than the descriptions of its fields.
    common = [f"{line} {prices}" if line.startswith("    budget: ") else line for line in options]
    lines = [f"    {name}: {description_of(param)}" for name, param in pipeline.file.params.items()]
    head = pipeline.file.description or f"Runs {pipeline.name}."
    return "\n".join([head, *(["", prices] if prices else []), "", "Args:", *lines, *common])

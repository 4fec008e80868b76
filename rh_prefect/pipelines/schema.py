"""The JSON schema of a pipeline's file, for completion and error messages in an editor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rh_prefect import catalog
from rh_prefect.catalog.model import Model, Param
from rh_prefect.errors import UnknownModelError
from rh_prefect.pipelines.edits import EDITS, Edit, EditParam
from rh_prefect.pipelines.file_model import TYPES, PipelineFile
from rh_prefect.pipelines.yaml_reader import plain_value

REFERENCE = {"type": "string", "pattern": r"\$\("}
_NUMBER = {"type": "number"}


def schema(models: Iterable[str] = ()) -> dict[str, Any]:
    """Returns the schema, with all keys, models and edits, and the parameters of all edits and of `models`."""
    found = PipelineFile.model_json_schema()
    found["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    found["title"] = "rh-prefect pipeline"
    found["patternProperties"] = {"^x-": {}}
    parts = found["$defs"]
    _allow(parts, "Param", {"type": "string", "enum": [one for one in TYPES if one not in ("enum", "table")]})
    _allow(parts, "Sort", {"type": "string"})
    _allow(parts, "AssumedPrice", _NUMBER)
    _allow(parts, "Budget", {"anyOf": [_NUMBER, {"const": "unlimited"}]})
    _allow(parts, "AnswerField", parts["AnswerField"]["properties"]["type"])
    model, edit = parts["ModelStep"], parts["EditStep"]
    model["properties"]["model"] = {"anyOf": [{"enum": [one.name for one in catalog.models()]}, REFERENCE]}
    model["allOf"] = [_model(one) for one in _known(models)]
    edit["properties"]["edit"] = {"enum": [*EDITS]}
    edit["allOf"] = [_edit(one) for one in EDITS.values()]
    parts["GraphStep"]["oneOf"] = [{"required": [name]} for name in ("workflow", "app", "graph")]
    parts["FanOutStep"]["oneOf"] = [{"required": [name]} for name in ("foreach", "matrix")]
    return found


def models_in(value: Any) -> Iterator[str]:
    """Yields the names of the models that a file uses."""
    if isinstance(value, dict):
        if isinstance(value.get("model"), str) and "$(" not in value["model"]:
            yield value["model"]
        for one in value.values():
            yield from models_in(one)
    elif isinstance(value, list):
        for one in value:
            yield from models_in(one)


def _known(names: Iterable[str]) -> Iterator[Model]:
    for name in dict.fromkeys(names):
        try:
            yield catalog.get(name)
        except UnknownModelError:
            continue


def _allow(parts: dict[str, Any], name: str, short: Mapping[str, Any]) -> None:
    """Allows a short form in place of a mapping, as in `budget: 5`."""
    parts[name] = {"anyOf": [short, parts[name]]}


def _model(model: Model) -> dict[str, Any]:
    names = {"enum": [model.name, model.endpoint]}
    params = {name: _param(param) for param in model.params for name in (param.name, param.key)}
    return _with("model", names, {**params, "unchecked": {"type": "object"}})


def _edit(edit: Edit) -> dict[str, Any]:
    return _with("edit", {"const": edit.name}, {param.name: _edit_param(param) for param in edit.params})


def _with(key: str, value: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    inner = {"type": "object", "properties": dict(params), "additionalProperties": False}
    condition = {"properties": {key: value}, "required": [key]}
    return {"if": condition, "then": {"properties": {"with": inner}}}


def _param(param: Param) -> dict[str, Any]:
    one: dict[str, Any] = {}
    match param.type:
        case "enum":
            unquoted = (plain_value(option) for option in param.options)  # `5` and `true` are no strings in YAML
            one = {"enum": [*param.options, *(value for value in unquoted if not isinstance(value, str))]}
        case "bool":
            one = {"type": "boolean"}
        case "int" | "float":
            one = {"type": "integer" if param.type == "int" else "number"}
            one |= {"minimum": param.min} if param.min is not None else {}
            one |= {"maximum": param.max} if param.max is not None else {}
        case "string":
            one = {"type": ["string", "number"]}
    either = one if param.type in ("string", "json") or param.is_media else {"anyOf": [one, REFERENCE]}
    found = {"anyOf": [either, {"type": "array"}]} if param.multiple else either
    return {**found, "description": catalog.describe(param)} if catalog.describe(param) else found


def _edit_param(param: EditParam) -> dict[str, Any]:
    if param.takes_files or param.many:
        return {"anyOf": [REFERENCE, {"type": "array"}, *([_NUMBER] if "number" in param.kinds else [])]}
    kinds = {"string": {"type": "string"}, "boolean": {"type": "boolean"}, "integer": {"type": "integer"}}
    ones = [kinds.get(kind, _NUMBER) for kind in param.kinds if kind != "enum"]
    return {"anyOf": [*ones, *([{"enum": [*param.options]}] if param.options else []), REFERENCE]}

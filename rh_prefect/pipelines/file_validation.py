"""Builds the pydantic models of a pipeline file, and reports invalid parts with a message and a position."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from rh_prefect.pipelines.file_model import (
    ACTIONS,
    KINDS,
    AnswerField,
    Assume,
    AssumedPrice,
    Budget,
    FanOutStep,
    GroupStep,
    Param,
    Parse,
    PipelineFile,
    Sort,
    Step,
    TextAnswer,
    actions_in,
    shown_value,
    with_defaults,
)
from rh_prefect.pipelines.parsed_document import Document, Path, Problems, nearest, not_replaced

_WHAT: Mapping[type[BaseModel], str] = {
    PipelineFile: "a pipeline",
    Param: "a parameter",
    Budget: "budget",
    Sort: "sort",
    Parse: "parse",
    TextAnswer: "text",
    AnswerField: "a field",
    Assume: "assume",
    AssumedPrice: "price",
}


def keys_of(model: type[BaseModel]) -> list[str]:
    """Returns the keys that a pydantic model accepts in a pipeline file."""
    return [info.alias or name for name, info in model.model_fields.items()]


STEP_KEYS = list(dict.fromkeys([*ACTIONS, *(key for kind in KINDS.values() for key in keys_of(kind))]))
"""The keys of all kinds of steps."""


def build(document: Document, problems: Problems) -> PipelineFile | None:
    """Returns the model of a file; if parts are invalid, reports them as problems and returns None."""
    data = document.data
    if not isinstance(data, dict):
        problems.add(document, (), "a pipeline is a mapping with steps; `rh-prefect init` writes a file to start from")
        return None
    data = {name: value for name, value in data.items() if not name.startswith("x-")}  # for anchors
    if isinstance(data.get("defaults"), dict) and "steps" in data:
        data["steps"] = with_defaults(data["steps"], data["defaults"])
    try:
        return PipelineFile.model_validate(data)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        for one in list(_independent(errors)) or errors:
            _report(document, problems, one)
        return None


def _independent(errors: list[Any]) -> Iterator[Any]:
    """Yields the errors that do not follow from other errors.

    A dependent error says that a misspelt key is missing, or that a list with a wrong item "is not a string".
    """
    for one in errors:
        if _is_other_form(one, errors):
            continue
        at, name = one["loc"][:-1], str(one["loc"][-1])
        unknown = (str(other["loc"][-1]) for other in errors if _is_unknown_key(other) and other["loc"][:-1] == at)
        if one["type"] != "missing" or not_replaced([name], unknown):
            yield one


def _is_other_form(error: Any, errors: list[Any]) -> bool:
    """Returns whether an error says that a list is not a string, although only an item of the list is wrong."""
    at, form = error["loc"][:-1], error["loc"][-1:]
    items = (one["loc"][len(at)] for one in errors if one["loc"][: len(at)] == at and len(one["loc"]) > len(at))
    return form == ("str",) and isinstance(error["input"], list) and any(str(one).startswith("list[") for one in items)


def _is_unknown_key(error: Any) -> bool:
    return bool(error["type"] == "extra_forbidden")


def _report(document: Document, problems: Problems, error: Any) -> None:
    path, model = _real_path(document, error["loc"])
    name = next((part for part in reversed(path) if isinstance(part, str)), "the file")
    match error["type"]:
        case "pipeline":
            is_blank = error["input"] is None
            problems.add(document, path, f"{name} {error['msg']}", key=is_blank)
        case "extra_forbidden":
            problems.add(document, path, _unknown_key(document, path, name, model), key=True)
        case "union_tag_not_found":
            _report_actions(document, problems, path, error["input"])
        case "missing":
            missing = str(error["loc"][-1])
            problems.add(document, path, f"{missing} is missing{' in ' + str(name) if path else ''}")
        case "literal_error" if error["loc"][-1] == "[key]":
            problems.add(document, path, f"{name} is not a kind of step; {nearest(name, ACTIONS)}", key=True)
        case "literal_error":
            takes = " or ".join(_options(error))
            problems.add(document, path, f"{name} takes {takes}, but {shown_value(error['input'])}")
        case "string_type":
            problems.add(document, path, f"{name} takes references, but {shown_value(error['input'])}")
        case "model_type" | "model_attributes_type" | "dict_type":
            problems.add(document, path, f"{name} takes a mapping, but {shown_value(error['input'])}")
        case _:
            problems.add(document, path, f"{name}: {error['msg'][:1].lower()}{error['msg'][1:]}")


def _unknown_key(document: Document, path: Path, name: str, model: type[BaseModel]) -> str:
    if issubclass(model, Step) and name in STEP_KEYS:
        if name in keys_of(FanOutStep) and model is GroupStep:
            return f"{name} needs foreach or matrix in the same step"
        return f"{name} does not apply to {actions_in(document.node(path[:-1]).data)[0]}; leave it out"
    known = STEP_KEYS if model is Step else keys_of(model)
    hint = nearest(name, known)
    return f"{name} is not a key of {'a step' if issubclass(model, Step) else _WHAT.get(model, 'this')}; {hint}"


def _report_actions(document: Document, problems: Problems, path: Path, step: Mapping[str, Any]) -> None:
    """Reports a step with none or several of `ACTIONS`, or with a misspelt action."""
    actions = actions_in(step)
    unknown = [name for name in step if name not in STEP_KEYS]
    if actions:
        problem = f"the step has {' and '.join(actions)}; a step has exactly one of these keys"
        problems.add(document, (*path, actions[1]), problem, key=True)
    for name in unknown:
        problems.add(document, (*path, name), _unknown_key(document, (*path, name), name, Step), key=True)
    if not actions and not unknown:
        known = f"{', '.join(ACTIONS[:-1])} or {ACTIONS[-1]}"
        problems.add(document, path, f"the step has no action; write one of {known}", key=True)


def _options(error: Any) -> list[str]:
    return [one or other for one, other in re.findall(r"'([^']*)'|(\d+)", str(error["ctx"]["expected"]))]


def _real_path(document: Document, loc: tuple[str | int, ...]) -> tuple[Path, type[BaseModel]]:
    """Returns the part of pydantic's location that exists in the file, and the model of the last mapping in it."""
    node, path = document.root, list[str | int]()
    model: type[BaseModel] = PipelineFile
    inner: type[BaseModel] = PipelineFile
    is_name = False  # Whether the next part is a name that the user chose, as in `params`
    for part in loc:
        if isinstance(part, str) and part in KINDS and part not in node.keys:
            inner = KINDS[part]
        if (child := document.child(node, part)) is None:
            continue  # the name of a member of a union, or a key that is missing
        node = child
        path.append(part)
        if is_name:
            is_name = False
            continue
        model = inner
        field = next((one for name, one in model.model_fields.items() if part in (name, one.alias)), None)
        if field is not None:
            inner, is_name = _model_in(field.annotation) or (inner, False)
    return tuple(path), model


def _model_in(annotation: Any) -> tuple[type[BaseModel], bool] | None:
    """Returns the pydantic model in the type of a field, and whether the field is a mapping of names to such models."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    found = next(filter(None, map(_model_in, get_args(annotation))), None)
    return (found[0], True) if found is not None and get_origin(annotation) is dict else found

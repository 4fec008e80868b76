"""Reads, checks and writes the catalogue's data file, the slim file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rh_prefect.catalog.model import LEAST_PRICE, PLACEHOLDER, Model, Param, class_name, decode_model, is_api_path
from rh_prefect.errors import InputError

_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters that a terminal executes, or that change the text direction."""


def dumps(content: Mapping[str, Any]) -> str:
    """Returns the text of the slim file, with one model on each line, so that a changed model is one line in a diff."""
    head = {key: value for key, value in content.items() if key != "models"}
    lines = ",\n".join(json.dumps(model, ensure_ascii=False, separators=(",", ":")) for model in content["models"])
    return f'{json.dumps(head, ensure_ascii=False)[:-1]}, "models": [\n{lines}\n]}}\n'


def read(content: Mapping[str, Any]) -> list[Model]:
    """Reads the models of a slim file.

    Raises `InputError` if the content is not a slim file, or if two models would share a Python name.
    """
    try:
        models = [checked(raw) for raw in content["models"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"The content is not a model data file: {error!r}. What to do: pass a file that "
            "`rh-prefect models refresh` has written."
        ) from error
    by_class: dict[str, str] = {}
    for model in models:
        other = by_class.setdefault(class_name(model.name), model.name)
        if other is not model.name:
            raise InputError(
                f"The models {other!r} and {model.name!r} would both be called {model.class_name} in Python. "
                "Nothing was written. What to do: rename or remove one of them in the file."
            )
    return models


def checked(raw: Mapping[str, Any]) -> Model:
    """Reads one model; raises `InputError` if the model would cause an error in an input class, a form or a search."""
    _refuse_unseen(raw)
    model = decode_model(json.loads(json.dumps(raw)))
    try:
        _shape().validate_json(json.dumps(asdict(model), default=str), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InputError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if not model.name:
        raise InputError(f"the model with the endpoint {model.endpoint!r} has no name")
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", model.endpoint):
        raise InputError(f"{model.endpoint!r} is not a valid endpoint")
    if is_api_path(model.endpoint):
        raise InputError(f"{model.endpoint!r} is a RunningHub API call, not a model")
    amounts = [LEAST_PRICE] if model.price is None else model.price.amounts
    if not amounts or min(amounts) < LEAST_PRICE or max(amounts) >= PLACEHOLDER:
        raise InputError(f"a price is missing, below {LEAST_PRICE}, or {PLACEHOLDER} or more")
    for param in model.known_params:
        if flaw := _flaw(param):
            raise InputError(f"parameter {param.key.strip()!r}: {flaw}")
    return model


@cache
def _shape() -> TypeAdapter[Model]:
    return TypeAdapter(Model)


def _refuse_unseen(value: object) -> None:
    if isinstance(value, str) and (found := _UNSEEN.search(value)):
        raise InputError(f"a string contains the control character U+{ord(found[0]):04X}")
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    for one in value if isinstance(value, list | tuple) else ():
        _refuse_unseen(one)


def _flaw(param: Param) -> str:
    if any(limit is not None and limit < 1 for limit in (param.max_length, param.max_items, param.max_size_mb)):
        return "a limit allows no value"
    if param.min is not None and param.max is not None and param.min > param.max:
        return "its minimum is greater than its maximum"
    try:
        re.compile(param.pattern)
    except re.error as error:
        return f"its pattern is not valid ({error})"
    return "it has no options" if param.type == "enum" and not param.options else ""

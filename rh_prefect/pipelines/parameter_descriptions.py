"""Descriptions of a pipeline's parameters and outputs, for the form of its deployment and for `--help`."""

from __future__ import annotations

import json
from typing import Any

from rh_prefect import catalog
from rh_prefect.errors import UnknownModelError
from rh_prefect.media.input_files import shown
from rh_prefect.pipelines.check.checked_file import Checked
from rh_prefect.pipelines.file_model import FILE_TYPES, ModelStep, Param
from rh_prefect.pipelines.types import Type

_LONGEST_DEFAULT = 80


def description_of(param: Param) -> str:
    """Returns the author's description of a parameter, and its type, limits and default, on one line."""
    own = " ".join(param.description.split())
    sentences = [own, f"{_type_words(param)}{_limit_words(param)}", _default_words(param)]
    return " ".join(one if one.endswith((".", "!", "?")) else f"{one}." for one in sentences if one)


def output_words(type_: Type) -> str:
    """Returns the type of an output in words, such as `a list of items, each a video`."""
    return f"a list of items, each {type_.one.words}" if type_.many else type_.words


def call_prices(checked: Checked) -> dict[str, str]:
    """Returns the price per call of each model in a pipeline, in the order of the file; see `call_price`."""
    models = (step.model for _, step in checked.walk() if isinstance(step, ModelStep))
    return {name: price for name in models if (price := call_price(name))}


def call_price(model: str) -> str:
    """Returns the price of one call of a model as text; empty if the model's name comes from a parameter or a row."""
    try:
        return str(catalog.get(model).price or "not published")
    except UnknownModelError:
        return ""


def _type_words(param: Param) -> str:
    match param.kind:
        case "table":
            columns = ", ".join(_column_words(name, one) for name, one in (param.columns or {}).items())
            return f"A CSV, TSV, JSON lines or Parquet file, or the rows, with the columns {columns}"
        case "list":
            return "A list of strings, or strings separated by commas"
        case "files":
            return f"A folder or a prefix with {param.of or 'file'} files, or a pattern such as photos/*.jpg"
        case "enum":
            return f"One of: {', '.join(_value_words(one) for one in param.options)}"
        case kind if kind in FILE_TYPES:
            return "The path, URI or link of a file" + ("" if kind == "file" else f" of type {kind}")
        case kind:
            return {"boolean": "True or false", "integer": "A whole number", "number": "A number"}.get(kind, "A string")


def _column_words(name: str, column: Param) -> str:
    return f"{name} ({column.kind}{', optional' if column.optional else ''})"


def _limit_words(param: Param) -> str:
    least, most = (None if one is None else f"{one:.12g}" for one in (param.min, param.max))
    unit, range_ = (" characters" if param.kind == "string" else ""), ""
    if least and most:
        range_ = f"of {least} to {most}" if unit else f"from {least} to {most}"
    elif least or most:
        range_ = f"of at least {least}" if least else f"of up to {most}"
    limits = [
        f", up to {param.max_mb:g} MB" if param.max_mb is not None else "",
        f", up to {param.max_seconds:g} s" if param.max_seconds is not None else "",
    ]
    return (f" {range_}{unit}" if range_ else "") + "".join(limits)


def _default_words(param: Param) -> str:
    if param.default is not None:
        text = _value_words(param.default)
        return f"Default: {text if len(text) <= _LONGEST_DEFAULT else f'{text[:_LONGEST_DEFAULT]}…'}"
    return "Optional" if param.optional else ""


def _value_words(value: Any) -> str:
    if isinstance(value, str):
        return " ".join(shown(value).split())
    return json.dumps(value, ensure_ascii=False)

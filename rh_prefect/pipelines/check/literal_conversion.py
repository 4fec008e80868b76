"""Converts and checks literal values that are written in a file or given as parameters."""

from __future__ import annotations

import json
from math import inf
from typing import Any

from rh_prefect.catalog.model import text_of
from rh_prefect.json_snapshot import flaw_of
from rh_prefect.pipelines.edits import EditParam
from rh_prefect.pipelines.file_model import Param, shown_value, value_words

_WORDS = {"true": True, "false": False}


def read_value(param: Param, value: Any) -> Any:
    """Converts a value, often a string from a table or a command line, to its parameter's type, if that is possible."""
    match param.kind:
        case "string":
            return _text(value)
        case "enum" if isinstance(value, str | int | float):
            return _option(param, value)
        case "any":
            return _json(value)
        case "list":
            return _listed(value)
        case "boolean" if isinstance(value, str):
            return _WORDS.get(value.strip().lower(), value)
        case "integer":
            return _whole(_number(value))
        case "number":
            return _number(value)
    return value


def _option(param: Param, value: str | float) -> Any:
    text = text_of(value).strip()
    alike = [one for one in param.options if text_of(one).lower() == text.lower()]
    alike = [one for one in alike if text_of(one) == text] or alike  # a spreadsheet writes TRUE for true
    return alike[0] if len(alike) == 1 else value


def _json(value: Any) -> Any:
    """Parses a string that is a JSON list or object, as in a cell of a CSV file; returns any other value unchanged."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _listed(value: Any) -> Any:
    """Parses a string from a command line or a cell as a JSON list, or as strings separated by commas."""
    found = _json(value)
    if isinstance(found, str):
        found = [one.strip() for one in found.split(",") if one.strip()]
    if not isinstance(found, list | tuple):
        return value
    return [_text(one) for one in found]


def _text(value: Any) -> Any:
    """Converts a number to a string, except `nan` and infinity, which are no text either."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return text_of(value) if is_number and not flaw_of(value) else value


def _number(value: Any) -> Any:
    text = value.strip() if isinstance(value, str) else ""
    try:
        return int(text) if text.lstrip("+-").isdecimal() else float(text)
    except ValueError:
        return value


def _whole(value: Any) -> Any:
    """Converts a float such as 2.0 to an integer; spreadsheets and forms write whole numbers like this."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def wrong_value(param: Param, value: Any) -> str:
    """Returns a clause that explains why a value is invalid for a parameter; empty for a valid value."""
    match param.kind:
        case "enum":
            spelled = [text_of(one) for one in param.options]
            known = text_of(value) in spelled if isinstance(value, str | int | float) else False
            return "" if known else f"takes {' or '.join(spelled)}, but {shown_value(value)}"
        case "boolean":
            return "" if isinstance(value, bool) else f"takes true or false, but {shown_value(value)}"
        case "integer" | "number":
            return _wrong_number(param, value)
        case "list":
            return _wrong_list(param, value)
        case "string":
            if not isinstance(value, str):
                advice = (
                    "put it in quotes" if isinstance(value, int | float | list | dict | None) else "pass it as a string"
                )
                return flaw_of(value) or f"takes a string, but {shown_value(value)}; {advice}"
            return flaw_of(value) or _wrong_size(param, len(value), "characters")
        case _:
            return ""


def wrong_input(param: Param, value: Any) -> str:
    """Returns a clause as `wrong_value` does, and also rejects values of type `any` that records cannot contain."""
    if param.kind != "any":
        return wrong_value(param, value)
    takes = "takes strings, numbers, true, false, and lists and mappings of these, with strings as keys"
    other = flaw_of(value) or _other_type(value)
    return f"{takes}, but {other}" if other.startswith("it ") else other


def _other_type(value: Any) -> str:
    """Returns a clause about the first value that JSON has no type for; empty if there is none."""
    match value:
        case dict():
            key = next((f"it has the key {name!r}" for name in value if not isinstance(name, str)), "")
            return key or next(filter(None, map(_other_type, value.values())), "")
        case list() | tuple():
            return next(filter(None, map(_other_type, value)), "")
        case None | str() | int() | float():
            return ""
        case _:
            return f"it has a value of type {type(value).__module__}.{type(value).__qualname__}"


def _wrong_list(param: Param, value: Any) -> str:
    if not isinstance(value, list):
        return f"takes a list of strings, but {shown_value(value)}"
    wrong = next((one for one in value if not isinstance(one, str)), "")
    if wrong != "":
        return f"takes a list of strings, but one item is {'empty' if wrong is None else value_words(wrong)}"
    return next(filter(None, map(flaw_of, value)), "") or _wrong_size(param, len(value), "items")


def _wrong_size(param: Param, size: int, unit: str) -> str:
    if size < (param.min or 0):
        return f"has {size} {unit}; at least {param.min:.12g} are needed"
    return f"has {size} {unit}; at most {param.max:.12g} are allowed" if size > (param.max or inf) else ""


def _wrong_number(param: Param, value: Any) -> str:
    kind = "a whole number" if param.kind == "integer" else "a number"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"takes {kind}, but {shown_value(value)}"
    if flaw := flaw_of(value):
        return flaw
    if param.kind == "integer" and value != int(value):
        return f"takes {kind}, not {value}"
    if param.min is not None and value < param.min:
        return f"takes {kind} of at least {param.min:.12g}, but {value} is less"
    if param.max is not None and value > param.max:
        return f"takes {kind} of at most {param.max:.12g}, but {value} is more"
    return ""


def edit_value(param: EditParam, value: Any) -> tuple[Any, str]:
    """Converts a value that fits an edit's parameter; also returns a clause about a number that is not allowed."""
    if {"integer", "number"} & {*param.kinds}:
        return _edit_number(param, value)
    return (_text(value) if param.kinds == ("string",) else value), ""


def no_caption(edit: str, text: Any) -> str:
    """Returns a clause if `captions` would have nothing to draw; empty otherwise."""
    texts = text if isinstance(text, list) else [text]
    is_empty = edit == "captions" and all(isinstance(one, str) and not one.strip() for one in texts)
    return "text is empty: captions needs text to draw" if is_empty else ""


def _edit_number(param: EditParam, value: Any) -> tuple[Any, str]:
    if isinstance(value, str) and value in param.options:
        return value, ""
    kind = "integer" if param.kinds == ("integer",) else "number"
    number = read_value(Param(type=kind), value)
    if wrong := wrong_value(Param(type=kind), number):
        return value, f"{param.name} {wrong}"
    if param.min is not None and param.max is not None and not param.min <= number <= param.max:
        return value, f"{param.name} takes a number from {param.min:.12g} to {param.max:.12g}, not {number:.12g}"
    return number, ""

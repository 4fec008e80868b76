"""Reads a model's request as the service does: the JSON types, limits and rules of the catalogue's data.

This is the emulator's own reading; the client has another, and a test compares the two over all models. All names in
its messages are those of the wire.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from rh_prefect.catalog.entry import Model, Param, Rule
from rh_prefect.emulator.assumptions import Assumptions
from rh_prefect.emulator.words import is_link, spelled

Payload = Mapping[str, object]

_NOT_PARAMS: Final = ("webhookUrl",)
_WORDS: Final = {
    "string": "a string",
    "enum": "a string",
    "bool": "a boolean",
    "int": "an integer",
    "float": "a number",
    "image": "a URL",
    "video": "a URL",
    "audio": "a URL",
}


def sent_params(model: Model, body: Payload) -> dict[str, object]:
    """Returns the parameters of a request; null, an empty string and an empty array count as not sent.

    Args:
        model: The model.
        body: The request's JSON object.
    """
    given = {param.key: body.get(param.key) for param in model.params}
    return {key: value for key, value in given.items() if value is not None and value != "" and value != []}


def violations(assumptions: Assumptions, model: Model, body: Payload) -> list[str]:
    """Lists what is wrong with a request, one clause each.

    Args:
        assumptions: How strict it is.
        model: The model.
        body: The request's JSON object.
    """
    sent = sent_params(model, body)
    found = [*_unknown(assumptions, model, body), *_missing(assumptions, model, sent)]
    for param in model.params:
        if param.key in sent:
            found += _of_value(param, sent[param.key], is_strict=assumptions.strict_types)
    return found or list(_of_rules(model, sent))


def _unknown(assumptions: Assumptions, model: Model, body: Payload) -> list[str]:
    if assumptions.unknown_params_pass:
        return []
    known = {param.key for param in model.params} | set(_NOT_PARAMS)
    return [f"{key} is not a parameter" for key in body if key not in known]


def _missing(assumptions: Assumptions, model: Model, sent: Payload) -> Iterator[str]:
    for param in model.params:
        may_be_left_out = param.default is not None and not assumptions.missing_default_refused
        if param.required and param.key not in sent and not may_be_left_out:
            yield f"{param.key} must not be blank"


def _of_value(param: Param, value: object, *, is_strict: bool) -> Iterator[str]:
    if param.type == "json":
        yield from _of_json(param, value)
        return
    if isinstance(value, list) is not param.multiple:
        yield f"{param.key} must be {'an array' if param.multiple else 'a single value'}"
        return
    items: Sequence[object] = value if isinstance(value, list) else (value,)
    if param.max_items is not None and len(items) > param.max_items:
        yield f"{param.key} must have at most {param.max_items} items"
    for item in items:
        flaw = _flaw(param, item if is_strict else _lenient(param, item))
        if flaw:
            yield f"{param.key} {flaw}"
            return


def _of_json(param: Param, value: object) -> Iterator[str]:
    """Checks an object, or a list of objects; an object may come as a list of one."""
    items: Sequence[object] = value if isinstance(value, list) else (value,)
    is_wrapped = isinstance(value, list)
    fits = is_wrapped if param.shape == "list" else len(items) == 1
    if not fits or not all(isinstance(item, dict) for item in items):
        yield f"{param.key} must be {'an array of objects' if param.shape == 'list' else 'an object'}"


def _flaw(param: Param, value: object) -> str:
    if not _IS_TYPE[param.type](value):
        return f"must be {_WORDS[param.type]}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _out_of_range(param, value)
    if param.options and value not in param.options:
        return f"must be one of {', '.join(param.options)}"
    if isinstance(value, str) and param.type == "string":
        return _flaw_of_text(param, value)
    return ""


def _out_of_range(param: Param, value: float) -> str:
    if param.min is not None and value < param.min:
        return f"must be greater than or equal to {spelled(param.min)}"
    if param.max is not None and value > param.max:
        return f"must be less than or equal to {spelled(param.max)}"
    return ""


def _flaw_of_text(param: Param, value: str) -> str:
    if param.max_length is not None and len(value) > param.max_length:
        return f"size must be between 0 and {param.max_length}"
    if param.pattern and re.fullmatch(param.pattern, value) is None:
        return f'must match "{param.pattern}"'
    return ""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_IS_TYPE: Final[dict[str, Callable[[object], bool]]] = {
    "string": lambda value: isinstance(value, str),
    "enum": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": _is_number,
    "image": is_link,
    "video": is_link,
    "audio": is_link,
}


def _lenient(param: Param, value: object) -> object:
    """Reads a value of another JSON type as its parameter's, where its text allows it."""
    text = spelled(value)
    if param.type in ("string", "enum"):
        return text
    if param.type == "bool":
        return {"true": True, "false": False}.get(text, value)
    if param.type in ("int", "float") and isinstance(value, str):
        try:
            return int(text) if param.type == "int" else float(text)
        except ValueError:
            return value
    return value


def _of_rules(model: Model, sent: Payload) -> Iterator[str]:
    for rule in model.rules:
        flaw = _RULES[rule.kind](model, rule, sent)
        if flaw:
            yield flaw


def _one(model: Model, rule: Rule, sent: Payload) -> str:  # noqa: ARG001 - one signature for all kinds
    count = sum(key in sent for key in rule.params)
    return "" if count == 1 else f"exactly one of {', '.join(rule.params)} must be set"


def _any(model: Model, rule: Rule, sent: Payload) -> str:  # noqa: ARG001
    return "" if any(key in sent for key in rule.params) else f"one of {', '.join(rule.params)} must be set"


def _needed(model: Model, rule: Rule, sent: Payload) -> str:
    lacking = [key for key in rule.params if key not in sent and _default(model, key) is None]
    return f"{', '.join(lacking)} must not be blank here" if lacking and _applies(model, rule, sent) else ""


def _only(model: Model, rule: Rule, sent: Payload) -> str:
    if _applies(model, rule, sent):
        return ""
    # A form sends its untouched defaults along.
    changed = [key for key in rule.params if key in sent and sent[key] != _default(model, key)]
    return f"{', '.join(changed)} is not supported here" if changed else ""


def _most(model: Model, rule: Rule, sent: Payload) -> str:  # noqa: ARG001
    values = [sent[key] for key in rule.params if key in sent]
    count = sum(len(value) if isinstance(value, list) else 1 for value in values)
    return f"{', '.join(rule.params)} must have at most {rule.limit} items together" if count > rule.limit else ""


def _never(model: Model, rule: Rule, sent: Payload) -> str:
    pairs = ", ".join(f"{key} {spelled(value)}" for key, value in rule.when)
    return f"{pairs} is not a supported combination" if _applies(model, rule, sent) else ""


def _used(model: Model, rule: Rule, sent: Payload) -> str:  # noqa: ARG001
    return ""  # without effect, and not refused


_RULES: Final[dict[str, Callable[[Model, Rule, Payload], str]]] = {
    "one": _one,
    "any": _any,
    "needed": _needed,
    "only": _only,
    "most": _most,
    "never": _never,
    "used": _used,
}


def _applies(model: Model, rule: Rule, sent: Payload) -> bool:
    """Tells whether a rule's condition is met; what was not sent counts with its default."""
    if not set(rule.given).isdisjoint(sent):
        return True
    if not rule.when:
        return False
    present = ((sent.get(key, _default(model, key)), wanted) for key, wanted in rule.when)
    return all(spelled(value) == spelled(wanted) for value, wanted in present)


def _default(model: Model, key: str) -> object:
    default = next((param.default for param in model.params if param.key == key), None)
    return list(default) if isinstance(default, tuple) else default

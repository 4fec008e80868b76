"""Reads a model's request as the service does: the JSON types, limits and rules of the catalogue's data.

The client has its own implementation, and a test compares the two over all models. All names in
the messages are wire names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rh_prefect.catalog.model import Model, Param, Rule, RuleKind
from rh_prefect.emulator.assumptions import Assumptions
from rh_prefect.emulator.request_texts import is_link, spelled

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
    """Returns the parameters of a request; null, an empty string and an empty list count as not sent."""
    return {param.key: body[param.key] for param in model.params if not _is_empty(param, body.get(param.key))}


def _is_empty(param: Param, value: object) -> bool:
    is_list = param.multiple or param.shape == "list"
    return value is None or value == "" or (is_list and value == [])


def violations(assumptions: Assumptions, model: Model, body: Payload) -> list[str]:
    """Lists the violations of a request, one clause each."""
    sent = sent_params(model, body)
    found = [*_unknown(assumptions, model, body), *_missing(assumptions, model, sent)]
    for param in model.params:
        if param.key in sent:
            found += _of_value(assumptions, param, sent[param.key])
    return found or list(_of_rules(_Request(model, sent, assumptions)))


def _unknown(assumptions: Assumptions, model: Model, body: Payload) -> list[str]:
    if assumptions.unknown_params_pass:
        return []
    known = {param.key for param in model.params} | set(_NOT_PARAMS)
    return [f"{key} is not a parameter" for key in body if key not in known]


def _missing(assumptions: Assumptions, model: Model, sent: Payload) -> Iterator[str]:
    for param in model.params:
        may_be_left_out = param.default is not None and not assumptions.missing_default_refused
        if param.required and param.key not in sent and not may_be_left_out:
            yield assumptions.param_required.format(field=param.key)


def _of_value(assumptions: Assumptions, param: Param, value: object) -> Iterator[str]:
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
        read = item if assumptions.strict_types else _lenient(param, item)
        flaw = _flaw(param, read)
        if flaw:
            yield f"{param.key} {flaw}"
            return
        if _is_no_option(param, read):
            yield assumptions.param_option.format(field=param.key, value=spelled(read))
            return


def _of_json(param: Param, value: object) -> Iterator[str]:
    """Checks an object, or a list of objects; a list of one object counts as an object."""
    items: Sequence[object] = value if isinstance(value, list) else (value,)
    is_wrapped = isinstance(value, list)
    fits = is_wrapped if param.shape == "list" else len(items) == 1
    if not fits or not all(isinstance(item, dict) for item in items):
        yield f"{param.key} must be {'an array of objects' if param.shape == 'list' else 'an object'}"


def _flaw(param: Param, value: object) -> str:
    if param.is_numeric and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # the page shows numbers; clients also send strings
    if not _IS_TYPE[param.type](value):
        return f"must be {_WORDS[param.type]}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _out_of_range(param, value)
    if isinstance(value, str) and param.type == "string":
        return _flaw_of_text(param, value)
    return ""


def _is_no_option(param: Param, value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if param.is_numeric and is_number:
        return str(value) not in param.options
    return bool(param.options) and not is_number and value not in param.options


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
    """Converts a value of another JSON type to the parameter's type, if the text of the value allows this."""
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


@dataclass(frozen=True, slots=True)
class _Request:
    """The parameters that were sent, and the defaults of all other parameters, for the rules."""

    model: Model
    sent: Payload
    assumptions: Assumptions

    def default(self, key: str) -> object:
        default = next((param.default for param in self.model.params if param.key == key), None)
        return list(default) if isinstance(default, tuple) else default

    def applies(self, rule: Rule) -> bool:
        """Returns whether a rule's condition is met; missing parameters count with their defaults."""
        if not set(rule.given).isdisjoint(self.sent):
            return True
        if not rule.when:
            return False
        present = ((self.sent.get(key, self.default(key)), wanted) for key, wanted in rule.when)
        return all(spelled(value) == spelled(wanted) for value, wanted in present)


def _of_rules(request: _Request) -> Iterator[str]:
    for rule in request.model.rules:
        flaw = _RULES[rule.kind](request, rule)
        if flaw:
            yield flaw


def _one(request: _Request, rule: Rule) -> str:
    count = sum(key in request.sent for key in rule.params)
    return "" if count == 1 else f"exactly one of {', '.join(rule.params)} must be set"


def _any(request: _Request, rule: Rule) -> str:
    is_met = any(key in request.sent for key in rule.params)
    return "" if is_met else f"one of {', '.join(rule.params)} must be set"


def _either(request: _Request, rule: Rule) -> str:
    count = sum(key in request.sent for key in rule.params)
    return f"only one of {', '.join(rule.params)} can be set" if count > 1 else ""


def _needed(request: _Request, rule: Rule) -> str:
    is_strict = request.assumptions.missing_default_refused
    absent = [key for key in rule.params if key not in request.sent]
    lacking = [key for key in absent if is_strict or request.default(key) is None]
    said = "; ".join(request.assumptions.param_required.format(field=key) for key in lacking)
    return said if request.applies(rule) else ""


def _only(request: _Request, rule: Rule) -> str:
    if request.applies(rule):
        return ""
    # A form sends its untouched defaults along.
    sent = request.sent
    changed = [key for key in rule.params if key in sent and sent[key] != request.default(key)]
    return f"{', '.join(changed)} is not supported here" if changed else ""


def _most(request: _Request, rule: Rule) -> str:
    values = [request.sent[key] for key in rule.params if key in request.sent]
    count = sum(len(value) if isinstance(value, list) else 1 for value in values)
    return f"{', '.join(rule.params)} must have at most {rule.limit} items together" if count > rule.limit else ""


def _never(request: _Request, rule: Rule) -> str:
    pairs = ", ".join(f"{key} {spelled(value)}" for key, value in rule.when)
    return f"{pairs} is not a supported combination" if request.applies(rule) else ""


def _used(request: _Request, rule: Rule) -> str:  # noqa: ARG001 - without effect, and not refused
    return ""


_RULES: Final[dict[RuleKind, Callable[[_Request, Rule], str]]] = {
    "one": _one,
    "any": _any,
    "either": _either,
    "needed": _needed,
    "only": _only,
    "most": _most,
    "never": _never,
    "used": _used,
}

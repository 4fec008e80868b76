"""The slim format of the catalogue's data file; parses parameter rules from the vendor's notes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from rh_prefect.catalog.model import (
    LEAST_PRICE,
    Model,
    Output,
    Param,
    ParamType,
    Status,
    Unit,
    class_name,
    decode_model,
    is_api_path,
    text_of,
)
from rh_prefect.errors import InputError

_FLAGS = ("groups", "in_docs", "aliases", "replaced_by", "incomplete", "seen", "price_seen", "price_note")
_USUAL_SOURCE = "official-registry"
CURRENCY = "CNY"
"""Of RunningHub's price files."""

_STATUSES = {"gone-from-newest-list": "gone"}
_REGISTRY, _CN_PAGES = "registry-2026-09", "site-2026-09"
"""The lists that state where a model is offered: .cn offers those models of the first that are in the second."""
_COUNTS = ("imageNum", "n", "maxImages")
_PARAM_FIELDS = ("key", "type", "default", "min", "max", "max_length", "max_items", "accept", "max_size_mb", "note")
_NUMERIC = "the list shows integers"
"""Begins the note of a choice whose options are numbers in the request."""


def slim(source: Mapping[str, Any]) -> dict[str, Any]:
    """Creates the slim form of a registry, or of a data file to which models may have been added: models by name.

    Raises an `InputError` if it is neither, or two models would share a Python name.
    """
    try:
        is_data_file = all(is_slim(raw) for raw in source["models"])
        models = [raw if is_data_file else slim_model(raw) for raw in source["models"]]
        facts = {"version": source["version"], "source": source["source"]}
    except (KeyError, TypeError) as error:
        raise InputError(
            f"This is not a model registry: reading it failed with {error!r}. Use another file."
        ) from error
    _refuse_twins(models)
    return {**facts, "models": sorted(models, key=lambda model: str(model["name"]).lower())}


def is_slim(raw: Mapping[str, Any]) -> bool:
    """Returns whether a model is already in the slim form, which omits values that equal the defaults."""
    price = raw.get("price") or {}
    is_full = raw.get("provenance") == _USUAL_SOURCE or "rules" in price or price.get("currency") == CURRENCY
    return not is_full and all(param.get("required", True) is True for param in raw["params"])


def refuse_unusable(model: Model) -> None:
    """Raises `InputError` for a model that can be read but would fail later in an input class, a form or a search."""
    texts = (
        model.name,
        model.endpoint,
        model.family,
        model.seen,
        model.price_seen,
        model.price_note,
        model.replaced_by,
    )
    if not all(isinstance(text, str) for text in (*texts, *model.groups, *model.aliases)):
        raise InputError("a name, family, group, alias, date or note is not a string")
    if not model.name or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", model.endpoint):
        raise InputError(f"{model.endpoint!r} is not a valid endpoint, or the model has no name")
    if is_api_path(model.endpoint):
        raise InputError(f"{model.endpoint!r} is an API call of RunningHub, not a model")
    if model.price is not None and model.price.least < LEAST_PRICE:
        raise InputError(f"a price is below {LEAST_PRICE}")
    if len({param.key for param in model.known_params}) < len(model.known_params):
        raise InputError("a parameter is listed twice")
    for param in model.known_params:
        flaw = _flaw(param)
        if flaw:
            raise InputError(f"parameter {param.key.strip()!r}: {flaw}")


_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that a terminal executes, or that change the direction of the text around them."""


def refuse_unseen(value: object) -> None:
    """Raises `InputError` for a text in a model that holds a control character."""
    if isinstance(value, str) and (found := _UNSEEN.search(value)):
        raise InputError(f"a text contains the control character U+{ord(found[0]):04X}")
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    for one in value if isinstance(value, list | tuple) else ():
        refuse_unseen(one)


def _flaw(param: Param) -> str:
    if not all(isinstance(text, str) for text in (param.note, param.pattern, *param.options, *param.accept)):
        return "an option, format or note is not a string"
    limits = (param.min, param.max, param.step, param.max_length, param.max_items, param.max_size_mb)
    if not all(limit is None or _is_number(limit) for limit in limits):
        return "a limit is not a number"
    if any(limit is not None and limit < 1 for limit in (param.max_length, param.max_items, param.max_size_mb)):
        return "a limit allows no value"
    if param.min is not None and param.max is not None and param.min > param.max:
        return "its minimum is greater than its maximum"
    return "it has no options" if param.type == "enum" and not param.options else _flaw_of_pattern(param.pattern)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _flaw_of_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        return f"its pattern is not valid ({error})"
    return ""


def dumps(content: Mapping[str, Any]) -> str:
    """Writes the slim file: one model a line, so that a change shows as one line."""
    head = {key: value for key, value in content.items() if key != "models"}
    lines = ",\n".join(json.dumps(model, ensure_ascii=False, separators=(",", ":")) for model in content["models"])
    return f'{json.dumps(head, ensure_ascii=False)[:-1]}, "models": [\n{lines}\n]}}\n'


def decoded(content: Mapping[str, Any]) -> list[Model]:
    """Reads all models of a slim file."""
    return [decode_model(raw) for raw in content["models"]]


def _refuse_twins(models: list[dict[str, Any]]) -> None:
    seen: dict[str, str] = {}
    for model in models:
        name = class_name(model["name"])
        if name in seen:
            raise InputError(f"The models {seen[name]!r} and {model['name']!r} would both be called {name} in Python.")
        seen[name] = model["name"]


def slim_model(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Makes the slim form of one model, as a registry file has it, without values that equal the defaults."""
    if raw["output"] not in get_args(Output):
        raise InputError(f"{raw['name']} has the output type {raw['output']!r}, which this version does not support.")
    model = {key: raw[key] for key in ("name", "endpoint", "output", "family")}
    model |= {key: raw[key] for key in _FLAGS if raw.get(key)} | _unusual(raw)
    model["params"] = [_param(param) for param in raw["params"]]
    parts = {"rules": rules_of(raw["params"]), "price": slim_price(raw)}
    return model | {key: part for key, part in parts.items() if part}


def _unusual(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a model that differ from the defaults."""
    listed = raw.get("status") or ("deprecated" if raw.get("deprecated") else "current")
    status = _STATUSES.get(listed, listed)
    if status not in get_args(Status):
        raise InputError(f"{raw['name']} has the status {status!r}, which this version does not support.")
    sources = raw.get("sources", ())
    facts = {
        "provenance": raw["provenance"] if raw["provenance"] != _USUAL_SOURCE else None,
        "status": status if status != "current" else None,
        "on_cn": False if raw.get("on_cn") is False or (_REGISTRY in sources and _CN_PAGES not in sources) else None,
    }
    return {key: fact for key, fact in facts.items() if fact is not None}


def _param(raw: Mapping[str, Any]) -> dict[str, Any]:
    if raw["type"] not in get_args(ParamType):
        raise InputError(
            f"The parameter {raw['key']!r} has the type {raw['type']!r}, which this version does not support."
        )
    param = {key: raw[key] for key in _PARAM_FIELDS if key in raw}
    options = [*raw.get("options", ()), *extra_options(raw)]
    parts = {
        "required": raw["required"],
        "options": options,
        "multiple": raw.get("multiple", False),
        "step": raw.get("step") if raw.get("step") != 1 else None,
        "shape": shape_of(raw),
        "pattern": pattern_of(raw),
        "is_numeric": raw.get("is_numeric") or raw.get("note", "").startswith(_NUMERIC),
    }
    return param | {key: part for key, part in parts.items() if part}


def slim_price(raw: Mapping[str, Any]) -> dict[str, Any] | None:
    """The slim form of a model's price, or None; raises `InputError` for a form that this version does not know."""
    price = raw.get("price")
    if not price:
        return None
    if price["unit"] not in get_args(Unit):
        raise InputError(f"{raw['name']} is priced per {price['unit']!r}, which this version does not support.")
    currency = {} if price["currency"] == CURRENCY else {"currency": price["currency"]}
    amounts = {"fixed": price["fixed"]} if "fixed" in price else _rows(price["rules"])
    return {"unit": price["unit"], **_quantity(price["unit"], raw["params"]), **amounts, **currency}


def _rows(rules: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    by = list(rules[0]["when"])
    if any(rule["when"].keys() != set(by) for rule in rules):
        raise InputError(
            f"A price depends in some entries on {', '.join(by)}, in other entries on other parameters; this "
            "version does not support such prices."
        )
    return {"by": by, "rows": [[*(text_of(rule["when"][key]) for key in by), rule["price"]] for rule in rules]}


def _quantity(unit: str, params: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the parameter that determines the number of units of a call."""
    keys = [param["key"] for param in params]
    if unit in ("second", "second, from", "5 seconds"):
        return {"per": "duration"} if "duration" in keys else {}
    if unit == "1000 characters":
        return {"per": next(key for key in ("text", "prompt") if key in keys)}
    counts = [key for key in _COUNTS if key in keys]
    if unit != "image" or not counts:
        return {}
    # A series is made only on demand; without it `maxImages` has no effect.
    series = {"per_when": {"sequentialImageGeneration": "auto"}} if "sequentialImageGeneration" in keys else {}
    return {"per": counts[0], **series}


Raw = Mapping[str, Any]
_Reader = Callable[[re.Match[str], Raw, Mapping[str, Raw]], dict[str, Any] | None]
"""Makes a rule of a match, the parameter whose note it is, and all parameters by key."""


def rules_of(params: Sequence[Raw]) -> list[dict[str, Any]]:
    """Collects the rules that the notes of one model state, each once; see `rh_prefect.catalog.model.Rule`."""
    by_key = {param["key"]: param for param in params}
    found: list[dict[str, Any]] = []
    for rule in filter(None, [_rule(param, by_key) for param in params]):
        same = next((old for old in found if _joins(old, rule)), None)
        if same is not None:
            same["params"] += [key for key in rule["params"] if key not in same["params"]]
        elif rule not in found:
            found.append(rule)
    return found


def extra_options(param: Raw) -> list[str]:
    """Finds values that a note allows and the options lack."""
    match = re.match(r"(-?\w+), absent from options", param.get("note", ""))
    return [match[1]] if match else []


def shape_of(param: Raw) -> str:
    """Returns whether a `json` parameter is a list of objects or one object; a list if no note says it."""
    if param["type"] != "json":
        return ""
    return "object" if param.get("note", "").startswith("one object") else "list"


def pattern_of(param: Raw) -> str:
    """Returns the format that a note requires for a string, as a regular expression."""
    # The registry's own sample, `Elegant_Man`, has no digit and an underscore: only length and first letter are sure.
    match = re.match(r"(\d+)\+ characters, letter first\b", param.get("note", ""))
    return rf"[A-Za-z].{{{int(match[1]) - 1},}}" if match else ""


def _rule(param: Raw, by_key: Mapping[str, Raw]) -> dict[str, Any] | None:
    for pattern, reader in _READERS:
        match = re.search(pattern, param.get("note", ""))
        if match:
            rule = reader(match, param, by_key)
            return rule if rule and keys_of(rule) <= set(by_key) else None
    return None


def _joins(old: Raw, new: Raw) -> bool:
    """Returns whether two rules state the same condition for different parameters."""
    frames = [{key: value for key, value in rule.items() if key != "params"} for rule in (old, new)]
    return old["kind"] in ("only", "used", "needed") and frames[0] == frames[1]


def keys_of(rule: Raw) -> set[str]:
    """The keys of the parameters that a rule of the slim file is about."""
    return {*rule.get("params", ()), *rule.get("when", ()), *rule.get("given", ())}


def _group(kind: str) -> _Reader:
    return lambda match, _param, _all: {"kind": kind, "params": [match[1], match[2]]}


def _conditional(kind: str) -> _Reader:
    def read(match: re.Match[str], param: Raw, all_: Mapping[str, Raw]) -> dict[str, Any] | None:
        other = all_.get(match[1])
        if other is None:
            return None
        value = match[2] == "true" if other["type"] == "bool" else match[2]
        return {"kind": kind, "params": [param["key"]], "when": {match[1]: value}}

    return read


def _only_with(match: re.Match[str], param: Raw, all_: Mapping[str, Raw]) -> dict[str, Any]:
    switch = all_.get(match[1], {}).get("type") == "bool"
    condition = {"when": {match[1]: True}} if switch else {"given": [match[1]]}
    return {"kind": "only", "params": [param["key"]], **condition}


def _not_with(match: re.Match[str], param: Raw, _all: Mapping[str, Raw]) -> dict[str, Any]:
    return {"kind": "either", "params": sorted((param["key"], match[1]))}


def _a_frame(_match: re.Match[str], _param: Raw, all_: Mapping[str, Raw]) -> dict[str, Any]:
    return {"kind": "any", "params": [key for key in all_ if re.fullmatch(r"(first|last)\w*Url", key)]}


def _needs_picture(match: re.Match[str], param: Raw, all_: Mapping[str, Raw]) -> dict[str, Any]:
    pictures = [key for key, other in all_.items() if other["type"] in (match[1], match[2])]
    return {"kind": "only", "params": [param["key"]], "given": pictures}


def _together(match: re.Match[str], _param: Raw, _all: Mapping[str, Raw]) -> dict[str, Any]:
    return {"kind": "most", "params": [match[2], match[3]], "limit": int(match[1])}


def _never(match: re.Match[str], param: Raw, _all: Mapping[str, Raw]) -> dict[str, Any]:
    return {"kind": "never", "when": {param["key"]: match[1], "resolution": match[2]}}


def _both_or_none(_match: re.Match[str], param: Raw, _all: Mapping[str, Raw]) -> dict[str, Any]:
    other = "height" if param["key"] == "width" else "width"
    return {"kind": "needed", "params": [other], "given": [param["key"]]}


_READERS: tuple[tuple[str, _Reader], ...] = (
    (r"^either (\w+) or (\w+)\b", _group("one")),
    (r"^(\w+) or (\w+), not both$", _group("one")),
    (r"\b(\w+) or (\w+) required$", _group("any")),
    (r"^required when (\w+) is (\w+)$", _conditional("needed")),
    (r"\bused when (\w+) is (\w+)\b", _conditional("used")),
    (r"^only with (\w+)\b", _only_with),
    (r"\bnot together with (\w+)$", _not_with),
    (r"^one of first and last frame is needed$", _a_frame),
    (r"^needs an? (\w+) or (\w+)\b", _needs_picture),
    (r"^at most (\d+) references over (\w+) and (\w+) together$", _together),
    (r"^(\d+) s not available at (\w+)$", _never),
    (r"\bomit (?:both to leave the size unset|for unset)$", _both_or_none),
)

"""Reads public lists of RunningHub's models; the format is detected from the file's content.

The registry of RunningHub's ComfyUI nodes is a list, or an object with `models`. The capabilities of RunningHub's
command-line tools and skills are an object with `endpoints`; RunningHub's price file is an object with `pricing`. This
package's own format is an object with `models` that have a `family`. Unusable parts of an entry are reported and left
out; the rest of the file is used.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from rh_prefect.catalog.model import LEAST_PRICE, PLACEHOLDER, is_api_path, param_name, text_of
from rh_prefect.errors import InputError
from rh_prefect.json_snapshot import flaw_of

Raw = dict[str, Any]
ListFormat = Literal["registry", "capabilities", "prices", "catalogue"]

_MARK = re.compile(r"-(\[deprecated\]|deprecated)$", re.IGNORECASE)
_MARK_OF_NAME = re.compile(r"-(\[deprecated\]|deprecated\b).*$", re.IGNORECASE | re.DOTALL)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_OUTPUTS = {"image": "image", "video": "video", "audio": "audio", "3d": "3d", "string": "text", "text": "text"}
_TYPES = {
    "STRING": "string",
    "LIST": "enum",
    "BOOLEAN": "bool",
    "INT": "int",
    "FLOAT": "float",
    "IMAGE": "image",
    "VIDEO": "video",
    "AUDIO": "audio",
    "SIZE": "string",
    "CommonMedia": "string",
}
_MEDIA = ("image", "video", "audio")
_UNITS = {
    "次": "call",
    "call": "call",
    "秒": "second",
    "second": "second",
    "秒起": "second, from",
    "张": "image",
    "image": "image",
    "1000字符": "1000 characters",
    "1000char": "1000 characters",
    "5秒": "5 seconds",
}
_BOTH = ("type", "default", "options", "min", "max", "max_length", "max_size_mb", "multiple", "max_items")
TELLS: dict[ListFormat, frozenset[str]] = {
    "registry": frozenset((*_BOTH, "step", "accept")),
    "capabilities": frozenset(_BOTH),
}
"""The facts about a parameter that each format can state. If such a fact is omitted, it does not apply."""

_NAMES = {
    "fieldKey": "key",
    "defaultValue": "default",
    "maxLength": "max_length",
    "maxSize": "max_size_mb",
    "maxSizeMB": "max_size_mb",
    "multipleInputs": "multiple",
    "maxInputNum": "max_items",
    "maxCount": "max_items",
}
"""This package's names for the formats' facts, where the two names differ."""


@dataclass(slots=True)
class PublicList:
    """The usable content of one public file, in the terms of the slim file; models and prices by endpoint.

    A price is None if the file lists the model without a usable price; the field `seen` of a price is the date of the
    price, if known.
    """

    format: ListFormat
    date: str = ""
    models: dict[str, Raw] = field(default_factory=dict)
    prices: dict[str, Raw | None] = field(default_factory=dict)
    flaws: list[str] = field(default_factory=list)


class _Unusable(Exception):  # carries what is wrong with a part to where the flaws are listed
    pass


def read_list(content: object) -> PublicList:
    """Reads the content of a public file; raises `InputError` if the content is in none of the known formats."""
    format_, entries = _format_of(content)
    found = PublicList(format_)
    found.date = _date_of(content, found.flaws)
    # An entry that is marked as deprecated is used only if the endpoint has no other entry.
    for number, entry in sorted(enumerate(entries, 1), key=lambda one: _is_marked(one[1])):
        place = f"entry {number}"
        try:
            if flaw := flaw_of(entry):
                raise _Unusable(f"it {flaw}")
            place = _endpoint(entry)
            _READERS[format_](found, place, entry)
        except _Unusable as unusable:
            found.flaws.append(f"{place}: {unusable}")
        except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
            found.flaws.append(f"{place}: it cannot be read ({error})")
    return found


def _format_of(content: object) -> tuple[ListFormat, Collection[Any]]:
    match content:
        case [_, *_]:
            return "registry", content
        case {"pricing": list(rows)}:
            return "prices", rows
        case {"endpoints": list(entries)}:
            return "capabilities", entries
        case {"models": [_, *_] as entries}:
            ours = any(isinstance(entry, Mapping) and "family" in entry for entry in entries)
            return "catalogue" if ours else "registry", entries
    raise InputError(
        "its format is unknown; expected a list of models, or an object with `models`, `endpoints` or `pricing`"
    )


def _date_of(content: object, flaws: list[str]) -> str:
    version = str(content.get("version") or "") if isinstance(content, Mapping) else ""
    match = _DATE.search(version)
    if match and not is_past_day(match[0]):
        flaws.append(f"its version {version[:40]!r} is not a past date; it is treated as a list without a date")
        return ""
    return match[0] if match else ""


def is_past_day(text: str) -> bool:
    """Returns whether a string such as `2026-09-13` is a date that is not in the future in any time zone."""
    try:
        return datetime.date.fromisoformat(text) <= datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(1)
    except ValueError:
        return False


def _is_marked(entry: object) -> bool:
    return isinstance(entry, Mapping) and bool(_MARK.search(str(entry.get("endpoint"))))


def _endpoint(entry: object) -> str:
    endpoint = entry.get("endpoint") if isinstance(entry, Mapping) else None
    if not isinstance(endpoint, str) or not re.fullmatch(r"[\w-][\w.\[\]-]*(/[\w-][\w.\[\]-]*)*", endpoint):
        raise _Unusable("it has no valid endpoint")
    if is_api_path(endpoint):
        raise _Unusable("it is a RunningHub API call, not a model")
    return endpoint


def _read_public(found: PublicList, literal: str, entry: Any) -> None:
    """Reads an entry from the registry or the capabilities."""
    endpoint, output = _MARK.split(literal)[0], _OUTPUTS.get(str(entry.get("output_type", "")).lower())
    if output is None:
        raise _Unusable(f"output_type {entry.get('output_type')!r} is unknown")
    raws = entry.get("params", [])
    if not isinstance(raws, list):
        raise _Unusable("params is not a list")
    if endpoint in found.models:
        raise _Unusable("it is listed twice; another entry is used")
    params: dict[str, Raw] = {}
    for raw in raws:
        param, flaws = _param(raw)
        if param is not None and (first := params.setdefault(param_name(param["key"]), param)) is not param:
            flaws = [f"{param['key'].strip()}: it has the name of {first['key'].strip()} in Python, and is left out"]
        found.flaws.extend(f"{literal}: {flaw}" for flaw in flaws)
    is_marked = endpoint != literal or bool(_MARK_OF_NAME.search(str(entry.get("name_en", ""))))
    found.models[endpoint] = {
        "name": _MARK_OF_NAME.sub("", str(entry.get("name_en") or endpoint)).strip() or endpoint,
        "endpoint": endpoint,
        "output": output,
        **({"status": "deprecated"} if is_marked else {}),
        **({"aliases": [literal]} if endpoint != literal else {}),
        **({} if raws else {"incomplete": True}),
        "params": [*params.values()],
    }


def _param(raw: object) -> tuple[Raw | None, list[str]]:
    """Reads one parameter without its unusable parts, and reports these parts."""
    named = {_NAMES.get(name, name): value for name, value in raw.items()} if isinstance(raw, Mapping) else {}
    given = {name: value for name, value in named.items() if value not in (None, "", [], {})}
    key, type_name = given.get("key"), given.get("type")
    if not isinstance(key, str) or not re.fullmatch(r" ?[A-Za-z_]\w*", key):
        return None, [f"a parameter without a usable key ({key!r}) is left out"]
    param: Raw = {"key": key, "type": _TYPES.get(str(type_name), "string")}
    flaws = [] if str(type_name) in _TYPES else [f"type {type_name!r} is unknown; any string is accepted"]
    if given.get("required") is True:
        param["required"] = True
    # Some files say only by the parameter's name that the request holds a list.
    is_list = given.get("multiple") is True or key == "conversionSlots"
    if is_list or (param["type"] in _MEDIA and key.endswith("Urls")):
        param["multiple"] = True
    for name, read in _FACTS.items():
        if name in given:
            try:
                fact = read(given[name], param)
            except _Unusable as unusable:
                flaws.append(f"{name} {given[name]!r} {unusable}")
            else:
                param.update({} if fact is None else {name: fact})
        if name == "options" and param["type"] == "enum" and "options" not in param:
            param["type"] = "string"
            flaws.append("it is a choice without options; any string is accepted")
        if name == "max" and param.get("min", 0) > param.get("max", param.get("min", 0)):
            flaws.append(f"min {param.pop('min')} is greater than max {param.pop('max')}; both are ignored")
    return param, [f"{key.strip()}: {flaw}" for flaw in flaws]


def _options(options: object, param: Raw) -> list[str] | None:
    """Reads the options; `empty` means that the parameter is not sent."""
    listed = options if isinstance(options, list) and param["type"] == "enum" else []
    values = [option.get("value") if isinstance(option, Mapping) else option for option in listed]
    texts = [_text(value) for value in values if isinstance(value, str | int | float) and value not in ("", "empty")]
    return list(dict.fromkeys(texts)) or None


def _accept(formats: object, _param: Raw) -> list[str]:
    try:
        kinds = json.loads(formats) if isinstance(formats, str) else formats
    except ValueError:
        kinds = None
    extensions = [str(kind).lower().lstrip(".") for kind in kinds] if isinstance(kinds, list) else []
    if not extensions or not all(re.fullmatch(r"[a-z0-9]{1,8}", one) for one in extensions):
        raise _Unusable("is not a readable list of formats; the format of the files is not checked")
    return extensions


def _bound(value: object, param: Raw) -> float:
    number = _number(value, whole=param["type"] == "int")
    if number is None:
        raise _Unusable("is not a possible limit and is ignored")
    return number


def _step(value: object, param: Raw) -> float | None:
    return step if (step := _bound(value, param)) != 1 else None


def _most(value: object, _param: Raw) -> float:
    number = _number(value, whole=True)
    if number is None or number < 1:
        raise _Unusable("is not a possible limit and is ignored")
    return number


def _most_items(value: object, param: Raw) -> float | None:
    return _most(value, param) if "multiple" in param else None


def _default(default: object, param: Raw) -> object:
    """Reads a default; None for strings and files, whose listed defaults are only samples."""
    if default == "empty" or param["type"] in ("string", *_MEDIA):
        return None
    read = [_item(param, item) for item in (default if isinstance(default, list) else [default])]
    if None in read:
        raise _Unusable("is not one of the allowed values and is ignored")
    return read if "multiple" in param else read[0]


def _item(param: Raw, value: object) -> object:
    match param["type"]:
        case "enum":
            return text if (text := _text(value)) in param["options"] else None
        case "bool":
            return value if isinstance(value, bool) else None
    number = _number(value, whole=param["type"] == "int")
    if number is None or number < param.get("min", number) or number > param.get("max", number):
        return None
    return number


_FACTS: dict[str, Callable[[object, Raw], object]] = {
    "options": _options,
    "accept": _accept,
    "min": _bound,
    "max": _bound,
    "step": _step,
    "max_length": _most,
    "max_items": _most_items,
    "max_size_mb": _most,
    "default": _default,
}
"""The functions that read a parameter's facts; each returns None for an unused fact, or raises `_Unusable`."""


def _number(value: object, *, whole: bool) -> int | float | None:
    try:
        number = float(value) if not isinstance(value, bool) else None  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    if number is None or not abs(number) < 1e18 or (whole and not number.is_integer()):
        return None
    return int(number) if number.is_integer() else number


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read_price(found: PublicList, literal: str, entry: Any) -> None:
    """Reads a row of the price file, in which 0 and 9999 mean that the price is not known."""
    endpoint = _MARK.split(literal)[0]
    if endpoint in found.prices:
        raise _Unusable("it is listed twice; this entry is not used")
    found.prices[endpoint] = None
    amounts = _amounts(entry)
    if not amounts:
        return
    unit = _UNITS.get(str(entry.get("unit", "")).strip().lstrip("/"))
    if unit is None:
        raise _Unusable(f"unit {entry.get('unit')!r} is unknown; the price is ignored")
    currency = str(entry.get("currency") or "CNY")
    if not re.fullmatch(r"[A-Z]{3}", currency):
        raise _Unusable(f"currency {currency[:20]!r} is unknown; the price is ignored")
    price = {"unit": unit, **amounts, **({} if currency == "CNY" else {"currency": currency})}
    day = _DATE.search(str(entry.get("updated_at") or ""))
    found.prices[endpoint] = price | ({"seen": day[0]} if day and is_past_day(day[0]) else {})


def _amounts(entry: Any) -> Raw:
    match entry.get("pricing_type"):
        case "fixed":
            amount = _amount(entry.get("price"))
            return {} if amount is None else {"fixed": amount}
        case "parameter_based":
            return _rows(entry.get("rules"))
        case "unparsed":
            return {}
        case kind:
            raise _Unusable(f"pricing_type {kind!r} is unknown; the price is ignored")


def _rows(rules: object) -> Raw:
    by: list[str] | None = None
    rows: dict[tuple[str, ...], float] = {}
    for rule in rules if isinstance(rules, list) else []:
        when = rule.get("when") if isinstance(rule, Mapping) else None
        if not isinstance(when, Mapping) or not when or "" in when.values():
            raise _Unusable("its price depends on a condition that the catalogue cannot express; the price is ignored")
        by = by or [*when]
        if {*by} != {*when}:
            raise _Unusable("its price depends on different parameters in different entries; the price is ignored")
        amount = _amount(rule.get("price"))
        if amount is not None and rows.setdefault(tuple(text_of(when[key]) for key in by), amount) != amount:
            raise _Unusable("it has two prices for one condition; the price is ignored")
    return {"by": by, "rows": [[*values, amount] for values, amount in rows.items()]} if rows else {}


def _amount(value: object) -> float | None:
    """Reads an amount; returns None for a placeholder, and raises `_Unusable` if the value is not an amount."""
    number = _number(value, whole=False)
    if number in (0, float(PLACEHOLDER)):
        return None
    if number is None or not LEAST_PRICE <= Decimal(str(number)) < PLACEHOLDER:
        raise _Unusable(f"price {value!r:.40} is not a possible amount; the price is ignored")
    return number


def _read_own(found: PublicList, endpoint: str, entry: Any) -> None:
    """Copies an entry of this package's own format unchanged; `refresh` checks the entry."""
    found.models[endpoint] = dict(entry)


_READERS: dict[ListFormat, Callable[[PublicList, str, Any], None]] = {
    "registry": _read_public,
    "capabilities": _read_public,
    "prices": _read_price,
    "catalogue": _read_own,
}

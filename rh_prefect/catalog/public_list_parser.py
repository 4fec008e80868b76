"""Reads public lists of RunningHub's models; the format is detected from the file's content.

Four forms are known: the registry of RunningHub's ComfyUI nodes (a list, or an object with `models`), the capabilities
of its command-line tools and skills (an object with `endpoints`), its price file (an object with `pricing`), and this
package's own (an object with `models` that have a `family`). What cannot be used of an entry is listed and left out;
the rest of the file is used.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from rh_prefect.catalog.model import LEAST_PRICE, PLACEHOLDER, is_api_path
from rh_prefect.errors import InputError
from rh_prefect.json_checks import flaw_of

Raw = dict[str, Any]
Form = Literal["registry", "capabilities", "prices", "catalogue"]

_BOTH = ("type", "default", "options", "min", "max", "max_length", "max_size_mb", "multiple", "max_items")
TELLS: dict[Form, frozenset[str]] = {
    "registry": frozenset((*_BOTH, "step", "accept")),
    "capabilities": frozenset(_BOTH),
}
"""What each form says of a parameter: what it lacks then does not hold. The rest it does not know."""

_MARK = re.compile(r"-(\[deprecated\]|deprecated)$", re.IGNORECASE)
_MARK_OF_NAME = re.compile(r"-(\[deprecated\]|deprecated\b).*$", re.IGNORECASE | re.DOTALL)
_KEY = re.compile(r" ?[A-Za-z_]\w*")
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
_NAMES: dict[Form, dict[str, str]] = {
    "registry": {
        "fieldKey": "key",
        "defaultValue": "default",
        "maxLength": "max_length",
        "maxSize": "max_size_mb",
        "multipleInputs": "multiple",
        "maxInputNum": "max_items",
    },
    "capabilities": {
        "maxLength": "max_length",
        "maxSizeMB": "max_size_mb",
        "maxCount": "max_items",
    },
}
_TAKEN = ("key", *sorted(TELLS["registry"]))


@dataclass(slots=True)
class PublicList:
    """The content of one public file, converted to the terms of this package's registry.

    Attributes:
        form: Which form it has.
        date: Its date, as in `2026-09-13`; may be empty.
        models: Its models by endpoint, with the fields that the form has.
        prices: Its prices by endpoint; None stands for a price that the file names and that is not known.
        flaws: What could not be used, and why: an entry's endpoint and what is wrong.
        marked: Endpoints that only an entry with a mark names; one without a mark goes before it.
    """

    form: Form
    date: str = ""
    models: dict[str, Raw] = field(default_factory=dict)
    prices: dict[str, Raw | None] = field(default_factory=dict)
    flaws: list[str] = field(default_factory=list)
    marked: set[str] = field(default_factory=set)

    def takes(self, endpoint: str, literal: str, known: Collection[str]) -> bool:
        """Checks whether an entry is used: per endpoint, the first entry, or the first one without a mark."""
        is_marked = endpoint != literal
        if endpoint in known and (is_marked or endpoint not in self.marked):
            return False
        (self.marked.add if is_marked else self.marked.discard)(endpoint)
        return True


class _Unusable(Exception):  # carries what is wrong with an entry to where the flaws are listed
    pass


def read_list(content: object) -> PublicList:
    """Reads the content of a public file; raises `InputError` if it has none of the known forms."""
    form = _form_of(content)
    found = PublicList(form)
    found.date = _date_of(content, found.flaws)
    held = content if isinstance(content, list) else content[_HOLDERS[form]]  # type: ignore[index]
    for number, entry in enumerate(held.values() if isinstance(held, Mapping) else held, 1):
        place = f"entry {number}"
        try:
            if flaw := flaw_of(entry):
                raise _Unusable(f"it {flaw}")
            place = _endpoint(entry)
            _READERS[form](found, place, entry)
        except _Unusable as unusable:
            found.flaws.append(f"{place}: {unusable}")
        except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
            found.flaws.append(f"{place}: it cannot be read ({error})")
    return found


_HOLDERS: dict[Form, str] = {
    "registry": "models",
    "capabilities": "endpoints",
    "prices": "pricing",
    "catalogue": "models",
}


def _form_of(content: object) -> Form:
    if isinstance(content, list) and content:
        return "registry"
    if isinstance(content, Mapping):
        if isinstance(content.get("pricing"), list | Mapping):
            return "prices"
        if isinstance(content.get("endpoints"), list):
            return "capabilities"
        if isinstance(content.get("models"), list) and content["models"]:
            ours = any(isinstance(entry, Mapping) and "family" in entry for entry in content["models"])
            return "catalogue" if ours else "registry"
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
    """Checks whether a text such as `2026-09-13` is a date that is not in the future in any time zone."""
    try:
        return datetime.date.fromisoformat(text) <= datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(1)
    except ValueError:
        return False


def _endpoint(entry: object) -> str:
    endpoint = entry.get("endpoint") if isinstance(entry, Mapping) else None
    if not isinstance(endpoint, str) or not re.fullmatch(r"[\w-][\w.\[\]-]*(/[\w-][\w.\[\]-]*)*", endpoint):
        raise _Unusable("it names no endpoint")
    if is_api_path(endpoint):
        raise _Unusable("this is an API call of RunningHub, not a model")
    return endpoint


def _read_public(found: PublicList, literal: str, entry: Any) -> None:
    """Reads an entry of the registry or of the capabilities, whose fields have other names."""
    endpoint, output = _MARK.split(literal)[0], _OUTPUTS.get(str(entry.get("output_type", "")).lower())
    if output is None:
        raise _Unusable(f"output_type {entry.get('output_type')!r} is unknown")
    params = entry.get("params", [])
    if not isinstance(params, list):
        raise _Unusable("params is not a list")
    if not found.takes(endpoint, literal, found.models):
        raise _Unusable("it is listed twice; the first entry is used")
    marked = endpoint != literal or bool(_MARK_OF_NAME.search(str(entry.get("name_en", ""))))
    name = _MARK_OF_NAME.sub("", str(entry.get("name_en") or endpoint)).strip()
    found.models[endpoint] = {
        "name": name or endpoint,
        "endpoint": endpoint,
        "output": output,
        "status": "deprecated" if marked else "current",
        **({"aliases": [literal]} if endpoint != literal else {}),
        **({} if params else {"incomplete": True}),
        "params": _params(found, literal, params),
    }


def _params(found: PublicList, endpoint: str, raws: list[object]) -> list[Raw]:
    params: dict[str, Raw] = {}
    for raw in raws:
        param = _param(found, endpoint, raw)
        if param and param["key"] in params:
            found.flaws.append(f"{endpoint}: {param['key'].strip()}: it is listed twice; the first one is used")
        elif param:
            params[param["key"]] = param
    return [*params.values()]


def _param(found: PublicList, endpoint: str, raw: object) -> Raw | None:
    flaws: list[str] = []
    names = _NAMES[found.form]
    named = {names.get(name, name): value for name, value in raw.items()} if isinstance(raw, Mapping) else {}
    param = {name: named[name] for name in _TAKEN if named.get(name) not in (None, "", [], {})}
    key = param.get("key")
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        found.flaws.append(f"{endpoint}: a parameter without a usable key ({key!r}) is left out")
        return None
    param["required"] = named.get("required") is True
    _typed(param, flaws)
    _listed(param)
    _chosen(param, flaws)
    _limited(param, flaws)
    _defaulted(param, flaws)
    found.flaws.extend(f"{endpoint}: {key.strip()}: {flaw}" for flaw in flaws)
    return param


def _typed(param: Raw, flaws: list[str]) -> None:
    type_name = param.get("type")
    param["type"] = _TYPES.get(str(type_name), "string")
    if str(type_name) not in _TYPES:
        flaws.append(f"type {type_name!r} is unknown; any text is accepted")


def _listed(param: Raw) -> None:
    """Finds out whether the request holds a list; some files say so only by the parameter's name."""
    is_list = param.pop("multiple", False) is True or param["key"] == "conversionSlots"
    if is_list or (param["type"] in _MEDIA and param["key"].endswith("Urls")):
        param["multiple"] = True
    else:
        param.pop("max_items", None)


def _chosen(param: Raw, flaws: list[str]) -> None:
    """Reads the options; `empty` stands for "do not send this"."""
    options = param.pop("options", [])
    if not isinstance(options, list):
        options = []
    values = [option.get("value") if isinstance(option, Mapping) else option for option in options]
    texts = [_text(value) for value in values if isinstance(value, str | int | float) and value not in ("", "empty")]
    if param["type"] != "enum":
        return
    if texts:
        param["options"] = list(dict.fromkeys(texts))
    else:
        param["type"] = "string"
        flaws.append("a choice without options; any text is accepted")


def _limited(param: Raw, flaws: list[str]) -> None:
    accept = param.pop("accept", None)
    if accept is not None:
        try:
            kinds = json.loads(accept) if isinstance(accept, str) else accept
            param["accept"] = _formats(kinds)
        except ValueError:
            flaws.append(f"accepted formats {accept!r} cannot be read; any format is accepted")
    whole = ("max_length", "max_items", "max_size_mb", *(("min", "max", "step") if param["type"] == "int" else ()))
    for name in ("min", "max", "step", "max_length", "max_items", "max_size_mb"):
        if name not in param:
            continue
        number = _number(param[name], whole=name in whole)
        if number is None or (name.startswith("max_") and number < 1):
            flaws.append(f"{name} {param.pop(name)!r} is not a possible limit and is ignored")
        else:
            param[name] = number
    if param.get("min", 0) > param.get("max", param.get("min", 0)):
        flaws.append(f"min {param.pop('min')} is above max {param.pop('max')}; both are ignored")


def _formats(kinds: object) -> list[str]:
    """Reads the accepted formats; raises `ValueError` if they are not a list of extensions."""
    formats = [str(kind).lower().lstrip(".") for kind in kinds] if isinstance(kinds, list) else []
    if not formats or not all(re.fullmatch(r"[a-z0-9]{1,8}", one) for one in formats):
        raise ValueError(kinds)
    return formats


def _defaulted(param: Raw, flaws: list[str]) -> None:
    """Keeps a default that the parameter accepts; for texts and files, a registry has a sample in its place."""
    default = param.pop("default", None)
    if default is None or default == "empty" or param["type"] in ("string", *_MEDIA):
        return
    items = default if isinstance(default, list) else [default]
    read = [_default(param, item) for item in items]
    if None in read:
        flaws.append(f"default {default!r} is not one of the allowed values and is ignored")
    elif param.get("multiple"):
        param["default"] = read
    else:
        param["default"] = read[0]


def _default(param: Raw, value: object) -> object:
    match param["type"]:
        case "enum":
            return text if (text := _text(value)) in param["options"] else None
        case "bool":
            return value if isinstance(value, bool) else None
    number = _number(value, whole=param["type"] == "int")
    if number is None or number < param.get("min", number) or number > param.get("max", number):
        return None
    return number


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
    """Reads a row of the price file; 0 and 9999 stand there for "not known"."""
    endpoint = _MARK.split(literal)[0]
    if not found.takes(endpoint, literal, found.prices):
        raise _Unusable("it is listed twice; the first price is used")
    found.prices[endpoint] = None
    amounts = _amounts(entry)
    unit = _UNITS.get(str(entry.get("unit", "")).strip().lstrip("/"))
    if amounts and unit is None:
        raise _Unusable(f"unit {entry.get('unit')!r} is unknown; the price is ignored")
    currency = str(entry.get("currency") or "CNY")
    if amounts and not re.fullmatch(r"[A-Z]{3}", currency):
        raise _Unusable(f"currency {currency[:20]!r} is unknown; the price is ignored")
    if amounts:
        price_date = _DATE.search(str(entry.get("updated_at") or ""))
        price = {"currency": currency, "unit": unit, **amounts}
        found.prices[endpoint] = price | ({"seen": price_date[0]} if price_date and is_past_day(price_date[0]) else {})


def _amounts(entry: Any) -> Raw:
    match entry.get("pricing_type"):
        case "fixed":
            amount = _amount(entry.get("price"))
            return {} if amount is None else {"fixed": amount}
        case "parameter_based":
            rules = _price_rules(entry.get("rules"))
            return {"rules": rules} if rules else {}
        case "unparsed":
            return {}
        case kind:
            raise _Unusable(f"pricing_type {kind!r} is unknown; the price is ignored")


def _price_rules(rules: object) -> list[Raw]:
    found = [_price_rule(rule) for rule in (rules if isinstance(rules, list) else [])]
    if len({tuple(sorted(rule["when"])) for rule in found}) > 1:
        raise _Unusable("its price depends on different parameters in different entries; the price is ignored")
    return [rule for rule in found if rule["price"] is not None]


def _price_rule(rule: object) -> Raw:
    when = rule.get("when") if isinstance(rule, Mapping) else None
    if not isinstance(rule, Mapping) or not isinstance(when, Mapping) or not when or "" in when.values():
        raise _Unusable("its price depends on something that a rule cannot express; the price is ignored")
    return {"when": dict(when), "price": _amount(rule.get("price"))}


def _amount(value: object) -> float | None:
    """Reads an amount; returns None for a placeholder, and raises `_Unusable` for what is no amount."""
    number = _number(value, whole=False)
    if number in (0, float(PLACEHOLDER)):
        return None
    if number is None or not LEAST_PRICE <= Decimal(str(number)) < PLACEHOLDER:
        raise _Unusable(f"price {value!r:.40} is not a possible amount; the price is ignored")
    return number


def _read_own(found: PublicList, endpoint: str, entry: Any) -> None:
    """Copies an entry of this package's own form unchanged; the conversion to the slim form checks it."""
    found.models[endpoint] = dict(entry)


_READERS: dict[Form, Callable[[PublicList, str, Any], None]] = {
    "registry": _read_public,
    "capabilities": _read_public,
    "prices": _read_price,
    "catalogue": _read_own,
}

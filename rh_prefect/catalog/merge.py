"""Puts what a public list says into the catalogue, and keeps what the list does not know."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from rh_prefect.catalog.data_file import is_slim, refuse_unusable, slim_model, slim_price
from rh_prefect.catalog.model import decode_model
from rh_prefect.catalog.names import class_name
from rh_prefect.catalog.public_lists import TELLS, PublicList, Raw
from rh_prefect.errors import InputError

_KEPT_OF_MODEL = ("name", "family", "groups", "in_docs", "replaced_by", "on_cn", "price", "price_seen", "price_note")
"""What no public list tells of a model, or tells less well than the documentation does."""


def merge(content: Mapping[str, Any], listed: PublicList, *, date: str) -> dict[str, Any]:
    """Puts a list into the slim file's content.

    A list that is older than the catalogue, by its date, adds the models and prices that the catalogue lacks, and
    changes nothing else. A model that a newer list lacks is kept and counts as gone.

    Args:
        content: The catalogue's present content; not changed.
        listed: The list; what cannot be used of it is added to its `flaws`.
        date: When the list is from; empty where that is not known, and then no model counts as gone.

    Returns:
        The new content; its version is `content`'s.
    """
    models = {model["endpoint"]: model for model in content["models"]}
    is_older = bool(date) and date < str(content["version"])[:10]
    for endpoint, raw in listed.models.items():
        known = models.get(endpoint)
        if known is not None and is_older:
            continue
        try:
            models[endpoint] = _joined(listed, known, raw, date, content)
        except InputError as error:
            listed.flaws.append(f"{endpoint}: {error.message}")
        except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
            listed.flaws.append(f"{endpoint}: the entry cannot be read ({error!r})")
    for endpoint, price in listed.prices.items():
        _reprice(listed, models, endpoint, price, date)
    if listed.form != "prices" and date and not is_older:
        for endpoint in models.keys() - listed.models.keys():
            models[endpoint] = {**models[endpoint], "status": "gone"}
    return {**content, "models": _ordered(models)}


def _joined(
    listed: PublicList, known: Mapping[str, Any] | None, raw: Raw, date: str, content: Mapping[str, Any]
) -> dict[str, Any]:
    if listed.form == "catalogue":
        return _checked(dict(raw) if is_slim(raw) else slim_model(raw))
    before = known or {}
    fresh = {"provenance": "third-party", "family": _family(raw["endpoint"], content)}
    params = _params(listed, before, raw)
    made = slim_model({**fresh, **raw, "params": params})
    if before:
        news = {param["key"] for param in raw["params"]} - {param["key"] for param in before["params"]}
        made["incomplete"] = bool(before.get("incomplete")) and not news
    kept = {key: before[key] for key in (*_KEPT_OF_MODEL, "provenance") if key in before}
    aliases = sorted({*before.get("aliases", ()), *raw.get("aliases", ())})
    rules = [rule for rule in before.get("rules", ()) if _keys(rule) <= {param["key"] for param in params}]
    facts = {"aliases": aliases, "rules": rules or made.get("rules"), "seen": max(date, before.get("seen", ""))}
    facts |= {"on_cn": before.get("on_cn")} if before else {}
    return _checked({key: fact for key, fact in (made | kept | facts).items() if fact or key == "params"})


def _keys(rule: Mapping[str, Any]) -> set[str]:
    return {*rule.get("params", ()), *rule.get("when", ()), *rule.get("given", ())}


def _params(listed: PublicList, before: Mapping[str, Any], raw: Raw) -> list[Raw]:
    """Joins the parameters: structured ones are in no list, and neither are notes."""
    known = {param["key"]: _as_listed(param) for param in before.get("params", ())}
    if not raw["params"]:
        return list(known.values())
    joined = [_param(listed, known.get(param["key"], {}), param) for param in raw["params"]]
    mine = {param["key"] for param in raw["params"]}
    return joined + [param for key, param in known.items() if key not in mine and param["type"] == "json"]


def _param(listed: PublicList, before: Mapping[str, Any], param: Raw) -> Raw:
    if before.get("type") == "json":
        return {**before, "required": param["required"]}
    told = TELLS[listed.form]
    if before.get("type") == "string" == param["type"] and "default" in before:  # a list has a sample in its place
        told -= {"default"}
    return {key: value for key, value in before.items() if key not in told} | param


def _as_listed(param: Mapping[str, Any]) -> Raw:
    """A slim parameter as a registry file has it: what a note adds is added again."""
    return {"required": False, **{key: value for key, value in param.items() if key not in ("shape", "pattern")}}


def _family(endpoint: str, content: Mapping[str, Any]) -> str:
    """Finds the line of a new model: that of its neighbours, or one that its endpoint names."""
    parts = endpoint.lower().split("/")
    for length in range(len(parts) - 1, 0, -1):
        start = "/".join([*parts[:length], ""])
        near = {model["family"] for model in content["models"] if model["endpoint"].lower().startswith(start)}
        if len(near) == 1:
            return str(near.pop())
    families = sorted({model["family"] for model in content["models"]}, key=len, reverse=True)
    named = (family for part in parts for family in families if f"{part}-".startswith(f"{family}-"))
    return str(next(named, re.sub(r"[^a-z0-9-]", "-", parts[0])))


def _reprice(listed: PublicList, models: dict[str, Raw], endpoint: str, price: Raw | None, date: str) -> None:
    model = models.get(endpoint)
    seen = str((price or {}).get("seen") or date)
    if model is None:
        listed.flaws.append(f"{endpoint}: a price of a model that the catalogue does not know")
    elif price is not None and not (model.get("price") and seen and seen < model.get("price_seen", "")):
        try:
            made = slim_price({**model, "price": _spelled(price, model)})
            models[endpoint] = _checked({**model, "price": made, **({"price_seen": seen} if seen else {})})
        except (InputError, StopIteration, KeyError, TypeError, ValueError, ArithmeticError) as error:
            listed.flaws.append(f"{endpoint}: its price cannot be used ({error})")


def _spelled(price: Raw, model: Mapping[str, Any]) -> Raw:
    """Writes the values of a price's rules as the parameters' options are written: `1080P` is `1080p`."""
    options = {
        param["key"]: {option.lower(): option for option in param.get("options", ())} for param in model["params"]
    }
    rules = [
        {**rule, "when": {key: _option(options.get(key, {}), value) for key, value in rule["when"].items()}}
        for rule in price.get("rules", ())
    ]
    return {**price, **({"rules": rules} if rules else {})}


def _option(options: Mapping[str, str], value: object) -> object:
    return options.get(str(value).lower(), value)


def _checked(model: dict[str, Any]) -> dict[str, Any]:
    refuse_unusable(decode_model(json.loads(json.dumps(model))))
    return model


def _ordered(models: Mapping[str, Raw]) -> list[Raw]:
    """Orders by name; a new model whose name in Python is taken is called by its endpoint."""
    taken: set[str] = set()
    named = []
    endpoints = {endpoint.lower() for endpoint in models}
    for model in models.values():  # the known ones come first and keep their names
        name = model["name"]
        is_anothers = name.lower() in endpoints and name.lower() != model["endpoint"].lower()
        if class_name(name).lower() in taken or is_anothers:
            name = model["endpoint"]
        while class_name(name).lower() in taken:
            name = f"{name}-2"
        taken.add(class_name(name).lower())
        named.append({**model, "name": name})
    return sorted(named, key=lambda model: str(model["name"]).lower())

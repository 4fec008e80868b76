"""Merges a public list of models or prices into this user's catalogue, and restores the package's catalogue."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from rh_prefect.catalog import registry
from rh_prefect.catalog.data_file import checked, dumps
from rh_prefect.catalog.hash_compatibility import keep_models
from rh_prefect.catalog.model import Model, decode_price, param_name
from rh_prefect.catalog.public_list_parser import TELLS, ListFormat, PublicList, Raw, is_past_day, read_list
from rh_prefect.errors import InputError
from rh_prefect.local_files import write_atomic
from rh_prefect.redaction import mask

_DATES = ("seen", "price_seen")
_COUNTS = ("imageNum", "n", "maxImages")


class Changes(list[str]):
    """The differences between two states of the catalogue, one a line.

    A line begins with `+` for a new model, `-` for one that is removed or no longer in RunningHub's newest lists, `~`
    for a changed one, and `$` for a changed price.
    """

    def __str__(self) -> str:
        """Formats the counts, as in `3 new, 0 gone, 5 changed, 2 with a different price`."""
        counts = Counter(line[0] for line in self)
        return f"{counts['+']} new, {counts['-']} gone, {counts['~']} changed, {counts['$']} with a different price"


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Changes:
    """Compares an earlier and a later version of the slim file's content."""
    before, after = ({model["endpoint"]: model for model in content["models"]} for content in (old, new))
    both = [(before[endpoint], after[endpoint]) for endpoint in sorted(before.keys() & after.keys())]
    added = sorted(model["name"] for endpoint, model in after.items() if endpoint not in before)
    gone = sorted(model["name"] for endpoint, model in before.items() if _is_gone(model, after.get(endpoint)))
    found = Changes([*(f"+ {name}" for name in added), *(f"- {name}" for name in gone)])
    for earlier, later in both:
        if what := _facts(earlier, later) + _param_changes(earlier, later):
            found.append(f"~ {later['name']}: {', '.join(what)}")
    for earlier, later in both:
        if earlier.get("price") != later.get("price"):
            found.append(f"$ {later['name']}: {_price(earlier)} -> {_price(later)}")
    return found


def _is_gone(earlier: Mapping[str, Any], later: Mapping[str, Any] | None) -> bool:
    return later is None or (later.get("status") == "gone" and earlier.get("status") != "gone")


def _facts(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> list[str]:
    separate_keys = {"params", "removed", "added", "fed", "price", *_DATES}
    separate_keys |= {"status"} if later.get("status") == "gone" else set()
    keys = sorted({field.name for field in fields(Model)} - separate_keys)
    return [key for key in keys if earlier.get(key) != later.get(key)]


def _param_changes(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> list[str]:
    before = {param["key"]: param for param in earlier.get("params", ())}
    after = {param["key"]: param for param in later.get("params", ())}
    return [
        change
        for key in {**before, **after}
        if (change := _param_change(key.strip(), before.get(key, {}), after.get(key, {})))
    ]


def _param_change(key: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    if not before or not after:
        return f"{'-' if before else '+'}{key}"
    facts = [fact for fact in {**before, **after} if fact != "frozen" and before.get(fact) != after.get(fact)]
    return f"~{key} ({', '.join(facts)})" if facts else ""


def _price(model: Mapping[str, Any]) -> str:
    return str(decode_price(model["price"])) if model.get("price") else "unknown"


_FIELDS_FROM_DOCS = ("name", "family", "groups", "in_docs", "replaced_by", "on_cn", "price", "price_seen", "price_note")
"""Fields that public lists do not have, or state less precisely than the documentation."""


def merge(content: Mapping[str, Any], listed: PublicList, *, date: str) -> dict[str, Any]:
    """Merges a public list into a copy of the catalogue's data; `date` is the list's date, empty if unknown.

    Models that cannot be used are added to `listed.flaws`.

    A list without a date, or a list that is older than the catalogue, adds the models and prices that the catalogue
    lacks, and changes nothing else. A model that is not in a newer list is kept and counts as gone. No list changes
    which request a call makes; see `hash_compatibility`.
    """
    models = {model["endpoint"]: model for model in content["models"]}
    only_adds = is_addition(content, date)
    by_alias = {alias.lower(): model["endpoint"] for model in models.values() for alias in model.get("aliases", ())}
    found: dict[str, Raw] = {}
    for literal, raw in listed.models.items():
        endpoint = _endpoint_of(literal, models, by_alias)
        known = models.get(endpoint)
        if (known is not None and only_adds) or (endpoint != literal and endpoint in listed.models):
            continue
        try:
            found[endpoint] = _joined(listed, known, {**raw, "endpoint": endpoint}, date, content)
        except InputError as error:
            listed.flaws.append(f"{literal}: {error.message}")
        except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
            listed.flaws.append(f"{literal}: the entry cannot be read ({error!r})")
    later = [found.pop(endpoint, model) for endpoint, model in models.items()]
    kept = keep_models(content["models"], [*later, *found.values()], flaws=listed.flaws)
    models = {model["endpoint"]: model for model in kept}
    for literal, price in listed.prices.items():
        endpoint = _endpoint_of(literal, models, by_alias)
        if endpoint == literal or endpoint not in listed.prices:
            _reprice(listed, models, endpoint, price, date, catalogue_date=str(content["version"])[:10])
    if listed.format != "prices" and not only_adds:
        there = {_endpoint_of(literal, models, by_alias) for literal in listed.models}
        for endpoint in models.keys() - there:
            models[endpoint] = {**models[endpoint], "status": "gone"}
    return {**content, "models": sorted(models.values(), key=lambda model: str(model["name"]).lower())}


def is_addition(content: Mapping[str, Any], date: str) -> bool:
    """Returns whether a list may only add models and prices, because it has no date or is older than the catalogue."""
    return not date or date < str(content["version"])[:10]


def _endpoint_of(literal: str, models: Mapping[str, Raw], by_alias: Mapping[str, str]) -> str:
    """Returns the endpoint that the catalogue uses for a model in a list, which may have an older spelling."""
    return literal if literal in models else by_alias.get(literal.lower(), literal)


def _joined(
    listed: PublicList, known: Mapping[str, Any] | None, raw: Raw, date: str, content: Mapping[str, Any]
) -> Raw:
    before = known or {}
    if listed.format == "catalogue":
        joined = raw
    else:
        params = _params(listed, before, raw)
        news = {param["key"] for param in raw["params"]} - {param["key"] for param in before.get("params", ())}
        joined = {
            "family": _family(raw["endpoint"], content),
            **raw,
            **{key: before[key] for key in _FIELDS_FROM_DOCS if key in before},
            "incomplete": bool(before.get("incomplete")) and not news if before else raw.get("incomplete", False),
            "aliases": sorted({*before.get("aliases", ()), *raw.get("aliases", ())}),
            "seen": max(date, before.get("seen", "")),
            "params": params,
            "rules": [*_rules(before.get("rules", ()), params)],
        }
        joined = {key: fact for key, fact in joined.items() if fact or key in ("params", "on_cn")}
    checked(joined)
    return joined


def _rules(rules: Iterable[Raw], params: Iterable[Raw]) -> Iterator[Raw]:
    """Yields each rule, reduced to the parameters that still exist, with their present keys."""
    now = {param_name(param["key"]): param["key"] for param in params}
    for rule in rules:
        kept = dict(rule)
        for part in ("params", "given"):
            if part in rule:
                kept[part] = [now[name] for name in map(param_name, rule[part]) if name in now]
        if "when" in rule:
            kept["when"] = {now.get(param_name(key)): value for key, value in rule["when"].items()}
        if all(kept.get(part, True) for part in ("params", "given")) and None not in kept.get("when", ()):
            yield kept


def _params(listed: PublicList, before: Mapping[str, Any], raw: Raw) -> list[Raw]:
    """Merges the parameters; keeps structured parameters and notes, which public lists do not contain."""
    known = {param_name(param["key"]): param for param in before.get("params", ())}
    if not raw["params"]:
        return list(known.values())
    joined = [_param(listed, known.get(param_name(param["key"]), {}), param) for param in raw["params"]]
    mine = {param_name(param["key"]) for param in raw["params"]}
    return joined + [param for name, param in known.items() if name not in mine and param["type"] == "json"]


def _param(listed: PublicList, before: Mapping[str, Any], param: Raw) -> Raw:
    list_fields = {"required"} if before.get("type") == "json" else {"required", *TELLS[listed.format]}
    if before.get("type") == "string" == param["type"]:  # a list has a sample in the place of the default
        list_fields.discard("default")
    told = {key: fact for key, fact in param.items() if key in {"key", *list_fields}}
    joined = {key: fact for key, fact in before.items() if key not in list_fields} | told
    more = re.match(r"(-?\w+), absent from options", joined.get("note", ""))
    if more and more[1] not in joined.get("options", [more[1]]):
        joined["options"] = [*joined["options"], more[1]]
    return joined


def _family(endpoint: str, content: Mapping[str, Any]) -> str:
    """Returns a new model's family: the family of endpoints with the same beginning, or one that the endpoint names."""
    parts = endpoint.lower().split("/")
    for length in range(len(parts) - 1, 0, -1):
        start = "/".join([*parts[:length], ""])
        near = {model["family"] for model in content["models"] if model["endpoint"].lower().startswith(start)}
        if len(near) == 1:
            return str(near.pop())
    families = sorted({model["family"] for model in content["models"]}, key=len, reverse=True)
    named = (family for part in parts for family in families if f"{part}-".startswith(f"{family}-"))
    return str(next(named, re.sub(r"[^a-z0-9-]", "-", parts[0])))


def _reprice(
    listed: PublicList, models: dict[str, Raw], endpoint: str, price: Raw | None, date: str, *, catalogue_date: str
) -> None:
    model = models.get(endpoint)
    price_date = str((price or {}).get("seen") or date)
    if model is None:
        listed.flaws.append(f"{endpoint}: the price is ignored, because the catalogue does not have the model")
        return
    # A note says why there is no price; an older list did not know it.
    seen = model.get("price_seen", "") if model.get("price") else catalogue_date if model.get("price_note") else ""
    if price is None or (seen and price_date < seen):
        return
    try:
        facts = {key: fact for key, fact in price.items() if key != "seen"}
        priced = {**model, "price": {**_spelled(facts, model), **_quantity(price["unit"], model)}}
        priced |= {"price_seen": price_date} if price_date else {}
        checked(priced)
        models[endpoint] = priced
    except (InputError, StopIteration, KeyError, TypeError, ValueError, ArithmeticError) as error:
        listed.flaws.append(f"{endpoint}: its price cannot be used ({error})")


def _quantity(unit: str, model: Mapping[str, Any]) -> Raw:
    """Returns the price fields that name the parameter for the number of units; empty if there is no such parameter."""
    keys = [param["key"] for param in model["params"]]
    if unit in ("second", "second, from", "5 seconds"):
        return {"per": "duration"} if "duration" in keys else {}
    if unit == "1000 characters":
        return {"per": next(key for key in ("text", "prompt") if key in keys)}
    counts = [key for key in _COUNTS if key in keys]
    if unit != "image" or not counts:
        return {}
    # `maxImages` has an effect only if a series of images is requested.
    series = {"per_when": {"sequentialImageGeneration": "auto"}} if "sequentialImageGeneration" in keys else {}
    return {"per": counts[0], **series}


def _spelled(price: Raw, model: Mapping[str, Any]) -> Raw:
    """Returns a price whose rows spell values as the parameters' options do: `1080p` for `1080P`."""
    if "rows" not in price:
        return price
    options = {param["key"]: {one.lower(): one for one in param.get("options", ())} for param in model["params"]}
    spellings = [options.get(key, {}) for key in price["by"]]
    rows = [
        [*(known.get(value.lower(), value) for known, value in zip(spellings, values, strict=True)), amount]
        for *values, amount in price["rows"]
    ]
    return {**price, "rows": rows}


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The result of a refresh; `is_addition` says whether the list only added missing models and prices."""

    format: ListFormat
    entries: int
    date: str
    is_addition: bool
    changes: Changes
    flaws: tuple[str, ...]


def refresh(data: bytes, source: str, *, date: str | None = None) -> Refreshed:
    """Merges a public file, called `source` in messages and records, into this user's catalogue.

    Processes that start later use the result.
    """
    try:
        listed = read_list(json.loads(data))
    except (ValueError, RecursionError, InputError) as error:
        raise InputError(
            f"{source} is not a list of models: {mask(str(error))}. Nothing was changed. What to do: pass a list that "
            "RunningHub has published."
        ) from None
    date = _day(date) if date is not None else listed.date
    told: list[str] = []
    before = registry.in_use(told.append)
    content = merge(before, listed, date=date)
    entries = len(listed.models) + len(listed.prices)
    if not entries:
        details = "".join(f"\n  {mask(flaw)}" for flaw in listed.flaws[:5])
        raise InputError(f"{source} has no usable model. Nothing was changed. What to do: pass another list.{details}")
    found = changes(before, content)
    after = {
        **content,
        "version": _version(str(before["version"]), date),
        "source": f"{before['source']}; {source}",
    }
    # A file that was not used is replaced in any case: the warning at each start advises this command.
    if told or content["models"] != before["models"]:
        write_atomic(registry.user_file(), dumps(after).encode())
    flaws = tuple(mask(flaw) for flaw in listed.flaws)
    return Refreshed(listed.format, entries, date, is_addition(before, date), found, flaws)


def reset() -> bool:
    """Restores the package's own models; returns whether this user had other models."""
    target = registry.user_file()
    there = target.exists()
    target.unlink(missing_ok=True)
    return there


def _day(text: str) -> str:
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text) or not is_past_day(text):
        raise InputError(
            f"{text!r} is not a past date. Nothing was changed. What to do: give, as YYYY-MM-DD, the day on which the "
            "list was published."
        )
    return text


def _version(before: str, date: str) -> str:
    """Returns a version later than the present one, so that a package with older models does not replace the file."""
    day, _, number = before.partition("+")
    return f"{date}+0" if date > day else f"{day}+{int(number or 0) + 1}"

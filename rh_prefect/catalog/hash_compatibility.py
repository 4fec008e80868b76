"""Keeps the hashes of requests when the catalogue changes; otherwise, earlier calls would be paid for again.

The hash of a request contains the parameters that the caller gave. The *form* of a parameter (its key, its type, and
whether it is a list) decides how the value is hashed. A parameter gets its form when it enters the catalogue. It keeps
the form when RunningHub renames it, changes its type, makes it a list or removes it. `as_given` applies the forms.

A value without a parameter's name, such as a file in `from`, goes to the parameters that the catalogue had first; see
`Model.feeds` and `Model.added`. `keep_model` writes a form to the data only if the form differs from the new
definition.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from rh_prefect.catalog.model import Form, Model, ParamType, class_name, form_of, param_name, snake_name, text_of

Raw = Mapping[str, Any]
_FILES = ("image", "video", "audio")


def as_given(model: Model, params: Mapping[str, object], *, unchecked: Collection[str] = ()) -> dict[str, object]:
    """Returns the parameters of a call in the form in which they are hashed, keyed as in the forms.

    For a parameter with one value, a list with one value counts as the value; for a parameter with several values, a
    single value counts as a list with this value. `5` counts as `"5"` for an `enum`. Empty values count as not given.
    Values of `unchecked` are not converted, because each spelling of such a value is a different request. Files are
    identified by their content. The catalogue's defaults are not added.
    """
    found: dict[str, object] = {}
    for name, value in params.items():
        param = model.find_param(name)
        is_unchecked = param is None or name in unchecked or param.name in unchecked
        form = None if param is None else param.form
        compared = value if is_unchecked or form is None else _in_form(form, value)
        if compared is not None:
            found[name if form is None else form.key] = compared
    return found


def _in_form(form: Form, value: object) -> object:
    if form.type == "json":
        return _parsed(value) or None
    values = list(value) if isinstance(value, list | tuple) else [value]
    items = [_item(form, one) for one in values if one is not None and one != ""]
    if form.multiple or len(items) > 1:
        return items or None
    if items and isinstance(items[0], list | tuple | Mapping):
        return value
    return items[0] if items else None


def _item(form: Form, value: object) -> object:
    return text_of(value) if form.type == "enum" and _is_plain(value) else converted(value, form.type)


def converted(value: object, to: ParamType) -> object:
    """Converts a plain value to another type if this can be undone exactly; otherwise returns the value unchanged."""
    if to == "string" and _is_plain(value):
        return text_of(value)
    if to == "bool" and value in ("true", "false"):
        return value == "true"
    if to in ("int", "float") and isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return value
        if math.isfinite(number) and text_of(number) == value:
            return int(number) if number.is_integer() else number
    return value


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float)


def _parsed(value: object) -> object:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def keep_models(earlier: Iterable[Raw], later: Iterable[Raw], *, flaws: list[str]) -> list[dict[str, Any]]:
    """Returns the models of a later catalogue, changed so that each earlier call is still the same request.

    A model in both catalogues keeps its name. A name, an endpoint or an alias of an earlier model stays with this
    model: a new model with this name gets another name, and is left out if its endpoint is taken. `flaws` receives a
    clause about each unused part, with the reason.
    """
    known = {model["endpoint"]: model for model in earlier}
    owners = {name: str(model["endpoint"]) for model in known.values() for name in _names(model)}
    kept: list[dict[str, Any]] = []
    new: list[dict[str, Any]] = []
    for model in later:
        (kept if model["endpoint"] in known else new).append(dict(model))
    kept = [_with_own_aliases(keep_model(known[model["endpoint"]], model, flaws=flaws), owners) for model in kept]
    for model in new:
        owner = owners.get(model["endpoint"].lower())
        if owner is not None:
            flaws.append(
                f"{model['endpoint']}: the model with the endpoint {owner} has this name already and keeps it; "
                "use `models.custom` to call the endpoint"
            )
            continue
        named = _with_own_aliases({**model, "name": _free_name(model, owners)}, owners)
        owners.update(dict.fromkeys(_names(named), named["endpoint"]))
        kept.append(named)
    return kept


def _names(model: Raw) -> list[str]:
    name = model["name"]
    own = (name, model["endpoint"], class_name(name), snake_name(name), *model.get("aliases", ()))
    return [one.lower() for one in own]


def _free_name(model: Raw, owners: Mapping[str, str]) -> str:
    """Returns the name of a new model or, if another model has this name, the endpoint, possibly with a number."""
    name, number = str(model["name"]), 1
    while any(one.lower() in owners for one in (name, class_name(name), snake_name(name))):
        name = model["endpoint"] if number == 1 else f"{model['endpoint']}-{number}"
        number += 1
    return name


def _with_own_aliases(model: dict[str, Any], owners: Mapping[str, str]) -> dict[str, Any]:
    aliases = [
        one for one in model.get("aliases", ()) if owners.get(one.lower(), model["endpoint"]) == model["endpoint"]
    ]
    return {key: aliases if key == "aliases" else fact for key, fact in model.items() if key != "aliases" or aliases}


def keep_model(earlier: Raw, later: Raw, *, flaws: list[str]) -> dict[str, Any]:
    """Returns a later definition of a model, changed so that each earlier call is still the same request.

    A parameter with the same Python name counts as the same parameter.
    """
    before = {param_name(raw["key"]): raw for raw in (*earlier.get("removed", ()), *earlier.get("params", ()))}
    params: dict[str, Raw] = {}
    for raw in later.get("params", ()):
        name, shown = param_name(raw["key"]), f"{later['endpoint']}: {raw['key'].strip()}"
        params[name] = _keep_param(before[name], raw, shown, flaws) if name in before else raw
    gone = [_removed(raw) for name, raw in before.items() if name not in params]
    gone += [raw for raw in later.get("removed", ()) if param_name(raw["key"]) not in {**before, **params}]
    known = {*before, *earlier.get("added", ())} if before else params  # no earlier call had any of the parameters
    new = [name for name in params if name not in known]
    kept = {
        **later,
        "name": earlier["name"],
        "params": list(params.values()),
        "removed": gone,
        "added": [*earlier.get("added", ()), *new],
        "fed": _fed(earlier, params),
    }
    return {key: fact for key, fact in kept.items() if fact or key not in ("removed", "added", "fed")}


def _fed(earlier: Raw, params: Mapping[str, Raw]) -> list[list[list[Any]]]:
    """Returns the groups for `Model.feeds`; empty if the parameters themselves determine the groups."""
    first = earlier.get("fed") or [_files(earlier.get("params", ()))]
    known = {name for group in first for name, _ in group}
    new = [file for file in _files(params.values()) if file[0] not in known]
    groups = [group for group in (*first, new) if group]
    return [] if groups in ([], [_files(params.values())]) else groups


def _files(params: Iterable[Raw]) -> list[list[Any]]:
    return [[param_name(raw["key"]), bool(raw.get("required"))] for raw in params if raw["type"] in _FILES]


def _keep_param(before: Raw, now: Raw, shown: str, flaws: list[str]) -> Raw:
    if _nature(before) != _nature(now):
        flaws.append(
            f"{shown}: its type was {before['type']} and is not changed to {now['type']}, because calls "
            "with another type would be new requests and be paid for again"
        )
        now = {key: value for key, value in before.items() if key != "required"} | (
            {"required": True} if now.get("required") else {}
        )
    form = form_of(before)
    definition = {"key": now["key"], "type": now["type"], "multiple": now.get("multiple", False)}
    differs = {key: value for key, value in form.items() if definition[key] != value}
    return {**{key: value for key, value in now.items() if key != "frozen"}, **({"frozen": differs} if differs else {})}


def _nature(raw: Raw) -> str:
    """Returns whether a parameter takes files, objects or plain values; a later catalogue cannot change this."""
    return "file" if raw["type"] in _FILES else "objects" if raw["type"] == "json" else "value"


def _removed(raw: Raw) -> dict[str, Any]:
    return {key: value for key, value in raw.items() if key not in ("required", "default")}

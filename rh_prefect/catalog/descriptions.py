"""Text descriptions of models and parameters, and the smallest valid input of each model."""

from __future__ import annotations

import re
from collections.abc import Mapping

from rh_prefect.catalog.model import Model, Param, ParamType

_MAKES = {
    "image": "Makes an image",
    "video": "Makes a video",
    "audio": "Makes audio",
    "3d": "Makes a 3D model",
    "text": "Writes text",
}
_KINDS: dict[ParamType, str] = {
    "string": "Text",
    "enum": "One of the options",
    "bool": "True or false",
    "int": "A whole number",
    "float": "A number",
    "image": "An image",
    "video": "A video",
    "audio": "An audio file",
    "json": "Objects, or a JSON string of them",
}


def summary(model: Model) -> str:
    """Describes a model in one line, as in "Makes a video with kling-v2.6-pro-image-to-video. Price: ..."."""
    return " ".join([_what(model), *_facts(model)])


def docstring(model: Model, *, options: Mapping[str, str], returns: str = "") -> str:
    """Returns the docstring of a model's task or flow, in Google's style; `options` describes the other arguments."""
    lines = [_what(model), "", *_facts(model), "", "Args:"]
    lines += [f"    {param.name}: {limits(param) or _KINDS[param.type]}." for param in model.params]
    lines += [f"    {name}: {text}" for name, text in options.items()]
    return "\n".join([*lines, *(["", "Returns:", f"    {returns}"] if returns else [])])


def limits(param: Param) -> str:
    """Describes a parameter's allowed values, with minimum and maximum; the description may be empty."""
    low, high = (None if bound is None else f"{bound:.10g}" for bound in (param.min, param.max))
    span = f"{low} to {high}" if low and high else f"{low} or more" if low else f"up to {high}" if high else ""
    return "; ".join(clause for clause in (describe(param).rstrip("."), span) if clause)


def _what(model: Model) -> str:
    return f"{_MAKES[model.output]} with {model.name}."


def _facts(model: Model) -> list[str]:
    sentences = [_price(model), f"Endpoint: {model.endpoint}."]
    if model.status != "current":
        sentences.append(f"{standing(model)}.")
    if not model.on_cn:
        sentences.append("The public pages of runninghub.cn do not list it; it may require a key from runninghub.ai.")
    if model.incomplete:
        sentences.append("Its published parameter list is not complete; pass other parameters in `unchecked`.")
    return sentences


def _price(model: Model) -> str:
    price_date = f" (listed {model.price_seen})" if model.price and model.price_seen else ""
    price = f"Price: {model.price}{price_date}." if model.price else "Its price is not published."
    return f"{price} {model.price_note}" if model.price_note else price


def standing(model: Model) -> str:
    """Describes the status of a model that is not current, and names the model's replacement, if any."""
    what = "Deprecated" if model.status == "deprecated" else "Not in RunningHub's newest lists; it may still work"
    return f"{what}; use {model.replaced_by}" if model.replaced_by else what


def describe(param: Param) -> str:
    """Describes a parameter's limits, without type, default and options; empty if the parameter has no limits."""
    clauses = [param.note, *_file_limits(param)]
    if param.max_length is not None:
        clauses.append(f"up to {param.max_length} characters")
    if param.step is not None and param.step != 1:
        clauses.append(f"in steps of {param.step:g}")
    text = "; ".join(clause for clause in clauses if clause)
    return text[:1].upper() + text[1:] if text else ""


def _file_limits(param: Param) -> list[str]:
    clauses = [f"one value or a list of up to {param.max_items}"] if param.max_items else []
    if param.accept:
        clauses.append(", ".join(param.accept).upper())
    if param.max_size_mb is not None:
        clauses.append(f"up to {param.max_size_mb} MB{' each' if param.multiple else ''}")
    return clauses


_EXTENSIONS = {"image": "png", "video": "mp4", "audio": "mp3"}


def example(model: Model) -> dict[str, object]:
    """Returns the smallest valid input for a model."""
    chosen = {param.key for param in model.params if param.needs_value}
    for rule in model.rules:
        if rule.kind in ("one", "any") and not chosen.intersection(rule.params):
            chosen.add(rule.params[0])
    return {param.name: example_of(param) for param in model.params if param.key in chosen}


def example_of(param: Param) -> object:
    """Returns a valid value for one parameter; see `example`."""
    value = _item(param)
    return [value] if param.multiple else value


def _item(param: Param) -> object:
    match param.type:
        case "image" | "video" | "audio":
            extension = param.accept[0] if param.accept else _EXTENSIONS[param.type]
            return f"https://example.com/{param.type}.{extension}"
        case "enum":
            return param.options[0]
        case "bool":
            return False
        case "int" | "float":
            return param.min if param.min is not None else 1
        case "json":
            return [_object(param)] if param.shape == "list" else _object(param)
        case "string":
            return "abcd1234" if param.pattern else "a lighthouse in the fog"[: param.max_length]


def _object(param: Param) -> dict[str, str]:
    """Returns an object with the members that a parameter's note names in braces, as in `list of {type, tag, url}`."""
    members = re.search(r"\{([\w, ]+)\}", param.note)
    names = re.findall(r"\w+", members[1]) if members else ["name"]
    return {name: "https://example.com/image.png" if name == "url" else name for name in names}

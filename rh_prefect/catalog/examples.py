"""The smallest valid input of a model: to start from, and to test with."""

from __future__ import annotations

import re

from rh_prefect.catalog.model import Model, Param

_EXTENSIONS = {"image": "png", "video": "mp4", "audio": "mp3"}


def example(model: Model) -> dict[str, object]:
    """Makes the smallest valid input of a model.

    Args:
        model: The model.

    Returns:
        Values by Python names: what is required and has no default, and one of each either/or group. Files are URLs of
        example.com that end in an accepted extension.
    """
    chosen = {param.key for param in model.params if param.required and param.default is None}
    for rule in model.rules:
        if rule.kind in ("one", "any") and not chosen.intersection(rule.params):
            chosen.add(rule.params[0])
    return {param.name: example_of(param) for param in model.params if param.key in chosen}


def example_of(param: Param) -> object:
    """Makes a valid value of one parameter; see `example`.

    Args:
        param: The parameter.
    """
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
    """An object with the members that the note names in braces, as in `list of {type, tag, url}`."""
    members = re.search(r"\{([\w, ]+)\}", param.note)
    names = re.findall(r"\w+", members[1]) if members else ["name"]
    return {name: "https://example.com/image.png" if name == "url" else name for name in names}

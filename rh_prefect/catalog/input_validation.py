"""Checks an input against its model and builds the request's parameters from it.

Only this module converts values for the request: strings stay strings (`"5"`, `"true"`) unless the model's page shows
numbers, `json` parameters become JSON arrays and objects (not strings), files become URLs, and keys get the API's
spelling.
"""

from __future__ import annotations

import json
import math
import os
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from rh_prefect.catalog import cross_parameter_rules
from rh_prefect.catalog.descriptions import standing
from rh_prefect.catalog.hash_compatibility import as_given, converted
from rh_prefect.catalog.model import Model, Param, text_of
from rh_prefect.errors import InputError, MediaError
from rh_prefect.json_snapshot import flaw_of

MIB = 1024 * 1024
_SAME_FORMAT = {"jpeg": "jpg", "tiff": "tif"}


class InputWarning(UserWarning):
    """Warns that a model or a parameter is outdated, or that a parameter has no effect; the input is sent anyway."""


class _Wrong(Exception):  # carries a clause from the check of a value to the list of all problems
    pass


@dataclass(frozen=True, slots=True)
class InputCheck:
    """The result of checking an input."""

    values: dict[str, object] = field(default_factory=dict)  # by wire keys, as the API needs them
    extra: dict[str, object] = field(default_factory=dict)  # unchecked ones that the catalogue does not have
    problems: list[str] = field(default_factory=list)  # one clause each
    notices: list[str] = field(default_factory=list)  # what is outdated or without effect, one sentence each

    def warn(self, *, stacklevel: int) -> None:
        """Issues all notices as warnings at the user's own line, `stacklevel` calls above the caller of this method."""
        for notice in self.notices:
            warnings.warn(notice, InputWarning, stacklevel=stacklevel + 2)


def complaint(model: Model, problems: list[str]) -> str:
    """Returns one message for the problems with an input, with one clause for each."""
    return f"{model.name}: {'; '.join(problems)}. Nothing was sent. What to do: correct the input and call again."


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of one request, as they are hashed and as they are sent."""

    given: dict[str, object]  # as the identity of the request compares them; see `as_given`
    sent: dict[str, object]  # by wire keys in the model's order, with the defaults of required ones filled in


def read_parameters(model: Model, params: Mapping[str, object], *, unchecked: Collection[str] = ()) -> Parameters:
    """Checks an input, and returns the request's parameters; keeps `unchecked` values unchanged.

    Raises `InputError` if the input is not valid.
    """
    checked = check(model, params, unchecked=unchecked)
    checked.warn(stacklevel=1)
    if checked.problems:
        problems = checked.problems
        raise InputError(complaint(model, problems), model=model.name, problems=tuple(problems))
    return Parameters(as_given(model, params, unchecked=unchecked), _filled(model, checked, unchecked))


def _filled(model: Model, checked: InputCheck, unchecked: Collection[str]) -> dict[str, object]:
    values = dict(checked.values)
    for param in model.params:
        if param.required and param.default is not None:
            values.setdefault(param.key, param.wire_default)
    cross_parameter_rules.complete(model, values, unchecked=unchecked)
    in_order = {
        param.key: values[param.key] if param.name in unchecked else _on_wire(param, values[param.key])
        for param in model.known_params
        if param.key in values
    }
    return in_order | checked.extra


def _on_wire(param: Param, value: object) -> object:
    if isinstance(value, list) and param.is_numeric:
        return [_on_wire(param, one) for one in value]
    return int(value) if param.is_numeric and isinstance(value, str) else value


def check(
    model: Model,
    params: Mapping[str, object],
    *,
    as_media: Callable[[object], object] | None = None,
    unchecked: Collection[str] = (),
) -> InputCheck:
    """Checks every part of an input, and returns its values without defaults, all problems and all warnings.

    `as_media` reads a file, and raises an `InputError` if the file is invalid; by default only URLs are accepted. The
    values of `unchecked` are sent unchanged: the catalogue may be out of date.
    """
    checked, tried = InputCheck(), set[str]()
    for name, value in params.items():
        param = model.find_param(name)
        flaw = "" if param is not None and param.is_media else flaw_of(value)
        if flaw:
            checked.problems.append(f"{param.name if param is not None else ascii(name)} {flaw}")
            tried.update([param.key] if param is not None else [])
        elif param is None and name in unchecked:
            checked.problems.extend(_holding_a_file(name, value))
            checked.extra.update({name: value} if value is not None else {})
        elif param is None:
            checked.problems.extend([_unknown(model, name, value)] if value is not None else [])
        elif param.key in checked.values:
            checked.problems.append(f"{param.name} is given twice: under this name and as {param.key!r}")
        elif param.name in unchecked and not param.is_media:
            checked.problems.extend(_holding_a_file(param.name, value))
            checked.values[param.key] = value
            tried.add(param.key)
        else:
            problem = _take(checked, param, _converted(param, value), as_media or _media_text)
            tried.update([param.key] if problem or param.key in checked.values else [])
            checked.problems.extend([problem] if problem else [])
    checked.problems.extend(
        f"{param.name} is missing{_allowed(param)}"
        for param in model.params
        if param.needs_value and param.key not in tried
    )
    checked.problems.extend(cross_parameter_rules.problems(model, checked.values, unchecked=unchecked))
    checked.notices.extend(
        f"{model.name}: {notice}." for notice in cross_parameter_rules.notices(model, checked.values)
    )
    checked.notices.extend(
        f"{model.name}: {param.name} is no longer in RunningHub's newest list; it is sent anyway."
        for param in model.removed
        if param.key in checked.values
    )
    if model.status != "current":
        checked.notices.append(f"{model.name}: {standing(model)}.")
    return checked


def check_file(
    model: Model,
    param: Param,
    *,
    extension: str | None,
    size: int,
    kind: str | None = None,
    source: str = "the file",
) -> None:
    """Raises a `MediaError` if a file has the wrong kind or format for the parameter, is too large or is empty.

    `extension` and `kind` come from the file's content; each is None if unknown. `source` names the file in messages.
    """
    wrong = _wrong_file(param, extension, size, kind)
    if wrong:
        raise MediaError(
            f"{model.name}: {param.name} {wrong}: {source}. Nothing was sent. What to do: pass another file.",
            model=model.name,
            param=param.name,
        )


def _wrong_file(param: Param, extension: str | None, size: int, kind: str | None) -> str:
    if kind is not None and kind != param.type:
        return f"takes {_article(param.type)}, but this is {_article(kind)}"
    accepted = {_format(one) for one in param.accept}
    if accepted and extension is not None and _format(extension) not in accepted:
        return f"takes {', '.join(param.accept)}, but the format of this file is {extension or 'unknown'}"
    if param.max_size_mb is not None and size > param.max_size_mb * MIB:
        return f"takes at most {param.max_size_mb} MB, but this file has {size / MIB:.1f} MB"
    return "needs a non-empty file, but this file is empty" if size == 0 else ""


def _format(extension: str) -> str:
    plain = extension.lower().lstrip(".")
    return _SAME_FORMAT.get(plain, plain)


def _article(kind: str) -> str:
    return f"an {kind} file" if kind[0] in "aeiou" else f"a {kind} file"


def _unknown(model: Model, name: str, value: object) -> str:
    """Returns a clause about a parameter that the model lacks; RunningHub would ignore it and charge for the call."""
    held = next(iter(_holding_a_file(name, value)), "")
    if held:
        return held
    shown = name if name.isidentifier() else ascii(name)
    known = f"{model.hint(name)}; RunningHub publishes only some of them" if model.incomplete else model.hint(name)
    return f"{shown} is not a parameter; {known} (pass a newer parameter with unchecked={{{name!r}: ...}})"


def _holding_a_file(name: str, value: object) -> list[str]:
    """Returns a clause about a file that would not be uploaded, because the catalogue knows no such file parameter."""
    if not _holds_file(value):
        return []
    why = "but the catalogue has no file parameter with this name; use `models.custom` to upload it"
    return [f"the value of {name} is a file, {why}"]


def _holds_file(value: object) -> bool:
    if isinstance(value, Mapping):
        return value.keys() == {"file"} or any(map(_holds_file, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_file, value))
    return isinstance(value, os.PathLike) or hasattr(value, "first_output") or hasattr(value, "sha256")


def _converted(param: Param, value: object) -> object:
    """Converts a value from the parameter's form before a refresh to its present form; keeps all other values."""
    form = param.form
    if form.multiple and not param.multiple and isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return value if form.type == param.type else converted(value, param.type)


def _take(checked: InputCheck, param: Param, value: object, as_media: Callable[[object], object]) -> str:
    """Reads one value into `checked`; returns the problem with the value, or an empty string."""
    try:
        read = _list(param, value, as_media) if param.multiple else _one(param, value, as_media)
    except _Wrong as wrong:
        return f"{param.name} {wrong}"
    if read is not None:
        checked.values[param.key] = read
    return ""


def _list(param: Param, value: object, as_media: Callable[[object], object]) -> list[object] | None:
    values = list(value) if isinstance(value, list | tuple) else [value]
    items = [item for item in (_one(param, item, as_media) for item in values) if item is not None]
    if param.max_items is not None and len(items) > param.max_items:
        raise _Wrong(f"takes at most {param.max_items} items, not {len(items)}")
    return items or None


def _one(param: Param, value: object, as_media: Callable[[object], object]) -> object:
    """Reads one value; returns None if the value counts as not given."""
    if value is None or (isinstance(value, str) and not value):
        return None
    if param.is_media:
        return _media(value, as_media)
    match param.type:
        case "enum":
            return _enum(param, value)
        case "bool":
            return _bool(value)
        case "int" | "float":
            return _number(param, value)
        case "json":
            return _json(param, value)
        case _:
            return _text(param, value)


def _media(value: object, as_media: Callable[[object], object]) -> object:
    try:
        return as_media(value)
    except InputError as error:
        raise _Wrong(f"is not a file: {error.message.rstrip('.')}") from None


def _media_text(value: object) -> str:
    if isinstance(value, str) and value.strip():
        return value
    raise InputError(f"it must be a URL, not {_show(value)}")


def _enum(param: Param, value: object) -> str:
    text = text_of(value) if isinstance(value, str | int | float) else None
    if text in param.options:
        return text
    newer = f"pass a newer value with unchecked={{'{param.name}': {value!r}}}" if isinstance(value, str) else ""
    raise _Wrong(f"must be one of {_options(param)}, not {_show(value)}{f' ({newer})' if newer else ''}")


def _bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise _Wrong(f"must be true or false, not {_show(value)}")


def _number(param: Param, value: object) -> int | float:
    kind = "a whole number" if param.type == "int" else "a number"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _Wrong(f"must be {kind}, not {_show(value)}")
    if param.type == "int" and value != int(value):
        raise _Wrong(f"must be {kind}, not {_show(value)}")
    low, high = param.min, param.max
    if (low is not None and value < low) or (high is not None and value > high):
        raise _Wrong(f"must be {_range(low, high)}, not {_show(value)}")
    return int(value) if param.type == "int" else value


def _range(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"between {low:g} and {high:.10g}"
    return f"at least {low:g}" if low is not None else f"at most {high:.10g}"


def _text(param: Param, value: object) -> str:
    if not isinstance(value, str):
        raise _Wrong(f"must be a string, not {_show(value)}")
    if param.max_length is not None and len(value) > param.max_length:
        raise _Wrong(f"has {len(value)} characters; at most {param.max_length} are allowed")
    if param.pattern and not re.fullmatch(param.pattern, value):
        raise _Wrong(f"must have {param.note}; {_show(value)} does not")
    _refuse_path(param.key, value)
    return value


_URL_KEY = re.compile(r"(?i)url[s\d]*$")
_LINK = re.compile(r"(?i)(https?|asset|data):")
_PATH = re.compile(r"(?i)[a-z][a-z0-9+.-]+://|[/\\~]|.*\.[a-z0-9]{2,4}$|[a-z]:\\")


def _refuse_path(key: str, value: object) -> None:
    """Rejects a local path where RunningHub expects a link; the path would be sent unchanged, and the call charged."""
    is_path = isinstance(value, str) and not _LINK.match(value) and ("/" in value or _PATH.match(value) is not None)
    if is_path and _URL_KEY.search(key.strip()):
        raise _Wrong(
            f"takes a link, not the local file {_show(value)}; upload the file with `tasks.upload_file` to get a link"
        )


def _refuse_files(value: object, key: str = "") -> None:
    """Rejects local files in a structured value, which is sent unchanged."""
    if isinstance(value, Mapping) and value.keys() != {"file"}:
        for name, one in value.items():
            _refuse_files(one, str(name))
    elif isinstance(value, list | tuple):
        for one in value:
            _refuse_files(one, key)
    elif _holds_file(value):
        raise _Wrong(
            "takes links, but the value contains a file; upload the file with `tasks.upload_file` to get a link"
        )
    else:
        _refuse_path(key, value)


def _json(param: Param, value: object) -> object:
    """Reads a list or an object, also from a JSON string; the parsed value is sent, not the string."""
    kind = "a list of objects" if param.shape == "list" else "an object"
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise _Wrong(f"must be {kind}, or a JSON string with one; {_show(value)} is not JSON") from None
        if flaw := flaw_of(value):
            raise _Wrong(flaw)
    items = list(value) if isinstance(value, list | tuple) else [value]
    several = isinstance(value, list | tuple)
    fits = several if param.shape == "list" else not several or len(items) == 1
    if not fits or not all(isinstance(item, Mapping) for item in items):
        raise _Wrong(f"must be {kind}, not {_show(value)}")
    _refuse_files(value)
    return (items or None) if several else value


def _options(param: Param) -> str:
    return ", ".join(f'"{option}"' for option in param.options)


def _allowed(param: Param) -> str:
    return f"; it must be one of {_options(param)}" if param.options else ""


def _show(value: object) -> str:
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

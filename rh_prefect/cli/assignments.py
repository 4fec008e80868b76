"""Parameters on a command line: `--set NAME=VALUE`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from rh_prefect.catalog import Param, get
from rh_prefect.errors import InputError, UnknownModelError


def read_assignments(model: str | None, given: Iterable[str]) -> dict[str, Any]:
    """Reads the parameters of a model or endpoint.

    Args:
        model: Any name of the model, or an endpoint that the catalogue does not know.
        given: Each as `NAME=VALUE`. `@PATH` is a file; a text stays one where the model takes a text, else what is JSON
            counts as such. A name with several values holds a list of them.

    Returns:
        The values by name; a file as `{"file": PATH}`.

    Raises:
        InputError: One is no assignment.
    """
    found: dict[str, Any] = {}
    several: set[str] = set()
    for one in given:
        name, sign, text = one.partition("=")
        if not sign or not name:
            raise InputError(f"run model: --set {one!r} is no assignment. What to do: write it as NAME=VALUE.")
        value = _value(_param(model, name), text)
        if name in found:
            found[name] = [*(found[name] if name in several else [found[name]]), value]
            several.add(name)
        else:
            found[name] = value
    return found


def files_in(params: Any) -> list[str]:
    """Lists the files among parameters, as they were written.

    Args:
        params: What `read_assignments` made.
    """
    if isinstance(params, dict):
        if params.keys() == {"file"}:
            return [str(params["file"])]
        return [file for value in params.values() for file in files_in(value)]
    return [file for value in params for file in files_in(value)] if isinstance(params, list) else []


def _param(model: str | None, name: str) -> Param | None:
    try:
        return get(model or "").find_param(name)
    except UnknownModelError:
        return None


def _value(param: Param | None, text: str) -> Any:
    if text.startswith("@"):
        return _file(text)
    if param is not None and param.is_media:
        return {"file": text}
    if param is not None and param.type in ("string", "enum"):
        return text
    try:
        return _with_files(json.loads(text))
    except ValueError:
        return text


def _file(text: str) -> dict[str, str]:
    return {"file": text[1:]}


def _with_files(value: Any) -> Any:
    """Finds the files in lists: `["@photo.jpg"]` is one file in a list."""
    if isinstance(value, list):
        return [_file(one) if isinstance(one, str) and one.startswith("@") else _with_files(one) for one in value]
    return value

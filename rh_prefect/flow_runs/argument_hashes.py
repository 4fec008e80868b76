"""Hashes the arguments of flows, tasks and calls, so that a later attempt recognises the same call."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import cache
from pathlib import Path, PurePath
from typing import Any
from uuid import UUID

from pydantic import BaseModel, SecretBytes, SecretStr

from rh_prefect.media.media import Media
from rh_prefect.works.outputs.result import Result

_EPOCH = (1.4e9, 2.4e9)
"""Seconds since 1970 of the years 2014 to 2046."""

_EACH_TIME = re.compile(
    r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}"  # a UUID
    r"|.{0,40}\d{4}-?\d{2}-?\d{2}[T _-]?\d{2}[:-]?\d{2}.{0,40}",  # a date with a time of day
    re.IGNORECASE,
)


def arguments_of(parameters: Mapping[str, Any]) -> dict[str, str | None]:
    """Hashes each argument.

    Returns:
        Name -> hash, 12 hex digits; None for a value that may differ each time the same call is made, or that cannot
        be compared: clients, sets, objects, times of day, random ids, files in temporary folders.
    """
    return {name: argument_hash(value) for name, value in parameters.items()}


def argument_hash(value: object) -> str | None:
    """Hashes one argument, or several as a list; see `arguments_of`."""
    try:
        text = json.dumps(_comparable(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    except (_NotComparableError, RecursionError):
        return None
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


class _NotComparableError(Exception):
    """The error for a value that differs each time it is created."""


def _comparable(value: object) -> object:
    """Converts a value to JSON; files are identified by their content, in whichever form they are given."""
    match value:
        case Enum():
            return _comparable(value.value)
        case None | bool():
            return value
        case int() | float():
            return _number(value)
        case str():
            return _text(value)
        case bytes():
            return {"bytes": hashlib.sha256(value).hexdigest()}
        case PurePath():
            return _text(str(value))
        case datetime() | UUID():
            raise _NotComparableError
        case date() | Decimal() | timedelta():
            return {type(value).__name__: str(value)}
        case _:
            return _of_many(value)


def _of_many(value: object) -> object:
    match value:
        case list() | tuple():
            return [_comparable(one) for one in value]
        case Media():
            return {"sha256": value.sha256}
        case Result():
            return {"outputs": [file.sha256 for file in value.outputs], "texts": value.texts}
        case BaseModel():
            values = {name: getattr(value, name) for name in value.model_fields_set}
            return {type(value).__name__: _comparable({**values, **(value.model_extra or {})})}
        case Mapping() if all(isinstance(name, str) for name in value):
            return {name: _comparable(one) for name, one in value.items()}
        case SecretStr() | SecretBytes():
            return "secret"
        case _ if is_dataclass(value) and not isinstance(value, type):
            return {type(value).__name__: {one.name: _comparable(getattr(value, one.name)) for one in fields(value)}}
        case _:
            raise _NotComparableError


def _number(value: float) -> float:
    """Returns a number; raises an error for a number that looks like a clock's."""
    if any(_EPOCH[0] <= value / unit < _EPOCH[1] for unit in (1, 1e3, 1e6, 1e9)):
        raise _NotComparableError
    return value


def _text(value: str) -> str:
    """Returns a text; raises an error for a time, a random id, and a path in a temporary folder."""
    if value.removeprefix("file://").startswith(_temporary_folder()) or _EACH_TIME.fullmatch(value):
        raise _NotComparableError
    return value


@cache
def _temporary_folder() -> str:
    return str(Path(tempfile.gettempdir())) + "/"

"""Reads the arguments of a `use` step for the parameters of the used file, including unknown values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rh_prefect.media.media import Media
from rh_prefect.pipelines.check.literal_conversion import read_value, wrong_value
from rh_prefect.pipelines.evaluation import results
from rh_prefect.pipelines.file_model import FILE_TYPES, Param, shown_value
from rh_prefect.pipelines.planning_values import (
    ABSENT,
    File,
    Items,
    Maybe,
    Unknown,
    as_items,
    content,
    maybe,
    problems_of,
)
from rh_prefect.pipelines.types import PLAIN, Type, kind_of


def used_value(name: str, param: Param, value: Any) -> tuple[Any, str]:
    """Converts a value to the type of a used file's parameter; also returns a clause about a wrong value, or ""."""
    value = content(value)
    if param.kind in FILE_TYPES:
        return value, _wrong_file(name, param, value)
    if isinstance(value, Unknown):
        return value, ""
    if param.kind == "table":
        return _table(name, param, value)
    if param.kind == "files":
        items = as_items(value) if isinstance(value, Items | list) else Items((value,))
        return items, _first(_wrong_file(name, param, one) for one in items.values)
    if param.kind == "list" and isinstance(value, Items | list):
        items = as_items(value)
        if items.count is not None or any(isinstance(one, Unknown | Maybe) for one in results(items)):
            return items, ""
        value = list(results(items))
    value = read_value(param, value)
    wrong = wrong_value(param, value)
    return listed(param, value), f"{name} {wrong}" if wrong else ""


def listed(param: Param, value: Any) -> Any:
    """Returns the value of a parameter of type `list` as `Items`, whose values become items of a list around it."""
    return as_items(value) if param.kind == "list" and isinstance(value, list) else value


def wrong_file(param: Param, media: Media, what: str) -> str:
    """Returns a clause that says why a parameter does not accept a file; empty if it accepts the file."""
    kind = kind_of((param.of or "file") if param.kind == "files" else param.kind)
    if kind not in ("file", media.kind):
        return f"{what} takes {Type(kind).words}, but {media.name} is {Type(media.kind).words}"
    if param.max_mb is not None and media.size > param.max_mb * 1024 * 1024:
        return f"{media.name} is {media.size / 1024 / 1024:.1f} MB large; at most {param.max_mb:g} MB are allowed"
    if param.max_seconds is not None and (media.seconds or 0) > param.max_seconds:
        return f"{media.name} is {media.seconds:g} s long; at most {param.max_seconds:g} s are allowed"
    return ""


def _first(clauses: Any) -> str:
    return next(filter(None, clauses), "")


def _wrong_file(name: str, param: Param, value: Any) -> str:
    value = content(value)
    if isinstance(value, File):
        # For a file that a step will make, `check` has compared the kind already; an unusable file fails its item.
        return "" if value.media is None or value.problem else wrong_file(param, value.media, name)
    if isinstance(value, Unknown):
        return f"{name} takes a file, but a string is given" if value.kind in PLAIN else ""
    return f"{name} takes a file, but {shown_value(value)}"


def _table(name: str, param: Param, value: Any) -> tuple[Any, str]:
    if not isinstance(value, Items | list):
        return value, f"{name} takes a table, but {shown_value(value)}"
    items = as_items(value)
    rows: list[Any] = []
    wrong = ""
    for number, one in enumerate(items.values, 1):
        row, by = content(one), one.by if isinstance(one, Maybe) else None
        if not isinstance(row, dict):
            takes = f"{name} takes rows, which are mappings of columns to values"
            return value, f"{takes}, but row {number} is not a mapping"
        where, problems = row.get("\0row") or f"row {number}", problems_of(row)
        cells, clause = _row(param.columns or {}, row)
        rows.append(maybe({"\0row": where, **({"\0problems": problems} if problems else {}), **cells}, by))
        # The steps of an invalid row fail already.
        wrong = wrong or (f"{where} of {name}: {clause}" if clause and not problems else "")
    return replace(items, values=tuple(rows)), wrong


def _row(columns: Mapping[str, Param], row: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    cells: dict[str, Any] = {}
    clauses: list[str] = []
    for name, column in columns.items():
        value = row.get(name)
        if value is None or value is ABSENT or (isinstance(value, str) and not value.strip()):
            # The default of a file is a path, which a step does not open.
            value = None if column.kind in (*FILE_TYPES, "files") else column.default
        if value is None:
            cells[name] = ABSENT
            clauses.append("" if column.optional else f"{name} is empty; the column is required")
        else:
            cells[name], wrong = used_value(name, column, value)
            clauses.append(wrong)
    return cells, _first(clauses)

"""Evaluates the conditions in a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rh_prefect.catalog.model import text_of
from rh_prefect.pipelines.evaluation import evaluate, results
from rh_prefect.pipelines.file_model import value_words
from rh_prefect.pipelines.parsed_document import Path
from rh_prefect.pipelines.planning_values import ABSENT, Frame, Items, Maybe, Unknown, number_of, parts, undecided_in

ORDERED = ("lt", "lte", "gt", "gte")
"""Conditions that compare numbers."""


def truth(condition: Any, frame: Frame) -> bool | None:
    """Returns whether a condition is true; None if that is not known yet."""
    if isinstance(condition, bool):
        return condition
    if isinstance(condition, str):
        value = evaluate(condition, frame)
        return None if isinstance(value, Unknown | Maybe) else value is True
    [(operator, argument)] = condition.items()
    match operator:
        case "not":
            return _negated(truth(argument, frame))
        case "all" | "any":
            return _several([truth(one, frame) for one in argument], operator == "any")
    values = [evaluate(one, frame) for one in (argument if isinstance(argument, list) else [argument])]
    if any(True for _ in undecided_in(values)):
        return None
    if operator in ("exists", "missing"):
        return (values[0] not in (ABSENT, "")) is (operator == "exists")
    return _compared(operator, values)


def not_numbers(condition: Any, frame: Frame) -> Iterator[tuple[Path, str]]:
    """Yields the path and a clause for each known value that is compared as a number but is not a number."""
    if not isinstance(condition, dict):
        return
    [(operator, argument)] = condition.items()
    for n, one in enumerate(argument if isinstance(argument, list) else [argument]):
        at: Path = (operator, n) if isinstance(argument, list) else (operator,)
        if operator in ("not", "all", "any"):
            yield from (((*at, *path), clause) for path, clause in not_numbers(one, frame))
        elif operator in ORDERED:
            value = evaluate(one, frame)
            if value is not ABSENT and not isinstance(value, Unknown | Maybe) and number_of(value) is None:
                yield at, f"{operator} compares numbers, but {one} is {value_words(value)}"


def _several(found: list[bool | None], any_is_enough: bool) -> bool | None:
    if any_is_enough in found:
        return any_is_enough
    return None if None in found else not any_is_enough


def _compared(operator: str, values: list[Any]) -> bool | None:
    if operator == "ne":  # also true of an absent value
        return _negated(_compared("equals", values))
    if any(value is ABSENT for value in values) or len(values) != 2:
        return False
    first, second = values
    match operator:
        case "lt":
            return _ordered(first, second)
        case "gt":
            return _ordered(second, first)
        case "lte":
            return _negated(_ordered(second, first))
        case "gte":
            return _negated(_ordered(first, second))
    if operator == "in":
        found = _several([_equal(first, one) for one in _compared_with(first, second)], any_is_enough=True)
        return None if found is False and isinstance(second, Items) and second.count is not None else found
    return _equal(first, second)


def _negated(found: bool | None) -> bool | None:
    return None if found is None else not found


def _equal(first: Any, second: Any) -> bool | None:
    if _holds_unknown(first) or _holds_unknown(second):
        return None
    return text_of(_plain(first)) == text_of(_plain(second))


def _plain(value: Any) -> Any:
    return list(results(value)) if isinstance(value, Items) else value


def _compared_with(value: Any, listed: Any) -> Iterator[Any]:
    """Yields the items of a list; for a value that is not a list, the items of an inner list instead of that list."""
    for one in _plain(listed):
        yield from one if isinstance(one, list) and not isinstance(value, list | Items) else [one]


def _holds_unknown(value: Any) -> bool:
    is_open = isinstance(value, Items) and (value.count is not None or not all(value.sure))
    return is_open or isinstance(value, Unknown) or any(map(_holds_unknown, parts(value)))


def _ordered(low: Any, high: Any) -> bool | None:
    one, other = number_of(low), number_of(high)
    if one is None or other is None:
        return None
    if one.most < other.least:
        return True
    return False if one.least >= other.most else None

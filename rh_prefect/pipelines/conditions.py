"""Checks the form of a file's conditions, and evaluates them."""

from __future__ import annotations

import re
from typing import Any

from rh_prefect.catalog.model import text_of
from rh_prefect.pipelines.document import Document, Path, Problems, nearest
from rh_prefect.pipelines.file_model import shown_value
from rh_prefect.pipelines.planning_values import ABSENT, Frame, Unknown, evaluate, number_of

CONDITIONS = ("exists", "missing", "equals", "in", "lt", "gt", "not", "all", "any")


def check_condition(document: Document, path: Path, value: Any, problems: Problems) -> bool:
    """Describes what is wrong with the syntax of a condition.

    Args:
        document: The file.
        path: Where the condition is.
        value: It.
        problems: Takes what is wrong.

    Returns:
        Whether nothing is.
    """
    name = next((part for part in reversed(path) if isinstance(part, str)), "")
    if isinstance(value, bool) or _is_one_reference(value):
        return True
    if isinstance(value, str):
        hint = f"; did you mean $({value})?" if re.fullmatch(r"[\w.-]+", value) else ""
        problems.add(document, path, f"{name} takes a condition, and '{value}' is a text{hint}")
        return False
    if not isinstance(value, dict) or len(value) != 1:
        said = f"has {len(value)} keys" if isinstance(value, dict) else shown_value(value)
        said = f"{name} takes one condition, such as {{exists: $(x)}}, and {'this ' if said[:3] == 'has' else ''}{said}"
        problems.add(document, path, said)
        return False
    [(operator, argument)] = value.items()
    if operator not in CONDITIONS:
        message = f"{operator} is not a condition; {nearest(operator, CONDITIONS)}"
        problems.add(document, (*path, operator), message, key=True)
        return False
    return _check_argument(document, (*path, operator), operator, argument, problems)


def _check_argument(document: Document, path: Path, operator: str, argument: Any, problems: Problems) -> bool:
    if operator in ("all", "any"):
        if not isinstance(argument, list) or not argument:
            problems.add(document, path, f"{operator} takes a list of conditions, and {shown_value(argument)}")
            return False
        found = [check_condition(document, (*path, number), one, problems) for number, one in enumerate(argument)]
        return all(found)
    if operator == "not":
        return check_condition(document, path, argument, problems)
    if operator in ("exists", "missing"):
        if _is_one_reference(argument):
            return True
        hint = f"; did you mean $({argument})?" if isinstance(argument, str) else ""
        problems.add(document, path, f"{operator} takes a reference, and {shown_value(argument)}{hint}")
        return False
    if not isinstance(argument, list) or len(argument) != 2:
        problems.add(document, path, f"{operator} takes a list of two values, as in {{{operator}: [$(a), b]}}")
        return False
    if operator == "in" and not isinstance(argument[1], list):
        problems.add(document, (*path, 1), "in takes a value and a list, as in {in: [$(a), [b, c]]}")
        return False
    return True


def _is_one_reference(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("$(") and value.endswith(")") and value.count("$(") == 1


def truth(condition: Any, frame: Frame) -> bool | None:
    """Whether a condition holds; None where that is not known yet.

    Args:
        condition: As it stands in the file, checked.
        frame: The names at its place.
    """
    if isinstance(condition, bool):
        return condition
    if isinstance(condition, str):
        value = evaluate(condition, frame)
        return None if isinstance(value, Unknown) else value is True
    [(operator, argument)] = condition.items()
    match operator:
        case "exists" | "missing":
            return (evaluate(argument, frame) not in (ABSENT, "")) is (operator == "exists")
        case "not":
            found = truth(argument, frame)
            return None if found is None else not found
        case "all" | "any":
            return _several([truth(one, frame) for one in argument], operator == "any")
    return _compared(operator, [evaluate(one, frame) for one in argument])


def _several(found: list[bool | None], any_is_enough: bool) -> bool | None:
    if any_is_enough in found:
        return any_is_enough
    return None if None in found else not any_is_enough


def _compared(operator: str, values: list[Any]) -> bool | None:
    if any(value is ABSENT for value in values) or len(values) != 2:
        return False
    first, second = values
    if operator in ("lt", "gt"):
        return _ordered(first, second) if operator == "lt" else _ordered(second, first)
    if isinstance(first, Unknown) or isinstance(second, Unknown):
        return None
    if operator == "in":
        return any(text_of(first) == text_of(one) for one in second)
    return text_of(first) == text_of(second)


def _ordered(low: Any, high: Any) -> bool | None:
    one, other = number_of(low), number_of(high)
    if one is None or other is None:
        return None
    if one.most < other.least:
        return True
    return False if one.least >= other.most else None

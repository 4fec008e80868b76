"""Checks the rules about several parameters of one model."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import assert_never

from rh_prefect.catalog.model import Model, Rule, text_of


def problems(model: Model, values: Mapping[str, object], *, unchecked: Collection[str] = ()) -> list[str]:
    """Returns a clause for each rule that `values`, keyed by wire key, break; skips rules about `unchecked` names."""
    found = (_problem(model, rule, values) for rule in _applied(model, unchecked))
    return [problem for problem in found if problem]


def notices(model: Model, values: Mapping[str, object]) -> list[str]:
    """Returns a clause for each given parameter that has no effect; `values` is keyed by wire key."""
    return [
        f"{_name(model, key)} has no effect unless {_condition(model, rule)}"
        for rule in model.rules
        if rule.kind == "used"
        for key in _idle(model, rule, values)
    ]


def complete(model: Model, values: dict[str, object], *, unchecked: Collection[str] = ()) -> None:
    """Adds the defaults that a rule requires, and removes the parameters that a rule does not allow for this input.

    `values` is changed in place, and must have passed `problems` with the same `unchecked`.
    """
    for rule in _applied(model, unchecked):
        if rule.kind == "needed" and holds(model, rule, values):
            for key in rule.params:
                values.setdefault(key, model.param(key).wire_default)
        elif rule.kind == "only" and not holds(model, rule, values):
            for key in rule.params:
                values.pop(key, None)


def holds(model: Model, rule: Rule, values: Mapping[str, object]) -> bool:
    """Returns whether a rule's condition is true; for a parameter that was not given, the default value counts."""
    if any(key in values for key in rule.given):
        return True
    return bool(rule.when) and all(
        text_of(values.get(key, model.param(key).default)) == text_of(value) for key, value in rule.when
    )


def _applied(model: Model, unchecked: Collection[str]) -> Iterator[Rule]:
    return (rule for rule in model.rules if not {_name(model, key) for key in _keys(rule)} & {*unchecked})


def _problem(model: Model, rule: Rule, values: Mapping[str, object]) -> str:
    present_keys = [key for key in rule.params if key in values]
    match rule.kind:
        case "one" | "any" if not present_keys:
            return f"one of {_names(model, rule.params, 'and')} is needed"
        case "one" | "either" if len(present_keys) > 1:
            return f"{_names(model, present_keys, 'and')} cannot be combined; give only one of them"
        case "one" | "any" | "either" | "used":
            return ""
        case "needed":
            return _needed(model, rule, values)
        case "only":
            idle = _idle(model, rule, values)
            return f"{_that(model, idle)} valid only when {_condition(model, rule)}" if idle else ""
        case "most":
            count = sum(_count(values[key]) for key in present_keys)
            together = f"{_names(model, rule.params, 'and')} may have at most {rule.limit} items together, not {count}"
            return together if count > rule.limit else ""
        case "never":
            pairs = " with ".join(f"{_name(model, key)} {text_of(value)}" for key, value in rule.when)
            return f"{pairs} is not offered" if holds(model, rule, values) else ""
    assert_never(rule.kind)


def _keys(rule: Rule) -> tuple[str, ...]:
    return (*rule.params, *rule.given, *(key for key, _ in rule.when))


def _needed(model: Model, rule: Rule, values: Mapping[str, object]) -> str:
    missing = [key for key in rule.params if key not in values and model.param(key).default is None]
    if not missing or not holds(model, rule, values):
        return ""
    return f"{_that(model, missing)} required when {_condition(model, rule)}"


def _idle(model: Model, rule: Rule, values: Mapping[str, object]) -> list[str]:
    """Returns the parameters that were given although the rule's condition is not met, except unchanged defaults."""
    if holds(model, rule, values):
        return []
    return [key for key in rule.params if key in values and values[key] != model.param(key).wire_default]


def _condition(model: Model, rule: Rule) -> str:
    if rule.given:
        return f"{_names(model, rule.given, 'or')} is given"
    return " and ".join(f"{_name(model, key)} is {text_of(value)}" for key, value in rule.when)


def _count(value: object) -> int:
    return len(value) if isinstance(value, list) else 1


def _name(model: Model, key: str) -> str:
    return model.param(key).name


def _that(model: Model, keys: list[str]) -> str:
    return f"{_names(model, keys, 'and')} {'is' if len(keys) == 1 else 'are'}"


def _names(model: Model, keys: tuple[str, ...] | list[str], last: str) -> str:
    names = [_name(model, key) for key in keys]
    return f"{', '.join(names[:-1])} {last} {names[-1]}" if len(names) > 1 else "".join(names)

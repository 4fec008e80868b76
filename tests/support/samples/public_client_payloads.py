"""Payloads as public clients build them from their lists, and the verdicts of the emulator and of this package."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator

from rh_prefect import catalog
from rh_prefect.catalog import Model, Param
from rh_prefect.catalog.descriptions import example_of
from rh_prefect.emulator import DEFAULT
from rh_prefect.emulator.model_checks import violations
from tests.support.world.reading_comparison import NOWHERE, Payload, client_reading, full_request, least_request

_REASONS = (
    (r"is required, can not be empty", "a required parameter is left out"),
    (r"one of .* must be set", "none of several parameters is given, and at least one is needed"),
    (r"(exactly|only) one of .* (must|can) be set", "parameters that exclude each other are given together"),
    (r"is not supported here", "a parameter is given where it is not taken"),
    (r"is not a supported combination", "values that are not offered together are given"),
    (r"items together", "too many files together"),
    (r"size must be between", "a text is too long"),
)
"""What a flaw of the emulator says, and what that is called in the table."""


def _nodes_value(param: Param) -> object:
    """What a ComfyUI node has in its field: the default of a choice, a switch or a number, and a sample of a text."""
    return param.wire_default if param.default is not None else example_of(param)


def nodes_required(model: Model) -> Payload:
    return {param.key: _nodes_value(param) for param in model.params if param.required}


def nodes_all(model: Model) -> Payload:
    return {param.key: _nodes_value(param) for param in model.params}


def tool_required(model: Model) -> Payload:
    """The command-line tool sends what its user gives, who must give what is required and has no default."""
    return {param.key: example_of(param) for param in model.params if param.required and param.default is None}


def tool_defaults(model: Model) -> Payload:
    defaults = {param.key: param.wire_default for param in model.params if param.default is not None}
    return tool_required(model) | defaults


def _sent(make: Callable[[Model], Payload]) -> Callable[[Model], Payload]:
    return lambda model: client_reading(model, make(model)).sent


STYLES: dict[str, Callable[[Model], Payload]] = {
    "this package, smallest input": _sent(lambda model: least_request(model, NOWHERE)),
    "this package, every parameter that goes together": _sent(lambda model: full_request(model, NOWHERE)),
    "ComfyUI nodes (`models_registry.json`), required inputs": nodes_required,
    "ComfyUI nodes (`models_registry.json`), all inputs": nodes_all,
    "command-line tool (`capabilities.json`), required without default": tool_required,
    "command-line tool (`capabilities.json`), required without default, plus all defaults": tool_defaults,
}


def _reason(flaw: str) -> str:
    return next((name for pattern, name in _REASONS if re.search(pattern, flaw)), flaw)


def table_rows() -> Iterator[tuple[str, ...]]:
    """A row for each style: payloads, accepted, refused and why, and how many this package sends, repaired or not."""
    for name, make in STYLES.items():
        payloads = [(model, make(model)) for model in catalog.find()]
        refused = [flaws[0] for model, payload in payloads if (flaws := violations(DEFAULT, model, payload))]
        why = "; ".join(f"{count} because {reason}" for reason, count in Counter(map(_reason, refused)).most_common())
        sent = sum(client_reading(model, payload).accepts for model, payload in payloads)
        yield name, str(len(payloads)), str(len(payloads) - len(refused)), why or "none", str(sent)

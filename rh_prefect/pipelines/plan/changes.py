"""Finds how a plan differs from an earlier plan: in its file, parameters, inputs, requests and steps."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rh_prefect.catalog.model import text_of
from rh_prefect.pipelines.file_model import Param
from rh_prefect.pipelines.parsed_document import visible
from rh_prefect.pipelines.plan.planned_steps import PlannedStep
from rh_prefect.pipelines.plan.work_identity import equal_numbers

if TYPE_CHECKING:
    from rh_prefect.pipelines.plan.plan import Plan

_LONGEST = 60
_LEAD = 20
"""Number of characters that are shown before the difference between two long values."""


def compare(plan: Plan, earlier: Mapping[str, Any], params: Mapping[str, Param]) -> None:
    """Marks in a plan how it differs from an earlier plan."""
    before = {step["address"]: step for step in earlier.get("steps", ()) if step.get("state") != "x"}
    for one in plan.instances:
        step = before.get(one.address)
        if step is None or one.state not in ("+", ">", "r"):
            continue
        one.why = step_changes(step, one)
        if one.state == "+" and one.why:
            one.state = "~"
            for work in one.works:
                work.state = "~" if work.state == "+" else work.state
    there = {one.address: one for one in plan.instances}
    plan.changes = list(head_changes(earlier, plan, params))
    plan.removed = [address for address in before if address not in there]
    plan.added = [address for address, one in there.items() if address not in before and one.state in ("+", ">", "r")]


def step_changes(step: Mapping[str, Any], one: PlannedStep) -> list[dict[str, Any]]:
    """Returns how a step differs from an earlier plan: in its model, else in parameters and nodes, else in its take."""
    model = {"model": one.model, "endpoint": one.endpoint}
    found = _differences({name: step.get(name, model[name]) for name in model}, model)[:1]
    if not found:
        before, now = step.get("request", {}), dict(one.request)
        was, nodes = step.get("nodes", {}), one.nodes
        found = [why for why in _differences(before, now) if why["param"] != "graph"]
        if was and nodes and before.get("graph") != now.get("graph"):
            # A field that is set now, and was not before, is among the parameters already.
            found += _differences(was, nodes, "graph node ")
    if not found and one.works:
        found = _differences({"take": step.get("take", one.works[0].take)}, {"take": one.works[0].take})
    return [{**why, "from": one.row} for why in found] if one.row else found


def _differences(was: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[dict[str, Any]]:
    """Returns the parameters that differ between two requests, without values that are not known yet."""
    found = list[dict[str, Any]]()
    for name in dict.fromkeys([*now, *was]):
        pair = was.get(name), now.get(name)
        if _exact(pair[0]) != _exact(pair[1]) and not any(map(is_pending, pair)):
            found.append({"param": f"{prefix}{name}", "was": pair[0], "is": pair[1]})
    return found


def _exact(value: Any) -> str:
    """Converts a value to a string for comparisons: 5 and 5.0 are equal, 1 and `true` are not."""
    return json.dumps(equal_numbers(value), sort_keys=True, default=str)


def is_pending(value: Any) -> bool:
    """Returns whether a value of a request is a stand-in for a result that a step still has to make."""
    values = value if isinstance(value, list) else [value]
    return any(isinstance(one, str) and _PENDING.match(one) for one in values)


_PENDING = re.compile(
    r"(?:made-by|review|undecided|or|text|handle|start|count|id|not made):(?:.*:)?[0-9a-f]{32}|[0-9a-f]{40}(?:/|\.|$)",
    re.DOTALL,
)
"""Matches a value in a request that a step still has to make; the hash in it distinguishes it from a prompt."""


def head_changes(earlier: Mapping[str, Any], plan: Plan, params: Mapping[str, Param]) -> Iterator[dict[str, Any]]:
    """Yields the changes outside of steps, as `{what, was, is}`: in the file, parameters, inputs and catalogue."""
    if earlier.get("spec_sha256") != plan.spec_sha256:
        yield {"what": "file", "was": _digits(earlier.get("spec_sha256")), "is": _digits(plan.spec_sha256)}
    was = earlier.get("params") or {}
    for name in dict.fromkeys([*params, *was, *plan.params]):
        default = params[name].default if name in params else None
        before, now = (_value_or_default(values.get(name), default) for values in (was, plan.params))
        if _as_texts(before) != _as_texts(now):
            yield {"what": f"param {name}", "was": _typed_like(now, before), "is": _typed_like(before, now)}
    files, present = ({one["uri"]: one for one in inputs} for inputs in (earlier.get("inputs", ()), plan.inputs))
    for uri in dict.fromkeys([*files, *present]):
        before, now = files.get(uri, {}), present.get(uri, {})
        if "columns" in before and "columns" in now and before["columns"] != now["columns"]:
            # The hash covers the declared columns: it does not tell whether the table has changed too.
            yield {"what": f"declared columns of {uri}", "was": before["columns"], "is": now["columns"]}
        elif before.get("sha256") != now.get("sha256"):
            yield {"what": f"input {uri}", "was": _digits(before.get("sha256")), "is": _digits(now.get("sha256"))}
    if earlier.get("catalogue") != plan.catalogue:
        yield {"what": "catalogue", "was": earlier.get("catalogue"), "is": plan.catalogue}


def _value_or_default(value: Any, default: Any) -> Any:
    return default if value is None or value == "" else value


def _as_texts(value: Any) -> Any:
    """Returns a parameter with its values as strings for comparisons, because a command line has only strings."""
    if isinstance(value, Mapping):
        return {name: _as_texts(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return list(map(_as_texts, value))
    return text_of(value) if isinstance(value, str | int | float) else value


def _typed_like(other: Any, value: Any) -> Any:
    """Parses a string, as from a command line, as JSON if the other value is not a string."""
    if isinstance(value, str) and not isinstance(other, str):
        with suppress(ValueError):
            return json.loads(value)
    return value


def _digits(sha256: str | None) -> str | None:
    return sha256 and sha256[:12]


def shown_change(what: str, was: Any, now: Any) -> str:
    """Formats a change as one line: `clip: duration: 5 -> 10`."""
    what = "the pipeline's file" if what == "file" else visible(what)
    if what == "the pipeline's file" or (what.startswith("input ") and was and now):
        return f"{what}: its content changed"
    texts = [_text(was), _text(now)]
    same = next((at for at, (one, other) in enumerate(zip(*texts, strict=False)) if one != other), 0)
    # What two long texts begin with says nothing about their difference.
    start = same - _LEAD if same + _LEAD > _LONGEST else 0
    start = max(start, texts[0].find(" ", start, same)) if start else 0
    return f"{what}: {' -> '.join(_cut(text, start) for text in texts)}"


def _text(value: Any) -> str:
    return "none" if value is None else visible(json.dumps(value, ensure_ascii=False, default=str))


def _cut(text: str, start: int) -> str:
    """Returns about 60 characters of a value, with its quotes or brackets."""
    shown = f"{text[0]}…{text[start:]}" if start and len(text) > start else text
    if len(shown) <= _LONGEST:
        return shown
    end = text[-1] if text.endswith(('"', "]", "}")) else ""
    return f"{shown[:_LONGEST]}…{end}"


def by_items(addresses: Iterable[str], others: Iterable[str]) -> list[str]:
    """Returns the addresses; the address of an item (`each[A-4]`) replaces its steps if `others` has none of them."""
    other_items = {_item(address) for address in others}
    return list(dict.fromkeys(item if (item := _item(one)) and item not in other_items else one for one in addresses))


def _item(address: str) -> str:
    """Returns the outermost item of an address; empty for a step outside of fan-outs."""
    head, bracket, _ = address.partition("]")
    return f"{head.partition('/')[0]}]" if bracket else ""

"""What differs from an earlier plan: requests that changed, and steps that are gone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rh_prefect.pipelines.plan.plan import Plan


def compare(plan: Plan, earlier: Mapping[str, Any]) -> None:
    """Marks in a plan what differs from an earlier one.

    Args:
        plan: The plan; steps whose request changed become `~` and say why.
        earlier: The earlier plan's JSON data.
    """
    before = {step["address"]: step for step in earlier.get("steps", ()) if step.get("state") not in ("x", "-")}
    for one in plan.instances:
        step = before.pop(one.address, None)
        if step is None or one.state not in ("+", ">", "r"):
            continue
        one.why = differences(step.get("request", {}), one.request) if step.get("model") == one.model else []
        if step.get("model") != one.model:
            one.why = [{"param": "model", "was": step.get("model"), "is": one.model}]
        if one.state == "+" and one.why:
            one.state = "~"
            for work in one.works:
                work.state = "~" if work.state == "+" else work.state
    there = {one.address for one in plan.instances}
    plan.removed = [address for address in before if address not in there]


def differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parameters that differ between two requests; what is not known yet is not compared.

    Args:
        was: The earlier request.
        now: The present one.
    """
    names: Sequence[str] = [*now, *(name for name in was if name not in now)]
    return [
        {"param": name, "was": was.get(name), "is": now.get(name)}
        for name in names
        if was.get(name) != now.get(name) and not _is_pending(now.get(name)) and not _is_pending(was.get(name))
    ]


def _is_pending(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return any(isinstance(one, str) and _PENDING.match(one) for one in values)


_PENDING = re.compile(r"made-by:|review:|text:|handle:|[0-9a-f]{40}(?:/|\.|$)")
"""Begins what stands in a request for a value that a step has yet to make."""

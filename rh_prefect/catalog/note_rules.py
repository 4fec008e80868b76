"""Reads the vendor's notes: what they state as a rule becomes machine-readable, the rest stays a description."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Raw = Mapping[str, Any]
_Reader = Callable[[re.Match[str], Raw, Mapping[str, Raw]], dict[str, Any] | None]
"""Makes a rule of a match, the parameter whose note it is, and all parameters by key."""


def rules_of(params: Sequence[Raw]) -> list[dict[str, Any]]:
    """Collects the rules that the notes of one model state.

    Args:
        params: The parameters, as a registry file has them.

    Returns:
        Each rule once, as the slim file has it; see `rh_prefect.catalog.model.Rule`.
    """
    by_key = {param["key"]: param for param in params}
    found: list[dict[str, Any]] = []
    for rule in filter(None, [_rule(param, by_key) for param in params]):
        same = next((old for old in found if _joins(old, rule)), None)
        if same is not None:
            same["params"] += [key for key in rule["params"] if key not in same["params"]]
        elif rule not in found:
            found.append(rule)
    return found


def extra_options(param: Raw) -> list[str]:
    """Finds values that a note allows and the options lack.

    Args:
        param: The parameter, as a registry file has it.
    """
    match = re.match(r"(-?\w+), absent from options", param.get("note", ""))
    return [match[1]] if match else []


def shape_of(param: Raw) -> str:
    """Says whether a `json` parameter holds a list of objects or one object; a list, where the note does not say.

    Args:
        param: The parameter, as a registry file has it.
    """
    if param["type"] != "json":
        return ""
    return "object" if param.get("note", "").startswith("one object") else "list"


def pattern_of(param: Raw) -> str:
    """Finds the form that a note demands of a string, as a regular expression.

    Args:
        param: The parameter, as a registry file has it.
    """
    # The registry's own sample, `Elegant_Man`, has no digit and an underscore: only length and first letter are sure.
    match = re.match(r"(\d+)\+ characters, letter first\b", param.get("note", ""))
    return rf"[A-Za-z].{{{int(match[1]) - 1},}}" if match else ""


def _rule(param: Raw, by_key: Mapping[str, Raw]) -> dict[str, Any] | None:
    for pattern, reader in _READERS:
        match = re.search(pattern, param.get("note", ""))
        if match:
            rule = reader(match, param, by_key)
            return rule if rule and _names(rule) <= set(by_key) else None
    return None


def _joins(old: Raw, new: Raw) -> bool:
    """Says whether two rules state the same condition of different parameters."""
    frames = [{key: value for key, value in rule.items() if key != "params"} for rule in (old, new)]
    return old["kind"] in ("only", "used", "needed") and frames[0] == frames[1]


def _names(rule: Raw) -> set[str]:
    return {*rule.get("params", ()), *rule.get("when", ()), *rule.get("given", ())}


def _group(kind: str) -> _Reader:
    return lambda match, _param, _all: {"kind": kind, "params": [match[1], match[2]]}


def _conditional(kind: str) -> _Reader:
    def read(match: re.Match[str], param: Raw, all_: Mapping[str, Raw]) -> dict[str, Any] | None:
        other = all_.get(match[1])
        if other is None:
            return None
        value = match[2] == "true" if other["type"] == "bool" else match[2]
        return {"kind": kind, "params": [param["key"]], "when": {match[1]: value}}

    return read


def _only_with(match: re.Match[str], param: Raw, all_: Mapping[str, Raw]) -> dict[str, Any]:
    switch = all_.get(match[1], {}).get("type") == "bool"
    condition = {"when": {match[1]: True}} if switch else {"given": [match[1]]}
    return {"kind": "only", "params": [param["key"]], **condition}


def _not_with(match: re.Match[str], param: Raw, _all: Mapping[str, Raw]) -> dict[str, Any]:
    return {"kind": "either", "params": sorted((param["key"], match[1]))}


def _a_frame(_match: re.Match[str], _param: Raw, all_: Mapping[str, Raw]) -> dict[str, Any]:
    return {"kind": "any", "params": [key for key in all_ if re.fullmatch(r"(first|last)\w*Url", key)]}


def _needs_picture(match: re.Match[str], param: Raw, all_: Mapping[str, Raw]) -> dict[str, Any]:
    pictures = [key for key, other in all_.items() if other["type"] in (match[1], match[2])]
    return {"kind": "only", "params": [param["key"]], "given": pictures}


def _together(match: re.Match[str], _param: Raw, _all: Mapping[str, Raw]) -> dict[str, Any]:
    return {"kind": "most", "params": [match[2], match[3]], "limit": int(match[1])}


def _never(match: re.Match[str], param: Raw, _all: Mapping[str, Raw]) -> dict[str, Any]:
    return {"kind": "never", "when": {param["key"]: match[1], "resolution": match[2]}}


def _both_or_none(_match: re.Match[str], param: Raw, _all: Mapping[str, Raw]) -> dict[str, Any]:
    other = "height" if param["key"] == "width" else "width"
    return {"kind": "needed", "params": [other], "given": [param["key"]]}


_READERS: tuple[tuple[str, _Reader], ...] = (
    (r"^either (\w+) or (\w+)\b", _group("one")),
    (r"^(\w+) or (\w+), not both$", _group("one")),
    (r"\b(\w+) or (\w+) required$", _group("any")),
    (r"^required when (\w+) is (\w+)$", _conditional("needed")),
    (r"\bused when (\w+) is (\w+)\b", _conditional("used")),
    (r"^only with (\w+)\b", _only_with),
    (r"\bnot together with (\w+)$", _not_with),
    (r"^one of first and last frame is needed$", _a_frame),
    (r"^needs an? (\w+) or (\w+)\b", _needs_picture),
    (r"^at most (\d+) references over (\w+) and (\w+) together$", _together),
    (r"^(\d+) s not available at (\w+)$", _never),
    (r"\bomit (?:both to leave the size unset|for unset)$", _both_or_none),
)

"""How two states of the catalogue differ, model by model, for a reader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rh_prefect.catalog.price import decode_price

_DATES = ("seen", "price_seen")


@dataclass(slots=True)
class Changes:
    """How two states of the catalogue differ; models by name.

    Attributes:
        new: Models that only the later state has.
        gone: Models that only the earlier state has, or that RunningHub's newest lists no longer have.
        changed: Models with other parameters or facts, and which.
        repriced: Models with another price, and both prices.
    """

    new: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    changed: dict[str, str] = field(default_factory=dict)
    repriced: dict[str, str] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """Writes a line for each model: `+` new, `-` gone, `~` changed, `$` another price."""
        yield from (f"+ {name}" for name in self.new)
        yield from (f"- {name}" for name in self.gone)
        yield from (f"~ {name}: {what}" for name, what in self.changed.items())
        yield from (f"$ {name}: {prices}" for name, prices in self.repriced.items())

    def __str__(self) -> str:
        """Reads like `3 new, 0 gone, 5 changed, 2 with another price`."""
        counts = (len(self.new), len(self.gone), len(self.changed), len(self.repriced))
        words = ("new", "gone", "changed", "with another price")
        return ", ".join(f"{count} {word}" for count, word in zip(counts, words, strict=True))


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Changes:
    """Compares two contents of the slim file.

    Args:
        old: The earlier one.
        new: The later one.
    """
    before = {model["endpoint"]: model for model in old["models"]}
    after = {model["endpoint"]: model for model in new["models"]}
    found = Changes(
        new=sorted(model["name"] for endpoint, model in after.items() if endpoint not in before),
        gone=sorted(model["name"] for endpoint, model in before.items() if _is_gone(model, after.get(endpoint))),
    )
    for endpoint in sorted(before.keys() & after.keys()):
        earlier, later = before[endpoint], after[endpoint]
        what = _facts(earlier, later) + _params(earlier, later)
        if what:
            found.changed[later["name"]] = ", ".join(what)
        if earlier.get("price") != later.get("price"):
            found.repriced[later["name"]] = f"{_price(earlier)} -> {_price(later)}"
    return found


def _is_gone(earlier: Mapping[str, Any], later: Mapping[str, Any] | None) -> bool:
    return later is None or (later.get("status") == "gone" and earlier.get("status") != "gone")


def _facts(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> list[str]:
    told = {"params", "price", *_DATES} | ({"status"} if later.get("status") == "gone" else set())
    keys = sorted((earlier.keys() | later.keys()) - told)
    return [key for key in keys if earlier.get(key) != later.get(key)]


def _params(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> list[str]:
    before = {param["key"]: param for param in earlier.get("params", ())}
    after = {param["key"]: param for param in later.get("params", ())}
    return [
        told for key in {**before, **after} if (told := _param(key.strip(), before.get(key, {}), after.get(key, {})))
    ]


def _param(key: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    if not before or not after:
        return f"{'-' if before else '+'}{key}"
    facts = [fact for fact in {**before, **after} if before.get(fact) != after.get(fact)]
    return f"~{key} ({', '.join(facts)})" if facts else ""


def _price(model: Mapping[str, Any]) -> str:
    return str((decode_price(model["price"]) if model.get("price") else None) or "unknown")

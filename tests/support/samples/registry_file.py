"""A registry file in the format of the vendor's tools, made from the package's own models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rh_prefect.catalog.registry import SLIM_FILE


def registry(
    path: Path, *, version: str = "2026-11-01", change: Callable[[dict[str, Any]], None] | None = None
) -> Path:
    """Writes a registry of all models.

    Args:
        path: Where to.
        version: Of the file.
        change: Is given the models by their names, to change them.
    """
    slim = json.loads(SLIM_FILE.read_bytes())["models"]
    models = {raw["name"]: _full(raw) for raw in slim}
    if change is not None:
        change(models)
    content = {"version": version, "source": "a test", "models": list(models.values())}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def _full(raw: dict[str, Any]) -> dict[str, Any]:
    params = [{"required": False, **param} for param in raw.get("params", ())]
    price = _price(raw["price"]) if "price" in raw else {}
    kept = {key: value for key, value in raw.items() if key not in ("params", "price", "rules")}
    return {"provenance": "official-registry", **kept, "params": params, **({"price": price} if price else {})}


def _price(slim: dict[str, Any]) -> dict[str, Any]:
    listed = {"unit": slim["unit"], "currency": slim.get("currency", "CNY")}
    if "fixed" in slim:
        return {**listed, "fixed": slim["fixed"]}
    rules = [{"when": dict(zip(slim["by"], values)), "price": amount} for *values, amount in slim["rows"]]
    return {**listed, "rules": rules}

"""A data file of models, as another installation has it, made from the package's own models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rh_prefect.catalog import user_catalog_merge
from rh_prefect.catalog.registry import SLIM_FILE


def registry(
    path: Path, *, version: str = "2026-11-01", change: Callable[[dict[str, Any]], None] | None = None
) -> Path:
    models = {raw["name"]: raw for raw in json.loads(SLIM_FILE.read_bytes())["models"]}
    if change is not None:
        change(models)
    content = {"version": version, "source": "a test", "models": list(models.values())}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def refresh(path: str, *, date: str | None = None) -> user_catalog_merge.Refreshed:
    """Merges a local list into this user's models, as `rh-prefect models refresh` does."""
    return user_catalog_merge.refresh(Path(path).read_bytes(), path, date=date)

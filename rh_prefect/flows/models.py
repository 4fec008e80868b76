"""One flow per model, built on first use: the entrypoint of a deployment that needs no file of its own.

prefect deploy rh_prefect.flows.models.z_image_turbo --name desk --pool media
"""

from __future__ import annotations

from rh_prefect.catalog import get, models, nearest
from rh_prefect.flows.for_model import ModelFlow, for_model


def __getattr__(name: str) -> ModelFlow:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    entry = next((model for model in models() if model.snake_name == name), None)
    if entry is None:
        near = ", ".join(get(known).snake_name for known in nearest(name))
        raise AttributeError(f"module {__name__!r} has no flow {name!r}; the nearest are {near}")
    return for_model(entry.name)


def __dir__() -> list[str]:
    return sorted(model.snake_name for model in models())

"""One task per model, built on first use: `await model_tasks.z_image_turbo(prompt="a lighthouse")`.

The stub next to this file is generated from the catalogue and contains the parameters of each task.
"""

from __future__ import annotations

from threading import RLock

from rh_prefect.catalog import get, models, nearest
from rh_prefect.tasks.model_task_builder import build
from rh_prefect.tasks.paid_task_typing import PaidTask

_LOCK = RLock()


def __getattr__(name: str) -> PaidTask[...]:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    entry = next((model for model in models() if model.snake_name == name), None)
    if entry is None:
        near = ", ".join(get(known).snake_name for known in nearest(name))
        raise AttributeError(f"module {__name__!r} has no task {name!r}; similar names: {near}")
    with _LOCK:  # one task for all threads: tasks are compared by identity
        if name not in globals():
            globals()[name] = build(entry)
        endpoint: PaidTask[...] = globals()[name]
    return endpoint


def __dir__() -> list[str]:
    return sorted(model.snake_name for model in models())

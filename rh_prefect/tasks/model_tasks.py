"""One task per model, built on first use: `await model_tasks.z_image_turbo(prompt="a lighthouse")`.

The stub next to this file is generated from the catalogue and contains the parameters of each task.
"""

from __future__ import annotations

from threading import RLock

from rh_prefect.catalog import models
from rh_prefect.catalog.registry import of_attribute
from rh_prefect.tasks.model_task_builder import build
from rh_prefect.tasks.paid_task_typing import PaidTask

_LOCK = RLock()


def __getattr__(name: str) -> PaidTask[...]:
    entry = of_attribute(name, module=__name__, kind="task")
    with _LOCK:  # one task for all threads: tasks are compared by identity
        if name not in globals():
            globals()[name] = build(entry)
        endpoint: PaidTask[...] = globals()[name]
    return endpoint


def __dir__() -> list[str]:
    return sorted(model.snake_name for model in models())

"""Calls of this package's tasks, with and without a task run of Prefect's."""

from __future__ import annotations

import logging
from typing import Any

from prefect import Task
from prefect.client.schemas.objects import State
from prefect.serializers import JSONSerializer, PickleSerializer

from rh_prefect.tasks import generate
from rh_prefect.works.job_options import Request
from rh_prefect.works.result import Result


async def as_task(task: Task[..., Any], *args: object, **options: object) -> Any:
    """Calls the function of a task; what it returns can be stored in either of Prefect's forms."""
    value = await task.fn(*args, **options)
    for serializer in (PickleSerializer(), JSONSerializer()):
        stored = serializer.loads(serializer.dumps(value))
        assert stored == value or (isinstance(value, tuple) and stored == list(value))  # JSON knows no tuples
    return value


async def make(asked: Request, *, scope: str | None = "test", **options: Any) -> Result:
    """A paid call outside of Prefect's engine."""
    result: Result = await generate.fn(asked, scope=scope, **options)
    return result


async def run(task: Task[..., Any], *args: object, **options: object) -> State[Any]:
    """Runs a task in a separate task run; its retries wait for nothing."""
    ready = task.with_options(persist_result=True, retry_delay_seconds=0)
    state: State[Any] = await ready(*args, **options, return_state=True)
    return state


def name_of_run(records: list[logging.LogRecord]) -> str:
    """The name of the last task run, as Prefect's own log lines have it; the server hears of a run some time later."""
    names = [str(vars(record)["task_run_name"]) for record in records if "task_run_name" in vars(record)]
    return names[-1]

"""A process that runs a flow, for tests that kill it: `python -m tests.support.child`, steered by `children.Child`.

It says `ready` once everything is imported, reads one order from its standard input, and says in one JSON object a line
what happens.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from prefect import Flow
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling
from pydantic import TypeAdapter

from rh_prefect import flows, tasks  # noqa: F401 - all that a run needs is imported before the child says `ready`
from rh_prefect.connection import connect
from rh_prefect.flow_runs import job_observer
from rh_prefect.flow_runs.flow import cancel_remote_jobs
from rh_prefect.flow_runs.prefect_internals import drain
from rh_prefect.flow_runs.resume import create, rerun
from rh_prefect.jobs.events import JobEvent

_lock = threading.Lock()
_out = sys.stdout


def say(event: str, **facts: object) -> None:
    with _lock:
        print(json.dumps({"event": event, "at": time.monotonic(), **facts}, default=str), file=_out, flush=True)


def take(event: JobEvent) -> None:
    say("job", state=event.state, job=event.job, task_id=event.task_id, label=event.label, message=event.message)


def leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from leaves(one)
    else:
        yield error


def told(error: BaseException) -> dict[str, str]:
    return {"type": type(error).__name__, "message": str(error), "job": str(getattr(error, "job", ""))}


def result_of(value: object) -> object:
    return TypeAdapter(object).dump_python(value, mode="json") if value is not None else None


async def run(flow: Flow[..., Any], order: dict[str, Any]) -> None:
    run_id = order.get("run") or str(await create(flow, order.get("parameters", {})))
    say("run", id=run_id)
    try:
        say("done", result=result_of(await rerun(flow, run_id)))
    except (Exception, BaseExceptionGroup) as error:
        say("failed", errors=[told(one) for one in leaves(error)])
        raise SystemExit(1) from None
    finally:
        await drain()


async def cancel(flow: Flow[..., Any], order: dict[str, Any]) -> None:
    """Calls the cancellation hook as Prefect's runner does: in a process of its own, by keywords."""
    connection = await connect()
    flow_run: FlowRun = await connection.client.read_flow_run(order["run"])
    hook: Callable[..., Any]
    for hook in flow.on_cancellation_hooks:
        await hook(flow=flow, flow_run=flow_run, state=Cancelling())
    say("done", result=[getattr(hook, "__name__", "") for hook in flow.on_cancellation_hooks])
    assert cancel_remote_jobs in flow.on_cancellation_hooks
    await drain()


def main() -> None:
    say("ready")
    order = json.loads(sys.stdin.readline() or "null")
    if order is None:
        return
    os.environ.update(order.get("env", {}))
    job_observer.listeners.append(take)
    module, _, name = order["flow"].partition(":")
    flow = getattr(importlib.import_module(module), name)
    asyncio.run({"run": run, "cancel": cancel}[order["do"]](flow, order))


if __name__ == "__main__":
    main()

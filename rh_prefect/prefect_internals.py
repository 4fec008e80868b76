"""All uses of Prefect's private API; tested with the versions that pyproject.toml allows."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from contextvars import Token
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext, TaskRunContext
from prefect.context import refresh_global_settings_context as refresh_global_settings_context
from prefect.events import emit_event
from prefect.events.worker import EventsWorker
from prefect.flow_engine import run_flow as run_flow
from prefect.flows import FlowDecorator as FlowDecorator
from prefect.logging.handlers import APILogWorker
from prefect.states import Scheduled

from rh_prefect.media.input_access_policy import ask_whether_deployed

RunContext: TypeAlias = FlowRunContext | TaskRunContext
_C = TypeVar("_C", FlowRunContext, TaskRunContext)


def flow_contexts() -> list[FlowRunContext]:
    """Returns the contexts of the flow runs around the caller, innermost first."""
    flow = FlowRunContext.get()
    if flow is None:
        return []
    # Prefect enters two contexts for one run (the outer one to name it); the inner one is that of the attempt.
    return _first_each(_outwards(flow), lambda context: context.flow_run.id if context.flow_run else None)


def task_contexts() -> list[TaskRunContext]:
    """Returns the contexts of the task runs around the caller, innermost first."""
    task = TaskRunContext.get()
    return _first_each(_outwards(task), lambda context: context.task_run.id) if task is not None else []


def run_contexts() -> list[RunContext]:
    """Returns the contexts of all runs around the caller, innermost first: each flow run after its own task runs."""
    flows, tasks = flow_contexts(), task_contexts()
    if not flows:
        return [*tasks]
    found: list[RunContext] = []
    for flow in flows:
        flow_run_id = flow.flow_run.id if flow.flow_run is not None else None
        found += [task for task in tasks if task.task_run.flow_run_id == flow_run_id]
        found.append(flow)
    return found


def is_deployed() -> bool:
    """Returns whether the caller runs in a deployed flow run, or in a process that a runner has started."""
    if "PREFECT__FLOW_RUN_ID" in os.environ:
        return True
    return any(run.flow_run is not None and run.flow_run.deployment_id is not None for run in flow_contexts())


ask_whether_deployed(is_deployed)


def flow_running_elsewhere() -> str | None:
    """For a caller without a run context, returns the name of a flow run that is active in this process, or None.

    Other threads do not see context variables. So this searches all objects in memory, which takes about 15 ms; it is
    used only for calls without a scope. A context stays entered as long as its flow run lasts.
    """
    for one in gc.get_objects():
        if type(one) is FlowRunContext and is_entered(one) and one.flow_run is not None:
            return one.flow_run.name
    return None


def is_entered(context: RunContext) -> bool:
    """Returns whether a context's run is still active."""
    try:
        return context._token is not None
    except (AttributeError, TypeError):  # another thread is creating it at this moment
        return False


def _outwards(context: _C) -> Iterator[_C]:
    """Yields a context and the contexts around it; each context's token contains the context that it replaced."""
    inner: _C | None = context
    while inner is not None:
        yield inner
        token = inner._token
        outer = token.old_value if token is not None else None
        inner = None if outer is Token.MISSING else outer


def _first_each(contexts: Iterator[_C], key: Callable[[_C], UUID | None]) -> list[_C]:
    found: dict[UUID | None, _C] = {}
    for context in contexts:
        found.setdefault(key(context), context)
    return list(found.values())


async def drain() -> None:
    """Waits until Prefect has sent all events and logs; without a server, Prefect would retry for a minute at exit.

    Each of the two waits is limited to half a minute, because the jobs are already done.
    """
    for drained in (APILogWorker.instance().drain(), EventsWorker.drain_all()):
        if inspect.isawaitable(drained):
            with suppress(TimeoutError):
                await asyncio.wait_for(drained, 30)


def is_exiting() -> bool:
    """Returns whether the interpreter is ending its threads, so that Prefect can send no more events and logs.

    A submission in flight may still report its answer after that.
    """
    return bool(getattr(threading, "_SHUTTING_DOWN", False))


def emit(
    event: str,
    resource: dict[str, str],
    *,
    flow_run: UUID | str | None = None,
    related: Sequence[dict[str, str]] = (),
    **details: Any,
) -> None:
    """Emits a Prefect event that is related to a flow run, except while the process exits."""
    if not is_exiting():
        runs = [{"prefect.resource.id": f"prefect.flow-run.{flow_run}", "prefect.resource.role": "flow-run"}]
        emit_event(event, resource, related=[*related, *(runs if flow_run else ())], **details)


def awaiting_retry() -> State[Any]:
    """Returns the state of a run before a retry, with the name that Prefect's engine uses."""
    return Scheduled(name="AwaitingRetry")


def is_detached(context: FlowRunContext) -> bool:
    """Returns whether this process has only a part of the flow run's context, as a task worker does."""
    return context.detached


def is_retried_in_process(flow_run: FlowRun) -> bool:
    """Returns whether the flow's own `retries` started this attempt; a manual retry has another state type."""
    return flow_run.empirical_policy.retry_type == "in_process"


def pause_keys(flow_run: FlowRun) -> set[str]:
    """Returns the keys of the run's suspensions so far."""
    return flow_run.empirical_policy.pause_keys or set()


def is_continued(flow_run: FlowRun) -> bool:
    """Returns whether a run began earlier; a resume after a suspension does not change the run count."""
    return flow_run.run_count > 1 or bool(pause_keys(flow_run))

"""Finds the scope of a paid call (the root flow run with its journal) and the runs around the call.

The scope is not the innermost flow run, because a completed child flow gets a new flow-run id when its parent is run
again. A flow that was started with `run_deployment` is a root.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar
from uuid import UUID

from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext, TaskRunContext

from rh_prefect.bounded_caches_and_locks import LruCache
from rh_prefect.errors import ConfigError
from rh_prefect.flow_runs.run_queries_and_scopes import FlowScope, flow_name_of, read_flow_run, scope_of
from rh_prefect.prefect_api import PATIENCE, ask_repeatedly
from rh_prefect.prefect_internals import (
    RunContext,
    flow_contexts,
    is_detached,
    is_entered,
    is_retried_in_process,
    run_contexts,
)
from rh_prefect.works.journal.scope import Calls, Chain
from rh_prefect.works.loop_thread import LOOP

_V = TypeVar("_V")

_CACHE_SIZE = 1000
"""Number of child flow runs whose parents a process stores; if more are used, the oldest are read again."""


class PerObject(Generic[_V]):
    """A mapping from objects, by identity, to values; an entry is deleted together with its object."""

    def __init__(self, make: Callable[[], _V]) -> None:
        self._make = make
        self._values: dict[int, _V] = {}
        self._lock = threading.RLock()

    def __getitem__(self, owner: object) -> _V:
        with self._lock:
            if id(owner) not in self._values:
                self._values[id(owner)] = self._make()
                # Runs before the id can be given to another object.
                weakref.finalize(owner, self._values.pop, id(owner), None).atexit = False
            return self._values[id(owner)]


_calls_of: PerObject[Calls] = PerObject(Calls)
"""The paid calls of each attempt, by the root's context object, since a resume does not change Prefect's run count. For
each context object, the calls have a number, which identifies the execution of the run; `id()` would repeat values.
"""

_detached: LruCache[tuple[str, int], Calls] = LruCache(_CACHE_SIZE)
"""The paid calls by flow run and attempt, for worker processes, where each task has a separate context object."""

_parents: LruCache[UUID, tuple[FlowRun, str]] = LruCache(_CACHE_SIZE)
"""The parent flow run and flow name of each child flow run that a worker process knows without its parent."""


def current_scope() -> FlowScope | None:
    """Returns the caller's scope; None outside of flows.

    Raises `ConfigError` in a task whose child flow has returned. In a worker process, call `find_root` first.
    """
    flows = flow_contexts()
    if not flows:
        return None
    root = flows[-1]
    if root.flow_run is None or root.flow is None:
        raise ConfigError("The call's flow is not running. Nothing was sent. What to do: await the call in the flow.")
    _check_alive(root)
    flow_run, name = _root_of(root.flow_run, root.flow.name)
    scope = scope_of(flow_run, name)
    if is_retried_in_process(flow_run):
        scope.first_attempt = 1  # Prefect's own retries only follow the first attempt, and count together with it
    if is_detached(root):
        scope.calls = _detached.setdefault((str(flow_run.id), flow_run.run_count), scope.calls)
    else:
        scope.calls = _calls_of[root]
    return scope


def current_chain() -> Chain:
    """Returns the runs around a paid call, outermost first, including its own task run."""
    return tuple(map(_link, reversed(run_contexts())))


def _link(run: RunContext) -> tuple[str, int]:
    if isinstance(run, TaskRunContext):
        return str(run.task_run.id), _calls_of[run].number
    flow_run = run.flow_run
    if flow_run is None or not is_detached(run):
        return str(flow_run and flow_run.id), _calls_of[run].number
    # A worker process does not see the task around a child flow, whose retry starts a new child flow run. So it treats
    # all child flow runs of one root as repetitions of each other.
    root, _ = _root_of(flow_run)
    return str(root.id), hash((flow_run.id, flow_run.run_count))


def _root_of(flow_run: FlowRun, name: str = "") -> tuple[FlowRun, str]:
    """Returns the outermost known flow run around a flow run, and its flow's name."""
    while flow_run.id in _parents:
        flow_run, name = _parents[flow_run.id]
    return flow_run, name


def _check_alive(root: FlowRunContext) -> None:
    is_nested = root.flow_run is not None and root.flow_run.parent_task_run_id is not None
    if is_nested and not is_detached(root) and not is_entered(root):
        raise ConfigError(
            "A task sent a request to RunningHub after its child flow had returned, so the job's "
            "flow run cannot be determined. Nothing was sent. What to do: wait for the task's result "
            "inside its flow."
        )


async def find_root() -> None:
    """Reads the parents of the outermost flow run that a worker process knows, up to the root."""
    flows = flow_contexts()
    if flows and is_detached(flows[-1]) and flows[-1].flow_run is not None:
        await LOOP.call(_read_parents(flows[-1].flow_run))


async def _read_parents(flow_run: FlowRun) -> None:
    # A run that `run_deployment` has started is a separate root.
    while flow_run.parent_task_run_id is not None and flow_run.deployment_id is None:
        if flow_run.id not in _parents:
            parent = await read_flow_run(await _caller_of(flow_run.parent_task_run_id), patience=PATIENCE)
            _parents[flow_run.id] = parent, await flow_name_of(parent)
        flow_run, _ = _parents[flow_run.id]


async def _caller_of(task_run_id: UUID) -> UUID:
    """Returns the id of the flow run around a task run that has started a child flow."""
    what = f"The task run {task_run_id}, which has started a child flow, cannot be read"
    task_run = await ask_repeatedly(lambda api: api.read_task_run(task_run_id), what=what)
    if task_run.flow_run_id is None:
        raise ConfigError(
            f"The task run {task_run_id} started a flow but does not belong to a flow run, so the flow "
            "run of the job cannot be determined. Nothing was sent. What to do: pass a `scope` to the "
            "call."
        )
    return task_run.flow_run_id

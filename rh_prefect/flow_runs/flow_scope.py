"""Finds the scope of a paid call, which is the root flow run with its journal, and the calling task or flow.

The root and not the innermost flow run, because a completed child flow gets a new flow-run id when its parent is run
again. A flow that was started with `run_deployment` is its own root.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from uuid import UUID

from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext, TaskRunContext

from rh_prefect.caches_and_locks import LruCache
from rh_prefect.errors import ConfigError
from rh_prefect.flow_runs.argument_hashes import arguments_of
from rh_prefect.flow_runs.call_positions import (
    PaidTask,
    PerObject,
    place_carried,
    place_in_key,
    run_places,
    serial_of,
    take_place,
)
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.prefect_internals import (
    RunContext,
    flow_contexts,
    is_detached,
    is_entered,
    is_retried_in_process,
    run_contexts,
)
from rh_prefect.flow_runs.queries import RecordedScope, flow_name_of, read_flow_run, run_folder
from rh_prefect.prefect_api import PATIENCE, ask_repeatedly
from rh_prefect.works.journal.call_assignment import Caller, CallRegistry, Try
from rh_prefect.works.journal.call_matching import Equal
from rh_prefect.works.journal.identity import Address, Place, Step
from rh_prefect.works.loop_thread import LOOP

_CACHE_SIZE = 1000
"""How many child flow runs one process remembers the places of; one that was forgotten is asked for again."""

_registries: PerObject[CallRegistry] = PerObject(CallRegistry)
"""By the root's context, an object that is new in every attempt; after a resume Prefect's own run count is not."""

_detached: LruCache[tuple[str, int], CallRegistry] = LruCache(_CACHE_SIZE, make=CallRegistry)
"""The same in worker processes, where each task has its own context object: by flow run and attempt."""

_equal: ContextVar[Equal] = ContextVar("rh_prefect_equal_calls", default="refuse")


@dataclass
class FlowScope:
    """The scope of a call inside a flow run; see `rh_prefect.works.journal.scope.Scope`."""

    journal: FlowRunJournal
    run: str
    flow: str
    attempt: int
    first_attempt: int
    details: Mapping[str, str]
    calls: CallRegistry = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class _Call:
    """How a child flow run was called.

    Attributes:
        flow_run_id: The parent.
        number: Which of the parent's calls of this flow it is, from 1; None where Prefect does not count them.
        place: Its position, where `PlacedFlow` has counted it.
    """

    flow_run_id: UUID
    number: int | None
    place: Place | None


_calls: LruCache[str, _Call] = LruCache(_CACHE_SIZE)
_outer: LruCache[str, tuple[FlowRun, str]] = LruCache(_CACHE_SIZE)
"""Flow runs that lie beyond what the context of a worker process knows, with their flows' names."""


def current_scope() -> FlowScope | None:
    """The caller's scope; None outside of flows, `ConfigError` in a task that outlived its child flow."""
    flows = flow_contexts()
    if not flows:
        return None
    root = flows[-1]
    if root.flow_run is None or root.flow is None:
        raise ConfigError("The call is in a flow that is not running. What to do: await the call inside the flow.")
    _check_alive(root)
    *_, (flow_run, name) = _outwards(root.flow_run, root.flow.name)
    return FlowScope(
        journal=FlowRunJournal(flow_run.id),
        run=run_folder(flow_run),
        flow=name,
        attempt=max(flow_run.run_count, 1),
        # Prefect retries a flow by itself in the first attempts only.
        first_attempt=1 if is_retried_in_process(flow_run) else max(flow_run.run_count, 1),
        details={"flow_run": str(flow_run.id), "flow_run_name": flow_run.name},
        calls=_registry(root, flow_run),
    )


async def current_caller(place: Place | None = None) -> Caller:
    """Describes the source of a paid call: the current task run, or the code directly in the flow."""
    runs = run_contexts()
    own = runs[0] if runs and isinstance(runs[0], TaskRunContext) and isinstance(runs[0].task, PaidTask) else None
    here = place if own is None else place_carried(own.task)
    if own is None and here is None:
        here = take_place("call", None)
    flows = [run for run in runs if isinstance(run, FlowRunContext)]
    for flow in flows:
        is_outermost = flow is flows[-1]
        # The outermost run that a process knows is the root, unless the process was given a part of the context.
        if flow.flow_run is not None and (is_detached(flow) or not is_outermost):
            await LOOP.call(_learn_calls(flow.flow_run, to_root=is_outermost))
    around = runs[1:] if own is not None else runs
    steps = tuple(_steps(around, run_places(runs)))
    return Caller(
        address=Address(steps=steps, place=here or Place()),
        tries=tuple(_try(run) for run in runs if not flows or run is not flows[-1]),
        version=(flows[-1].flow.version or "") if flows and flows[-1].flow is not None else "",
        is_detached=any(map(is_detached, flows)),
        equal=_equal.get(),
    )


@contextmanager
def equal_calls(equal: Equal) -> Iterator[None]:
    """Decides how to treat calls that match several recorded ones; see `resume`."""
    token = _equal.set(equal)
    try:
        yield
    finally:
        _equal.reset(token)


def _check_alive(root: FlowRunContext) -> None:
    is_nested = root.flow_run is not None and root.flow_run.parent_task_run_id is not None
    if is_nested and not is_detached(root) and not is_entered(root):
        raise ConfigError(
            "A task called RunningHub after the child flow that started it had returned, so the job's "
            "flow run cannot be determined; nothing was sent. What to do: wait for the task's result "
            "inside its flow."
        )


def _registry(root: FlowRunContext, flow_run: FlowRun) -> CallRegistry:
    return _detached[str(flow_run.id), flow_run.run_count] if is_detached(root) else _registries[root]


def _outwards(flow_run: FlowRun, name: str) -> Iterator[tuple[FlowRun, str]]:
    """Yields a flow run and those around it, as far as they were read from the Prefect API; the root is the last."""
    yield flow_run, name
    while (call := _calls.get(str(flow_run.id))) is not None and str(call.flow_run_id) in _outer:
        flow_run, name = _outer[str(call.flow_run_id)]
        yield flow_run, name


async def _learn_calls(flow_run: FlowRun, *, to_root: bool) -> None:
    """Reads the call of a child flow run; with `to_root`, also the calls of the runs around it."""
    # A run that `run_deployment` has started is a separate root.
    while flow_run.parent_task_run_id is not None and flow_run.deployment_id is None:
        if str(flow_run.id) not in _calls:
            _calls[str(flow_run.id)] = await _read_call(flow_run.parent_task_run_id)
        if not to_root:
            return
        parent = _calls[str(flow_run.id)].flow_run_id
        if str(parent) not in _outer:
            found = await read_flow_run(parent, patience=PATIENCE)
            _outer[str(parent)] = found, await flow_name_of(found)
        flow_run, _ = _outer[str(parent)]


async def _read_call(task_run_id: UUID) -> _Call:
    what = f"The task run {task_run_id}, which has started a child flow, cannot be read"
    task_run = await ask_repeatedly(lambda api: api.read_task_run(task_run_id), what=what)
    if task_run.flow_run_id is None:
        raise ConfigError(
            f"The task run {task_run_id} started a flow but does not belong to a flow run, so the flow "
            "run of the job cannot be determined; nothing was sent. What to do: pass a `scope` to the "
            "call."
        )
    # By this number Prefect finds the child again. For flows that a task calls it is a random id.
    number = 1 + int(task_run.dynamic_key) if task_run.dynamic_key.isdecimal() else None
    return _Call(task_run.flow_run_id, number, place_in_key(task_run.task_key))


def _steps(around: list[RunContext], places: Mapping[UUID, Place]) -> Iterator[Step]:
    """Yields the runs between the root and a call, outermost first."""
    flows = [run for run in around if isinstance(run, FlowRunContext)]
    root: UUID | None = None
    if flows and flows[-1].flow_run is not None:
        known, *beyond = _outwards(flows[-1].flow_run, "")
        root = (beyond or [known])[-1][0].id
        for flow_run, name in reversed(beyond[:-1]):
            yield Step(name=name, place=_place_of_flow(flow_run, Place()), arguments=arguments_of(flow_run.parameters))
    for run in reversed(around):
        if isinstance(run, TaskRunContext):
            place = places[run.task_run.id]
            yield Step(name=run.task.name, place=place, arguments=arguments_of(run.parameters))
        elif run.flow is not None and run.flow_run is not None and run.flow_run.id != root:
            place = _place_of_flow(run.flow_run, places[run.flow_run.id])
            yield Step(name=run.flow.name, place=place, arguments=arguments_of(run.parameters or {}))


def _place_of_flow(flow_run: FlowRun, place: Place) -> Place:
    """Adds Prefect's number to the position of a child flow whose own number is unknown or may not suffice."""
    call = _calls.get(str(flow_run.id))
    if call is None or call.number is None:
        return place
    if call.place is None:
        return place.model_copy(update={"number": call.number})
    return call.place if call.place.in_order else call.place.model_copy(update={"concurrent": call.number})


def _try(run: RunContext) -> Try:
    if isinstance(run, TaskRunContext):
        return Try(f"task-{run.task_run.id}", serial_of[run])
    flow_run_id = run.flow_run.id if run.flow_run is not None else None
    number = run.flow_run.run_count if is_detached(run) and run.flow_run is not None else serial_of[run]
    return Try(f"flow-{flow_run_id}", number)


_scope_override: ContextVar[RecordedScope | None] = ContextVar("rh_prefect_scope_override", default=None)


@contextmanager
def override_scope(scope: RecordedScope) -> Iterator[None]:
    """Assigns every paid call of a `with` block to a scope, in every flow run.

    Each of these calls needs its own `key`: a scope that is looked at from outside counts no equal calls.
    """
    token = _scope_override.set(scope)
    try:
        yield
    finally:
        _scope_override.reset(token)


def scope_override() -> RecordedScope | None:
    """Returns the scope set by `override_scope` for the caller's jobs; None if they use their own flow run's scope."""
    return _scope_override.get()

"""`FlowScope`: the root flow run of this process, which all of its paid jobs belong to.

The root and not the innermost flow run, because a completed child flow gets a new flow-run id when its parent is run
again. A flow that was started with `run_deployment` is its own root.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Mapping
from contextvars import Token
from typing import TypeVar
from uuid import UUID

from prefect.context import FlowRunContext, TaskRunContext

from rh_prefect.errors import ConfigError
from rh_prefect.runs.journal import FlowRunJournal
from rh_prefect.runs.ordinals import Ordinals, PerObject, Unit

_C = TypeVar("_C", FlowRunContext, TaskRunContext)
_logger = logging.getLogger("rh_prefect.runs")

_ordinals: PerObject[Ordinals] = PerObject(Ordinals)
"""By the root's context, an object that is new in every attempt; after a resume Prefect's own run count is not."""


class FlowScope:
    """The scope of a call inside a flow run; see `rh_prefect.jobs.ledger.scope.Scope`.

    Attributes:
        journal: The root flow run's journal.
        run: A short name of the run, for file names: the end of the flow run's id.
        flow: The root flow's name.
        attempt: Which attempt of the root flow run this is, from 1.
        task_attempt: Which attempt of the calling task run this is, from 1.
        details: What a manifest says of the run.
    """

    def __init__(self, flows: list[FlowRunContext], tasks: list[TaskRunContext]) -> None:
        """Use `current_scope`.

        Args:
            flows: The flow runs that the call is in, innermost first.
            tasks: The task runs that it is in, innermost first.
        """
        root = flows[-1]
        if root.flow_run is None or root.flow is None:
            raise ConfigError("The call is in a flow that is not running. What to do: call it while the flow runs.")
        self.journal = FlowRunJournal(root.flow_run.id)
        # The end: the start of an id may be a time stamp that runs started together share.
        self.run = root.flow_run.id.hex[-12:]
        self.flow = root.flow.name
        self.attempt = max(root.flow_run.run_count, 1)
        self.task_attempt = max(tasks[0].task_run.run_count, 1) if tasks else 1
        self.details: Mapping[str, str] = {"flow_run": str(root.flow_run.id), "flow_run_name": root.flow_run.name}
        self._ordinals = _ordinals[root]
        self._units = _units(flows, tasks)

    def ordinal(self, base: str) -> int:
        """Counts equal calls; see `Scope.ordinal`."""
        return self._ordinals.next(base, self._units)


def current_scope() -> FlowScope | None:
    """Finds the scope that the caller is in.

    Returns:
        The scope, or None outside of flows.

    Raises:
        ConfigError: The caller is a task that outlived the child flow that it belongs to.
    """
    flow = FlowRunContext.get()
    if flow is None:
        return None
    # Prefect enters two contexts for one run (the outer one to name it); the inner one is that of the attempt.
    flows = _first_each(_outwards(flow), lambda context: context.flow_run.id if context.flow_run else None)
    _check_root(flows[-1])
    task = TaskRunContext.get()
    tasks = _first_each(_outwards(task), lambda context: context.task_run.id) if task is not None else []
    return FlowScope(flows, tasks)


def flow_running_elsewhere() -> str | None:
    """Finds a flow run that is going on in this process, for a caller whose own context knows of none.

    A context variable tells nothing of other threads, so this looks at all objects that there are: some 15 ms, spent
    only where a call would otherwise belong to nothing. Prefect enters a context for as long as its flow run goes on.

    Returns:
        The name of one such run, or None: no flow runs in this process.
    """
    for one in gc.get_objects():
        if type(one) is FlowRunContext and _is_entered(one) and one.flow_run is not None:
            return one.flow_run.name
    return None


def _is_entered(context: FlowRunContext) -> bool:
    try:
        return context._token is not None
    except (AttributeError, TypeError):  # another thread is making it this very moment
        return False


def _outwards(context: _C) -> Iterator[_C]:
    """Walks from a context to those that it was entered in: each remembers, in its token, the one that it replaced."""
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


def _check_root(root: FlowRunContext) -> None:
    nested = root.flow_run is not None and root.flow_run.parent_task_run_id is not None
    if nested and root._token is None:
        raise ConfigError(
            "A task called RunningHub after the child flow that started it had returned, so that nobody can tell which "
            "run the job belongs to; nothing was sent. What to do: wait for the task's result inside its flow."
        )
    if root.detached:
        _logger.warning(
            "A paid job in a task that runs in a process of its own (Dask, Ray, a process pool): equal calls in "
            "several such tasks are taken for one job. Give each its own `label`, or use `generate_many`."
        )


def _units(flows: list[FlowRunContext], tasks: list[TaskRunContext]) -> tuple[Unit, ...]:
    """Orders what can be tried again, innermost first: each flow run after the task runs that are directly in it."""
    units: list[Unit] = []
    for flow in flows:
        flow_run_id = flow.flow_run.id if flow.flow_run is not None else None
        units += [Unit(f"task-{task.task_run.id}", task) for task in tasks if task.task_run.flow_run_id == flow_run_id]
        if flow is not flows[-1]:
            units.append(Unit(f"flow-{flow_run_id}", flow))
    return tuple(units)

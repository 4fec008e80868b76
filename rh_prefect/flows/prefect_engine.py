"""`PrefectEngine`: runs each step of a pipeline as a Prefect task run, and suspends the flow run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun, TaskRunResult
from prefect.states import Failed

from rh_prefect.errors import RunningHubError
from rh_prefect.flow_runs.suspend_for_jobs import SuspendGroup
from rh_prefect.pipelines.plan.planned_steps import PlannedStep
from rh_prefect.pipelines.run.interfaces import StepEngine
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.result_delivery import Delivered
from rh_prefect.works.work_runner import WorkCall, WorkRunner, undamaged


class PrefectEngine(StepEngine):
    """The step engine of a pipeline run in a flow run; see `rh_prefect.pipelines.run.interfaces.StepEngine`."""

    def __init__(self, group: SuspendGroup | None) -> None:
        """Creates the engine; the group suspends the run once it only waits for tasks; without one, the run stays."""
        self._group = group
        self._tasks: dict[tuple[str, str], Any] = {}  # By path and model; for all items
        self._ended: dict[str, UUID] = {}  # The task runs of steps, by address

    @property
    def is_suspended(self) -> bool:  # type: ignore[override]
        """Whether the flow run is about to be suspended."""
        return self._group is not None and self._group.is_suspended

    @property
    def suspension_seconds(self) -> float:  # type: ignore[override]
        """Seconds after which Prefect marks the suspended run as failed."""
        return 0 if self._group is None else self._group.timeout

    async def run(self, instance: PlannedStep, make: Callable[[], Awaitable[None]]) -> None:
        """Runs a step as a task run with the step's address as its name."""
        key = (instance.path, instance.model)
        if key not in self._tasks:
            tags = [f"model:{instance.model}"] if instance.is_paid else None
            self._tasks[key] = _StepTask(_make, name=instance.path, tags=tags, **_OPTIONS)
        _current.set(_StepRun(instance.address, make, self._upstream(instance)))
        state = await self._tasks[key](return_state=True)
        await state.aresult()  # raises what the step raised
        if state.state_details.task_run_id is not None:
            self._ended[instance.address] = state.state_details.task_run_id

    def _upstream(self, instance: PlannedStep) -> list[TaskRunResult]:
        """Returns the task runs on which a step depends, for the dashboard's arrows.

        If the step depends on a review, the task runs of the review's candidates are included.
        """
        needs = (one for need in instance.needs for one in (need, *(need.needs if need.model == "review" else ())))
        found = dict.fromkeys(self._ended.get(one.address) for one in needs)
        return [TaskRunResult(id=one) for one in found if one is not None]

    async def make(self, runner: WorkRunner, asked: WorkCall) -> Delivered | None:
        """Makes a work; returns None if the flow run will be suspended until the work's task ends."""
        group = self._group
        if group is None:
            return await LOOP.call(runner.make(asked))

        async def follow() -> Delivered | None:
            done = await group.run(runner, asked)
            return undamaged(asked, done) if isinstance(done, Delivered) else None

        return await LOOP.call(follow())

    async def expect(self, members: int) -> None:
        """Registers a number of members of the suspend group, if there is a group."""
        if self._group is not None:
            await asyncio.shield(LOOP.call(self._group.expect(members)))

    def end(self) -> None:
        """Tells the suspend group (`flow_runs/suspend_for_jobs.py`) that one of its members has ended."""
        if self._group is not None:
            LOOP.submit(self._group.end())

    async def suspend(self) -> None:
        """Suspends the flow run. This method returns only if Prefect refuses; the run then waits in this process."""
        if self._group is not None:
            await self._group.suspend()
        self._group = None


@dataclass(frozen=True, slots=True)
class _StepRun:
    """One run of a step: its address, the function that makes it, and the task runs on which it depends."""

    address: str
    make: Callable[[], Awaitable[None]]
    upstream: list[TaskRunResult]


_current: ContextVar[_StepRun] = ContextVar("rh_prefect_step")
"""The step of the current task run; it is not a parameter, because Prefect searches parameters for futures."""


async def _make() -> State[Any] | None:
    try:
        await _current.get().make()
    except RunningHubError as error:
        # Returned and not raised: the log of the task run has the cause, and no traceback of this package.
        return Failed(message=str(error), data=error)
    return None


_OPTIONS: Any = {
    "task_run_name": lambda: _current.get().address,
    "retries": 0,  # overrides Prefect's settings, because only the records decide what is paid for again
    "cache_policy": NO_CACHE,
    "persist_result": False,
}


class _StepTask(Task[[], Any]):
    """The Prefect task of a step; it has no parameters, and finds the step in `_current`."""

    async def create_local_run(self, *args: Any, **options: Any) -> TaskRun:
        """Creates the task run with its upstream runs; `wait_for` would read the results of those runs again."""
        run = await super().create_local_run(*args, **options)
        run.task_inputs["wait_for"] = [*_current.get().upstream]
        return run

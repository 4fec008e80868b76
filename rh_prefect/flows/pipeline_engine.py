"""`PrefectEngine`: runs each step of a pipeline as a Prefect task run, and suspends the flow run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Failed

from rh_prefect.errors import RunningHubError
from rh_prefect.flow_runs.suspension import RunSuspender, open_suspend_group
from rh_prefect.pipelines.plan.planned_steps import PlannedStep
from rh_prefect.pipelines.run.surroundings import StepEngine
from rh_prefect.works.delivery import Delivered
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.options import Wait
from rh_prefect.works.work_runner import WorkCall, WorkResult, WorkRunner, result_of_step


class PrefectEngine(StepEngine):
    """The engine of a run in a flow run; see `rh_prefect.pipelines.run.surroundings.StepEngine`."""

    def __init__(self) -> None:
        self._group: RunSuspender | None = None
        self._ended: dict[str, State[Any]] = {}

    async def open(self, wait: Wait) -> None:
        """From now on, suspends the flow run when it only waits for tasks, if `wait` says so and it is possible."""
        self._group = await open_suspend_group(wait)

    @property
    def is_suspended(self) -> bool:  # type: ignore[override]
        """Whether the flow run is about to be suspended."""
        return self._group is not None and self._group.is_suspended

    async def run(self, instance: PlannedStep, make: Callable[[], Awaitable[None]]) -> None:
        """Runs a step as a task run with the step's address as its name."""
        self._ended[instance.address] = await _task_run(instance, make, after=self._upstream_states(instance))

    def _upstream_states(self, instance: PlannedStep) -> list[State[Any]]:
        """Returns the task runs on which a step depends, for the dashboard's arrows.

        For a review, those of its candidates.
        """
        found: dict[str, State[Any]] = {}
        for need in instance.needs:
            for one in (need, *(need.needs if need.model == "review" else ())):
                if one.address in self._ended:
                    found[one.address] = self._ended[one.address]
        return list(found.values())

    async def make(self, runner: WorkRunner, asked: WorkCall) -> WorkResult | None:
        """Makes a work; returns None if the flow run will be suspended for its task."""
        group = self._group
        if group is None:
            return await LOOP.call(runner.make(asked))

        async def follow() -> WorkResult | None:
            done = await group.run(runner, asked)
            return result_of_step(asked, done) if isinstance(done, Delivered) else None

        return await LOOP.call(follow())

    async def expect(self, members: int) -> None:
        """Registers members of the suspend group."""
        if self._group is not None:
            await LOOP.call(self._group.expect(members))

    async def end(self) -> None:
        """Tells the suspend group (`flow_runs/suspension.py`) that one of its members has ended."""
        if self._group is not None:
            await LOOP.call(self._group.end())

    async def suspend(self) -> None:
        """Suspends the flow run. It returns only if Prefect refuses; then the run waits in this process."""
        if self._group is not None:
            await self._group.suspend()
        self._group = None


async def _task_run(
    instance: PlannedStep, make: Callable[[], Awaitable[None]], *, after: list[State[Any]]
) -> State[Any]:
    async def step() -> State[Any] | None:
        try:
            await make()
        except RunningHubError as error:
            # Returned and not raised: the log of the task run has the cause, and no traceback of this package.
            return Failed(message=str(error), data=error)
        return None

    name = instance.address.replace("{", "{{").replace("}", "}}")
    # `retries=0` overrides Prefect's settings, because only the records decide what is paid for again.
    task: Any = Task(
        step,
        name=instance.path,
        task_run_name=name,
        tags=[f"model:{instance.model}"] if instance.is_paid else None,
        retries=0,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    state: State[Any] = await task(wait_for=after, return_state=True)
    await state.aresult()  # raises what the step raised
    return state

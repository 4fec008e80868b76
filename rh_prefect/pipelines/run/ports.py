"""What a pipeline run needs of its surroundings: three ports, each with an implementation for Prefect and one without.

| port         | with Prefect, in `flows`                      | without                            |
|--------------|-----------------------------------------------|------------------------------------|
| `StepEngine` | a task run for each step, suspension          | a call                             |
| `Pages`      | events and a progress bar                     | nothing                            |
| `Scope`      | the flow run, `flow_runs.flow_scope`          | a folder, `works.journal.scope`    |
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal, Protocol, TypeAlias

from rh_prefect.pipelines.plan.planned_steps import Instance
from rh_prefect.works.journal.costs import Costs
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.work import JobCall
from rh_prefect.works.work_runner import WorkCall, WorkResult, WorkRunner

What: TypeAlias = Literal["planned", "step", "review", "over_budget", "done"]
"""The plan is made; a step has ended; a review waits for a choice; the budget was too small; the run has ended."""


class StepEngine(Protocol):
    """What runs the steps of a run.

    It may suspend the run while all its members, which are steps and their works, only wait for tasks.
    """

    @property
    def is_suspended(self) -> bool:
        """Whether the run is about to be suspended, and begins nothing more."""
        ...

    async def run(self, instance: Instance, make: Callable[[], Awaitable[None]]) -> None:
        """Runs a step; raises what it raises."""

    async def make(self, runner: WorkRunner, asked: WorkCall, call: JobCall) -> WorkResult | None:
        """Makes a work; None where its task is left for a suspension of the run."""
        ...

    async def expect(self, members: int) -> None:
        """Registers more members before the first of them starts."""

    async def end(self) -> None:
        """Records that a member waits for no task any more."""

    async def suspend(self) -> None:
        """Suspends the run, whose process ends; returns only where that is refused."""


class Calls:
    """Runs each step as a call in this process, which waits for all tasks."""

    is_suspended = False

    async def run(self, instance: Instance, make: Callable[[], Awaitable[None]]) -> None:  # noqa: ARG002
        """Runs a step."""
        await make()

    async def make(self, runner: WorkRunner, asked: WorkCall, call: JobCall) -> WorkResult | None:
        """Makes a work."""
        return await LOOP.call(runner.make(asked, call))

    async def expect(self, members: int) -> None:
        """Does nothing; nor do the others."""

    async def end(self) -> None:
        """Does nothing."""

    async def suspend(self) -> None:
        """Does nothing."""


class Pages(Protocol):
    """Where a run shows what it does."""

    def tell(self, what: What, *, pipeline: str, run: str, **payload: Any) -> None:
        """Tells of an event; `payload` is plain JSON data."""

    def expect(self, jobs: int, *, estimate: Costs | None) -> None:
        """Shows how many paid works the run has, and their expected cost where it is known."""


class NoPages:
    """Shows nothing."""

    def tell(self, what: What, *, pipeline: str, run: str, **payload: Any) -> None:
        """Does nothing."""

    def expect(self, jobs: int, *, estimate: Costs | None) -> None:
        """Does nothing."""


@asynccontextmanager
async def member(engine: StepEngine) -> AsyncIterator[None]:
    """Runs one member of a run to its end."""
    try:
        yield
    finally:
        await engine.end()


@asynccontextmanager
async def idle(engine: StepEngine) -> AsyncIterator[None]:
    """Runs a block in which a member only waits for other members."""
    await engine.end()
    try:
        yield
    finally:
        await engine.expect(1)

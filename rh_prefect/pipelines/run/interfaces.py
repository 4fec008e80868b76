"""The interfaces of a pipeline run to its surroundings; `flows` contains subclasses for runs in Prefect's engine.

| class        | with Prefect, in `flows`                      | the class itself                   |
|--------------|-----------------------------------------------|------------------------------------|
| `StepEngine` | a task run for each step, suspension          | a call                             |
| `Pages`      | artifacts, events, a progress bar             | nothing                            |
| `Scope`      | the flow run, `run_queries_and_scopes`        | a folder, `works.journal.scope`    |
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.input_reader import Inputs
from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.plan.planned_steps import PlannedStep
from rh_prefect.pipelines.rounds_across_runs import COMMAND_LINE
from rh_prefect.pipelines.run.result import RunEnd, StepReport
from rh_prefect.works.events import Observer, Silent
from rh_prefect.works.job_options import Reuse
from rh_prefect.works.journal.costs_and_budget import Costs
from rh_prefect.works.journal.scope import Scope
from rh_prefect.works.journal.works_journal import HasEnded, WorksJournal, no_evidence
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.pool_services import PoolServices
from rh_prefect.works.result_delivery import Delivered
from rh_prefect.works.work_runner import WorkCall, WorkRunner

What: TypeAlias = Literal["planned", "step", "review", "over_budget", "done"]
"""The event: a plan, a step that has ended, a review that waits, a budget that is too small, the end of the run."""


class StepEngine:
    """Runs the steps of a run as calls in this process, and waits there for all tasks.

    A subclass may suspend the run while all members (steps and their works) only wait for tasks.
    """

    is_suspended: bool = False
    """Whether the run is being suspended and starts nothing more."""
    suspension_seconds: float = 0
    """Seconds for which a suspension of the run lasts at most."""

    async def run(self, instance: PlannedStep, make: Callable[[], Awaitable[None]]) -> None:  # noqa: ARG002
        """Runs a step, and raises its error."""
        await make()

    async def make(self, runner: WorkRunner, asked: WorkCall) -> Delivered | None:
        """Makes a work; returns None if the run will be suspended until the work's task ends."""
        return await LOOP.call(runner.make(asked))

    async def expect(self, members: int) -> None:
        """Registers members before they start, even if the caller is cancelled meanwhile."""

    def end(self) -> None:
        """Records that a member has ended."""

    async def suspend(self) -> None:
        """Suspends the run, whose process ends; returns only if the suspension is refused."""


class Pages:
    """The views of a run; this class shows nothing."""

    choosing: str = "the report contains the files of the candidates; choose with `choices` or `rh-prefect choose`"
    """A clause that says where the candidates of reviews are shown."""

    async def show_plan(self, plan: Plan) -> None:
        """Shows the first plan."""

    def expect(self, jobs: int, *, estimate: Costs | None) -> None:
        """Shows the number of paid works, and their expected cost if it is known."""

    def tell(self, what: What, *, pipeline: str, run: str, **payload: Any) -> None:
        """Emits an event; `payload` is plain JSON data."""

    async def show_end(
        self, end: RunEnd, rows: Sequence[StepReport], reviews: Sequence[PlannedStep], *, store: MediaStore
    ) -> None:
        """Shows the end of the run, all its steps, and the candidates of waiting reviews."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a run gets from its caller: accounts, storage, records, and how its steps run and are shown."""

    accounts: PoolServices  # The accounts that pay
    credentials: str | None  # Name of their block
    store: MediaStore  # Where files go
    works: WorksJournal  # The records of works
    scope: Scope  # Holds the notes of the run
    engine: StepEngine = field(default_factory=StepEngine)  # Runs the steps
    pages: Pages = field(default_factory=Pages)  # Shows the run
    observer: Observer = field(default_factory=Silent)  # Is notified of every change of a job
    has_ended: HasEnded = no_evidence  # Returns whether a run has certainly ended
    deployment: str = COMMAND_LINE  # The deployment's name
    is_scheduled: bool = False  # Whether a schedule has started the run
    # The day for which it was started, in UTC; read only once, because all plans of a run need the same one
    date: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())
    inputs: Inputs | None = None  # The inputs, of a caller that has read some of them
    reuse: Reuse = "never"  # `always` also takes the stored results of other scopes
    is_part: bool = False  # Whether the flow run may also run other pipelines, with other reports


@asynccontextmanager
async def member(engine: StepEngine) -> AsyncIterator[None]:
    """Runs the body of a `with` statement as one member of a run, and tells the engine when the member has ended."""
    try:
        await engine.expect(1)
        yield
    finally:
        engine.end()


async def expect_tasks(engine: StepEngine, tasks: Collection[asyncio.Task[None]]) -> None:
    """Registers new tasks as members; each member ends with its task, even if that is cancelled before it starts."""
    for task in tasks:
        task.add_done_callback(lambda _: engine.end())
    await engine.expect(len(tasks))


@asynccontextmanager
async def idle(engine: StepEngine) -> AsyncIterator[None]:
    """Runs the body of a `with` statement, in which a member only waits for other members."""
    engine.end()
    try:
        yield
    finally:
        await engine.expect(1)

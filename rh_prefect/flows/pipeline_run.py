"""Executes one pipeline run: plans, runs the steps that are ready, and repeats until all are done.

The plan alone evaluates references and conditions. A run adds what it makes to the known works, so that the next plan
knows the inputs of the steps that follow.
"""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect, insort
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, TypeVar

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Failed

from rh_prefect.caches_and_locks import SharedTasks
from rh_prefect.client.connections import chance
from rh_prefect.errors import (
    BudgetExceeded,
    InputError,
    JobError,
    JournalError,
    MediaError,
    RunningHubError,
    StoreError,
)
from rh_prefect.flow_runs.job_progress import expect_jobs
from rh_prefect.flow_runs.suspension import PendingTask, RunSuspender, group_member, idle
from rh_prefect.flows.pipeline_budget import RunBudget
from rh_prefect.flows.pipeline_events import What, tell
from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.call_builder import files_that_stand_in, has_all_ids, known_values, work_call
from rh_prefect.pipelines.document import visible
from rh_prefect.pipelines.known_works import counts_as
from rh_prefect.pipelines.last_run import LastRuns
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.plan.planned_steps import (
    Instance,
    KnownWork,
    KnownWorks,
    Money,
    Round,
    Selection,
    Work,
    WorkQuery,
)
from rh_prefect.pipelines.plan.reviewed_plan import ReviewedPlan
from rh_prefect.pipelines.planning_values import File
from rh_prefect.pipelines.rounds import Rounds
from rh_prefect.pipelines.save_as import SavedNames
from rh_prefect.pipelines.stored_edits import EditResults
from rh_prefect.works.job_context import JobCall
from rh_prefect.works.journal.costs import Costs
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.work_runner import WorkCall, WorkResult, WorkRunner, result_of_step

MAX_IN_FLIGHT = 200
"""How many steps of a run are begun at once; the account's slots decide how many of their tasks run.

The steps of earlier items are begun even if so many of later ones wait for slots."""

EDITS_AT_ONCE = 2
_SHARE = 5
"""Plans take at most one part in so many of the time of the flow's thread."""

STORE_PAUSES = (5.0, 30.0)
"""Seconds before a step tries a storage that does not respond again: those of a batch's rows."""

_LONGEST_GAP = 5.0
_PLAN_AGAIN = "What to do: plan again and review the new plan."


_log = logging.getLogger("rh_prefect")
T = TypeVar("T")


async def while_store_is_away(
    make: Callable[[], Awaitable[T]],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    jitter: Callable[[], float] = chance,
) -> T:
    """Makes something, and again after each pause while the storage or the records do not respond.

    Args:
        make: What to do; the records make it safe to repeat.
        sleep: Waits.
        jitter: Numbers from 0 to 1.

    Raises:
        StoreError: The storage refuses it permanently, or does not respond after the last pause.
        JournalError: The records do not respond after the last pause.
    """
    for pause in STORE_PAUSES:
        try:
            return await make()
        except (StoreError, JournalError) as error:
            if isinstance(error, StoreError) and error.is_permanent:
                raise
            seconds = pause * (1 + jitter() / 2)
            _log.warning("%s Trying again in %.0f s.", error, seconds)
        await sleep(seconds)
    return await make()


listeners: list[Callable[[Plan], None]] = []
"""Are called with a plan of a run of this process before its steps begin; nothing is paid for if one raises."""


@dataclass(slots=True)
class Tools:
    """The services that a pipeline run uses.

    Attributes:
        runner: Makes paid works.
        edits: Makes edits.
        store: Where files go.
        names: The names that files were saved under.
        known: The records of works and edits.
        rounds: The rounds of the pipeline.
        last_runs: The last runs of pipelines.
        call: The flow run, and how its jobs are run.
        budget: What the run may cost, and has paid.
        reviewed: The plan that was reviewed for the run, beyond which it pays for nothing.
    """

    runner: WorkRunner
    edits: EditResults
    store: MediaStore
    names: SavedNames
    known: KnownWorks
    rounds: Rounds
    last_runs: LastRuns
    call: JobCall
    budget: RunBudget
    reviewed: ReviewedPlan | None = None


class KnownResults:
    """The recorded works and those made by this run; each record is read once."""

    def __init__(self, records: KnownWorks) -> None:
        """Starts with the recorded works only.

        Args:
            records: The recorded works.
        """
        self._records = records
        self._found: dict[WorkQuery, KnownWork | None] = {}
        self._new_takes: dict[tuple[str, str], int] = {}
        self._takes: dict[str, Sequence[int]] = {}

    async def find(self, queries: Sequence[WorkQuery]) -> Sequence[KnownWork | None]:
        """Looks up works; see `KnownWorks.find`."""
        new = [query for query in dict.fromkeys(queries) if query not in self._found]
        if new:
            found = await while_store_is_away(lambda: LOOP.call(self._records.find(new)))
            self._found.update(zip(new, found, strict=True))
        return [self._found[query] for query in queries]

    async def new_take(self, base: str, scope: str = "") -> int:
        """Finds a new take, which the flow run then keeps; see `KnownWorks.new_take`."""
        if (base, scope) not in self._new_takes:
            self._new_takes[base, scope] = await LOOP.call(self._records.new_take(base, scope))
        return self._new_takes[base, scope]

    async def round(self, pipeline: str) -> Round:
        """Returns the round of the flow run; see `KnownWorks.round`."""
        return await LOOP.call(self._records.round(pipeline))

    async def takes_of(self, choice: str) -> Sequence[int] | None:
        """Returns the takes that the round uses; see `KnownWorks.takes_of`."""
        if choice not in self._takes and (takes := await LOOP.call(self._records.takes_of(choice))) is not None:
            self._takes[choice] = takes
        return self._takes.get(choice)

    async def keep_takes(self, choice: str, takes: Sequence[int]) -> Sequence[int]:
        """Keeps the takes that the round uses; see `KnownWorks.keep_takes`."""
        self._takes[choice] = await LOOP.call(self._records.keep_takes(choice, takes))
        return self._takes[choice]

    def result(self, query: WorkQuery) -> KnownWork | None:
        """Returns the result of a work that was looked up; None if there is none."""
        return self._found.get(query)

    def add(self, work: str, shape: str, known: KnownWork, *, is_edit: bool = False) -> None:
        """Adds a result of this run.

        Args:
            work: The work, or the recipe of an edit.
            shape: How its answer is read.
            known: The result.
            is_edit: Whether it is an edit's.
        """
        self._found[WorkQuery(work, shape, is_edit)] = known


@dataclass(slots=True)
class Outcome:
    """The results of the steps that a run started.

    Attributes:
        new_steps: Addresses of the steps that this process made something new for.
        errors: The error of each step that failed, by its address.
        costs: What this run paid for each work, failed tasks and refused answers included.
        open_submissions: How many of its submissions have no known end, as of a lost response.
        open_costs: What they may cost, by their prices.
        saved: The file that a step was saved as, by its address.
        named: The same by the content of the result, of which a converted picture is another file.
    """

    new_steps: set[str] = field(default_factory=set)
    errors: dict[str, Exception] = field(default_factory=dict)
    costs: dict[str, Costs] = field(default_factory=dict)
    open_submissions: int = 0
    open_costs: Costs = field(default_factory=Costs)
    saved: dict[str, list[Media]] = field(default_factory=dict)
    named: dict[str, Media] = field(default_factory=dict)


class PipelineRun:
    """One run of a pipeline in a flow run.

    Attributes:
        plan: The latest plan.
        outcome: What became of the steps.
        selection: Which part of the pipeline is made.
    """

    def __init__(self, pipeline: Pipeline, tools: Tools, selection: Selection, **planning: Any) -> None:
        """Stores the arguments; makes no plan yet.

        Args:
            pipeline: The pipeline.
            tools: What makes works and edits.
            selection: Which part of it is made.
            **planning: The arguments of `Pipeline.plan`.
        """
        self.outcome = Outcome()
        self.plan = Plan(pipeline.name)
        self.selection = selection
        self._pipeline, self._tools = pipeline, tools
        self._params = planning.pop("params")
        self._planning = planning
        self._known = KnownResults(tools.known)
        self._running: dict[asyncio.Task[None], Instance] = {}
        self._begun: set[str] = set()
        self._group: RunSuspender | None = None
        self._left: set[str] = set()  # steps whose tasks go on while the flow run is suspended
        self._ended: dict[str, State[Any]] = {}
        self._paid_items: set[str] = set()
        self._edit_room = asyncio.Semaphore(EDITS_AT_ONCE)
        self._there: set[str] = set()  # edits whose files this run has made or found
        self._rendering: SharedTasks[str, None] = SharedTasks()
        self._plan_seconds = 0.0
        self._refused: dict[str, RunningHubError] = {}
        self._stopped_by = ""
        self._planned_around: set[str] = set()

    @property
    def store(self) -> MediaStore:
        """The storage for files."""
        return self._tools.store

    @property
    def edits(self) -> EditResults:
        """The object that renders the local edits."""
        return self._tools.edits

    @property
    def last_runs(self) -> LastRuns:
        """The last runs of pipelines, with which the plan is compared."""
        return self._tools.last_runs

    def limit(self, budget: Decimal) -> None:
        """Sets the run's budget.

        Args:
            budget: In the account's currency.
        """
        call = self._tools.call
        self._tools.call = replace(call, options=replace(call.options, budget=budget))
        self._tools.budget.limit = budget

    async def currency(self) -> str | None:
        """Returns the currency of the run's accounts; see `Pool.currency`."""
        return await LOOP.call(self._tools.runner.currency())

    async def make_plan(self) -> Plan:
        """Makes a plan from all results that are known now."""
        began = time.thread_time()  # reads of records are not counted: other steps are made while they last
        self._planned_around = set(self.outcome.errors)
        self.plan = await self._pipeline.plan(
            self._params, known=self._known, failed=self._planned_around, selection=self.selection, **self._planning
        )
        self._plan_seconds = time.thread_time() - began
        expect_jobs(len(self._jobs()), estimate=self._estimate(), is_exact=True)
        return self.plan

    def _jobs(self) -> set[tuple[str, int]]:
        """Returns the paid works of this run, started or still to start."""
        instances = (one for one in self.plan.instances if one.is_paid)
        return {
            (work.key, work.take)
            for one in instances
            for work in one.works
            if one.address in self._begun or (work.state in "+~>…" and one.is_needed and self._is_selected(one))
        }

    def _estimate(self) -> Costs | None:
        """Returns the expected cost by the first plan; None for later plans, in which a part is already paid."""
        expected = self.price.expected
        return Costs.of(round(expected, 2), self.plan.currency) if not self._begun and expected else None

    def dated(self) -> str:
        """Returns since when the newest result exists, as in `, the newest since 24 Nov 03:00 UTC`, or ""."""
        known = [work.known for one in self.plan.instances for work in one.works if work.known is not None]
        ages = [one.age for one in known if one.age is not None]
        if not ages:
            return ""
        newest = datetime.now(UTC) - timedelta(seconds=max(min(ages), 0.0))
        return f", the newest since {newest:%d %b %H:%M} UTC"

    async def make_all(self, group: RunSuspender | None = None) -> None:
        """Makes everything that is needed and can be made.

        Args:
            group: Suspends the flow run while all its steps only wait for tasks; None to wait in this process.
        """
        self._group = group
        if group is not None:
            await LOOP.call(group.expect(1))
        try:
            while True:
                await self._begin()
                if self._running:
                    await self._wait()
                elif self._group is not None and self._group.is_suspended:
                    await self._suspend(self._group)
                elif self._refused:  # no running step can free any budget
                    self.outcome.errors.update(self._refused)
                elif self.outcome.errors.keys() <= self._planned_around or self.stopped_by():
                    self._fail_unmade()
                    return
                if self._has_more() or not self._running:
                    await self.make_plan()
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    @property
    def is_complete(self) -> bool:
        """Whether all steps were made, so that the next run begins another round."""
        return self.selection == Selection() and not self.outcome.errors and not self._waits_for_review

    @property
    def _waits_for_review(self) -> bool:
        return any(one.state == "r" for one in self.plan.instances)

    async def leave(self, *, is_complete: bool) -> None:
        """Ends this run's part in its round; see `Rounds.leave`."""
        try:
            await LOOP.call(self._tools.rounds.leave(is_complete=is_complete, waits_for_review=self._waits_for_review))
        except RunningHubError as error:
            _log.warning("The end of this run is not recorded in its round, which the next run continues: %s", error)

    def _has_more(self) -> bool:
        """Returns whether a step is left to start; if not, the last plan is made when all steps have ended."""
        rest = (one for one in self.plan.instances if one.address not in self._begun)
        return any(one.is_pending or self._is_ready(one) or (one.is_needed and one.state not in "=x") for one in rest)

    async def _suspend(self, group: RunSuspender) -> None:
        """Suspends the flow run, whose process ends; continues in this process where Prefect refuses it."""
        try:
            await LOOP.call(self._tools.rounds.suspend())
        except RunningHubError as error:
            _log.warning("Other runs can continue the round of this run while it is suspended: %s", error)
        await group.suspend()
        self._group = None
        self._begun -= self._left
        self._left.clear()

    async def _wait(self) -> None:
        """Waits for the next result, and for those that come soon after it."""
        async with idle(self._group):
            done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        gap = min(_LONGEST_GAP, _SHARE * self._plan_seconds)
        if len(done) < len(self._running) and gap > 0:
            more, _ = await asyncio.wait(self._running, timeout=gap, return_when=asyncio.ALL_COMPLETED)
            done |= more
        for task in done:
            instance = self._running.pop(task)
            if (error := task.exception()) is not None:
                self._fail(instance, error)
            if instance.address not in self._left:
                self._tell_step(instance)

    def _fail(self, instance: Instance, error: BaseException) -> None:
        if not isinstance(error, RunningHubError):
            raise error
        self.outcome.errors[instance.address] = error

    def _fail_unmade(self) -> None:
        """Fails the steps that were never ready, so that the run does not report a complete result."""
        plan = self.plan.instances
        for one, need in self.plan.out_of_reach(self.selection):
            error = InputError(
                f"{one.address}: it needs {need.address}, which has no result and is not selected. Nothing was paid "
                "for it. What to do: select that step, too, or run the whole pipeline."
            )
            self.outcome.errors.setdefault(one.address, error)
        if self.selection != Selection() or self.outcome.errors or any(one.state == "r" for one in plan):
            return
        for one in plan:
            if one.is_needed and one.works and any(work.state != "=" for work in one.works):
                self.outcome.errors[one.address] = JobError(
                    f"{one.address}: it was not made, because a value that it depends on is not known at the end of "
                    "the run. Nothing was paid for it. What to do: run again; if this repeats, change its conditions, "
                    "sort or limit."
                )

    def _tell_step(self, instance: Instance) -> None:
        error, is_new = self.outcome.errors.get(instance.address), instance.address in self.outcome.new_steps
        state = "failed" if error is not None else "made" if is_new else "reused"
        step = {"step": instance.address, "model": instance.model, "state": state}
        self.tell("step", **step, reason="" if error is None else str(error))

    def tell(self, what: What, **payload: Any) -> None:
        """Emits an event of this run; see `pipeline_events.tell`."""
        tell(what, pipeline=self.plan.pipeline, run=self._tools.call.scope.journal.scope, **payload)

    def blocked(self) -> dict[str, str]:
        """Returns the steps that cannot run because a required step failed: each address with the failed step."""
        errors, plan = self.outcome.errors, self.plan.instances
        return {one.address: one.blocked_by for one in plan if one.blocked_by in errors and one.address not in errors}

    # -- what is ready ---------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        if self._group is not None and self._group.is_suspended:
            return
        self._fail_unmet()
        if self.stopped_by():
            self._refused.clear()
            return
        lost, running = {*self.outcome.errors, *self.blocked()}, len(self._running)
        lost.update(one.address for one in self.plan.instances if not self._is_selected(one))
        self._refused.clear()
        self._tools.budget.consider(self.plan, running=self._running.values(), lost=lost)
        before = sorted(one.numbers for one in self._running.values())
        for instance in self._ready():
            if bisect(before, instance.numbers) >= MAX_IN_FLIGHT:
                break
            if instance.address in lost or self._runs_in_other_shape(instance) or not self._may_begin(instance):
                continue
            self._begun.add(instance.address)
            insort(before, instance.numbers)
            task = asyncio.ensure_future(self._make(instance))
            self._running[task] = instance
        for listener in listeners:
            listener(self.plan)  # the new tasks run from the next await on
        if self._group is not None:
            await LOOP.call(self._group.expect(len(self._running) - running))

    def _runs_in_other_shape(self, instance: Instance) -> bool:
        """Returns whether a running step makes the same work with another shape; its answer is there when it ends."""
        shapes = {work.key: work.shape for one in self._running.values() if one.is_paid for work in one.works}
        return any(shapes.get(work.key, work.shape) != work.shape for work in instance.works)

    def _fail_unmet(self) -> None:
        """Fails the steps whose `expect` is false, and those whose task made no result of their kind."""
        for one in self.plan.instances:
            if one.state in "x!" and one.problems and self._is_selected(one):
                self.outcome.errors.setdefault(one.address, self._input_error(one))

    def stopped_by(self) -> str:
        """Returns the failed step whose `on_error`, or that of a group around it, is `fail`; empty if there is none.

        Running steps continue to their end; no further step is started.
        """
        if not self._stopped_by and self.outcome.errors:
            failed = (one for one in self.plan.instances if one.address in self.outcome.errors)
            self._stopped_by = next((one.address for one in failed if one.stops_run), "")
        return self._stopped_by

    @staticmethod
    def _input_error(instance: Instance) -> InputError:
        problem = f"{visible(instance.address)}: {visible(instance.problems[0])}"
        if instance.state == "!":
            return InputError(
                f"{problem}. It is paid for, and its files are kept. What to do: in a step with assume, correct kind, "
                "at no cost; or pay for another result with --retake."
            )
        return InputError(f"{problem}. Nothing was paid for it. What to do: change the step, or make another take.")

    def _may_begin(self, instance: Instance) -> bool:
        refusal: RunningHubError | None = None
        if instance.problems:  # in what a model has answered: the first plan is refused as a whole
            refusal = self._input_error(instance)
        elif instance.unread_graph and any(work.state != "=" for work in instance.works):
            refusal = JobError(f"{instance.address}: {instance.unread_graph} Nothing was paid for it.")
        else:
            refusal = self._tools.budget.refusal(instance)
        if refusal is not None:
            self._refused[instance.address] = refusal
        return refusal is None

    def _ready(self) -> list[Instance]:
        """Returns the steps that can start, in the order of their items, so that the first items are done first."""
        ready = (one for one in self.plan.instances if one.address not in self._begun and self._is_ready(one))
        return sorted(ready, key=lambda one: one.numbers)

    def _slot_position(self, instance: Instance) -> tuple[int, ...]:
        """Returns when a step gets a slot among those that wait: items that this process has paid for are ended first.

        Steps reach the queue in any order, so that the first free slots may go to later items.
        """
        is_first = not instance.item or instance.top_item in self._paid_items
        return (0 if is_first else 1, *instance.numbers)

    def _is_ready(self, one: Instance) -> bool:
        exists = all(work.state == "=" for work in one.works)
        if one.is_pending or not self._is_selected(one):
            return False
        if one.model == "review":
            return bool(one.save_as and self._named(one)) and one.address not in self.outcome.saved
        if not one.works:
            return False
        if exists:
            return bool(one.save_as) and one.address not in self.outcome.saved
        return one.is_needed and all(work.is_settled for work in one.works) and has_all_ids(one)

    def _is_selected(self, one: Instance) -> bool:
        return self.selection.has(one)

    # -- costs -----------------------------------------------------------------------------------------------------

    @property
    def price(self) -> Money:
        """The price of the selected steps."""
        return self.plan.price_of(self.plan.instances, self.selection)

    @property
    def counted(self) -> Decimal:
        """The amount that the flow run has spent, plus the possible cost of its running tasks."""
        return self._tools.budget.spending.all_counted

    async def count_costs(self) -> None:
        """Adds up the payments of the whole run, including earlier processes."""
        self.outcome.costs = await LOOP.call(self._tools.runner.costs(self._tools.call))
        self.outcome.open_submissions, self.outcome.open_costs = self._tools.runner.open_costs(self._tools.call)

    def costs_by_step(self) -> tuple[dict[str, Costs], Costs]:
        """Returns what the run paid for each step, by address, and for steps that are not in its plan.

        A shared work counts for its first step. An earlier attempt may have had another file or table, and the flow run
        may have run other pipelines.
        """
        remaining, found = dict(self.outcome.costs), dict[str, Costs]()
        for one in self.plan.instances:
            paid = [remaining.pop(work.key) for work in one.works if work.key in remaining]
            if total := Costs.total(paid):
                found[one.address] = total
        return found, Costs.total(remaining.values())

    # -- making ----------------------------------------------------------------------------------------------------

    async def _make(self, instance: Instance) -> None:
        async with group_member(self._group):
            if any(work.state != "=" for work in instance.works):
                make = self._paid_step if instance.is_paid else self._edit_step
                self._ended[instance.address] = await _task_run(instance, make, after=self._upstream_states(instance))
            if instance.save_as and instance.address in self._begun - self._left:
                await self._save(instance)

    def _upstream_states(self, instance: Instance) -> list[State[Any]]:
        """Returns the task runs that a step depends on, for the dashboard's arrows; for a review, its candidates'."""
        found: dict[str, State[Any]] = {}
        for need in instance.needs:
            for one in (need, *(need.needs if need.model == "review" else ())):
                if one.address in self._ended:
                    found[one.address] = self._ended[one.address]
        return list(found.values())

    async def _paid_step(self, instance: Instance) -> None:
        if await self._restore(instance):
            return
        works = [work for work in instance.works if work.state != "="]
        if self._group is not None:
            await LOOP.call(self._group.expect(len(works)))
        async with idle(self._group):
            done = await asyncio.gather(*(self._paid_work(instance, work) for work in works), return_exceptions=True)
        errors = [error for error in done if isinstance(error, BaseException)]
        if errors:
            first, *others = sorted(errors, key=_rank)
            raise first.with_others(others) if others and isinstance(first, RunningHubError) else first

    async def _paid_work(self, instance: Instance, work: Work) -> None:
        tools = self._tools
        call = replace(work_call(instance, work), position=self._slot_position(instance))
        if tools.reviewed is not None and (refusal := tools.reviewed.refusal(instance, work)):
            call = replace(call, forbidden=f"{refusal}, and {tools.reviewed.name} is what was reviewed. {_PLAN_AGAIN}")
        try:
            async with group_member(self._group):
                result = await while_store_is_away(lambda: self._result_of(call))
        finally:
            self.outcome.costs[work.key] = tools.runner.spent_on(work.key, tools.call)
        if result is None:
            self._left.add(instance.address)
            return
        record = result.record
        if result.is_new:
            self.outcome.new_steps.add(instance.address)
            self._paid_items.add(instance.top_item)
        known = KnownWork(
            "=",
            result.files,
            record.texts,
            record.value,
            record.cost,
            task_id=record.task_id,
            counts_as=counts_as(record, result.files),
        )
        self._known.add(work.key, call.shape, known)

    async def _result_of(self, work_call: WorkCall) -> WorkResult | None:
        """Makes a work; None where its task is left for a suspension of the flow run."""
        runner, call, group = self._tools.runner, self._tools.call, self._group
        if group is None:
            return await LOOP.call(runner.make(work_call, call))

        async def follow() -> WorkResult | None:
            work = await runner.begin(work_call, call)
            done = await group.run(work)
            return None if isinstance(done, PendingTask) else result_of_step(work, done)

        return await LOOP.call(follow())

    async def _edit_step(self, instance: Instance) -> None:
        async with self._edit_room:
            if not await self._restore(instance):
                await self._edit(instance)

    async def _edit(self, instance: Instance) -> None:
        """Makes an edit, or finds its result."""
        counts_as = files_that_stand_in(instance)
        try:
            edits, values = self._tools.edits, known_values(instance)
            output = await while_store_is_away(
                lambda: LOOP.call(edits.make(instance.model, values, counts_as=counts_as))
            )
        except RunningHubError:
            raise
        except Exception as error:  # an edit's defect: the other steps continue
            raise MediaError(
                f"{instance.address}: {instance.model} failed with {type(error).__name__}: {error}. Nothing was paid "
                "for it. What to do: change its parameters or its files."
            ) from error
        if output.is_new:
            self.outcome.new_steps.add(instance.address)
        texts = () if output.result.text is None else (output.result.text,)
        files = () if output.file is None else (output.file,)
        first = output.result.file
        stands = {file.sha256: first.sha256 for file in files if first is not None and first.sha256 != file.sha256}
        for work in instance.works:
            self._known.add(work.key, "", KnownWork("=", files, texts, counts_as=stands), is_edit=True)
        self._there.add(instance.address)

    async def _restore(self, instance: Instance) -> bool:
        """Renders edits again whose files are missing and are needed now.

        Returns:
            Whether a file has another content now; the step is then planned again.
        """
        is_other = False
        for need in instance.needs:
            if not need.is_paid and need.model != "review" and need.works:
                is_other |= await self._edit_again(need)
        if is_other:
            self._begun.discard(instance.address)
        return is_other

    async def _edit_again(self, edit: Instance) -> bool:
        """Renders an edit whose file is missing, once for all that need it; returns whether its file is another one."""
        if edit.address not in self._there:
            await self._rendering.run(edit.address, partial(self._edit_if_current, edit))
        is_there = edit.address in self._there
        made = [one.outputs for one in self._results(edit) if one is not None]
        return not is_there or made != [work.known.outputs for work in edit.works if work.known]

    async def _edit_if_current(self, edit: Instance) -> None:
        if not await self._restore(edit):
            await self._edit(edit)

    # -- names -----------------------------------------------------------------------------------------------------

    async def find_saved(self) -> None:
        """Finds the results of unselected steps under the names that earlier runs gave them."""
        missing = [one for one in self.plan.instances if one.save_as and one.address not in self.outcome.saved]
        if self.selection != Selection():  # else the run saves all results itself
            await asyncio.gather(*map(self._find_saved, missing))

    async def _find_saved(self, instance: Instance) -> None:
        named = self._named(instance)
        found = await asyncio.gather(*(LOOP.call(self._tools.names.find(file, name)) for file, name in named))
        files = [file for file in found if file is not None]
        if files and len(files) == len(found):
            self._note_saved(instance, named, files)

    async def _save(self, instance: Instance) -> None:
        """Copies the results of a step to the names that the file gives them."""
        if instance.model == "review":
            await self._restore(instance)
        elif not instance.is_paid and instance.address not in self._there:
            await self._find_saved(instance)
            if instance.address in self.outcome.saved:
                return  # the file itself may be missing, and nothing needs it
            if await self._edit_again(instance) and instance.address not in self._there:
                self._begun.discard(instance.address)
                return
        named = self._named(instance)
        saved = [await self._save_as(file, name) for file, name in named]
        self._note_saved(instance, named, saved)

    def _note_saved(self, instance: Instance, named: Sequence[tuple[Media, str]], saved: list[Media]) -> None:
        self.outcome.saved[instance.address] = saved
        self.outcome.named.update((file.sha256, one) for (file, _), one in zip(named, saved, strict=True))

    async def _save_as(self, file: Media, name: str) -> Media:
        return await while_store_is_away(lambda: LOOP.call(self._tools.names.save(file, name)))

    def _named(self, instance: Instance) -> list[tuple[Media, str]]:
        """The results of a step, each with the name that the file gives it; of a review, the chosen one."""
        if isinstance(instance.chosen, File):
            address = instance.chosen.address
            media = instance.chosen.media
            file = media and media.model_copy(update={"uri": address or media.uri})
            return [(file, instance.save_as)] if file else []
        files = [None if one is None else one.output(instance.file_kind) for one in self._results(instance)]
        return [(file, name) for file, name in zip(files, instance.saved_names) if file is not None]

    def _results(self, instance: Instance) -> list[KnownWork | None]:
        """The known results of a step's works."""
        queries = [WorkQuery(work.key, work.shape, is_edit=not instance.is_paid) for work in instance.works]
        return [self._known.result(query) for query in queries]


def _rank(error: BaseException) -> int:
    """Orders the errors of the takes of a step: a run is named `Over budget` only if nothing else has failed."""
    return 0 if not isinstance(error, RunningHubError) else 2 if isinstance(error, BudgetExceeded) else 1


async def _task_run(
    instance: Instance, make: Callable[[Instance], Coroutine[Any, Any, None]], *, after: list[State[Any]]
) -> State[Any]:
    """Runs a step as a Prefect task run of its address; returns its state."""

    async def step() -> State[Any] | None:
        try:
            await make(instance)
        except RunningHubError as error:
            # Returned and not raised: the log of the task run has the cause, and no traceback of this package.
            return Failed(message=str(error), data=error)
        return None

    name = instance.address.replace("{", "{{").replace("}", "}}")
    # Without `retries`, Prefect's settings would decide; what is tried again, and paid, is decided by the records.
    task: Any = Task(
        step, name=instance.path, task_run_name=name, retries=0, cache_policy=NO_CACHE, persist_result=False
    )
    state: State[Any] = await task(wait_for=after, return_state=True)
    await state.aresult()  # raises what the step raised
    return state

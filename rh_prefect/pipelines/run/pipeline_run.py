"""`PipelineRun`: plans, starts the steps that are ready, and repeats until all are done.

The plan alone evaluates references and conditions. A run adds what it makes to the known works, so that the next plan
knows the inputs of the steps that follow.
"""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect, insort
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from rh_prefect.errors import InputError, JobError, RunningHubError
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.call_builder import has_all_ids
from rh_prefect.pipelines.document import visible
from rh_prefect.pipelines.last_run import LastRuns
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.plan.planned_steps import Instance, Money, Selection
from rh_prefect.pipelines.run.known_results import KnownResults
from rh_prefect.pipelines.run.ports import What, idle
from rh_prefect.pipelines.run.step_maker import StepMaker
from rh_prefect.pipelines.run.tools import Outcome, Tools
from rh_prefect.pipelines.stored_edits import EditResults
from rh_prefect.works.journal.costs import Costs
from rh_prefect.works.loop_thread import LOOP

MAX_IN_FLIGHT = 200
"""How many steps of a run are begun at once; the account's slots decide how many of their tasks run.

The steps of earlier items are begun even if so many of later ones wait for slots."""

_SHARE = 5
"""Plans take at most one part in so many of the time of the flow's thread."""

_LONGEST_GAP = 5.0
_log = logging.getLogger("rh_prefect")

listeners: list[Callable[[Plan], None]] = []
"""Are called with a plan of a run of this process before its steps begin; nothing is paid for if one raises."""


class PipelineRun:
    """One run of a pipeline.

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
        self._maker = StepMaker(tools, self._known, self.outcome)
        self._running: dict[asyncio.Task[None], Instance] = {}
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

    def limit(self, budget: Decimal | None) -> None:
        """Sets the run's budget.

        Args:
            budget: In the account's currency; None for no limit.
        """
        runner = self._tools.runner
        self._tools.runner = replace(runner, options=replace(runner.options, budget=budget))
        self._tools.budget.limit = budget

    async def currency(self) -> str | None:
        """Returns the currency of the run's accounts; see `Pool.currency`."""
        return await LOOP.call(self._tools.runner.pool.currency())

    async def make_plan(self) -> Plan:
        """Makes a plan from all results that are known now."""
        began = time.thread_time()  # reads of records are not counted: other steps are made while they last
        self._planned_around = set(self.outcome.errors)
        self.plan = await self._pipeline.plan(
            self._params, known=self._known, failed=self._planned_around, selection=self.selection, **self._planning
        )
        self._plan_seconds = time.thread_time() - began
        self._tools.pages.expect(len(self._jobs()), estimate=self._estimate())
        return self.plan

    def _jobs(self) -> set[tuple[str, int]]:
        """Returns the paid works of this run, started or still to start."""
        instances = (one for one in self.plan.instances if one.is_paid)
        return {
            (work.key, work.take)
            for one in instances
            for work in one.works
            if one.address in self.outcome.begun or (work.state in "+~>…" and one.is_needed and self._is_selected(one))
        }

    def _estimate(self) -> Costs | None:
        """Returns the expected cost by the first plan; None for later plans, in which a part is already paid."""
        expected = self.price.expected
        return Costs.of(round(expected, 2), self.plan.currency) if not self.outcome.begun and expected else None

    def dated(self) -> str:
        """Returns since when the newest result exists, as in `, the newest since 24 Nov 03:00 UTC`, or ""."""
        known = [work.known for one in self.plan.instances for work in one.works if work.known is not None]
        ages = [one.age for one in known if one.age is not None]
        if not ages:
            return ""
        newest = datetime.now(UTC) - timedelta(seconds=max(min(ages), 0.0))
        return f", the newest since {newest:%d %b %H:%M} UTC"

    async def make_all(self) -> None:
        """Makes everything that is needed and can be made."""
        await self._tools.engine.expect(1)
        try:
            while True:
                await self._begin()
                if self._running:
                    await self._wait()
                elif self._tools.engine.is_suspended:
                    await self._suspend()
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
        rest = (one for one in self.plan.instances if one.address not in self.outcome.begun)
        return any(one.is_pending or self._is_ready(one) or (one.is_needed and one.state not in "=x") for one in rest)

    async def _suspend(self) -> None:
        """Suspends the run, whose process ends; continues in this process where that is refused."""
        try:
            await LOOP.call(self._tools.rounds.suspend())
        except RunningHubError as error:
            _log.warning("Other runs can continue the round of this run while it is suspended: %s", error)
        await self._tools.engine.suspend()
        self.outcome.begun -= self.outcome.left
        self.outcome.left.clear()

    async def _wait(self) -> None:
        """Waits for the next result, and for those that come soon after it."""
        async with idle(self._tools.engine):
            done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        gap = min(_LONGEST_GAP, _SHARE * self._plan_seconds)
        if len(done) < len(self._running) and gap > 0:
            more, _ = await asyncio.wait(self._running, timeout=gap, return_when=asyncio.ALL_COMPLETED)
            done |= more
        for task in done:
            instance = self._running.pop(task)
            if (error := task.exception()) is not None:
                self._fail(instance, error)
            if instance.address not in self.outcome.left:
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
        """Tells of an event of this run; see `Pages.tell`."""
        self._tools.pages.tell(what, pipeline=self.plan.pipeline, run=self._tools.runner.scope.journal.scope, **payload)

    def blocked(self) -> dict[str, str]:
        """Returns the steps that cannot run because a required step failed: each address with the failed step."""
        errors, plan = self.outcome.errors, self.plan.instances
        return {one.address: one.blocked_by for one in plan if one.blocked_by in errors and one.address not in errors}

    # -- what is ready ---------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        engine = self._tools.engine
        if engine.is_suspended:
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
            self.outcome.begun.add(instance.address)
            insort(before, instance.numbers)
            task = asyncio.ensure_future(self._maker.make(instance))
            self._running[task] = instance
        for listener in listeners:
            listener(self.plan)  # the new tasks run from the next await on
        await engine.expect(len(self._running) - running)

    def _runs_in_other_shape(self, instance: Instance) -> bool:
        """Returns whether a running step makes the same work with another shape; its answer is there when it ends."""
        shapes = {work.key: work.shape for one in self._running.values() if one.is_paid for work in one.works}
        return any(shapes.get(work.key, work.shape) != work.shape for work in instance.works)

    def _fail_unmet(self) -> None:
        """Fails the steps whose `expect` is false, and those whose task made no result of their kind."""
        for one in self.plan.instances:
            if one.state in "x!" and one.problems and self._is_selected(one):
                self.outcome.errors.setdefault(one.address, self._input_error(one, one.problems[0]))

    def stopped_by(self) -> str:
        """Returns the failed step whose `on_error`, or that of a group around it, is `fail`; empty if there is none.

        Running steps continue to their end; no further step is started.
        """
        if not self._stopped_by and self.outcome.errors:
            failed = (one for one in self.plan.instances if one.address in self.outcome.errors)
            self._stopped_by = next((one.address for one in failed if one.stops_run), "")
        return self._stopped_by

    @staticmethod
    def _input_error(instance: Instance, problem: str) -> InputError:
        problem = f"{visible(instance.address)}: {visible(problem)}"
        if instance.state == "!":
            return InputError(
                f"{problem}. It is paid for, and its files are kept. What to do: in a step with assume, correct kind, "
                "at no cost; or pay for another result with --retake."
            )
        return InputError(f"{problem}. Nothing was paid for it. What to do: correct its values or its row.")

    def _may_begin(self, instance: Instance) -> bool:
        refusal: RunningHubError | None = None
        clashes = self.plan.planner.clashes.problems_of(instance) if self.plan.planner is not None else ()
        # In what a model has answered: the first plan is refused as a whole.
        if problem := next(iter([*instance.problems, *(problem for problem, _ in clashes)]), ""):
            refusal = self._input_error(instance, problem)
        elif instance.unread_graph and any(work.state != "=" for work in instance.works):
            refusal = JobError(f"{instance.address}: {instance.unread_graph} Nothing was paid for it.")
        else:
            refusal = self._tools.budget.refusal(instance)
        if refusal is not None:
            self._refused[instance.address] = refusal
        return refusal is None

    def _ready(self) -> list[Instance]:
        """Returns the steps that can start: the first items first, and those that have failed before at last."""
        ready = (one for one in self.plan.instances if one.address not in self.outcome.begun and self._is_ready(one))
        return sorted(ready, key=lambda one: (one.has_failed, one.numbers))

    def _is_ready(self, one: Instance) -> bool:
        exists = all(work.state == "=" for work in one.works)
        if one.is_pending or not self._is_selected(one):
            return False
        if one.model == "review":
            return self._maker.saved.are_missing(one) and bool(self._maker.saved.named(one))
        if not one.works:
            return False
        if exists:
            return self._maker.saved.are_missing(one)
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

    async def earlier_costs(self) -> Decimal:
        """Adds up what earlier runs have paid for the works of the plan, as far as results and failed tasks name it."""
        own = await LOOP.call(self._tools.runner.costs())
        works = {work.key: work.known for one in self.plan.instances for work in one.works if work.key not in own}
        return sum((known.cost for known in works.values() if known is not None and known.cost), Decimal(0))

    async def count_costs(self) -> None:
        """Adds up the payments of the whole run, including earlier processes."""
        self.outcome.costs = await LOOP.call(self._tools.runner.costs())
        self.outcome.open_submissions, self.outcome.open_costs = self._tools.runner.open_costs()

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

    async def find_saved(self) -> None:
        """Finds the results of unselected steps under the names that earlier runs gave them."""
        saved = self._maker.saved
        if self.selection != Selection():  # else the run saves all results itself
            await asyncio.gather(*(saved.find(one) for one in self.plan.instances if saved.are_missing(one)))

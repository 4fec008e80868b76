"""`StepScheduler`: plans, starts the steps that are ready, and repeats until all are done.

Only the plan evaluates references and conditions. A run adds its results to the known works, so that the next plan
knows the inputs of the following steps.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect, insort
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Any

from rh_prefect.errors import InputError, JobError, RunningHubError
from rh_prefect.pipelines.call_builder import has_all_ids
from rh_prefect.pipelines.garbage_collection import FREEZER, uncollected
from rh_prefect.pipelines.parsed_document import visible
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan.incremental_planner import Pace, PartKey
from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.plan.planned_steps import PlannedStep, PriceRange, Selection, Work, WorkQuery
from rh_prefect.pipelines.run.interfaces import What, expect_tasks, idle, member
from rh_prefect.pipelines.run.known_results import KnownResults
from rh_prefect.pipelines.run.run_services import Outcome, RunServices
from rh_prefect.pipelines.run.step_maker import StepMaker
from rh_prefect.works.journal.costs_and_budget import Costs
from rh_prefect.works.loop_thread import LOOP

MAX_IN_FLIGHT = 200
"""Maximum number of steps that a run starts at once; the account's slots decide how many of their tasks run.

The steps of earlier items are started even if this many steps of later items wait for slots.
"""

_PARTS_AT_ONCE = 500
"""Number of parts of a whole plan that are handled before the thread runs other tasks."""

_SHARE = 50
"""Retries of refused steps, and counts of jobs, take at most one _SHARE-th of the run's time each."""

_log = logging.getLogger("rh_prefect")

listeners: list[Callable[[Plan], None]] = []
"""Functions that are called with a plan before its steps begin; if a function raises an error, nothing is paid."""


class StepScheduler:
    """Plans and starts the steps of one run of a pipeline."""

    def __init__(
        self,
        pipeline: Pipeline,
        services: RunServices,
        selection: Selection,
        params: Mapping[str, Any],
        **planning: Any,  # Further options of each plan; see `PlanOptions`
    ) -> None:
        self.outcome = Outcome()  # What became of the steps
        self.plan = Plan(pipeline.name)  # The latest plan
        self.price = PriceRange()  # The price of the selected steps in the latest whole plan
        self.selection = selection  # Which part of the pipeline is made
        self.services = services
        self._pipeline, self._params, self._planning = pipeline, params, planning
        self._known = KnownResults(services.known)
        self._maker = StepMaker(services, self._known, self.outcome)
        self._running: dict[asyncio.Task[None], PlannedStep] = {}
        self._ready: list[tuple[bool, tuple[int, ...], int, PlannedStep]] = []  # a heap of steps that may be ready
        self._pushed = count()
        self._refused: dict[PlannedStep, RunningHubError] = {}
        self._refused_pace = Pace(_SHARE)
        self._jobs_pace = Pace(_SHARE)
        self._failed: list[str] = []  # addresses of the steps that failed since the last plan
        self._is_whole = False
        # A failed step with `on_error: fail`, itself or through a group: no further step is started
        self.stopped_by = ""
        self.is_interrupted = False  # Whether it was ended before it was complete

    async def make_plan(self) -> Plan:
        """Returns a plan with all results that are known now."""
        self._known.new_works()
        self._failed.clear()
        more = {"known": self._known, "failed": set(self.outcome.errors), "selection": self.selection}
        with uncollected():
            self.plan = await self._pipeline.plan(self._params, **more, **self._planning)
            FREEZER.freeze()  # the plan stays, and a pass of the collector over it would block the run
        self.price = self.plan.price_of(self.plan.instances, selection=self.selection)
        self._is_whole = True
        async for parts in self._all_parts():
            self._consider(parts)
        await self._show_jobs()
        return self.plan

    async def _all_parts(self) -> AsyncIterator[dict[PartKey, Sequence[PlannedStep]]]:
        """Yields all parts of the plan, a few at once; between them, the thread runs other tasks."""
        parts = list(self.plan.planner.parts.items()) if self.plan.planner is not None else []
        for start in range(0, len(parts), _PARTS_AT_ONCE):
            yield dict(parts[start : start + _PARTS_AT_ONCE])
            await asyncio.sleep(0)

    async def _plan_again(self) -> None:
        """Plans again the parts with new results or failures, or the whole file if there are none and no step runs."""
        works, failed = self._known.new_works(), self._failed
        if self.plan.planner is None or not (works or failed or self._running):
            if not self._is_whole:
                self._drop_plan()
                await self.make_plan()
            return
        planner, self._failed, self._is_whole = self.plan.planner, [], False
        # These are out of date from here on; the planner's parts have the present ones.
        self.plan.instances, self.plan.outputs = (), {}
        self._consider(await planner.update(works, failed, is_all=not self._running))
        if self._planning.get("new") and (new := planner.findings.new_takes) != self.plan.new_takes:
            self.plan.new_takes, self.plan.instances = new, planner.instances
        if self._jobs_pace.is_due():
            await self._show_jobs()

    def _drop_plan(self) -> None:
        """Deletes the plan before another plan is made, except the data for `leave`, to free memory."""
        planner, self.plan.planner = self.plan.planner, None
        if planner is not None:
            self.plan.instances = [one for one in planner.instances if one.state == "r"]
            planner.free()
        self._ready.clear()

    def _consider(self, parts: Mapping[PartKey, Sequence[PlannedStep]]) -> None:
        """Fails the steps with wrong inputs in changed parts, queues the other steps, and updates the budget."""
        for steps in parts.values():
            for one in steps:
                if one.state in "x!" and one.problems and self.selection.has(one):
                    self._fail(one, self._input_error(one, one.problems[0]))
                self._push(one)
        self.services.budget.consider(self.plan.budget, parts, is_lost=self._is_lost)

    def _push(self, one: PlannedStep) -> None:
        heappush(self._ready, (one.has_failed, one.numbers, next(self._pushed), one))

    async def _show_jobs(self) -> None:
        """Shows how many paid works this run has, started or not, and the expected cost of its first plan."""
        with self._jobs_pace:
            jobs = {
                work.key
                async for parts in self._all_parts()
                for steps in parts.values()
                for one in steps
                for work in self._own_works(one)
            }
        expected = None if self.outcome.begun else self.price.expected
        estimate = Costs.of(round(expected, 2), self.plan.currency) if expected else None
        self.services.pages.expect(len(jobs), estimate=estimate)

    def _own_works(self, one: PlannedStep) -> Iterator[Work]:
        is_begun = one.address in self.outcome.begun
        is_wanted = one.is_needed and self.selection.has(one)
        for work in one.works if one.is_paid else ():
            # A step may also be started only to save an existing result, which this run does not pay for.
            is_own = work.state != "=" or work.key in self.outcome.costs
            if (is_begun and is_own) or (is_wanted and work.state in "+~>…"):
                yield work

    def dated(self) -> str:
        """Returns the time of the newest result, as in `, the newest since 24 Nov 03:00 UTC`; empty if none exists."""
        known = [work.known for one in self.plan.instances for work in one.works if work.known is not None]
        times = [one.at for one in known if one.at is not None]
        if not times:
            return ""
        newest = min(max(times), datetime.now(UTC))
        return f", the newest since {newest:%d %b %H:%M} UTC"

    async def make_all(self) -> None:
        """Makes all needed steps whose inputs can be made."""
        async with member(self.services.engine):
            try:
                await self._make_ready()
            finally:
                for task in self._running:
                    task.cancel()
                await asyncio.gather(*self._running, return_exceptions=True)

    async def _make_ready(self) -> None:
        while True:
            await self._begin()
            if self._running:
                await self._wait()
            elif self.services.engine.is_suspended:
                await self._suspend()
            elif self._refused:  # no running step can free any budget
                for one, error in self._refused.items():
                    self._fail(one, error)
            elif self._is_whole and not self._failed:
                self._fail_unmade()
                return
            await self._plan_again()

    @property
    def is_complete(self) -> bool:
        """Whether all steps were made; the next run then begins another round."""
        return self.selection == Selection() and not self.outcome.errors and not self._waits_for_review

    @property
    def _waits_for_review(self) -> bool:
        planner = self.plan.planner
        steps = self.plan.instances if planner is None else (one for each in planner.parts.values() for one in each)
        return any(one.state == "r" for one in steps)

    async def leave(self, *, is_complete: bool) -> None:
        """Records that this run no longer works on its round; see `Rounds.leave`."""
        try:
            await LOOP.call(
                self.services.rounds.leave(is_complete=is_complete, waits_for_review=self._waits_for_review)
            )
        except RunningHubError as error:
            _log.warning("The end of this run could not be recorded. The next run continues its round: %s", error)

    async def _suspend(self) -> None:
        """Suspends the run, whose process ends; if the suspension is refused, continues in this process."""
        engine = self.services.engine
        try:
            await LOOP.call(self.services.rounds.suspend(seconds=engine.suspension_seconds))
        except RunningHubError as error:
            _log.warning(
                "The suspension was not recorded, so another run may continue the round of this run: %s", error
            )
        await engine.suspend()
        self.outcome.begun -= self.outcome.left
        self.outcome.left.clear()
        self._is_whole = False

    async def _wait(self) -> None:
        """Waits for the next results, or until steps that depend on many results are planned again."""
        planner = self.plan.planner
        due = planner.due_in() if planner is not None else inf
        async with idle(self.services.engine):
            timeout = None if due == inf else max(0.0, due)
            done, _ = await asyncio.wait(self._running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            instance = self._running.pop(task)
            self.services.budget.ended(instance)
            if (error := task.exception()) is not None:
                if not isinstance(error, RunningHubError):
                    raise error
                self._fail(instance, error)
            if instance.address not in self.outcome.left:
                self._tell_step(instance)
            if planner is not None and (now := planner.step(instance.address)) is not None:
                self._push(now)

    def _fail(self, instance: PlannedStep, error: RunningHubError) -> None:
        if instance.address not in self.outcome.errors:
            self._failed.append(instance.address)
            self.outcome.errors[instance.address] = error.with_traceback(None)  # without the frames of the step
            self.stopped_by = self.stopped_by or (instance.address if instance.stops_run else "")

    def _fail_unmade(self) -> None:
        """Fails the steps that were never ready, so that the run does not report a complete result."""
        plan = self.plan.instances
        for one, need in self.plan.out_of_reach(self.selection):
            error = InputError(
                f"{one.address}: the step needs {need.address}, which has no result and is not selected. Nothing was "
                "paid for this step. What to do: also select the other step, or run the whole pipeline."
            )
            self.outcome.errors.setdefault(one.address, error)
        if self.selection != Selection() or self.outcome.errors or any(one.state == "r" for one in plan):
            return
        for one in plan:
            if one.is_needed and one.works and any(work.state != "=" for work in one.works):
                self.outcome.errors[one.address] = JobError(
                    f"{one.address}: the step was not made, because a value that it depends on is not known at the end "
                    "of the run. Nothing was paid for this step. What to do: run again; if this repeats, change its "
                    "conditions, `sort` or `limit`."
                )

    def _tell_step(self, instance: PlannedStep) -> None:
        error, is_new = self.outcome.errors.get(instance.address), instance.address in self.outcome.new_steps
        state = "failed" if error is not None else "made" if is_new else "reused"
        step = {"step": instance.address, "model": instance.model, "state": state}
        self.tell("step", **step, reason="" if error is None else str(error))

    def tell(self, what: What, **payload: Any) -> None:
        """Emits an event of this run; see `Pages.tell`."""
        self.services.pages.tell(
            what, pipeline=self.plan.pipeline, run=self.services.runner.scope.journal.scope, **payload
        )

    # -- what is ready ---------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        engine = self.services.engine
        if engine.is_suspended:
            return
        if self.stopped_by:
            self._refused.clear()
            return
        running = len(self._running)
        if not running or self._refused_pace.is_due():
            # An ended step may free budget for refused ones; the pace limits the retries if there are thousands.
            with self._refused_pace:
                for one in self._refused:
                    self._push(one)
                self._refused.clear()
                self._start()
        else:
            self._start()
        for listener in listeners:
            listener(self.plan)  # the new tasks run from the next await on
        await expect_tasks(engine, list(self._running)[running:])

    def _start(self) -> None:
        """Starts the ready steps: steps of earlier items come first, and steps that have already failed come last."""
        planner, before, later = self.plan.planner, sorted(one.numbers for one in self._running.values()), []
        shapes = {key: shape for one in self._running.values() for key, shape in _shapes_of(one)}
        while self._ready and bisect(before, self._ready[0][1]) < MAX_IN_FLIGHT:
            entry = heappop(self._ready)
            instance = entry[-1]
            is_old = planner is None or not planner.has(instance) or instance.address in self.outcome.begun
            if is_old or not self._is_ready(instance) or self._is_lost(instance):
                continue
            if any(shapes.get(work.key, work.shape) != work.shape for work in instance.works):
                later.append(entry)  # a running step makes the same work, whose answer this step then reads too
            elif self._may_begin(instance):
                shapes.update(_shapes_of(instance))
                self.outcome.begun.add(instance.address)
                insort(before, instance.numbers)
                task = asyncio.ensure_future(self._maker.make(instance))
                self._running[task] = instance
        for entry in later:
            heappush(self._ready, entry)

    def _is_lost(self, one: PlannedStep) -> bool:
        """Returns whether this run will not make a step: it has failed, needs a failed step, or is not selected."""
        errors = self.outcome.errors
        return one.address in errors or one.blocked_by in errors or not self.selection.has(one)

    @staticmethod
    def _input_error(instance: PlannedStep, problem: str) -> InputError:
        problem = f"{visible(instance.address)}: {visible(problem)}"
        if instance.state == "!":
            return InputError(
                f"{problem}. The result was paid for, and its files are stored. What to do: if the step has `assume`, "
                "correct its `kind` (this costs nothing), or pay for another result with --retake."
            )
        what = "correct the item's row or file" if instance.is_invalid_item else "change the step, or make another take"
        return InputError(f"{problem}. Nothing was paid for this step. What to do: {what}.")

    def _may_begin(self, instance: PlannedStep) -> bool:
        clashes = self.plan.planner.clashes.problems_of(instance) if self.plan.planner is not None else ()
        # A problem here is in a model's answer, because other problems have refused the first plan as a whole.
        refusal: RunningHubError | None
        if problem := next(iter([*instance.problems, *(problem for problem, _ in clashes)]), ""):
            refusal = self._input_error(instance, problem)
        elif instance.unread_graph and any(work.state != "=" for work in instance.works):
            refusal = JobError(f"{instance.address}: {instance.unread_graph} Nothing was paid for this step.")
        else:
            refusal = self.services.budget.refusal(instance)
        if refusal is not None:
            self._refused[instance] = refusal
        return refusal is None

    def _is_ready(self, one: PlannedStep) -> bool:
        saver = self._maker.saver
        if one.is_pending or not self.selection.has(one):
            return False
        if one.model == "review":
            return saver.is_unsaved(one) and bool(saver.named(one))
        if all(work.state == "=" for work in one.works):
            return bool(one.works) and (one.is_lost or saver.is_unsaved(one))
        return one.is_needed and all(work.is_settled for work in one.works) and has_all_ids(one)

    # -- costs -----------------------------------------------------------------------------------------------------

    async def earlier_costs(self) -> Decimal:
        """Returns the cost of the plan's works in other runs, and the price of their tasks in progress.

        A result is counted at the cost of its task; the record of a result does not contain earlier tasks that failed.
        """
        own, budget = await LOOP.call(self.services.runner.costs()), self.services.budget
        return self.plan.paid_before(lambda key: key not in own and not budget.is_own(key))

    async def look_again(self) -> None:
        """Reads the records of works that were begun and are not known to have ended."""
        if self.plan.planner is not None:
            self.plan.instances = self.plan.planner.instances
        begun = (one for one in self.plan.instances if one.is_paid and one.address in self.outcome.begun)
        works = [work for one in begun for work in one.works if work.is_settled]
        queries = [WorkQuery(work.key, work.shape) for work in works]
        for work, known in zip(works, await LOOP.call(self.services.known.find(queries)), strict=True):
            work.known = known

    async def count_costs(self) -> None:
        """Adds up the payments of the whole run, including earlier processes."""
        self.outcome.costs = await LOOP.call(self.services.runner.costs())

    def costs_by_step(self) -> tuple[dict[str, Costs], Costs]:
        """Returns the cost of each step, by address, and the cost of steps outside of the plan.

        A shared work counts for its first step. Steps outside of the plan exist if an earlier attempt had a different
        file or table, or if the flow run also ran other pipelines.
        """
        remaining, found = dict(self.outcome.costs), dict[str, Costs]()
        for one in self.plan.instances:
            paid = [remaining.pop(work.key) for work in one.works if work.key in remaining]
            if total := Costs.total(paid):
                found[one.address] = total
        return found, Costs.total(remaining.values())

    async def find_saved(self) -> None:
        """Finds the results of unselected steps that earlier runs saved under the names given in `save_as`."""
        saver = self._maker.saver
        if self.selection != Selection():  # else the run saves all results itself
            await asyncio.gather(*(saver.find(one) for one in self.plan.instances if saver.is_unsaved(one)))


def _shapes_of(step: PlannedStep) -> Iterator[tuple[str, str]]:
    """Yields the paid works of a step, each with the shape in which its answer is read."""
    return ((work.key, work.shape) for work in step.works if step.is_paid)

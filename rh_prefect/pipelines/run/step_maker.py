"""`StepMaker` makes the paid works or the edit of one step; `StepSaver` saves the results under the step's names."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from rh_prefect.bounded_caches_and_locks import SharedTasks
from rh_prefect.errors import BudgetExceeded, MediaError, RunningHubError
from rh_prefect.media.media import Media
from rh_prefect.pipelines.call_builder import known_values, stand_ins, work_call
from rh_prefect.pipelines.known_works import known_edit, known_result
from rh_prefect.pipelines.named_file_saver import SavedNames, with_extension
from rh_prefect.pipelines.plan.planned_steps import PlannedStep, Work
from rh_prefect.pipelines.planning_values import File
from rh_prefect.pipelines.run.interfaces import expect_tasks, idle
from rh_prefect.pipelines.run.known_results import KnownResults
from rh_prefect.pipelines.run.run_services import Outcome, RunServices
from rh_prefect.pipelines.run.store_outages import while_store_is_away
from rh_prefect.works.events import JobEvent, JobEventState
from rh_prefect.works.journal.costs_and_budget import Costs
from rh_prefect.works.loop_thread import LOOP

EDITS_AT_ONCE = 2
_PLAN_AGAIN = "What to do: plan again and review the new plan."


class StepMaker:
    """Makes steps whose inputs are known, and adds their results to the known results and to the run's outcome."""

    def __init__(self, services: RunServices, known: KnownResults, outcome: Outcome) -> None:
        self._services, self._known, self._outcome = services, known, outcome
        self.saver = StepSaver(services.names, known, outcome)
        self._paid_items: set[str] = set()
        self._edit_room = asyncio.Semaphore(EDITS_AT_ONCE)
        self._there: set[str] = set()  # edits whose files this run has made or found
        self._rendering: SharedTasks[str, None] = SharedTasks()

    async def make(self, instance: PlannedStep) -> None:
        """Makes a step and saves its results; a step whose inputs have meanwhile changed is planned again."""
        if instance.is_lost or any(work.state != "=" for work in instance.works):
            make = partial(self._paid_step if instance.is_paid else self.edit, instance)
            await self._services.engine.run(instance, make)
        begun, left = self._outcome.begun, self._outcome.left
        if instance.save_as and instance.address in begun and instance.address not in left:
            await self._save(instance)

    def _slot_position(self, instance: PlannedStep) -> tuple[int, ...]:
        """Returns the position of a step in the queue for a slot: steps of started items come first.

        Steps reach the queue in any order, so the first free slots may go to later items.
        """
        is_first = not instance.item or instance.top_item in self._paid_items
        return (2 if instance.has_failed else 0 if is_first else 1, *instance.numbers)

    async def _paid_step(self, instance: PlannedStep) -> None:
        if await self._restore(instance):
            return
        engine, works = self._services.engine, [work for work in instance.works if work.state != "="]
        making = [asyncio.ensure_future(self._paid_work(instance, work)) for work in works]
        try:
            await expect_tasks(engine, making)
            async with idle(engine):
                done = await asyncio.gather(*making, return_exceptions=True)
        finally:
            for task in making:
                task.cancel()
        errors = [error for error in done if isinstance(error, BaseException)]
        if errors:
            first, *others = sorted(errors, key=_rank)
            raise first.with_others(others) if others and isinstance(first, RunningHubError) else first

    async def _paid_work(self, instance: PlannedStep, work: Work) -> None:
        services, engine = self._services, self._services.engine
        call = replace(work_call(instance, work), position=self._slot_position(instance))
        if services.reviewed is not None and (refusal := services.reviewed.refusal(instance, work)):
            call = replace(call, forbidden=f"{refusal} (reviewed plan: {services.reviewed.name}). {_PLAN_AGAIN}")
        try:
            done = await while_store_is_away(lambda: engine.make(services.runner, call))
        finally:
            self._outcome.costs[work.key] = services.budget.spending.spent_on(work.key) or Costs()
        if done is None:
            self._outcome.left.add(instance.address)
            return
        if not done.result.reused:
            self._outcome.new_steps.add(instance.address)
            self._paid_items.add(instance.top_item)
        self._known.add(work.key, call.shape, known_result(done.record, done.result.outputs))

    # -- edits -----------------------------------------------------------------------------------------------------

    async def edit(self, instance: PlannedStep) -> None:
        """Finds or renders the result of an edit, a few at once; not if an edit before it has changed."""
        if not await self._restore(instance):
            async with self._edit_room:
                await self._edit(instance)

    async def _edit(self, instance: PlannedStep) -> None:
        edits, counts_as = self._services.edits, stand_ins(instance)
        try:
            values = known_values(instance)
            self._notify(instance, "running", "is made on this machine")
            output = await while_store_is_away(
                lambda: LOOP.call(edits.make(instance.model, values, counts_as=counts_as))
            )
        except Exception as error:  # an edit's defect: the other steps continue
            self._notify(instance, "failed", str(error))
            if isinstance(error, RunningHubError):
                raise
            raise MediaError(
                f"{instance.address}: {instance.model} failed with {type(error).__name__}: {error}. Nothing was paid "
                "for this step. What to do: change the step's parameters or files."
            ) from error
        self._notify(instance, *(("succeeded", "made") if output.is_new else ("reused", "exists already")))
        if output.is_new:
            self._outcome.new_steps.add(instance.address)
        for work in instance.works:
            self._known.add(work.key, "", known_edit(output.result, output.file), is_edit=True)
        self._there.add(instance.address)

    def _notify(self, instance: PlannedStep, state: JobEventState, message: str) -> None:
        name = instance.address
        event = JobEvent(state, name, instance.model, label=name, message=message, is_edit=True)
        self._services.runner.observer.notify(event)

    async def _restore(self, instance: PlannedStep) -> bool:
        """Renders the edits before a step again if their files are missing; returns whether one of them has changed."""
        is_other = False
        for need in instance.needs:
            if not need.is_paid and need.model != "review" and need.works:
                is_other |= await self._edit_again(need)
        if is_other:  # the request contains the new file, so the step is planned and started again
            self._outcome.begun.discard(instance.address)
        return is_other

    async def _edit_again(self, edit: PlannedStep) -> bool:
        """Renders an edit whose file is missing, once for all users; returns whether the new file has other content."""
        if edit.address not in self._there:
            await self._rendering.run(edit.address, partial(self.edit, edit))
        is_there = edit.address in self._there
        made = [one.outputs for one in self._known.of(edit) if one is not None]
        return not is_there or made != [work.known.outputs for work in edit.works if work.known]

    # -- names -----------------------------------------------------------------------------------------------------

    async def _save(self, instance: PlannedStep) -> None:
        """Copies the results of a step to the names given in `save_as`."""
        if instance.model == "review":
            if await self._restore(instance):
                return  # the review is planned again with the new file
        elif not instance.is_paid and instance.address not in self._there:
            await self.saver.find(instance)
            if instance.address in self._outcome.saved:
                return  # the file itself may be missing, and nothing needs it
            if await self._edit_again(instance) and instance.address not in self._there:
                self._outcome.begun.discard(instance.address)
                return
        await self.saver.save(instance)


def _rank(error: BaseException) -> int:
    """Ranks the errors of a step's takes; the run's state is `Over budget` only if nothing else has failed."""
    return 0 if not isinstance(error, RunningHubError) else 2 if isinstance(error, BudgetExceeded) else 1


class StepSaver:
    """Copies the results of steps to the names given in `save_as`, and records the copies in the run's outcome."""

    def __init__(self, names: SavedNames, known: KnownResults, outcome: Outcome) -> None:
        self._names, self._known, self._outcome = names, known, outcome

    def is_unsaved(self, instance: PlannedStep) -> bool:
        """Returns whether a step has names under which this run has not saved its results yet."""
        return bool(instance.save_as) and instance.address not in self._outcome.saved

    async def find(self, instance: PlannedStep) -> None:
        """Finds the results of a step that an earlier run saved under the names given in `save_as`."""
        named = self.named(instance)
        found = await asyncio.gather(*(LOOP.call(self._names.find(file, name)) for file, name in named))
        files = [file for file in found if file is not None]
        if files and len(files) == len(found):
            self._note(instance, named, files)

    async def save(self, instance: PlannedStep) -> None:
        """Copies the results of a step to the names given in `save_as`."""
        named = self.named(instance)
        self._note(instance, named, [await self._save_as(file, name) for file, name in named])

    async def _save_as(self, file: Media, name: str) -> Media:
        return await while_store_is_away(lambda: LOOP.call(self._names.save(file, name)))

    def _note(self, instance: PlannedStep, named: Sequence[tuple[Media, str]], saved: list[Media]) -> None:
        self._outcome.saved[instance.address] = saved
        for (file, _), one in zip(named, saved, strict=True):
            self._outcome.named[instance.address, file.sha256] = self._outcome.named["", file.sha256] = one

    def named(self, instance: PlannedStep) -> list[tuple[Media, str]]:
        """Returns the results of a step, each with its name from `save_as`; for a review, the chosen result."""
        if isinstance(instance.chosen, File):
            return [(file, with_extension(instance.save_as, file))] if (file := instance.chosen.located) else []
        files = [None if one is None else one.output(instance.file_kind) for one in self._known.of(instance)]
        return [
            (file, with_extension(name, file)) for file, name in zip(files, instance.saved_names) if file is not None
        ]

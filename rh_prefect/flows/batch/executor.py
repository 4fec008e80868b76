"""Runs the rows of a batch, some at a time, and keeps a result for each; `Progress` counts them."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from rh_prefect.blocks.lookup import load_pool_context
from rh_prefect.errors import BudgetExceeded, InputError, JobCancelled, RunningHubError, SubmissionUnknown
from rh_prefect.flow_runs.queries import RecordedScope
from rh_prefect.flow_runs.suspension import PendingTask, SuspendGroup, group_member, in_suspend_group
from rh_prefect.flows.batch.batch_plan import InvalidRow, Plan, Work
from rh_prefect.flows.batch.report import BAD_INPUT, RowResult, RowState
from rh_prefect.media.store import MediaStore
from rh_prefect.models import ModelInput
from rh_prefect.tasks.concurrent import WAVE, run_or_leave
from rh_prefect.works.events import JobEvent, JobEventState, summary_of
from rh_prefect.works.journal.budget import SpendTracker
from rh_prefect.works.journal.costs import CURRENCY, Costs
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.options import Options
from rh_prefect.works.outputs.result import Result
from rh_prefect.works.work_runner import WorkCall, WorkRunner

_RUNNING: frozenset[JobEventState] = frozenset({"submitted", "adopted", "running", "collecting"})


@dataclass(slots=True)
class Progress:
    """The counts of one batch; several threads write them, each count by one thread.

    Attributes:
        batch: Its id.
        total: How many items it has.
        ended: The number of ended items by state.
        earlier: The number of these that an earlier run has done.
        at_start: The number that had ended before this run started any: those, and invalid ones.
        spent: The cost of the items, including earlier runs.
        budget: Their maximum total cost; None for no limit.
        set_aside: The number for which the rest of the budget is too small now; some may be tried again.
    """

    batch: str
    total: int
    scope: str
    ended: Counter[RowState] = field(default_factory=Counter)
    earlier: int = 0
    spent: Costs = field(default_factory=Costs)
    budget: Decimal | None = None
    set_aside: int = 0
    began: float = field(default_factory=time.monotonic)
    at_start: int = 0
    _spent_at_start: Costs = field(default_factory=Costs)
    _running: set[str] = field(default_factory=set)

    @property
    def done(self) -> int:
        """The number of items that are done."""
        return self.ended["done"]

    @property
    def running(self) -> int:
        """The number of jobs that run at RunningHub."""
        return len(self._running)

    @property
    def failed(self) -> int:
        """The number of items that have failed."""
        return self.ended["failed"]

    @property
    def not_started(self) -> int:
        """The number of items that were not started because the budget has too little left."""
        return self.ended["not started"] + self.set_aside

    @property
    def queued(self) -> int:
        """The number of items that wait."""
        return max(0, self._open - self.running)

    @property
    def remaining_seconds(self) -> float | None:
        """The estimated remaining time at the current rate; None if there is no rate yet."""
        # Items that are not started take no time, so they do not count for the rate.
        now = sum(self.ended.values()) - self.ended["not started"] - self.at_start
        if now <= 0:
            return None
        remaining = min(self._open, self._affordable(now))
        return (time.monotonic() - self.began) / now * remaining

    @property
    def _open(self) -> int:
        """The number of items that have not ended and may still be started."""
        return self.total - sum(self.ended.values()) - self.set_aside

    def _affordable(self, now: int) -> int:
        """Returns the number of further items that the budget allows, at the average cost of this run's items."""
        if self.budget is None or len(self.spent.amounts) != 1:
            return self._open
        ((currency, spent),) = self.spent.amounts.items()
        each = (spent - self._spent_at_start.amounts.get(currency, Decimal(0))) / now
        return self._open if each <= 0 else max(0, math.ceil((self.budget - spent) / each))

    def take_event(self, event: JobEvent) -> None:
        """Records a change of a job."""
        if not event.job.startswith(f"{self.scope}/"):
            return
        if event.state in _RUNNING:
            self._running.add(event.job)
        else:
            self._running.discard(event.job)

    def end(self, item: RowResult) -> None:
        """Records the end of an item."""
        self._count(item)
        self._say(item)

    def start(self, ended: Collection[RowResult]) -> None:
        """Starts the count, with the items done by earlier runs and the rows that are invalid."""
        for item in ended:
            self._count(item)
        self.at_start, self._spent_at_start = len(ended), self.spent
        self.earlier = sum(item.state == "done" for item in ended)
        self._say(None)
        for item in ended:
            if item.state != "done":
                self._say(item)

    def _count(self, item: RowResult) -> None:
        self.ended[item.state] += 1
        self.spent += item.costs

    def _say(self, item: RowResult | None) -> None:
        for listener in tuple(listeners):
            try:
                listener(self, item)
            except Exception as error:  # a listener, as one with a closed pipe, stops no paid work
                _log.warning("a batch's progress is no longer shown: %s", error)
                listeners.remove(listener)


_log = logging.getLogger("rh_prefect")
listeners: list[Callable[[Progress, RowResult | None], None]] = []
"""Called in this process with every item that has ended, and once at the start without one."""


WIDTH = 500
"""How many rows are under way at a time, most of them in line for a slot: what waits beyond them costs no memory."""


@dataclass(frozen=True, slots=True)
class _Short:
    """A row for which the rest of the budget is too small."""

    work: Work
    results: list[Result]
    error: BudgetExceeded


@dataclass(frozen=True, slots=True)
class _Gone:
    """A row whose task continues while no process waits for it."""

    work: Work


@dataclass(frozen=True)
class RowExecutor:
    """Runs the rows of one batch run, with the state that all rows share.

    `items` has the result of each row, `known` the newest submission of each job that was known when its row ended.
    """

    batch: str
    plan: Plan
    options: Mapping[str, Any]
    scope: RecordedScope
    store: MediaStore
    ledger: SpendTracker
    progress: Progress
    items: dict[int, RowResult]
    known: dict[str, int] = field(default_factory=dict)
    _keys: dict[str, list[str]] = field(default_factory=dict)
    _owners: dict[str, int] = field(default_factory=dict)

    def know(self, item: RowResult) -> None:
        """Loads a row's jobs from an earlier run's report."""
        self._keys[item.id] = [job.rpartition("/")[2] for job in item.jobs]

    def keep(self, work: Work | InvalidRow) -> None:
        """Reserves the jobs of a finished row, so that an equal row gets a separate job."""
        self._owners.update(dict.fromkeys(self.keys(work.id), work.number))

    async def run(self, works: Iterable[Work], together: SuspendGroup | None = None) -> list[Work]:
        """Runs all rows; none of their failures stops the others. Returns the rows to run when what was left has ended.

        A row that the budget had too little left for is tried again where money that was set aside for others has come
        back: they were refused, or cost less.
        """
        waiting = list(works)
        while waiting:
            short, gone = await self._pass(waiting, together)
            if gone:
                later = [one.work for one in gone] + [one.work for one in short]
                return sorted(later, key=lambda work: work.number)
            affordable = self._affordable(short) if 0 < len(short) < len(waiting) else set()
            waiting = [one.work for one in short if one.work.number in affordable]
            self.progress.set_aside = 0
            for one in short:
                if one.work.number not in affordable:
                    price = Costs.of(one.error.price, one.error.currency)
                    self._end(
                        one.work,
                        one.results,
                        *self._state_and_reason(one.error, one.work, len(one.results)),
                        price=price,
                    )
        return []

    async def _pass(self, works: Sequence[Work], together: SuspendGroup | None) -> tuple[list[_Short], list[_Gone]]:
        """Runs rows; returns those that the budget did not allow, or whose tasks were left for a suspension."""
        open_: list[_Short | _Gone] = []
        room = asyncio.Semaphore(WIDTH)
        if together is not None:
            await LOOP.call(together.expect(len(works)))

        async def one(work: Work) -> None:
            try:
                async with group_member(together):
                    open_.extend(filter(None, [await self._run(work)]))
            finally:
                room.release()

        with in_suspend_group(together):
            await self._start_all(works, one, room)
        short = [one for one in open_ if isinstance(one, _Short)]
        short.sort(key=lambda one: one.work.number)
        return short, [one for one in open_ if isinstance(one, _Gone)]

    async def _start_all(
        self, works: Sequence[Work], one: Callable[[Work], Coroutine[Any, Any, None]], room: asyncio.Semaphore
    ) -> None:
        async with asyncio.TaskGroup() as group:
            for number, work in enumerate(works):
                await room.acquire()
                if number % WAVE == 0:
                    await asyncio.sleep(0)
                group.create_task(one(work))

    def _affordable(self, short: Iterable[_Short]) -> set[int]:
        """Returns the numbers of the rows that the rest of the budget allows, the first rows first."""
        budget, taken = Decimal(str(self.options["budget"])), defaultdict[str, Decimal](Decimal)
        found: set[int] = set()
        for one in short:
            price, currency = one.error.price, one.error.currency or CURRENCY
            remaining = budget - self.ledger.counted(currency) - taken[currency]
            if price is not None and price <= remaining:
                taken[currency] += price
                found.add(one.work.number)
        return found

    def keys(self, row: str) -> list[str]:
        """Returns the keys of a row's jobs in their scope, in step order, up to the last step that was reached."""
        return self._keys.get(row, [])

    def _scope_of(self, step: int, label: str | None) -> str:
        """The name of the scope in which the rows' requests of a step are told apart."""
        return f"batch {self.batch} step {step + 1} label {label!r}"

    async def _take(self, work: Work, step: int, request: ModelInput, label: str | None) -> int:
        """Returns the take of a row's step: its number among the rows with an equal request."""
        take = work.copy
        while True:
            options = Options(label=label, reuse=self.options["reuse"])
            asked = WorkCall(request, take=take, scope=self._scope_of(step, label))
            try:
                shared = await load_pool_context(self.options["credentials"])
                runner = WorkRunner(shared, self.scope, self.store, options=options)
                job, _ = await LOOP.call(runner.prepare(asked))
            except RunningHubError:
                return take  # its task gets the same error, and retries a temporary one
            if self._owners.setdefault(job, work.number) == work.number:
                known = self.keys(work.id)
                if known[step : step + 1] != [job]:  # the later steps of another job are other jobs, too
                    self._keys[work.id] = [*known[:step], job]
                return take
            take += 1

    async def _run(self, work: Work) -> _Short | _Gone | None:
        results: list[Result] = []
        try:
            pending = await self._chain(work, results)
            if pending is not None:
                self._suspend_row(work, results, pending)
                return _Gone(work)
            ended: tuple[RowState, str] = ("failed", summary_of(results[-1])) if results[-1].damaged else ("done", "")
        except BudgetExceeded as error:
            self.progress.set_aside += 1
            return _Short(work, results, error)
        except Exception as error:  # an error of this row alone, which the report names
            ended = self._state_and_reason(error, work, len(results))
        self._end(work, results, *ended)
        return None

    async def _chain(self, work: Work, results: list[Result]) -> PendingTask | None:
        stages = self.plan.stages
        for step, stage in enumerate(stages):
            request = stage.build_request(work.params[step], before=results[-1].first_output if results else None)
            # Only the last step's output has the plain name; the others include the step.
            label = work.label if step == len(stages) - 1 else f"{work.label or 'item'}-step-{step + 1}"
            take = await self._take(work, step, request, label)
            scope = self._scope_of(step, label)
            done = await run_or_leave(request, take=take, label=label, scope=scope, **self.options)
            if isinstance(done, PendingTask):
                return done
            results.append(done)
        return None

    def _suspend_row(self, work: Work, results: list[Result], pending: PendingTask) -> None:
        """Records the state of a row while the run is suspended."""
        self.items[work.number] = self.items[work.number].model_copy(
            update={
                "reason": f"task {pending.task_id} runs; the run is suspended and resumes when the task has ended",
                "tasks": (*(result.task_id for result in results), pending.task_id),
                "jobs": (*(result.job for result in results), pending.job),
            }
        )

    def _state_and_reason(self, error: Exception, work: Work, step: int) -> tuple[RowState, str]:
        """Returns the state and the reason of an item whose step has raised an error."""
        state = _state(error)
        reason = error.message if isinstance(error, RunningHubError) else f"{type(error).__name__}: {error}"
        # The item has its job and its state in other fields: without them, a common error has one text for many rows.
        for key in self.keys(work.id)[step : step + 1]:
            reason = reason.removeprefix(f"{self.scope.journal.scope}/{key}: ").removeprefix(f"{state}: ")
        if isinstance(error, InputError):
            reason = f"{BAD_INPUT}{reason}"
        return state, f"step {step + 1} of {len(self.plan.stages)}: {reason}" if len(self.plan.stages) > 1 else reason

    def _end(
        self, work: Work, results: list[Result], state: RowState, reason: str, *, price: Costs | None = None
    ) -> None:
        keys = self.keys(work.id)
        last = results[-1] if results else None
        item = RowResult(
            row=work.number,
            id=work.id,
            label=work.label,
            subject=self.items[work.number].subject,
            state=state,
            reason=reason,
            costs=Costs.total(filter(None, map(self.ledger.spent_on, keys))),
            price=price or Costs(),
            outputs=tuple(file.uri for file in last.outputs) if last and state == "done" else (),
            files=self.items[work.number].files,
            record=last.record if last and state == "done" else "",
            tasks=tuple(result.task_id for result in results),
            jobs=tuple(f"{self.scope.journal.scope}/{key}" for key in keys[: len(results) + (state != "done")]),
        )
        self.items[work.number] = item
        self.known.update((key, self.ledger.newest_submit(key)) for key in keys)
        self.progress.end(item)


def _state(error: Exception) -> RowState:
    match error:
        case BudgetExceeded():
            return "not started"
        case SubmissionUnknown():
            return "unknown"
        case JobCancelled():
            return "cancelled"
        case _:
            return "failed"

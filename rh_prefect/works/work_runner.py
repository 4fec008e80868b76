"""Runs the works of a pipeline's run, whose records and results all runs share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, cast
from weakref import WeakValueDictionary

from rh_prefect.caches_and_locks import SharedTasks
from rh_prefect.errors import (
    AccountError,
    ApiError,
    JobError,
    JournalError,
    KeyRejected,
    MediaError,
    RunningHubError,
    StoreError,
    TransportError,
)
from rh_prefect.media.media import Media
from rh_prefect.workflows import AppInput, GraphInput, WorkflowInput
from rh_prefect.works.accounts.account_slot import SlotLease
from rh_prefect.works.accounts.limiter import Turn
from rh_prefect.works.delivery import Delivered
from rh_prefect.works.engine import JobEngine
from rh_prefect.works.job_context import JobCall, JobContext
from rh_prefect.works.journal.budget import spend_tracker_of
from rh_prefect.works.journal.costs import Costs
from rh_prefect.works.journal.identity import base_hash, work_id
from rh_prefect.works.journal.job_records import JobRecords, JobView, Submit
from rh_prefect.works.journal.record_types import Answer, End, Intent, ResultRecord
from rh_prefect.works.journal.signs_of_life import signs_of_life
from rh_prefect.works.journal.works_journal import FILES, HasEnded, WorksJournal, no_evidence
from rh_prefect.works.lifecycle_step_types import Finished, Stage
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.options import Request, policy_of
from rh_prefect.works.requests.graph_request import unread
from rh_prefect.works.requests.request_preparation import JobRequest, as_recorded, replace_marks
from rh_prefect.works.run_ledger import WorksLedger, is_settled
from rh_prefect.works.step_executor import StepExecutor

_log = logging.getLogger("rh_prefect")
_notes: set[asyncio.Task[None]] = set()
"""Notes that are being written: the event loop holds tasks only weakly."""


@dataclass(frozen=True, slots=True)
class WorkCall:
    """A step's request for a work.

    Attributes:
        name: The step's address, as in `each[A-17].clip`.
        request: A model, a workflow or an app, with its parameters.
        take: Which of several results of the request.
        scope: The round that it belongs to; empty for a work that all runs share.
        attempts: How many tasks this run may pay for.
        parse: Reads the answer; raises `ValueError` where it has another shape.
        shape: What `parse` asks for; see `parsed_answers.shape_of`.
        stands_for: What counts in the request for a text of it: for a file that was rendered again the mark of the
            first one, for an id that ends at RunningHub the work that gave it.
        planned: The work that the plan names; another one is not paid for. Empty outside of plans.
        price: What it costs at most, where neither the catalogue nor RunningHub knows its price.
        forbidden: Why the run must not pay for it; see `lifecycle.Policy`.
        saved_graph: Of a workflow or an app: the fingerprint of the graph that the plan has read.
        position: When it gets a slot among the works of its run; see `limiter.Turn`.
    """

    name: str
    request: Request
    take: int = 1
    scope: str = ""
    attempts: int = 1
    parse: Callable[[str], Any] | None = None
    shape: str = ""
    stands_for: Mapping[str, str] = field(default_factory=dict)
    planned: str = ""
    price: Decimal | None = None
    forbidden: str = ""
    saved_graph: str = ""
    position: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkResult:
    """The result of a work, as a step uses it.

    Attributes:
        work: The work.
        record: What is recorded.
        files: Its files, with their addresses. RunningHub may have given one again with other bytes than are recorded.
        is_new: Whether this flow run has paid for it.
    """

    work: str
    record: ResultRecord
    files: tuple[Media, ...]
    is_new: bool


@dataclass(frozen=True, slots=True)
class RunningWork:
    """A work that is being made.

    Attributes:
        executor: Executes its steps; equal works of a run share it.
        records: Its records.
        advance: Continues it to its next stage.
    """

    executor: StepExecutor
    records: SharedRecords
    advance: Callable[[], Coroutine[Any, Any, Stage]]

    @asynccontextmanager
    async def released_on_error(self) -> AsyncIterator[None]:
        """Writes meanwhile that the run is alive; records at an error that it no longer waits for the work."""
        try:
            with self.records.signs_of_life():
                yield
        except BaseException as error:
            context = self.executor.context
            try:
                await LOOP.critical(self.records.release_own_waiter())
            except RunningHubError as unrecorded:
                # Its end is proved by its process, or by its state in Prefect.
                _log.info("%s: that this run no longer waits for it is not recorded: %s", context.job, unrecorded)
            if isinstance(error, JournalError | StoreError) and context.spending.newest_submit(context.key):
                raise error.of_step(context.policy.title).with_note(
                    "A task was paid for, or may have been. What to do: run again, which takes its result and pays for "
                    "no other one."
                ) from error
            raise


class WorkRunner:
    """A runner of the works of one flow run, on the package's loop thread; equal works run once."""

    def __init__(
        self,
        engine: JobEngine,
        works: WorksJournal,
        *,
        pipeline: str = "",
        has_ended: HasEnded = no_evidence,
    ) -> None:
        """Takes the accounts and the records; nothing happens yet.

        Args:
            engine: The accounts that may pay.
            works: The records of works, from `open_works`.
            pipeline: The pipeline's name, for the records.
            has_ended: Returns whether a flow run has certainly ended; it may wait for a work no more.
        """
        self._has_ended = has_ended
        self._engine = engine
        self._pipeline = pipeline
        self._works = works
        self._stages: SharedTasks[tuple[str, str, str], Stage] = SharedTasks()
        self._executors: WeakValueDictionary[tuple[str, str, str], StepExecutor] = WeakValueDictionary()

    async def currency(self) -> str | None:
        """Returns the currency of the accounts; see `Pool.currency`."""
        return await self._engine.pool.currency()

    async def prepare(self, work_call: WorkCall, call: JobCall) -> tuple[str, JobRequest]:
        """Checks a work as far as possible without paying.

        Args:
            work_call: The step's request for a work.
            call: Its run, and how it is run.

        Returns:
            The work, and its request with files by content.

        Raises:
            RunningHubError: The work is invalid.
        """
        journal = call.scope.journal

        async def is_recorded(request: JobRequest) -> bool:
            return bool(
                await journal.job(work_id(_base(request, work_call.stands_for), work_call.take, work_call.scope))
            )

        try:
            prepared = await self._engine.prepare(work_call.request, call.scope, call.store, work_call.name)
        except (ApiError, TransportError) as error:
            if not work_call.saved_graph or isinstance(error, AccountError | KeyRejected):
                raise
            message = unread(work_call.request.model.replace("/", " "), error)
            raise JobError(f"{work_call.name}: {message} Nothing was paid for it.") from error
        prepared = await as_recorded(prepared, is_recorded=is_recorded)
        request = replace(prepared.with_graph(), base=_base(prepared, work_call.stands_for))
        if work_call.planned and isinstance(work_call.request, WorkflowInput | AppInput | GraphInput):
            _refuse_edited(work_call, prepared)
            # A graph's work is its id, the fields that are set and what else is in the graph, as the plan has read it.
            return work_call.planned, request
        return work_id(request.base, work_call.take, work_call.scope), request

    async def make(self, work_call: WorkCall, call: JobCall) -> WorkResult:
        """Gets the result of a work, and pays for it if no run has done so.

        Args:
            work_call: The step's request for a work.
            call: Its run, and how it is run.

        Raises:
            RunningHubError: As `run_work` says, and what client, records and store raise.
        """
        work = await self.begin(work_call, call)
        async with work.released_on_error():
            while not isinstance(stage := await work.advance(), Finished):
                pass
            return self.result(work, stage)

    async def begin(self, work_call: WorkCall, call: JobCall) -> RunningWork:
        """Prepares a work; its `advance` submits it and waits for it.

        Args:
            work_call: The step's request for a work.
            call: Its run, and how it is run.

        Raises:
            RunningHubError: The work is invalid.
        """
        await self._engine.listen_for_ends(call.scope)
        work, request = await self.prepare(work_call, call)
        if work_call.planned not in ("", work):
            raise JobError(
                f"{work_call.name}: the plan names work {work_call.planned[:12]}, and its request is {work[:12]}. "
                "Nothing was paid. This is a defect of rh-prefect. What to do: report it with the pipeline's file."
            )
        if request.estimate is None and work_call.price is not None:
            request = replace(request, estimate=work_call.price)
        name = (call.scope.journal.scope, work, work_call.shape)
        executor = self._executors.get(name)
        if executor is None:
            executor = self._executors[name] = StepExecutor(self._context(work_call, call, work, request))
        records = cast(SharedRecords, executor.context.records)
        return RunningWork(executor, records, lambda: self._stages.run(name, executor.advance))

    def result(self, work: RunningWork, stage: Finished) -> WorkResult:
        """Returns the result of a finished work, as a step uses it.

        Args:
            work: The work.
            stage: Its last stage.

        Raises:
            MediaError: RunningHub delivered a file damaged.
        """
        context, done = work.executor.context, cast(Delivered, stage.result)
        if done.result.damaged:
            file = done.result.damaged[0]
            raise MediaError(
                f"{context.policy.title}: task {done.record.task_id} was paid for, and {file.uri} is damaged "
                f"({file.defect}): RunningHub gave it so each time. It is kept, and is not used. What to do: run again "
                "within a day, which downloads it again at no cost; or pay for a new result with --retake."
            )
        return WorkResult(context.key, done.record, done.result.outputs, not done.result.reused)

    async def costs(self, call: JobCall) -> dict[str, Costs]:
        """Returns a flow run's payments for each work, by its id, including failed tasks and refused answers.

        Args:
            call: The flow run.

        Raises:
            JournalError: The records cannot be read.
        """
        ledger = WorksLedger(call.scope, self._works)
        return await spend_tracker_of(ledger, attempt=call.scope.calls.number).costs()

    def open_costs(self, call: JobCall) -> tuple[int, Costs]:
        """Returns the number of a flow run's submissions without a known end, and what they may cost.

        Args:
            call: The flow run.
        """
        return spend_tracker_of(WorksLedger(call.scope, self._works)).open_costs()

    def spent_on(self, work: str, call: JobCall) -> Costs:
        """Returns a flow run's payments for a work in this process.

        Args:
            work: The work's id.
            call: The flow run.
        """
        return spend_tracker_of(WorksLedger(call.scope, self._works)).spent_on(work) or Costs()

    def _context(self, work_call: WorkCall, call: JobCall, work: str, request: JobRequest) -> JobContext:
        engine, scope = self._engine, call.scope
        pool, ledger = engine.pool.for_endpoint(request.endpoint), WorksLedger(scope, self._works)
        records = SharedRecords(self._works, work, ledger, name=work_call.name, has_ended=self._has_ended)
        policy = policy_of(request, scope, call.options, job=records.name, may_switch_account=not pool.is_single)
        turn = Turn(ledger.flow_run, work_call.position)
        return JobContext(
            request=request,
            records=records,
            scope=scope,
            store=call.store,
            observer=call.observer,
            policy=replace(
                policy,
                name=work_call.name,
                run=ledger.flow_run,
                attempts=work_call.attempts,
                unpriced_advice="give the step a price in the file, as in assume: {price: 0.50}, and run again",
                forbidden=work_call.forbidden,
                another_task="for a new task of the same request, run again with --retake",
            ),
            lease=SlotLease(pool, pool.exclusions(scope), model=request.model, job=records.name, turn=turn),
            services=engine.services,
            spending=spend_tracker_of(ledger, attempt=scope.calls.number),
            delivery=engine.delivery(
                publish_file=named_by_content,
                parse=work_call.parse,
                shape=work_call.shape,
                is_here=self._works.is_in,
                advice="run again, which downloads it at no cost while RunningHub stores it, about a day. If a file "
                "stays missing, run with --retake of this step, which pays for a new result.",
            ),
            options=replace(call.options, take=work_call.take),
            callback=engine.callback(request),
            flow=self._pipeline,
        )


class SharedRecords(JobRecords):
    """One work's records that all runs share, and the notes of one run about it."""

    is_shared = True

    def __init__(self, works: WorksJournal, work: str, ledger: WorksLedger, *, name: str, has_ended: HasEnded) -> None:
        """Refers to the records of a work; reads nothing.

        Args:
            works: The records of works.
            work: The work.
            ledger: The notes of the run.
            name: The step, for the notes.
            has_ended: Returns whether a flow run has certainly ended.
        """
        super().__init__(works, work)
        self._works = works
        self._ledger = ledger
        self._step = name
        self._has_ended = has_ended
        self._waiters: list[str] = []
        self._submits: dict[int, Submit] = {}
        self._noted: set[int] = set()
        self._settled: set[int] = set()

    async def view(self) -> JobView:
        """Reads the work."""
        view = await super().view()
        for submit in view.submits:
            self._see(submit)
        return view

    async def intent(self, n: int, record: Intent) -> bool:
        """Creates intent n; returns False if another process has created it."""
        is_new = await super().intent(n, record)
        if is_new:
            self._see(Submit(n, record))
        return is_new

    async def answer(self, n: int, record: Answer) -> bool:
        """Creates answer n; returns False if one is already recorded."""
        is_new = await super().answer(n, record)
        if is_new and n in self._submits:
            self._see(replace(self._submits[n], answer=record))
        return is_new

    async def end(self, n: int, record: End) -> End:
        """Creates end n; returns the end that is recorded now."""
        return self._see_end(n, await super().end(n, record))

    async def read_end(self, n: int) -> End | None:
        """Reads end n; None where none is recorded."""
        end = await super().read_end(n)
        return None if end is None else self._see_end(n, end)

    def _see_end(self, n: int, end: End) -> End:
        if n in self._submits:
            self._see(replace(self._submits[n], end=end))
        return end

    def _see(self, submit: Submit) -> None:
        """Keeps the state of a submission, and notes in the run's journal that it is settled; waits for nothing."""
        self._submits[submit.n] = submit
        is_of_run = submit.intent.flow_run == self._ledger.flow_run or submit.n in self._noted
        if is_of_run and submit.n not in self._settled and is_settled(submit):
            self._settled.add(submit.n)
            note = asyncio.ensure_future(LOOP.critical(self._note_settled(submit)))
            _notes.add(note)
            note.add_done_callback(_notes.discard)

    async def _note_settled(self, submit: Submit) -> None:
        try:
            await self._ledger.note_settled(self.key, submit)
        except RunningHubError as error:
            _log.info("%s: submission %d is settled, which is not noted: %s", self._step, submit.n, error)

    async def note_waiter(self) -> None:
        """Records that the run waits for the work, so that other runs do not cancel its task."""
        self._waiters.append(await self._works.add_waiter(self.key, self._ledger.flow_run))

    async def wait_suspended(self, seconds: float) -> None:
        """Records that the run waits for the work while it is suspended and has no process, for so long at most."""
        await self._works.add_waiter(self.key, self._ledger.flow_run, suspended=seconds)

    def signs_of_life(self) -> AbstractContextManager[None]:
        """Writes regularly that the run is alive, while a caller of the run waits for the work."""
        return signs_of_life(self._works, self._ledger.flow_run)

    async def release_waiter(self) -> None:
        """Records that the run no longer waits for the work, so that another one can cancel its task."""
        if self._waiters:
            await self._works.release_waiters(self.key, self._ledger.flow_run)

    async def release_own_waiter(self) -> None:
        """Records that this caller no longer waits for the work; another one in the run may."""
        if self._waiters:
            await self._works.release_waiters(self.key, self._ledger.flow_run, only=self._waiters)

    async def has_other_waiters(self) -> bool:
        """Checks whether another run waits for the work."""
        return await self._works.has_other_waiter(self.key, self._ledger.flow_run, has_ended=self._has_ended)

    async def note_claim(self, n: int) -> None:
        """Notes that the run is about to claim submission n."""
        self._noted.add(n)
        await self._ledger.note_claim(self.key, n, self._step)

    async def note_wait(self, n: int) -> None:
        """Notes that the run waits for the task of submission n."""
        self._noted.add(n)
        await self._ledger.note_wait(self.key, n)

    async def has_waited(self, n: int) -> bool:
        """Checks whether this attempt, or one whose payments count with it, has waited for the task."""
        return await self._ledger.has_waited(self.key, n)


def named_by_content(context: JobContext, end: End, part: Path, index: int, extension: str) -> Media:  # noqa: ARG001
    """Publishes an output under a name made of its content, so that parallel runs write equal files."""
    described = context.store.describe(part, "described")
    name = f"{FILES}/{described.sha256}.{extension.lower()}"
    # Also where a file is there already: it may be damaged.
    context.store.take(part, name, known=described)
    return described.model_copy(update={"uri": name})


def _refuse_edited(work_call: WorkCall, request: JobRequest) -> None:
    """Refuses a graph that was edited on the site after the plan was made: it would make another result."""
    if work_call.saved_graph != request.graph:
        raise JobError(
            f"{work_call.name}: the graph of {request.model} was edited on the site after this run was planned. "
            "Nothing was paid for it. What to do: run again."
        )


def _base(request: JobRequest, stands_for: Mapping[str, str]) -> str:
    """Returns the hash of a request in which other texts replace some of its texts."""
    if not stands_for:
        return request.with_graph().base
    payload = replace_marks(request.request, stands_for)
    base = base_hash(site=request.site, endpoint=request.endpoint, payload=payload)
    return replace(request, base=base).with_graph().base

"""Runs works, whose records belong to one run or are shared by all runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, cast

from rh_prefect.errors import (
    AccountError,
    ApiError,
    InputError,
    JobCancelled,
    JobError,
    JobTimeout,
    JournalError,
    KeyRejected,
    MediaError,
    RunningHubError,
    StoreError,
    SubmissionUnknown,
    TransportError,
)
from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore
from rh_prefect.workflow_inputs import AppInput, GraphInput, WorkflowInput, unread_graph
from rh_prefect.works.accounts.limiter import Turn
from rh_prefect.works.accounts.pool import Lease
from rh_prefect.works.checked_request import JobRequest, replace_marks
from rh_prefect.works.events import JobEventState, Observer, Silent
from rh_prefect.works.job_options import Options, Request
from rh_prefect.works.journal.costs_and_budget import Costs
from rh_prefect.works.journal.identity import base_hash, work_id
from rh_prefect.works.journal.job_records_and_state import JobRecords, JobView, Submit
from rh_prefect.works.journal.record_types import End, Intent
from rh_prefect.works.journal.scope import REQUESTED_KEYS, Chain, FolderScope, Scope
from rh_prefect.works.journal.works_journal import FILES, HasEnded, WorksJournal, no_evidence
from rh_prefect.works.lifecycle import Policy, run_work
from rh_prefect.works.lifecycle_steps import Steps
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.pool_services import PoolServices, WorkName
from rh_prefect.works.result_delivery import Delivered, ResultDelivery
from rh_prefect.works.run_ledger import Notes, SharedRecords, spending_of
from rh_prefect.works.stored_result import find_equal
from rh_prefect.works.work_in_progress import Work

_log = logging.getLogger("rh_prefect")


@dataclass(frozen=True, slots=True)
class WorkCall:
    """A request for a work, with the options that differ between the steps of a pipeline."""

    request: Request  # A model, a workflow or an app, with its parameters
    step: str | None = None  # The step's address in a pipeline, as in `each[A-17].clip`; None outside of pipelines
    take: int = 1  # Which of several results of the request
    scope: str = ""  # The name or the round that it belongs to; empty for the run's own scope, or that of all runs
    attempts: int = 1  # How many tasks this run may pay for
    parse: Callable[[str], Any] | None = None  # Reads the answer; raises `ValueError` if it has another shape
    shape: str = ""  # What `parse` asks for; see `parsed_answers.shape_of`
    # Texts of the request, each with the text that replaces it in the hash: a file that was rendered again has the mark
    # of its first version, and an id that expires at RunningHub is replaced by the work that gave it
    stands_for: Mapping[str, str] = field(default_factory=dict)
    planned: str = ""  # The work that the plan names; another one is not paid for. Empty outside of plans
    price: Decimal | None = None  # What it costs at most, if neither the catalogue nor RunningHub knows its price
    forbidden: str = ""  # Why the run must not pay for it; see `lifecycle.Policy`
    saved_graph: str = ""  # For a workflow or an app, the fingerprint of the graph that the plan has read
    position: tuple[int, ...] = ()  # When it gets a slot among the works of its run; see `limiter.Turn`


_COLLECTION: Final = WorkCall(cast(Request, None))
"""The call for collecting a recorded work, whose request is in its record."""


@dataclass(frozen=True, slots=True)
class FoundWork:
    """The recorded state of a work."""

    work: str  # Its id
    request: JobRequest
    view: JobView  # Its submissions
    is_done: bool  # Whether it has a result

    @property
    def is_in_progress(self) -> bool:
        """Whether a task whose result the call would use is paid for, or may be."""
        last = self.view.last
        return not self.is_done and last is not None and last.may_give_result


class RunningWork:
    """A work in progress, for all callers of a run that wait for the work."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.callers = 0
        """Number of callers of a run that wait for it."""
        self._steps = Steps(work)
        self._life: asyncio.Task[Any] | None = None

    @property
    def is_over(self) -> bool:
        """Whether the work has a result, has failed or is interrupted; the next caller then reads the records again."""
        return self._life is not None and (self._life.done() or self._life.cancelling() > 0)

    @property
    def may_have_paid(self) -> bool:
        """Whether the newest submission of the run has or may have a task whose result the next run would use."""
        newest = self.work.spending.newest_submit(self.work.key)
        submit = self._steps.known(newest)
        return bool(newest) and (submit is None or submit.may_give_result)

    async def next_accepted_task(self) -> Submit | None:
        """Waits until a task is accepted, and returns its submission; None if the work gets its result first."""
        await self._until(lambda: self._steps.accepted_task is not None)
        return self._steps.accepted_task

    async def next_running_task(self, deadline: float | None = None) -> Submit | None:
        """Waits until a task is awaited, and returns its submission; None if the work gets its result first.

        Raises `JobTimeout` if the task is still checked or cancelled after `deadline` seconds.
        """
        await self._until(lambda: self._steps.running_task is not None, deadline)
        return self._steps.running_task

    async def end_of(self, task: Submit, deadline: float | None) -> bool:
        """Waits until a task has ended, and returns True; raises `JobTimeout` after `deadline` seconds."""
        await self._until(lambda: self._steps.running_task is not task, deadline)
        return True

    def complete(self, deadline: float | None = None) -> Coroutine[Any, Any, Delivered]:
        """Waits for the result; raises `JobTimeout` if a task has not ended within `deadline` seconds."""
        return self._until(lambda: False, deadline)

    async def _until(self, is_reached: Callable[[], bool], deadline: float | None = None) -> Any:
        """Waits until `is_reached` or the work is over; returns the result, or None if there is none yet."""
        life, now = self._begin(), asyncio.get_running_loop().time
        task, expires = None, None
        while not (life.done() or is_reached()):
            if self._steps.accepted_task is not task:
                task = self._steps.accepted_task
                expires = None if task is None or deadline is None else now() + deadline
            try:
                async with asyncio.timeout_at(expires):
                    await asyncio.wait((life, self._steps.changed), return_when=asyncio.FIRST_COMPLETED)
            except TimeoutError:
                raise self._timeout(task, deadline) from None
        try:
            return life.result() if life.done() else None
        finally:
            del life  # the traceback of its error has this frame

    def _begin(self) -> asyncio.Task[Any]:
        if self._life is None:
            self._life = asyncio.ensure_future(run_work(self._steps))
            self._life.add_done_callback(self._end)
        return self._life

    def _end(self, life: asyncio.Task[Any]) -> None:
        self._steps.end()
        error = None if life.cancelled() else life.exception()
        if isinstance(error, RunningHubError):
            self.work.notify(_state_of(error), error.message, costs=self.work.costs)

    def _timeout(self, task: Submit | None, deadline: float | None) -> JobTimeout:
        work, task_id = self.work, task.task_id if task is not None else None
        error = JobTimeout(
            f"{work.policy.job}: task {task_id} has not ended within {deadline} s. The task continues and is paid for. "
            "What to do: run again to wait for the task, or cancel the run.",
            job=work.policy.job,
            task_id=task_id,
        )
        work.notify("waiting", error.message, task_id=task_id, costs=work.costs)
        return error

    def interrupt(self) -> None:
        """Stops the work in this process, outside of its critical sections; its task continues at RunningHub."""
        if self._life is not None:
            self._life.cancel()

    def forget(self) -> None:
        """Interrupts the work, and drops its result or error, because the error's traceback refers to this object."""
        self.interrupt()
        self._life = None

    @asynccontextmanager
    async def called(self) -> AsyncIterator[None]:
        """Counts a caller for a `with` block; if the last one ends with an error, the run no longer waits."""
        self.callers += 1
        try:
            yield
        except BaseException:
            if self.callers == 1:
                await self.leave()
            raise
        finally:
            self.callers -= 1
            if not self.callers:
                self.forget()  # a caller that leaves its task for a suspension waits for it no more

    async def leave(self) -> None:
        """Stops the work, and records that this process no longer waits; other processes of the run may still wait."""
        self.interrupt()
        try:
            await LOOP.critical(self.work.records.release_waiter(only_own=True))
        except RunningHubError as error:
            # The end of the run is proved by its process, or by its state in Prefect.
            _log.info("%s: could not record that this run no longer waits for it: %s", self.work.job, error)


@dataclass(frozen=True, slots=True)
class WorkRunner:
    """Runs the works of one call or one pipeline in a run; used on the package's loop thread."""

    shared: PoolServices  # The accounts that may pay, and what their works share
    scope: Scope  # The run that the works belong to
    store: MediaStore  # Where their outputs go
    # The records that runs share, from `open_works`; None for works of one run, in its own journal
    works: WorksJournal | None = None
    options: Options = field(default_factory=Options)  # How the works are made
    # The runs around the call; see `scope.is_repeat`. None for a call that others may repeat without limit
    chain: Chain | None = None
    observer: Observer = field(default_factory=Silent)  # Is notified of every change
    pipeline: str = ""  # The pipeline's name, for the records
    is_planned: bool = False  # Whether the budget comes from the prices of a plan; see `Policy.is_planned`
    has_ended: HasEnded = no_evidence  # Returns whether a flow run has certainly ended; it may wait for a work no more

    async def prepare(self, asked: WorkCall) -> tuple[str, JobRequest]:
        """Checks a work as far as possible without paying; returns its id and its request."""
        try:
            label = asked.step or self.options.label
            prepared = await self.shared.prepare(asked.request, self.scope, self.store, label)
        except (ApiError, TransportError) as error:
            if not asked.saved_graph or isinstance(error, AccountError | KeyRejected):
                raise
            message = unread_graph(asked.request.model.replace("/", " "), error)
            raise JobError(f"{asked.step}: {message} Nothing was paid for this step.") from error
        base = self._base(prepared, asked)
        request = replace(prepared, base=base)
        if asked.planned and isinstance(asked.request, WorkflowInput | AppInput | GraphInput):
            _refuse_edited(asked, prepared)
            # The plan has hashed the site's graph into the work, and `_refuse_edited` has compared the graph.
            return asked.planned, request
        own = "" if self.works is not None else self.scope.journal.scope
        return work_id(base, asked.take, asked.scope or own), request

    async def make(self, asked: WorkCall) -> Delivered:
        """Returns the result of a step's work, and pays for it if no run has done so; see `complete`."""
        return undamaged(asked, await self.complete(asked))

    async def complete(self, asked: WorkCall) -> Delivered:
        """Returns the result of a work, and pays for it if no run has done so; see `lifecycle.run_work`."""
        async with self.running(asked) as running:
            done = await running.complete(self.options.deadline)
        return done  # noqa: RET504 - for mypy, the block may swallow an error

    @asynccontextmanager
    async def running(self, asked: WorkCall) -> AsyncIterator[RunningWork]:
        """Registers a caller of a work for a `with` block, and starts the work if no other caller has.

        All callers of a run share the work. Meanwhile, the run writes signs of life. If the last caller ends with an
        error, the run no longer waits for the work.
        """
        work, name = await self._begin(asked)
        task, may_repeat = asyncio.current_task(), self.options.same
        own = asked.shape, self.store.identity, self.options.budget
        with self.scope.calls.asking(work.key, self.chain, job=work.job, may_repeat=may_repeat, task=task):
            known = self.shared.running.setdefault(name, {})
            for other in known.values():
                # Steps of a pipeline may share a work with other options.
                if asked.step is None and not other.is_over:
                    _refuse_unequal(other.work.policy, work.policy)
            running = known.get(own)
            if running is None or running.is_over:
                running = known[own] = RunningWork(work)
            try:
                async with running.called():
                    with running.work.records.signs_of_life():
                        yield running
            except (JournalError, StoreError) as error:
                shared = running.work
                if not (shared.records.is_shared and running.may_have_paid):
                    raise
                raise error.of_step(shared.policy.title).with_note(
                    "A task was paid for, or may have been. What to do: run again; the run uses the result of "
                    "this task and submits no other task."
                ) from error
            finally:
                if not running.callers and known.get(own) is running:  # a call since the interruption has another one
                    del known[own]
                    if not known:
                        del self.shared.running[name]

    async def _begin(self, asked: WorkCall) -> tuple[Work, WorkName]:
        """Checks a work without paying; returns the work, and its name for other calls of this process."""
        shared = self.shared
        await shared.listen_for_ends(self.scope)
        if self.options.budget is not None:
            await shared.pool.check_currency()
        work, request = await self.prepare(asked)
        if asked.planned not in ("", work):
            raise JobError(
                f"{asked.step}: its request ({work[:12]}) differs from the planned request ({asked.planned[:12]}). "
                "Nothing was paid. This is a defect in rh-prefect. What to do: report it with the pipeline's file."
            )
        await shared.open(self.scope, self.store)
        place = self.works or self.scope.journal
        return self._context(asked, work, request), (place.scope, self.scope.calls.number, work)

    async def look_up(self, asked: WorkCall) -> FoundWork:
        """Returns the recorded state of a call's work; pays nothing."""
        work, request = await self.prepare(asked)
        records = self._records(work)
        view, is_done = await records.view(), await records.read_result() is not None
        if not is_done and self.options.reuse == "always" and not view.submits:
            is_done = await LOOP.in_file_thread(find_equal, self.store, request, take=asked.take) is not None
        return FoundWork(work, request, view, is_done)

    async def collect(self, intent: Intent, key: str) -> Delivered | None:
        """Completes a work that was paid for earlier; submits nothing.

        The run that paid may have ended, so this process writes no signs of life of that run: `Rounds` would refuse the
        next run.
        """
        collecting = replace(self, options=Options(may_submit=False))
        work = collecting._context(_COLLECTION, key, JobRequest.of(intent))
        running = RunningWork(work)
        async with running.called():
            done = await running.complete()
        return done  # noqa: RET504 - as in `complete`

    async def costs(self) -> dict[str, Costs]:
        """Returns a flow run's payments for shared works, also for failed tasks and invalid answers, by work id."""
        claimed = {work for work, _ in (await Notes.of(self.scope)).claims}
        costs = await spending_of(self.scope).costs()
        return {work: costs[work] for work in claimed & costs.keys()}

    def _base(self, request: JobRequest, asked: WorkCall) -> str:
        """Returns the hash of a request, after the replacements in `stands_for`."""
        if asked.stands_for:
            payload = replace_marks(request.request, asked.stands_for)
            base = base_hash(site=request.site, endpoint=request.endpoint, payload=payload)
            request = replace(request, base=base)
        # In the scope of one run an edited graph of the site makes no other work.
        return (request if self.works is None else request.with_graph()).base

    def _records(self, work: str) -> JobRecords:
        if self.works is None:
            return JobRecords(self.scope.journal, work)
        return SharedRecords(self.works, work, self.scope, has_ended=self.has_ended)

    def _name_for_commands(self, records: JobRecords) -> str:
        """Returns the name of a work for commands; a flow run's journal says on any machine where its works are."""
        if not records.is_shared or isinstance(self.scope, FolderScope):
            return records.name
        return f"{self.scope.journal.scope}/{records.key}"

    def _context(self, asked: WorkCall, work: str, request: JobRequest) -> Work:
        shared, scope = self.shared, self.scope
        pool, records = shared.pool, self._records(work)
        REQUESTED_KEYS.setdefault(scope.journal.scope, set()).add(work)
        return Work(
            request=request,
            records=records,
            scope=scope,
            store=self.store,
            observer=self.observer,
            policy=self._policy(asked, request, records),
            lease=Lease(
                pool,
                pool.exclusions(scope),
                model=request.model,
                endpoint=request.endpoint,
                job=self._name_for_commands(records),
                turn=Turn(scope.journal.scope, asked.position) if asked.step is not None else None,
            ),
            services=shared,
            spending=spending_of(scope),
            delivery=self._delivery(asked),
            callback=shared.callback(request) if self.options.may_submit else None,
            pipeline=self.pipeline,
        )

    def _policy(self, asked: WorkCall, request: JobRequest, records: JobRecords) -> Policy:
        scope, pool, step = self.scope, self.shared.pool, asked.step
        options = {one.name: getattr(self.options, one.name) for one in fields(Options)}
        budget = options.pop("budget")
        policy = Policy(
            **{**options, "take": asked.take},
            job=self._name_for_commands(records),
            endpoint=request.endpoint,
            run=scope.journal.scope if records.is_shared else "",
            attempt=scope.attempt,
            first_attempt=scope.first_attempt,
            # str() keeps the decimal digits: Decimal(0.1) is not 0.1.
            budget=None if budget is None else Decimal(str(budget)),
            is_planned=self.is_planned,
            assumed_price=asked.price,
            may_switch_account=not pool.is_single,
            task_list=pool.provider(request.endpoint).task_list,
        )
        if step is None:
            return policy
        return replace(
            policy,
            name=step,
            attempts=asked.attempts,
            unpriced_advice="give the step a price in the file, as in assume: {price: 0.50} (a batch: leave out "
            "the budget), and run again",
            forbidden=asked.forbidden,
            another_task="for a new task of the same request, run the pipeline with --retake (`batch --print` prints "
            "the pipeline of a batch)",
        )

    def _delivery(self, asked: WorkCall) -> ResultDelivery:
        if self.works is None:
            return ResultDelivery()
        if asked.step is None and not self.pipeline:
            return ResultDelivery(
                advice=(
                    "run it again: RunningHub stores the file for about a day, and the download costs nothing. After "
                    "that, another `take` pays for a new result."
                )
            )
        return ResultDelivery(
            publish_file=named_by_content,
            parse=asked.parse,
            shape=asked.shape,
            is_here=self.works.is_in,
            advice=(
                "run again within about a day: RunningHub still stores the file, and the download costs nothing. If a "
                "file stays missing, run with --retake for this step; this pays for a new result."
            ),
        )


def undamaged(asked: WorkCall, done: Delivered) -> Delivered:
    """Returns the result of a step's work; raises `MediaError` if a file is damaged."""
    for file in done.result.damaged:
        raise MediaError(
            f"{asked.step}: task {done.record.task_id} was paid for, but each download of {file.uri} was damaged "
            f"({file.defect}). The file is stored, but not used. What to do: run again within a day (this downloads "
            "the file again at no cost), or pay for a new result with --retake."
        )
    return done


def named_by_content(work: Work, end: End, part: Path, index: int, extension: str) -> Media:  # noqa: ARG001
    """Publishes an output under a name derived from its content; parallel runs then write equal files."""
    described = work.store.describe(part, "described")
    name = f"{FILES}/{described.sha256}.{extension.lower()}"
    # Even if the file exists already: it may be damaged.
    work.store.move(part, name, known=described)
    return described.at(name)


def _state_of(error: RunningHubError) -> JobEventState:
    if isinstance(error, SubmissionUnknown):
        return "unknown"
    return "cancelled" if isinstance(error, JobCancelled) else "failed"


def _refuse_unequal(first: Policy, other: Policy) -> None:
    """Raises an error if a call shares a work in progress but has different payment options."""
    for name in ("attempts", "on_unknown"):
        if (given := getattr(first, name)) != (now := getattr(other, name)):
            raise InputError(
                f"{first.job}: another call is making this job with {name}={given!r}, but this call has "
                f"{name}={now!r}. Nothing was paid for this call. What to do: give both calls the same value."
            )


def _refuse_edited(asked: WorkCall, request: JobRequest) -> None:
    """Raises an error if a graph was edited on the site after the plan; the edited graph would make another result."""
    if asked.saved_graph != request.graph:
        raise JobError(
            f"{asked.step}: the graph of {request.model} was edited on the site after this run was planned. "
            "Nothing was paid for this step. What to do: run again."
        )

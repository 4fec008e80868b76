"""Runs one work: executes the steps that `run_work` of `work_lifecycle` yields."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

from rh_prefect.caches_and_locks import SharedTasks
from rh_prefect.client import TaskView
from rh_prefect.errors import (
    AccountError,
    ApiError,
    ConfigError,
    JobError,
    JobTimeout,
    JournalError,
    KeyRejected,
    MediaError,
    OutputsExpired,
    OutputsPending,
    StoreError,
    TaskNotFound,
    TransportError,
)
from rh_prefect.jobs.accounts.account import Member, is_native
from rh_prefect.jobs.accounts.account_slot import SlotLease
from rh_prefect.jobs.accounts.limiter import Turn
from rh_prefect.jobs.download_folder import part_file, remove
from rh_prefect.jobs.engine import JobEngine
from rh_prefect.jobs.events import JobEvent
from rh_prefect.jobs.job_context import JobCall, JobContext
from rh_prefect.jobs.journal.budget import spend_tracker_of
from rh_prefect.jobs.journal.costs import Costs
from rh_prefect.jobs.journal.identity import base_hash
from rh_prefect.jobs.journal.job_records import JobRecords, JobView, Submit
from rh_prefect.jobs.journal.record_types import End, Intent
from rh_prefect.jobs.lifecycle_step_types import Step
from rh_prefect.jobs.options import Request, policy_of
from rh_prefect.jobs.outputs.collect import Collector, Names, extension_of_output
from rh_prefect.jobs.outputs.result import Result
from rh_prefect.jobs.requests.request_preparation import JobRequest, as_recorded, replace_marks
from rh_prefect.jobs.step_executor import StepExecutor
from rh_prefect.media.media import Media
from rh_prefect.pipelines import work_lifecycle as protocol
from rh_prefect.pipelines.plan.identity import work_id
from rh_prefect.pipelines.run_ledger import WorksLedger, run_name
from rh_prefect.pipelines.site_graphs import unread
from rh_prefect.pipelines.stored_edits import publish_content
from rh_prefect.pipelines.work_lifecycle import Home, Invalid, WorkPolicy, WorkStep, run_work
from rh_prefect.pipelines.works_store import WorksJournal
from rh_prefect.settings import Settings
from rh_prefect.workflows import AppInput, GraphInput, WorkflowInput

_log = logging.getLogger("rh_prefect")

LONGEST_WAIT = 12 * 3600.0
"""Seconds for which a run without a deadline waits for the task of an account whose key it does not have."""

_LONGEST_PAUSE = 15.0


@dataclass(frozen=True, slots=True)
class WorkCall:
    """A step's request for a work.

    Attributes:
        name: The step's address, as in `each[A-17].clip`.
        request: A model, a workflow or an app, with its parameters.
        take: Which of several results of the request.
        attempts: How many tasks this run may pay for.
        parse: Reads the answer; raises `ValueError` where it has another shape.
        shape: What `parse` asks for; see `parsed_answers.shape_of`.
        stands_for: What counts in the request for a text of it: for a file that was rendered again the mark of the
            first one, for an id that ends at RunningHub the work that gave it.
        planned: The work that the plan names; another one is not paid for. Empty outside of plans.
        price: What it costs at most, where neither the catalogue nor RunningHub knows its price.
        forbidden: Why the run must not pay for it; see `work_lifecycle.WorkPolicy`.
        saved_graph: Of a workflow or an app: the fingerprint of the graph that the plan has read.
        position: When it gets a slot among the works of its run; see `limiter.Turn`.
    """

    name: str
    request: Request
    take: int = 1
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
        home: What is recorded.
        files: Its files, with their addresses.
        is_new: Whether this flow run has paid for it.
    """

    work: str
    home: Home
    files: tuple[Media, ...]
    is_new: bool


@dataclass(frozen=True)
class WorkContext(JobContext):
    """One work of a step, with everything needed to run it.

    Attributes:
        flow_run: The flow run.
        pipeline: The pipeline's name.
    """

    flow_run: str = ""
    pipeline: str = ""

    def intent(self, member: Member) -> Intent:
        """Makes the record that precedes a POST; see `JobContext.intent`."""
        return super().intent(member).model_copy(update={"flow_run": self.flow_run, "flow": self.pipeline})


class WorkRunner:
    """A runner of the works of one flow run, on the package's loop thread; equal works run once."""

    def __init__(self, engine: JobEngine, works: WorksJournal, *, settings: Settings, pipeline: str = "") -> None:
        """Takes the accounts and the records; nothing happens yet.

        Args:
            engine: The accounts that may pay.
            works: The records of works, from `open_works`.
            settings: This machine's state folder.
            pipeline: The pipeline's name, for the records.
        """
        self._engine = engine
        self._pipeline = pipeline
        self._works = works
        self._settings = settings
        self._running: SharedTasks[tuple[str, str, str], Home] = SharedTasks()

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
            return bool(await journal.job(work_id(_base(request, work_call.stands_for), work_call.take)))

        try:
            prepared = await self._engine.prepare(work_call.request, call.scope, call.store, work_call.name)
        except (ApiError, TransportError) as error:
            if not work_call.saved_graph or isinstance(error, AccountError | KeyRejected):
                raise
            message = unread(work_call.request.model.replace("/", " "), error)
            raise JobError(f"{work_call.name}: {message} Nothing was paid for it.") from error
        prepared = await as_recorded(prepared, journal=journal, is_recorded=is_recorded)
        request = replace(prepared.with_graph(), base=_base(prepared, work_call.stands_for))
        if work_call.planned and isinstance(work_call.request, WorkflowInput | AppInput | GraphInput):
            _refuse_edited(work_call, prepared)
            # A graph's work is its id, the fields that are set and what else is in the graph, as the plan has read it.
            return work_call.planned, request
        return work_id(request.base, work_call.take), request

    async def make(self, work_call: WorkCall, call: JobCall) -> WorkResult:
        """Gets the result of a work, and pays for it if no run has done so.

        Args:
            work_call: The step's request for a work.
            call: Its run, and how it is run.

        Raises:
            RunningHubError: As `run_work` says, and what client, records and store raise.
        """
        work, request = await self.prepare(work_call, call)
        if work_call.planned not in ("", work):
            raise JobError(
                f"{work_call.name}: the plan names work {work_call.planned[:12]}, and its request is {work[:12]}. "
                "Nothing was paid. This is a defect of rh-prefect. What to do: report it with the pipeline's file."
            )
        if request.estimate is None and work_call.price is not None:
            request = replace(request, estimate=work_call.price)
        driver = self._driver(work_call, call, work, request)
        flow_run = call.scope.journal.scope
        home = await self._running.run((flow_run, work, work_call.shape), driver.make)
        return WorkResult(work, home, self._works.files_of(home, call.store), home.flow_run == flow_run)

    async def costs(self, call: JobCall) -> dict[str, Costs]:
        """Returns a flow run's payments for each work, by its id, including failed tasks and refused answers.

        Args:
            call: The flow run.

        Raises:
            JournalError: The records cannot be read.
        """
        ledger = WorksLedger(call.scope, self._works)
        return await spend_tracker_of(ledger, attempt=call.scope.calls.number).costs()

    def spent_on(self, work: str, call: JobCall) -> Costs:
        """Returns a flow run's payments for a work in this process.

        Args:
            work: The work's id.
            call: The flow run.
        """
        return spend_tracker_of(WorksLedger(call.scope, self._works)).spent_on(work) or Costs()

    def _driver(self, work_call: WorkCall, call: JobCall, work: str, request: JobRequest) -> WorkDriver:
        engine, scope = self._engine, call.scope
        pool, records = engine.pool.for_endpoint(request.endpoint), JobRecords(self._works, work)
        ledger = WorksLedger(scope, self._works)
        policy = policy_of(request, scope, call.options, job=records.name, may_switch_account=not engine.pool.is_single)
        turn = Turn(ledger.flow_run, work_call.position)
        context = WorkContext(
            request=request,
            records=records,
            scope=scope,
            store=call.store,
            observer=call.observer,
            policy=policy,
            lease=SlotLease(pool, pool.exclusions(scope), model=request.model, job=records.name, turn=turn),
            services=engine.services,
            spending=spend_tracker_of(ledger, attempt=scope.calls.number),
            options=call.options,
            caller=call.caller,
            flow_run=ledger.flow_run,
            pipeline=self._pipeline,
        )
        return WorkDriver(context, work_call, self._works, ledger, settings=self._settings)


class WorkDriver(StepExecutor):
    """Executes the steps that the protocol selects, for one work."""

    def __init__(
        self, context: WorkContext, work_call: WorkCall, works: WorksJournal, ledger: WorksLedger, *, settings: Settings
    ) -> None:
        """Takes a work; nothing happens yet.

        Args:
            context: The work.
            work_call: The step's request for a work.
            works: The records of works.
            ledger: The claims of the flow run.
            settings: This machine's state folder.
        """
        super().__init__(context)
        self._work_call = work_call
        self._works = works
        self._ledger = ledger
        self._settings = settings
        self._is_counted = False
        self._end: End | None = None
        self._interest = run_name(context.flow_run)
        self._policy = WorkPolicy(
            name=work_call.name,
            job=context.job,
            endpoint=context.request.endpoint,
            flow_run=context.flow_run,
            attempts=work_call.attempts,
            since=context.scope.first_attempt,
            budget=context.policy.budget,
            may_switch_account=context.policy.may_switch_account,
            forbidden=work_call.forbidden,
        )

    async def make(self) -> Home:
        """Gets the result of the work."""
        self._spending.is_limited |= self._policy.budget is not None
        try:
            return await self._begin(cast(Any, run_work(self._policy)))
        except (JournalError, StoreError) as error:
            if not self._spending.newest_submit(self._key):
                raise
            raise error.of_step(self._policy.name).with_note(
                "A task was paid for, or may have been. What to do: run again, which takes its result and pays for no "
                "other one."
            ) from error
        finally:
            self.release()

    async def _do(self, step: Step | WorkStep) -> Any:  # each step documents its result
        match step:
            case protocol.ReadHome():
                return self._notified(await self._works.read_home(self._key, shape=self._work_call.shape))
            case protocol.RecordInterest():
                return await self._works.record_interest(self._key, self._interest)
            case protocol.ReadSubmission(n):
                return await self._read_submission(n)
            case protocol.NoteClaim(n):
                return await self._ledger.note_claim(self._key, n, self._work_call.name)
            case protocol.NoteWait(n):
                return await self._ledger.note_wait(self._key, n)
            case protocol.ReadWait(n):
                return await self._ledger.has_waited(self._key, n)
            case protocol.ReadInterests():
                return await self._works.has_other_interest(self._key, self._interest)
            case protocol.Publish(submit, end):
                return await self._publish(submit, end)
            case protocol.RecordHome(home):
                return self._notified(await self._works.create_home(self._key, home, shape=self._work_call.shape))
            case _:
                return await super()._do(step)

    async def _read_submission(self, n: int) -> Submit | None:
        submit = await self._works.submission(self._key, n)
        if submit is None:
            return None
        submit = await self._submitter.with_spooled(submit)
        if self._is_own(submit) and not self._is_counted:
            await self._count_own()
        if self._is_own(submit):
            self._spending.note(self._key, submit)
        return submit

    async def _count_own(self) -> None:
        """Counts all submissions that this run has made of the work, before another is considered."""
        view = JobView.parse(self._key, await self._works.job(self._key))
        self._spending.take(replace(view, submits=tuple(filter(self._is_own, view.submits))))
        self._is_counted = True

    def _is_own(self, submit: Submit) -> bool:
        return submit.intent.flow_run == self._policy.flow_run

    def _settled(self, submit: Submit, end: End) -> End:
        # Another run's task counts in that run's budget.
        return super()._settled(submit, end) if self._is_own(submit) else end

    async def _await_end(self, submit: Submit, *, adopted: bool) -> End:
        if not (self._is_own(submit) or await self._can_poll(submit)):
            return await self._await_record(submit)
        try:
            return await super()._await_end(submit, adopted=adopted)
        except OutputsPending as error:
            raise _with_advice(error, "run again later. The task is then queried again, at no cost.") from error

    async def _can_poll(self, submit: Submit) -> bool:
        """Returns whether an account of this run can query the task of another run."""
        try:
            account = await self._lease.switch_to(submit.intent)
            if not self._lease.is_account_of(submit.intent):
                # It may be the same account with a new key or another name, or another account.
                await account.client.query(submit.task_id or "")
        except (ConfigError, TaskNotFound):
            return False
        return True

    async def _await_record(self, submit: Submit) -> End:
        """Waits until another run has recorded the end of a task that this run cannot poll."""
        services, deadline = self.context.services, self.context.options.deadline or LONGEST_WAIT
        began, gap, account = services.clock(), 0.05, submit.intent.account
        message = (
            f"task {submit.task_id} is running on account {account}, whose key this run does not have; "
            "waiting for its end"
        )
        self.context.notify("adopted", message, task_id=submit.task_id)
        while services.clock() - began < deadline:
            end = await self.context.records.read_end(submit.n)
            if end is not None:
                return end
            await services.sleep(gap)
            gap = min(_LONGEST_PAUSE, gap * 1.5)
        raise JobTimeout(
            f"{self._policy.name}: task {submit.task_id} was submitted by run {submit.intent.flow_run} on "
            f"account {account}, whose key this run does not have, and its end was not recorded within "
            f"{deadline:.0f} s. Nothing was paid. What to do: configure the credentials of that account "
            "for this run, and run again.",
            job=self.context.job,
            task_id=submit.task_id,
        )

    async def _publish(self, submit: Submit, end: End) -> Home | Invalid:
        context, self._end = self.context, end
        context.notify("collecting", "downloads its outputs", task_id=submit.task_id)
        collecting = (await self._collector(submit)).collect(
            context.request, job=context.job, key=context.key, submit=submit, end=end, first_time=False
        )
        try:
            result = await context.services.stores.storing(context.run_attempt, context.store, context.job, collecting)
        except OutputsExpired as error:
            raise _with_advice(
                error,
                "run again, which downloads it at no cost while RunningHub stores it, about a day. If a file stays "
                "missing, run with --retake of this step, which pays for a new result.",
            ) from error
        if result.damaged:
            file = result.damaged[0]
            raise MediaError(
                f"{self._policy.name}: task {end.task_id} was paid for, and {file.uri} is damaged ("
                f"{file.defect}): RunningHub gave it so each time. It is kept, and is not used. What to "
                "do: run again within a day, which downloads it again at no cost; or pay for a new "
                "result with --retake."
            )
        return self._home(submit, end, result)

    def _home(self, submit: Submit, end: End, result: Result) -> Home | Invalid:
        value = None
        if self._work_call.parse is not None:
            try:
                value = self._work_call.parse(result.text)
            except ValueError as error:
                return Invalid(str(error))
        store = self.context.store
        named = [(store.name_of(file.uri) or file.uri, file) for file in result.outputs]
        return Home(
            task_id=end.task_id,
            n=submit.n,
            flow_run=submit.intent.flow_run,
            store=store.url,
            outputs=tuple(file.model_copy(update={"uri": name}) for name, file in named),
            texts=result.texts,
            value=value,
            cost=end.cost,
            currency=end.currency,
            coins=end.coins,
        )

    def _notified(self, home: Home | None) -> Home | None:
        """Notifies the observer of the result, which this run or another one has paid for."""
        if home is None:
            return None
        is_own = home.flow_run == self._policy.flow_run
        names = [self.context.store.uri(file.uri) for file in home.outputs]
        costs = (self._spending.spent_on(self._key) or Costs.of(home.cost, home.currency)) if is_own else Costs()
        what = ", ".join(names) or f"{sum(map(len, home.texts))} characters of text"
        ending = f"done: {what}; {costs}" if is_own else f"run {home.flow_run} has made it: {what}; nothing was paid"
        event = JobEvent(
            state="succeeded" if is_own else "reused",
            job=self.context.job,
            model=self._request.model,
            label=self._request.label,
            task_id=home.task_id,
            message=ending,
            cost=home.cost if is_own else None,
            currency=home.currency,
            costs=costs,
            queued_seconds=self._end.queued_seconds if self._end is not None else None,
            run_seconds=self._end.run_seconds if self._end is not None else None,
            output=names[0] if names else None,
        )
        self.context.observer.notify(event)
        return home

    async def _collector(self, submit: Submit) -> WorkCollector:
        lease = self._lease

        async def query(task_id: str) -> TaskView:
            # Only here the account is needed: links take no key.
            return await (await lease.switch_to(submit.intent)).client.query(task_id)

        # Files of a machine are behind the key that paid for them.
        account = await lease.switch_to(submit.intent) if is_native(self._request.endpoint) else lease.account
        return WorkCollector(
            download=account.client.download,
            query=query,
            store=self.context.store,
            scope=self.context.scope,
            folder=self._settings.state_dir / "parts",
            grace=self._settings.grace_seconds,
        )


class WorkCollector(Collector):
    """Publishes outputs under names derived from their content, so that parallel runs write equal files."""

    async def _output(
        self,
        job: str,
        end: End,
        index: int,
        names: Names,  # noqa: ARG002 - of the base class
        *,
        earlier: Sequence[Media],  # noqa: ARG002 - of the base class
        first_time: bool,  # noqa: ARG002 - of the base class
    ) -> Media:
        with part_file(self.folder, f"{end.task_id}-{index}") as part:
            defect = await self._download(job, end, index, part)
            extension = await asyncio.to_thread(extension_of_output, end, index, part)
            return await asyncio.to_thread(
                self._publish_content, part, f".{extension}", defect.what if defect else None
            )

    def _publish_content(self, part: Path, extension: str, defect: str | None) -> Media:
        file, _ = publish_content(self.store, part, extension=extension)
        remove(part)
        return file.model_copy(update={"uri": self.store.uri(file.uri), "defect": defect})


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


def _with_advice(error: JobError, advice: str) -> JobError:
    """Returns the error with advice that is right for a work, which `rh-prefect jobs collect` does not take."""
    reason, _, _ = error.message.partition(" What to do: ")
    return type(error)(f"{reason} What to do: {advice}", job=error.job, task_id=error.task_id)

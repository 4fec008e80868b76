"""Runs a job from the call to the stored output files, and ensures that each job is paid for only once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias, assert_never, cast

from rh_prefect.caches_and_locks import LruCache, SharedTasks
from rh_prefect.client.connections import chance
from rh_prefect.custom import CustomInput
from rh_prefect.errors import JobTimeout
from rh_prefect.media.store import MediaStore
from rh_prefect.models import ModelInput
from rh_prefect.settings import Settings
from rh_prefect.workflows import AppInput, GraphInput, QuickCreateInput, WorkflowInput
from rh_prefect.works.accounts.account import Member, is_native
from rh_prefect.works.accounts.account_slot import SlotLease
from rh_prefect.works.accounts.pool import Pool
from rh_prefect.works.delivery import Delivered, Delivery
from rh_prefect.works.download_folder import StoreChecks
from rh_prefect.works.events import Observer, Silent, event_of
from rh_prefect.works.job_context import Callback, JobCall, JobContext, Services, callback_of
from rh_prefect.works.journal.budget import spend_tracker_of
from rh_prefect.works.journal.calls import REQUESTED_KEYS
from rh_prefect.works.journal.identity import work_id
from rh_prefect.works.journal.job_records import JobRecords, Submit
from rh_prefect.works.journal.journal import NotifyingJournal
from rh_prefect.works.journal.record_types import Intent
from rh_prefect.works.journal.record_types import Reused as ReusedRecord
from rh_prefect.works.journal.scope import OpenScopes, Scope
from rh_prefect.works.journal.spool import Spool
from rh_prefect.works.lifecycle_step_types import Accepted, Ended, Finished, Stage
from rh_prefect.works.options import Options, Request, policy_of
from rh_prefect.works.outputs import stored_result
from rh_prefect.works.outputs.result import Result
from rh_prefect.works.outputs.stored_result import StoredResult
from rh_prefect.works.requests.graph_request import app_request, native_request, quick_create_request, workflow_request
from rh_prefect.works.requests.input_identification import Inputs
from rh_prefect.works.requests.request_preparation import JobRequest, as_recorded, custom_request, prepare_request
from rh_prefect.works.requests.stored_input_copies import Copies
from rh_prefect.works.run_cancellation import CancelWatch
from rh_prefect.works.step_executor import StepExecutor


@dataclass(slots=True)
class Submitted:
    """A caller's ticket of a job whose task is known. The slot is held until the task has ended, or until `release`.

    Attributes:
        work: Continues the job; concurrent calls of the job share it.
        stage: The stage that the caller has reached: the submission, its end, or the result.
        context: The job as the caller wants it, with the caller's own deadline and storage.
        asked: The registration of the call; see `Calls.asking`.
    """

    work: StepExecutor
    stage: Stage
    context: JobContext
    asked: ExitStack = field(default_factory=ExitStack)

    @property
    def job(self) -> str:
        """The job's full name."""
        return self.context.job

    @property
    def task_id(self) -> str:
        """RunningHub's task id."""
        stage = self.stage
        return (_result_of(stage).task_id if isinstance(stage, Finished) else stage.submit.task_id) or ""

    @property
    def is_over(self) -> bool:
        """Whether the caller waits for no task any more."""
        return isinstance(self.stage, Finished) or (isinstance(self.stage, Ended) and self.stage.is_success)

    def release(self) -> None:
        """Releases the slot without completing the job."""
        self.work.release()


@dataclass(frozen=True, slots=True)
class Reused:
    """The ticket of a job that reuses the result of an earlier, finished job; nothing is submitted.

    Attributes:
        result: The earlier job's result.
    """

    result: Result

    @property
    def job(self) -> str:
        """The earlier job's full name."""
        return self.result.job

    @property
    def task_id(self) -> str:
        """RunningHub's task id."""
        return self.result.task_id


Ticket: TypeAlias = Submitted | Reused
"""What `JobEngine.submit` returns and `JobEngine.complete` takes."""


class JobEngine:
    """Runs jobs on one account or on a pool, on the package's loop thread. See `engine_for`."""

    def __init__(self, pool: Pool, *, settings: Settings) -> None:
        """Starts without jobs.

        Args:
            pool: The accounts that may pay.
            settings: This machine's state folder, and the webhook's address.
        """
        self.pool = pool
        self._settings = settings
        self._scratch = settings.state_dir
        self.services = Services(
            spool=Spool(self._scratch / "spool"),
            cancels=CancelWatch(),
            stores=StoreChecks(self._scratch / "parts"),
            sleep=asyncio.sleep,
            jitter=chance,
            submit_timeout=settings.submit_timeout,
        )
        self._submissions: SharedTasks[tuple[str, str], Submitted] = SharedTasks(drop=Submitted.release)
        self._stages: SharedTasks[tuple[str, str], tuple[StepExecutor, Stage]] = SharedTasks(
            drop=lambda reached: reached[0].release()
        )
        self._completions: SharedTasks[tuple[str, str, str], Result] = SharedTasks()
        self._inputs: LruCache[tuple[str, str], Inputs] = LruCache(50)
        self._scopes = OpenScopes()

    async def open(self, scope: Scope, store: MediaStore) -> bool:
        """Checks a scope before the first payment of an attempt; see `OpenScopes.open`."""
        return await self._scopes.open(scope, store)

    async def run(self, request: Request, call: JobCall) -> Result:
        """Runs one job: submits it, which pays for it once, and completes it.

        Args:
            request: A model, a workflow or an app, with its parameters.
            call: Who calls, in which run, and how the job is run.

        Returns:
            The result, with every output in the store.

        Raises:
            RunningHubError: See `rh_prefect.errors`; each says what happened, to which job, and what to do next.
        """
        return await self.complete(await self.submit(request, call))

    async def submit(self, request: Request, call: JobCall) -> Ticket:
        """Submits one job: checks it, and pays for it unless it was paid for earlier.

        The caller completes the ticket or releases it, before it awaits anything else.

        Args:
            request: A model, a workflow or an app, with its parameters.
            call: Who calls, in which run, and how the job is run.

        Returns:
            The ticket, which is recorded.

        Raises:
            RunningHubError: It was not submitted, or the outcome is unknown; see `rh_prefect.errors`.
        """
        scope, store, options = call.scope, call.store, call.options
        if options.budget is not None:
            await self.pool.check_currency()
        prepared, key = await self.identify(request, call)
        if options.reuse == "always":
            stored = await self._reusable(prepared, key, scope, store)
            if stored is not None:
                return _reused(stored, prepared, call)
            prepared = prepared.with_graph()
        is_new = await self.open(scope, store)
        with ExitStack() as asked:
            if not call.may_repeat:
                asked.enter_context(scope.calls.asking(key, call.chain, job=f"{scope.journal.scope}/{key}"))
            context = self._context(prepared, call, key, is_new=is_new)
            ticket = await self._submissions.run(_name(context), lambda: self._submit(context))
            return replace(ticket, context=context, asked=asked.pop_all())
        raise AssertionError("the block returns or raises")

    async def advance(self, ticket: Submitted) -> Stage:
        """Continues a submitted job to its next stage; concurrent calls of the job share it.

        Args:
            ticket: The ticket.

        Returns:
            `Ended` when its task has ended, `Accepted` of another task after one that failed, or `Finished`.

        Raises:
            JobTimeout: The task has not ended within the caller's deadline.
            RunningHubError: The task failed, was cancelled, or cannot be polled; or an output cannot be collected.
        """
        context, stage, own = ticket.context, ticket.stage, ticket.work

        async def advance() -> tuple[StepExecutor, Stage]:
            return own, await own.advance()

        running = stage.submit if isinstance(stage, Accepted) and stage.submit.end is None else None
        try:
            async with asyncio.timeout(context.options.deadline if running else None) as limit:
                ticket.work, ticket.stage = await self._stages.run(_name(context), advance)
        except TimeoutError:
            if running is None or not limit.expired():
                raise
            raise _timeout(context, running) from None
        if ticket.work is not own:  # the other one holds the slot
            own.release()
        return ticket.stage

    async def complete(self, ticket: Ticket) -> Result:
        """Waits for the end of a job's task, and collects its outputs.

        Args:
            ticket: The ticket, from `submit`.

        Returns:
            The result, with every output in the store.

        Raises:
            RunningHubError: The task failed, was cancelled, or cannot be polled; or an output cannot be collected.
        """
        if isinstance(ticket, Reused):
            return ticket.result
        with ticket.asked:
            while not ticket.is_over:
                await self.advance(ticket)
            name = (*_name(ticket.context), ticket.context.store.identity)
            return await self._completions.run(name, lambda: _collect(ticket))
        raise AssertionError("the block returns or raises")

    async def collect(
        self, intent: Intent, key: str, *, scope: Scope, store: MediaStore, observer: Observer | None = None
    ) -> Result | None:
        """Completes a job that was paid for earlier, without ever submitting.

        Args:
            intent: The job's newest intent.
            key: The job's key.
            scope: The run that it belongs to.
            store: Where its outputs go.
            observer: Is notified of every change.

        Returns:
            The result; None where nothing was paid.
        """
        options = Options(label=intent.label, may_submit=False)
        call = JobCall(scope, store, options=options, observer=observer or Silent())
        context = self._context(JobRequest.of(intent), call, key)
        work = StepExecutor(context)
        stage = await work.advance()
        if isinstance(stage, Ended) or (isinstance(stage, Finished) and stage.result is None):
            return None  # no task is known
        return await self.complete(Submitted(work, stage, context))

    def delivery(self, **more: Any) -> Delivery:
        """Makes the delivery of a work; see `Delivery`."""
        return Delivery(self._scratch / "parts", self._settings.grace_seconds, **more)

    def _context(self, request: JobRequest, call: JobCall, key: str, *, is_new: bool = False) -> JobContext:
        records = JobRecords(call.scope.journal, key)
        requested, pool = REQUESTED_KEYS[call.scope.journal.scope], self.pool.for_endpoint(request.endpoint)
        is_new = is_new and key not in requested
        requested.add(key)
        return JobContext(
            request=request,
            records=records,
            scope=call.scope,
            store=call.store,
            observer=call.observer,
            policy=policy_of(
                request, call.scope, call.options, job=records.name, may_switch_account=not pool.is_single
            ),
            lease=SlotLease(pool, pool.exclusions(call.scope), model=request.model, job=records.name),
            services=self.services,
            spending=spend_tracker_of(call.scope.journal, attempt=call.scope.calls.number),
            delivery=self.delivery(),
            options=call.options,
            callback=self.callback(request) if call.options.may_submit else None,
            is_new=is_new,
        )

    async def _submit(self, context: JobContext) -> Submitted:
        await self.listen_for_ends(context.scope)
        work = StepExecutor(context)
        stage = await work.advance()
        if isinstance(stage, Ended):
            raise AssertionError(f"{context.job}: the end of a task cannot be its first stage")
        return Submitted(work, stage, context)

    async def listen_for_ends(self, scope: Scope) -> None:
        """Has the ends that a webhook reports about tasks of a run wake the pollers of its accounts."""
        if self._settings.webhook_url and isinstance(scope.journal, NotifyingJournal):
            for member in self.pool.members:
                await scope.journal.notify_of_ends(member.account.poller)

    async def _reusable(self, request: JobRequest, key: str, scope: Scope, store: MediaStore) -> StoredResult | None:
        """Returns the finished job whose result a call reuses: the recorded or the newest one, or None."""
        await self.open(scope, store)
        records = JobRecords(scope.journal, key)
        view = await records.view()
        if view.submits:
            return None  # this run has paid for its own result
        if view.reused is None:
            found = await asyncio.to_thread(stored_result.find, store, request.base, request.graph)
            if found is None or await records.reuse(ReusedRecord(stored=stored_result.name_of(found))):
                return found
            view = await records.view()
        chosen = view.reused.stored if view.reused is not None else ""
        found = await asyncio.to_thread(stored_result.read, store, chosen)
        is_whole = found is not None and await asyncio.to_thread(stored_result.is_whole, store, found)
        return found if is_whole else None

    async def check(self, request: Request, *, scope: Scope, store: MediaStore, label: str | None = None) -> JobRequest:
        """Checks a job without paying: its parameters, its files, and the store.

        Args:
            request: A model, a workflow or an app, with its parameters.
            scope: The run that it belongs to.
            store: Where its outputs are to go.
            label: A name for its output.

        Returns:
            The request, with the catalogue's price.

        Raises:
            RunningHubError: A check failed.
        """
        prepared = await self.prepare(request, scope, store, label)
        await self.services.stores.check(store)
        return prepared

    async def identify(self, request: Request, call: JobCall) -> tuple[JobRequest, str]:
        """Checks a request, and finds its work's key in the scope of a call; nothing is paid.

        Args:
            request: A model, a workflow or an app, with its parameters.
            call: Who calls, in which run, and how the job is run.

        Raises:
            RunningHubError: As for `check`.
        """
        journal, options = call.scope.journal, call.options
        name = call.name or journal.scope
        is_reused = options.reuse == "always"

        def key_of(prepared: JobRequest) -> str:
            if is_reused:
                return work_id(prepared.with_graph().base, options.take, f"reuse {name}")
            return work_id(prepared.base, options.take, name)

        async def is_recorded(prepared: JobRequest) -> bool:
            return bool(await journal.job(key_of(prepared)))

        prepared = await self.prepare(request, call.scope, call.store, options.label)
        prepared = await as_recorded(prepared, is_recorded=is_recorded)
        return prepared, key_of(prepared)

    async def prepare(self, request: Request, scope: Scope, store: MediaStore, label: str | None) -> JobRequest:
        """Checks a request and identifies its files by content; nothing is paid.

        Args:
            request: A model, a workflow or an app, with its parameters.
            scope: The run that it belongs to.
            store: Where its outputs are to go.
            label: A name for its output.

        Raises:
            RunningHubError: A check failed.
        """
        inputs = self._inputs_of(scope, store)
        if isinstance(request, ModelInput):
            return await prepare_request(request, site=self.pool.site, inputs=inputs, label=label)
        if isinstance(request, CustomInput):
            return await custom_request(request, site=self.pool.site, inputs=inputs, label=label)
        return await self.pool.try_each(
            lambda member: _graph_request(request, member, inputs, label),
            model=request.model,
            exclusions=self.pool.exclusions(scope),
        )

    def callback(self, request: JobRequest) -> Callback | None:
        """Returns the address to which the end of a request's task is reported; None where there is none."""
        # An address in the caller's parameters takes precedence.
        own = "webhookUrl" in request.payload or "webhookUrl" in request.private
        return None if own or is_native(request.endpoint) else callback_of(self._settings)

    def _inputs_of(self, scope: Scope, store: MediaStore) -> Inputs:
        name = (scope.journal.scope, store.identity)
        if name not in self._inputs or self._inputs[name].attempt != scope.attempt:
            self._inputs[name] = Inputs(
                scope.journal,
                self._scratch / "inputs",
                options_for=store.options_for,
                copies=Copies(store),
                attempt=scope.attempt,
            )
        return self._inputs[name]


_engines: dict[tuple[Path, str | None, tuple[Member, ...]], JobEngine] = {}
# A forked child has its parent's locks, which are bound to a loop that the child does not have.
os.register_at_fork(after_in_child=_engines.clear)


def engine_for(
    members: Sequence[Member],
    *,
    settings: Settings,
    find: Callable[[Intent], Awaitable[Member]] | None = None,
    pool: str | None = None,
) -> JobEngine:
    """Returns this process's only `JobEngine` for some accounts; call it on the loop thread.

    Args:
        members: The accounts, of one site; at least one.
        settings: This machine's state folder, and how often tasks are polled.
        find: Finds the account that a record names where it is not among these; by default that is an error.
        pool: Name of the pool's block, if they are one.
    """
    name = (settings.state_dir, pool, tuple(members))
    if name not in _engines:
        _engines[name] = JobEngine(Pool(members, find=find, name=pool), settings=settings)
    return _engines[name]


def _name(context: JobContext) -> tuple[str, str]:
    return context.scope.journal.scope, context.key


def _timeout(context: JobContext, submit: Submit) -> JobTimeout:
    error = JobTimeout(
        f"{context.job}: task {submit.task_id} has not ended within {context.options.deadline} s. It continues to "
        "run and is paid for. What to do: run again to wait for it, or cancel the run.",
        job=context.job,
        task_id=submit.task_id,
    )
    context.notify("failed", error.message, costs=context.spending.spent_on(context.key))
    return error


async def _collect(ticket: Submitted) -> Result:
    """Collects the outputs of a task that has succeeded into the caller's storage."""
    work, context = ticket.work, ticket.context
    if context.store.identity != work.context.store.identity:
        work = StepExecutor(replace(context, policy=replace(context.policy, may_submit=False)))
    elif isinstance(ticket.stage, Finished):
        return _result_of(ticket.stage)
    return _result_of(await work.finish())


def _result_of(stage: Finished) -> Result:
    return cast(Delivered, stage.result).result


def _reused(stored: StoredResult, request: JobRequest, call: JobCall) -> Reused:
    result = stored.result(call.store, reused=True).model_copy(update={"label": call.options.label})
    message = f"taken from {result.record}; nothing was paid"
    call.observer.notify(event_of(result, message=message, prompt=request.prompt))
    return Reused(result)


async def _graph_request(
    request: WorkflowInput | AppInput | QuickCreateInput | GraphInput, member: Member, inputs: Inputs, label: str | None
) -> JobRequest:
    match request:
        case WorkflowInput():
            return await workflow_request(request, client=member.client, inputs=inputs, label=label)
        case AppInput():
            return await app_request(request, client=member.client, inputs=inputs, label=label)
        case QuickCreateInput():
            return await quick_create_request(request, client=member.client, inputs=inputs, label=label)
        case GraphInput():
            return await native_request(request, client=member.client, inputs=inputs, label=label)
        case other:
            assert_never(other)

"""Runs jobs from the call to the files in the store, and pays for each of them once."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import assert_never

from rh_prefect.client import TaskView
from rh_prefect.custom import CustomInput
from rh_prefect.errors import RunningHubError, SubmissionUnknown
from rh_prefect.jobs.accounts.account import Member
from rh_prefect.jobs.accounts.comfy_account import is_native
from rh_prefect.jobs.accounts.pool import Pool
from rh_prefect.jobs.accounts.slot_lease import SlotLease
from rh_prefect.jobs.cancel import CancelWatch
from rh_prefect.jobs.context import JobContext
from rh_prefect.jobs.driver import JobDriver, Services
from rh_prefect.jobs.events import Observer, Silent, event_of, what_of
from rh_prefect.jobs.in_flight import REQUESTED_KEYS, InFlightJobs
from rh_prefect.jobs.journal.budget import spend_tracker_of
from rh_prefect.jobs.journal.call_registry import Caller, Found
from rh_prefect.jobs.journal.identity import reused_key
from rh_prefect.jobs.journal.job_records import JobRecords, Submit
from rh_prefect.jobs.journal.journal import TellingJournal
from rh_prefect.jobs.journal.records import Intent, Reused
from rh_prefect.jobs.journal.scope import Scope
from rh_prefect.jobs.journal.spool import Spool
from rh_prefect.jobs.options import Asked, Options, policy_of
from rh_prefect.jobs.outputs import manifest as manifests
from rh_prefect.jobs.outputs.collect import Collector
from rh_prefect.jobs.outputs.manifest import Manifest
from rh_prefect.jobs.outputs.result import Result
from rh_prefect.jobs.requests.custom_request import custom_request
from rh_prefect.jobs.requests.graph_request import app_request, native_request, quick_create_request, workflow_request
from rh_prefect.jobs.requests.input_copies import Copies
from rh_prefect.jobs.requests.inputs import Inputs
from rh_prefect.jobs.requests.request import JobRequest, as_recorded, prepare_request
from rh_prefect.jobs.scope_checks import OpenScopes
from rh_prefect.jobs.suspension import Detached, SuspendGroup
from rh_prefect.jobs.webhook_address import Callback, callback_of
from rh_prefect.jobs.workdir import check_folder
from rh_prefect.media.store import MediaStore
from rh_prefect.memory_cache import LruCache, LruSet, SingleFlight
from rh_prefect.models import ModelInput
from rh_prefect.settings import Settings
from rh_prefect.workflows import AppInput, GraphInput, QuickCreateInput, WorkflowInput

_AS_USUAL = Options()
_UNKNOWN_CALLER = Caller()


class JobEngine:
    """Runs jobs on one account, or on a pool of them; lives on the package's loop thread. See `engine_for`."""

    def __init__(self, pool: Pool, *, settings: Settings) -> None:
        """Starts with no job.

        Args:
            pool: The accounts that may pay.
            settings: Where this machine's scratch lies, and whether ends are told of.
        """
        self.pool = pool
        self._settings = settings
        self._scratch = settings.state_dir
        self._world = Services(
            spool=Spool(self._scratch / "spool"), cancels=CancelWatch(), sleep=asyncio.sleep, jitter=random.random
        )
        self._ongoing = InFlightJobs()
        self._unknown: LruCache[tuple[str, str], SubmissionUnknown] = LruCache(1000)
        self._begun: LruSet[tuple[str, str]] = LruSet(20_000)
        self._inputs: LruCache[tuple[str, str], Inputs] = LruCache(50)
        self._scopes = OpenScopes()
        self._checks: SingleFlight[str, None] = SingleFlight(50)

    async def run(
        self,
        asked: Asked,
        *,
        scope: Scope,
        store: MediaStore,
        caller: Caller = _UNKNOWN_CALLER,
        options: Options = _AS_USUAL,
        observer: Observer | None = None,
    ) -> Result:
        """Runs one job: checks it, pays for it once, waits for it, and downloads its outputs.

        Args:
            asked: A model, a workflow or an app, with its parameters.
            scope: The run that it belongs to.
            store: Where its outputs go.
            caller: Who asks, and where in the run.
            options: How to run it.
            observer: Is told of every change.

        Returns:
            The result, with every output in the store.

        Raises:
            RunningHubError: See `rh_prefect.errors`; each says what happened, to which job, and what to do next.
        """
        done = await self.run_or_leave(
            asked, scope=scope, store=store, caller=caller, options=options, observer=observer
        )
        if isinstance(done, Detached):
            raise AssertionError("a job of no round is not left")
        return done

    async def run_or_leave(
        self,
        asked: Asked,
        *,
        scope: Scope,
        store: MediaStore,
        caller: Caller = _UNKNOWN_CALLER,
        options: Options = _AS_USUAL,
        observer: Observer | None = None,
        together: SuspendGroup | None = None,
    ) -> Result | Detached:
        """Runs one job as `run` does; as one of a round it is left to itself when all of them run.

        Args:
            asked: A model, a workflow or an app, with its parameters.
            scope: The run that it belongs to.
            store: Where its outputs go.
            caller: Who asks, and where in the run.
            options: How to run it.
            observer: Is told of every change.
            together: The round that it is one of.

        Returns:
            The result, with every output in the store; or that the task goes on.

        Raises:
            RunningHubError: See `rh_prefect.errors`; each says what happened, to which job, and what to do next.
        """
        watcher = observer or Silent()
        if options.budget is not None:
            await self.pool.check_currency()
        order = await self._place(asked, scope, store, options.label)
        order = await as_recorded(order, journal=scope.journal, key=options.key)
        if options.reuse == "always" and (known := await self._reusable(order, scope, store, options)):
            served = known.result(store, reused=True).model_copy(update={"label": options.label})
            watcher.notify(event_of(served, message=f"served from {served.manifest}; nothing was paid"))
            return served
        order = order.as_read() if options.reuse == "always" and options.key is None else order
        found = await self._find(order, scope, store, caller, options)
        equal = (scope.journal.scope, order.request_id)
        if options.key is None:
            self._refuse_beside_unknown(equal, found.key)
        call = JobContext(
            order, found.key, scope, store, options, watcher, caller, found, self._callback(order), together
        )
        if found.note:
            call.tell("matched", found.note)
        try:
            result = await self._once(call)
        except SubmissionUnknown as error:
            # Without its traceback, whose frames hold the whole call.
            self._unknown[equal] = SubmissionUnknown(error.message, job=error.job, task_id=error.task_id)
            raise
        if result is None:
            raise AssertionError("a job that may be submitted ends with a result or an error")
        return result

    async def _reusable(self, order: JobRequest, scope: Scope, store: MediaStore, options: Options) -> Manifest | None:
        """The finished job that serves a call: what served it before, else the newest; None for the run's own."""
        key = reused_key(order.as_read().request_id) if options.key is None else order.key(options.key)
        await self._scopes.open(scope, store)
        records = JobRecords(scope.journal, key)
        view = await records.view()
        if view.submits:
            return None  # this run has paid for it: what has been made elsewhere since is another result
        if view.reused is None:
            known = await asyncio.to_thread(manifests.find, store, order.base, order.graph)
            if known is None or await records.reuse(Reused(manifest=known.name)):
                return known
            view = await records.view()
        chosen = view.reused.manifest if view.reused is not None else ""
        found = await asyncio.to_thread(manifests.read, store, chosen)
        return found if found is not None and await asyncio.to_thread(manifests.is_done, store, found) else None

    async def _find(
        self, order: JobRequest, scope: Scope, store: MediaStore, caller: Caller, options: Options
    ) -> Found:
        is_empty = await self._scopes.open(scope, store)
        if options.key is not None:
            return Found(order.key(options.key), is_new=is_empty)
        if options.reuse == "always":
            return Found(reused_key(order.request_id), is_new=is_empty)
        return await scope.calls.find(
            order.request_id, caller, journal=scope.journal, attempt=scope.attempt, is_empty=is_empty
        )

    def _refuse_beside_unknown(self, equal: tuple[str, str], key: str) -> None:
        """Keeps a loop of the caller's own, which tries an unknown submit again, from paying for one equal to it."""
        unknown = self._unknown.get(equal)
        if unknown is not None and (equal[0], key) not in self._begun:
            raise SubmissionUnknown(unknown.message, job=unknown.job, task_id=unknown.task_id)
        self._begun.add((equal[0], key))

    async def check(self, asked: Asked, *, scope: Scope, store: MediaStore, label: str | None = None) -> JobRequest:
        """Checks all that can be checked of a job without paying: its parameters, its files, and the store.

        Args:
            asked: A model, a workflow or an app, with its parameters.
            scope: The run that it belongs to.
            store: Where its outputs are to go.
            label: A name for its output.

        Returns:
            What would be sent, with its price by the catalogue.

        Raises:
            RunningHubError: What is wrong.
        """
        order = await self._place(asked, scope, store, label)
        await self._check_store(store)
        return order

    async def key_of(self, asked: Asked, *, scope: Scope, store: MediaStore, label: str | None, key: str) -> str:
        """Finds the key that a job would have; nothing is paid.

        Args:
            asked: A model, a workflow or an app, with its parameters.
            scope: The run that it belongs to.
            store: Where its outputs are to go.
            label: A name for its output.
            key: The caller's own key.

        Raises:
            RunningHubError: As for `check`.
        """
        order = await self._place(asked, scope, store, label)
        return (await as_recorded(order, journal=scope.journal, key=key)).key(key)

    async def bring_home(
        self, intent: Intent, key: str, *, scope: Scope, store: MediaStore, observer: Observer | None = None
    ) -> Result | None:
        """Collects a job that was paid for, without ever submitting anything.

        Args:
            intent: The job's newest intent.
            key: The job's key.
            scope: The run that it belongs to.
            store: Where its outputs go.
            observer: Is told of every change.

        Returns:
            The result; None where nothing was paid.
        """
        options = Options(label=intent.label, may_submit=False)
        call = JobContext(JobRequest.of(intent), key, scope, store, options, observer or Silent())
        done = await self._once(call)
        if isinstance(done, Detached):
            raise AssertionError("a job of no round is not left")
        return done

    async def _place(self, asked: Asked, scope: Scope, store: MediaStore, label: str | None) -> JobRequest:
        inputs = self._inputs_of(scope, store)
        if isinstance(asked, ModelInput):
            return await prepare_request(asked, site=self.pool.site, inputs=inputs, label=label)
        if isinstance(asked, CustomInput):
            return await custom_request(asked, site=self.pool.site, inputs=inputs, label=label)
        return await self.pool.ask(lambda one: _graph_order(asked, one, inputs, label), scope=scope, model=asked.model)

    async def _once(self, call: JobContext) -> Result | Detached | None:
        """One job runs once in a process, however many calls ask for it; it stops when none is left that waits."""
        scope, key = call.scope.journal.scope, call.key
        may_be_new = call.options.may_submit and key not in REQUESTED_KEYS[scope]
        REQUESTED_KEYS[scope].add(key)
        while True:
            with _riding(call.round if self._ongoing.has(scope, key) else None):
                done = await self._ongoing.once(scope, key, lambda: self._work(call, may_be_new=may_be_new))
            if call.round is not None or not isinstance(done, Detached):
                return done
            # It was left by a call that need not wait; this one does.

    async def _work(self, call: JobContext, *, may_be_new: bool) -> Result | Detached | None:
        if self._settings.webhook_url and isinstance(call.scope.journal, TellingJournal):
            for member in self.pool.members:
                await call.scope.journal.tell_of_ends(member.account.poller)
        pool = self.pool.at(call.order.endpoint)
        seat = SlotLease(pool, pool.standing(call.scope), model=call.order.model, job=call.job)
        runner = JobDriver(
            call,
            policy=replace(
                policy_of(call.order, call.scope, call.options, job=call.job), may_move_on=not self.pool.is_one
            ),
            seat=seat,
            intent=lambda member: call.intent(member, submit_timeout=self._settings.submit_timeout),
            check_store=lambda: self._check_store(call.store),
            world=self._world,
            ledger=spend_tracker_of(call.scope.journal),
            is_new=may_be_new and call.found.is_new,
        )
        submit = await runner.run()
        if submit is None:
            return None
        if submit.end is None:
            return Detached(job=call.job, n=submit.n, task_id=submit.task_id or "")
        return await self._collect(call, submit, seat, first_time=runner.first_time)

    async def _collect(self, call: JobContext, submit: Submit, seat: SlotLease, *, first_time: bool) -> Result:
        if submit.end is None:
            raise AssertionError("collected is what has ended")
        call.tell("collecting", "downloads its outputs", task_id=submit.task_id)
        costs = spend_tracker_of(call.scope.journal).spent_on(call.key)

        async def query(task_id: str) -> TaskView:
            # Only here the account is needed: links take no key, and what is home already needs no link.
            return await (await seat.paid_on(submit.intent)).client.query(task_id)

        # Files of a machine are behind the key that paid for them.
        account = await seat.paid_on(submit.intent) if is_native(call.order.endpoint) else seat.account
        download, folder = account.client.download, self._scratch / "parts"
        grace = self._settings.grace_seconds
        collector = Collector(
            download=download, query=query, store=call.store, scope=call.scope, folder=folder, grace=grace
        )
        try:
            result = await collector.collect(
                call.order, job=call.job, key=call.key, submit=submit, end=submit.end, first_time=first_time
            )
        except RunningHubError as error:
            call.tell("failed", error.message, task_id=submit.task_id, costs=costs)
            raise
        call.observer.notify(event_of(result, message=what_of(result), costs=costs))
        return result

    def _callback(self, order: JobRequest) -> Callback | None:
        # An address that the caller has put among the parameters is the caller's business.
        own = "webhookUrl" in order.payload or "webhookUrl" in order.private
        return None if own or is_native(order.endpoint) else callback_of(self._settings)

    async def _check_store(self, store: MediaStore) -> None:
        """Tries a place once, and this machine's, before anything is paid whose files would have nowhere to go."""
        await self._checks.get(store.url, lambda: asyncio.to_thread(self._try_places, store))

    def _try_places(self, store: MediaStore) -> None:
        check_folder(self._scratch / "parts")
        store.check()

    def _inputs_of(self, scope: Scope, store: MediaStore) -> Inputs:
        name = (scope.journal.scope, store.url)
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
    """Gives this process's one `JobEngine` for some accounts; call it on the loop thread.

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


def _riding(together: SuspendGroup | None) -> AbstractContextManager[None]:
    """Waits for a job that another call of the round runs: whoever does so keeps nobody from leaving."""
    return nullcontext() if together is None else together.riding()


async def _graph_order(
    asked: WorkflowInput | AppInput | QuickCreateInput | GraphInput, member: Member, inputs: Inputs, label: str | None
) -> JobRequest:
    match asked:
        case WorkflowInput():
            return await workflow_request(asked, client=member.client, inputs=inputs, label=label)
        case AppInput():
            return await app_request(asked, client=member.client, inputs=inputs, label=label)
        case QuickCreateInput():
            return await quick_create_request(asked, client=member.client, inputs=inputs, label=label)
        case GraphInput():
            return await native_request(asked, client=member.client, inputs=inputs, label=label)
        case other:
            assert_never(other)

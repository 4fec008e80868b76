"""One account in this process: its client, poller, slots and uploads, shared by all jobs that are paid on it."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Literal, TypeAlias, assert_never, get_args

from pydantic import SecretStr

from rh_prefect.client import Client
from rh_prefect.errors import InputError, RunningHubError, SubmissionUnknown
from rh_prefect.jobs import manifest as manifests
from rh_prefect.jobs.budget import Prices, ledger_of
from rh_prefect.jobs.callback import Callback, callback_of
from rh_prefect.jobs.cancel import CancelWatch
from rh_prefect.jobs.collect import Collector
from rh_prefect.jobs.events import JobEvent, Observer, Silent, event_of, what_of
from rh_prefect.jobs.fresh import FreshScopes
from rh_prefect.jobs.graph_order import app_order, quick_create_order, workflow_order
from rh_prefect.jobs.identity import file_mark
from rh_prefect.jobs.inputs import Inputs
from rh_prefect.jobs.journal import TellingJournal
from rh_prefect.jobs.lifecycle import Policy
from rh_prefect.jobs.order import Order, place_order
from rh_prefect.jobs.owner import current_owner
from rh_prefect.jobs.parts import check_folder
from rh_prefect.jobs.poller import Poller
from rh_prefect.jobs.records import Intent
from rh_prefect.jobs.result import Result
from rh_prefect.jobs.runner import Runner, World
from rh_prefect.jobs.scope import Scope
from rh_prefect.jobs.sharing import Shared
from rh_prefect.jobs.slots import Slots
from rh_prefect.jobs.spool import Spool
from rh_prefect.jobs.thread import LOOP
from rh_prefect.jobs.uploads import Uploads
from rh_prefect.media.names import is_text
from rh_prefect.media.store import MediaStore
from rh_prefect.models import ModelInput
from rh_prefect.settings import Settings
from rh_prefect.workflows import AppInput, QuickCreateInput, WorkflowInput

Reuse = Literal["never", "always"]
Asked: TypeAlias = ModelInput | WorkflowInput | AppInput | QuickCreateInput
"""What can be asked for."""

_log = logging.getLogger("rh_prefect")


@dataclass(frozen=True, slots=True)
class Options:
    """How one job is to be run.

    Attributes:
        label: A name for the output, in its file's name; calls with different labels are different jobs.
        key: The caller's own idempotency key: in one scope the same key is the same job.
        reuse: `always` serves an identical earlier request from the store, at no cost, and makes equal calls one job.
        on_unknown: `raise` leaves a submit whose answer was lost to a person; `resubmit` pays again.
        max_attempts: How many tasks one job may pay for, failed ones included.
        deadline: Seconds to wait for the task's end; None waits as long as it takes.
        budget: What all jobs of the run may cost together, in the account's currency; None for no limit.
        may_submit: False only brings home what was paid for already.
        credentials: Name of the credentials block, for the record.
        storage: Name of the storage block, for the record.
    """

    label: str | None = None
    key: str | None = None
    reuse: Reuse = "never"
    on_unknown: Literal["raise", "resubmit"] = "raise"
    max_attempts: int = 3
    deadline: float | None = None
    budget: float | Decimal | None = None
    may_submit: bool = True
    credentials: str | None = None
    storage: str | None = None

    def __post_init__(self) -> None:
        """Refuses what would only be found out after the payment.

        Raises:
            InputError: An option has no meaning.
        """
        if self.label is not None and not is_text(self.label):
            raise InputError(f"The label {self.label!r} cannot be written as UTF-8. Nothing was sent; give another.")
        if self.reuse not in get_args(Reuse):
            raise InputError(f'reuse must be "never" or "always", not {self.reuse!r}. Nothing was sent.')


class Account:
    """Runs jobs on one account; lives on the package's loop thread. Get it with `account`."""

    def __init__(self, client: Client, *, settings: Settings, name: str | None = None) -> None:
        """Opens the account.

        Args:
            client: Talks to RunningHub with the account's key.
            settings: Where this machine's scratch lies, and how often to look at tasks.
            name: What the records call the account; a fingerprint of its key by default.
        """
        self.client = client
        self.name = name or client.account_id
        self._settings = settings
        self._scratch = settings.state_dir
        self._uploads = Uploads(client.upload, folder=self._scratch / "inputs", clock=time.monotonic)
        slots = Slots(self._ask_for_slots, clock=time.monotonic)
        self._world = World(
            client=client,
            poller=Poller(client.query, clock=time.monotonic, shortest=settings.poll_seconds, count=slots.count),
            slots=slots,
            spool=Spool(self._scratch / "spool"),
            cancels=CancelWatch(),
            prices=Prices(client),
            sleep=asyncio.sleep,
            jitter=random.random,
        )
        self._running: dict[tuple[str, str], Shared] = {}
        self._unknown: dict[tuple[str, str], SubmissionUnknown] = {}
        self._begun: set[tuple[str, str]] = set()
        self._inputs: dict[tuple[str, str], Inputs] = {}
        self._fresh = FreshScopes()
        self._checks: dict[str, asyncio.Task[None]] = {}

    async def run(
        self,
        asked: Asked,
        *,
        scope: Scope,
        store: MediaStore,
        options: Options = Options(),
        observer: Observer | None = None,
    ) -> Result:
        """Runs one job: checks it, pays for it once, waits for it, and brings its outputs home.

        Args:
            asked: A model, a workflow or an app, with its parameters.
            scope: The run that it belongs to.
            store: Where its outputs go.
            options: How to run it.
            observer: Is told of every change.

        Returns:
            The result, with every output in the store.

        Raises:
            RunningHubError: See `rh_prefect.errors`; each says what happened, to which job, and what to do next.
        """
        watcher = observer or Silent()
        order = await self._place(asked, self._inputs_of(scope, store), options.label)
        if options.reuse == "always" and (known := await asyncio.to_thread(manifests.find, store, order.base)):
            served = known.result(store, reused=True)
            watcher.notify(event_of(served, message=f"served from {served.manifest}; nothing was paid"))
            return served
        ordinal = 1 if options.reuse == "always" or options.key else scope.ordinal(order.base)
        key = order.key(ordinal=ordinal, key=options.key)
        equal = (scope.journal.scope, order.base)
        if options.key is None:
            self._refuse_beside_unknown(equal, key)
        try:
            result = await self._once(scope, key, order, ordinal, store, options, watcher)
        except SubmissionUnknown as error:
            self._unknown[equal] = error
            raise
        if result is None:
            raise AssertionError("a job that may be submitted ends with a result or an error")
        return result

    def _refuse_beside_unknown(self, equal: tuple[str, str], key: str) -> None:
        """Keeps a loop of the caller's own, which tries an unknown submit again, from paying for one equal to it."""
        unknown = self._unknown.get(equal)
        if unknown is not None and (equal[0], key) not in self._begun:
            raise SubmissionUnknown(unknown.message, job=unknown.job, task_id=unknown.task_id)
        self._begun.add((equal[0], key))

    async def check(self, asked: Asked, *, scope: Scope, store: MediaStore, label: str | None = None) -> None:
        """Checks all that can be checked of a job without paying: its parameters, its files, and the store.

        Args:
            asked: A model, a workflow or an app, with its parameters.
            scope: The run that it belongs to.
            store: Where its outputs are to go.
            label: A name for its output.

        Raises:
            RunningHubError: What is wrong.
        """
        await self._place(asked, self._inputs_of(scope, store), label)
        await self._check_store(store)

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
        order = Order.of(intent)
        return await self._once(scope, key, order, intent.ordinal, store, options, observer or Silent())

    async def aclose(self) -> None:
        """Closes the client's connections."""
        await self.client.aclose()

    async def _place(self, asked: Asked, inputs: Inputs, label: str | None) -> Order:
        match asked:
            case ModelInput():
                return await place_order(asked, site=self.client.site, inputs=inputs, label=label)
            case WorkflowInput():
                return await workflow_order(asked, client=self.client, inputs=inputs, label=label)
            case AppInput():
                return await app_order(asked, client=self.client, inputs=inputs, label=label)
            case QuickCreateInput():
                return await quick_create_order(asked, client=self.client, inputs=inputs, label=label)
            case other:
                assert_never(other)

    async def _once(
        self,
        scope: Scope,
        key: str,
        order: Order,
        ordinal: int,
        store: MediaStore,
        options: Options,
        watcher: Observer,
    ) -> Result | None:
        """One job runs once in a process, however many calls ask for it; it stops when none is left that waits."""
        name = (scope.journal.scope, key)
        may_be_new = options.may_submit and key not in ASKED[name[0]]
        ASKED[name[0]].add(key)
        shared = self._running.get(name)
        if shared is None or shared.is_ending:
            work = self._work(scope, key, order, ordinal, store, options, watcher, may_be_new=may_be_new)
            task = asyncio.ensure_future(work)
            shared = self._running[name] = Shared(task)
            task.add_done_callback(lambda _: self._forget(name, task))
        return await shared.wait()

    def _forget(self, name: tuple[str, str], task: asyncio.Task[Result | None]) -> None:
        shared = self._running.get(name)
        if shared is not None and shared.is_of(task):
            del self._running[name]

    async def _work(
        self,
        scope: Scope,
        key: str,
        order: Order,
        ordinal: int,
        store: MediaStore,
        options: Options,
        watcher: Observer,
        *,
        may_be_new: bool,
    ) -> Result | None:
        job = f"{scope.journal.scope}/{key}"
        callback = self._callback(order) if options.may_submit else None
        if self._settings.webhook_url and isinstance(scope.journal, TellingJournal):
            await scope.journal.tell_of_ends(self._world.poller)
        runner = Runner(
            order,
            key=key,
            scope=scope,
            policy=_policy(order, scope, options, job),
            intent=lambda: self._intent(order, scope, ordinal, store, options, callback),
            link=lambda mark: self._link(order, mark, store),
            check_store=lambda: self._check_store(store),
            world=self._world,
            ledger=ledger_of(scope.journal),
            observer=watcher,
            deadline=options.deadline,
            callback=callback,
            is_new=may_be_new and await self._fresh.was_empty(scope.journal),
        )
        submit = await runner.run()
        if submit is None or submit.end is None:
            return None
        event = JobEvent(
            state="collecting",
            job=job,
            model=order.model,
            label=order.label,
            task_id=submit.task_id,
            message="brings its outputs home",
        )
        watcher.notify(event)
        collector = Collector(client=self.client, store=store, scope=scope, folder=self._scratch / "parts")
        try:
            result = await collector.collect(
                order, job=job, key=key, submit=submit, end=submit.end, first_time=runner.first_time
            )
        except RunningHubError as error:
            watcher.notify(replace(event, state="failed", message=error.message))
            raise
        watcher.notify(event_of(result, message=f"done: {what_of(result)}"))
        return result

    def _callback(self, order: Order) -> Callback | None:
        # An address that the caller has put among the parameters is the caller's business.
        own = "webhookUrl" in order.payload or "webhookUrl" in order.private
        return None if own else callback_of(self._settings)

    def _intent(
        self,
        order: Order,
        scope: Scope,
        ordinal: int,
        store: MediaStore,
        options: Options,
        callback: Callback | None,
    ) -> Intent:
        return Intent(
            owner=current_owner(),
            account=self.name,
            site=order.site,
            credentials=options.credentials,
            storage=options.storage,
            store=store.url,
            model=order.model,
            endpoint=order.endpoint,
            payload=dict(order.payload),
            base=order.base,
            ordinal=ordinal,
            label=order.label,
            run=scope.run,
            flow=scope.flow,
            estimate=order.estimate,
            currency=order.currency,
            submit_timeout=self._settings.submit_timeout,
            attempt=scope.attempt,
            webhook=callback is not None,
        )

    async def _link(self, order: Order, mark: str, store: MediaStore) -> str:
        given = order.inputs[mark]
        if mark == file_mark(given.seen.sha256):
            return await self._uploads.file_name(given, options=store.options_for(given.source))
        name = store.name_of(given.source)
        if store.public and name is not None:
            signed = await asyncio.to_thread(store.signed_url, name)
            if signed:
                return signed
        return await self._uploads.link(given, options=store.options_for(given.source))

    async def _check_store(self, store: MediaStore) -> None:
        """Tries a place once, and this machine's, before anything is paid whose files would have nowhere to go."""
        check = self._checks.get(store.url)
        if check is None or (check.done() and (check.cancelled() or check.exception())):
            check = self._checks[store.url] = asyncio.ensure_future(asyncio.to_thread(self._try_places, store))
        await asyncio.shield(check)

    def _try_places(self, store: MediaStore) -> None:
        check_folder(self._scratch / "parts")
        store.check()

    def _inputs_of(self, scope: Scope, store: MediaStore) -> Inputs:
        name = (scope.journal.scope, store.url)
        if name not in self._inputs:
            self._inputs[name] = Inputs(scope.journal, self._scratch / "inputs", options_for=store.options_for)
        return self._inputs[name]

    async def _ask_for_slots(self) -> tuple[int | None, int]:
        status = await self.client.queue_status()
        return status.limit, status.running + status.queued


ASKED: defaultdict[str, set[str]] = defaultdict(set)
"""Scope -> keys that this process has asked for; what the journal has beyond them is an orphan."""

_accounts: dict[tuple[str, str, Path], Account] = {}
# A forked child has its parent's sockets and locks, which are bound to a loop that it does not have.
os.register_at_fork(after_in_child=_accounts.clear)


def account(api_key: SecretStr, *, base_url: str, settings: Settings, name: str | None = None) -> Account:
    """Gives this process's one `Account` for a key and a site; call it on the loop thread.

    Args:
        api_key: RunningHub's API key.
        base_url: The site.
        settings: Where this machine's scratch lies, and how often to look at tasks.
        name: What the records call the account.
    """
    key = (base_url, api_key.get_secret_value(), settings.state_dir)
    if key not in _accounts:
        client = Client(api_key, base_url=base_url, submit_timeout=settings.submit_timeout)
        _accounts[key] = Account(client, settings=settings, name=name)
        LOOP.on_close(_accounts[key].aclose)
    return _accounts[key]


def _policy(order: Order, scope: Scope, options: Options, job: str) -> Policy:
    return Policy(
        job=job,
        endpoint=order.endpoint,
        attempt=scope.attempt,
        task_attempt=scope.task_attempt,
        max_attempts=options.max_attempts,
        on_unknown=options.on_unknown,
        may_submit=options.may_submit,
        # By its digits: 0.1 means 0.1, not the nearest binary number.
        budget=None if options.budget is None else Decimal(str(options.budget)),
    )

"""Executes the steps that the lifecycle selects, for one work."""

from __future__ import annotations

import logging
from collections.abc import Generator
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Any, Final, assert_never, cast

from rh_prefect.caches_and_locks import SharedTasks, SingleFlight
from rh_prefect.errors import (
    ApiError,
    ConfigError,
    JobCancelled,
    JobTimeout,
    JournalError,
    RunningHubError,
    SubmissionUnknown,
    TaskNotFound,
)
from rh_prefect.works.accounts.account import Account, is_native
from rh_prefect.works.accounts.limiter import pause_seconds
from rh_prefect.works.completion import Waiter
from rh_prefect.works.events import JobEventState
from rh_prefect.works.job_context import JobContext
from rh_prefect.works.journal.budget import Money, Shortfall
from rh_prefect.works.journal.job_records import RESUBMITTED, JobView, Submit
from rh_prefect.works.journal.journal import as_cached
from rh_prefect.works.journal.record_types import Answer, End, Intent, Resolution
from rh_prefect.works.lifecycle import run_work
from rh_prefect.works.lifecycle_step_types import (
    CRITICAL,
    Accepted,
    AwaitEnd,
    AwaitSlot,
    CancelTask,
    CheckCancel,
    Claim,
    Ended,
    Finished,
    Forget,
    FreeSlot,
    NoteClaim,
    NoteWait,
    NoteWaiter,
    Pause,
    Post,
    Prepare,
    Publish,
    ReadResult,
    ReadSubmission,
    ReadWait,
    ReadWaiters,
    RecordAnswer,
    RecordResult,
    Release,
    ReleaseWaiter,
    ReportFailure,
    Reserve,
    Stage,
    Step,
    SwitchAccount,
    Watch,
)
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.run_cancellation import BEFORE_CLAIM, REMEMBER
from rh_prefect.works.submission import Submitter

LIMITER_PAUSES = 2
"""So many refusals for want of a slot cause no pause of the job: the limiter pauses for all jobs of the account."""

LONGEST_WAIT: Final = 12 * 3600.0
"""Seconds for which a run waits for the task of an account whose key it does not have."""

_LONGEST_PAUSE: Final = 15.0

_log = logging.getLogger("rh_prefect")


class StepExecutor:
    """Runs one work stage by stage, on the package's loop thread."""

    def __init__(self, context: JobContext) -> None:
        """Sends no request."""
        self.context = context
        self._request = context.request
        self._records = context.records
        self._charge = context.records.charge_key
        self._lease = context.lease
        self._spending = context.spending
        self._submitter = Submitter(context)
        self._links: dict[str, str] = {}
        self._currency: str | None = None
        self._price: Money | None = None
        self._guess: Money | None = None
        self._prices: SingleFlight[Account, Money | None] = SingleFlight(10)
        self._reserved: int | None = None
        self._is_refused = False
        self._slot_refusals = 0
        self._is_unread = context.is_new
        self._view = JobView(context.key)
        self._answered_at: float | None = None
        self._first_time = False
        self._life: Generator[Step, Any, Any] | None = None
        self._stages: set[tuple[type, int]] = set()
        self._running: SharedTasks[None, Stage] = SharedTasks(drop=lambda _: self.release())
        self.stage: Stage | None = None
        """The last stage; None before the first one, and after an interruption."""
        self.callers = 0
        """How many callers wait for the work."""

    async def advance(self) -> Stage:
        """Continues the work to its next stage: its acceptance, its end, or its result; concurrent callers share it.

        The slot is held from `Accepted` to `Ended`, or until `release`. After an interruption the next call reads the
        records again, and returns no stage twice.

        Raises:
            RunningHubError: As `run_work` says, and what client, records and store raise.
        """
        return await self._running.run(None, self._advance)

    async def finish(self) -> Finished:
        """Continues the work to its last stage; see `advance`."""
        while not isinstance(stage := await self.advance(), Finished):
            pass
        return stage

    def release(self) -> None:
        """Releases the slot, if the work holds one."""
        self._lease.release()

    @property
    def may_have_paid(self) -> bool:
        """Whether a task of a shared work was paid for, or may have been."""
        return self._records.is_shared and bool(self._spending.newest_submit(self._charge))

    async def leave(self) -> None:
        """Records that the last caller no longer waits for the work; another process of the run may."""
        try:
            await LOOP.critical(self._records.release_own_waiter())
        except RunningHubError as error:
            # The end of the run is proved by its process, or by its state in Prefect.
            _log.info("%s: that this run no longer waits for it is not recorded: %s", self.context.job, error)

    async def _advance(self) -> Stage:
        # Before the first await: from here on, concurrent calls determine their prices before they claim.
        self._spending.is_limited |= self.context.policy.budget is not None
        stage: Stage | None = None
        try:
            stage = await self._next_stage()
        except RunningHubError as error:
            self.context.notify(_state_of(error), error.message, costs=self._spending.spent_on(self._charge))
            raise
        finally:
            self._spending.drop(self._charge)
            self._release()
            self.stage = stage
            if not isinstance(stage, Accepted):
                self.release()
        return stage

    async def _next_stage(self) -> Stage:
        # An interrupted generator is dropped: it would take the result of a step that was not done.
        life, self._life = self._life, None
        try:
            if life is None:
                life = run_work(self.context.policy)
                step = next(life)
            else:
                step = life.send(None)
            while not self._is_new_stage(step):
                is_critical = isinstance(step, CRITICAL)
                done = LOOP.critical(self._uninterrupted(life, step)) if is_critical else self._do(step)
                step = life.send(await done)
        except StopIteration as over:
            return Finished(over.value)
        self._life = life
        return cast(Accepted | Ended, step)

    def _is_new_stage(self, step: Step) -> bool:
        if not isinstance(step, Accepted | Ended):
            return False
        stage = (type(step), step.submit.n)
        is_new = stage not in self._stages
        self._stages.add(stage)
        return is_new

    async def _uninterrupted(self, life: Generator[Step, Any, Any], step: Step) -> Any:
        """Claims, posts and records one submission; returns the result of the last step."""
        result = await self._do(step)
        while isinstance(step, Claim | Post) and result is not None:
            step = life.send(result)
            result = await self._do(step)
        return result

    async def _do(self, step: Step) -> Any:  # the class of each step documents the result
        match step:
            case ReadResult():
                return await self._read_result()
            case NoteWaiter():
                return await self._records.note_waiter()
            case ReleaseWaiter():
                return await self._records.release_waiter()
            case ReadWaiters():
                return await self._records.has_other_waiters()
            case ReadSubmission(n):
                return await self._read_submission(n)
            case NoteClaim(n):
                return await self._records.note_claim(n)
            case NoteWait(n):
                return await self._records.note_wait(n)
            case ReadWait(n):
                return await self._records.has_waited(n)
            case Prepare():
                return await self._prepare()
            case AwaitSlot():
                return await self._await_slot()
            case FreeSlot(full):
                return self._lease.release(full=full)
            case CheckCancel(fresh):
                return await self.context.is_cancelled(max_age=self._since_answer() if fresh else self._before_claim())
            case Reserve(n, budget):
                return await self._reserve(n, budget)
            case Release():
                return self._release()
            case Claim(n):
                return await self._claim(n)
            case Post(intent, n):
                return await self._submitter.post(intent, n, self._links)
            case RecordAnswer(intent, n, answer):
                return await self._record_answer(intent, n, answer)
            case SwitchAccount(answer):
                return self._switch_account(answer)
            case Pause(refusals, refused):
                return await self._pause(refusals, refused)
            case ReportFailure(submit, reason):
                message = f"task {submit.task_id} failed ({reason}) and counts with its cost; another one is submitted"
                return self.context.notify("waiting", message, task_id=submit.task_id)
            case Watch(submit):
                return await self._submitter.watch(submit)
            case Forget(n):
                return await self._submitter.resolve(n, Resolution(outcome="forgotten", by=RESUBMITTED))
            case AwaitEnd(submit, adopted):
                return self._counted(submit, await self._await_end(submit, adopted=adopted))
            case CancelTask(submit):
                return self._counted(submit, await self._cancel_task(submit))
            case Publish(submit, end):
                return await self._publish(submit, end)
            case RecordResult(result):
                return await self.context.delivery.record(self.context, result)
            case Accepted() | Ended():
                return None
            case other:
                assert_never(other)

    async def _read_result(self) -> Any:
        if self._is_unread:
            return None  # nothing is recorded of a new job
        delivery = self.context.delivery
        if self._records.is_shared:
            record = await self._records.read_result(delivery.shape)
        else:  # one reading has all records of a job
            await self._read_view()
            self._is_unread, record = True, self._view.result
        return None if record is None else await delivery.restore(self.context, record)

    async def _read_view(self) -> None:
        self._view = await self._submitter.read()
        own = tuple(filter(self.context.policy.is_own, self._view.submits))
        self._spending.take(replace(self._view, key=self._charge, submits=own))

    async def _read_submission(self, n: int) -> Submit | None:
        known = self._view.find(n)
        if known is not None and known.state in ("refused", "forgotten"):
            return known  # final, and a work may have hundreds of refusals
        # If another process has recorded the work meanwhile, the claim fails and the work is read then.
        if not self._is_unread:
            await self._read_view()
        self._is_unread, self._first_time = False, self._first_time or not self._view.submits
        found, recorded = self._view.find(n), self.context.delivery.recorded
        if found is None and recorded is not None and n <= recorded.n:
            raise JournalError(
                f"{self.context.policy.title}: its result was paid for (task {recorded.task_id}), but its files are "
                "not in the storage, and the record of its submission was deleted. Nothing was paid. What to do: "
                f"put the files back, or {self.context.policy.another_task or 'pass another take for a new result'}."
            )
        return found

    async def _publish(self, submit: Submit, end: End) -> Any:
        self.context.notify("collecting", "downloads its outputs", task_id=submit.task_id)
        return await self.context.delivery.publish(self.context, replace(submit, end=end), first_time=self._first_time)

    async def _await_slot(self) -> None:
        await self._lease.acquire()
        context = self.context
        context.services.stores.refuse_payment(context.run_attempt, context.store, context.job)

    async def _prepare(self) -> None:
        if self.context.policy.budget is None:
            self._spending.expect(self._charge, self._price or self._listed)
        await self.context.services.stores.check(self.context.store)
        inputs = self._request.inputs
        if inputs and not self._links:
            self.context.notify("uploading", f"making {len(inputs)} input(s) available to RunningHub")
        while True:
            if inputs:  # outside of what is tried: its error, that no account is left, is none of this account
                await self._lease.select_account()
            try:
                return await self._prepare_on_account()
            except ApiError as error:
                await self._leave_account(error)

    async def _prepare_on_account(self) -> None:
        inputs, store, account = self._request.inputs, self.context.store, self._lease.account
        self._links = {mark: await account.link(self._request, mark, store=store) for mark in inputs}
        await self._find_price()

    async def _leave_account(self, error: ApiError) -> None:
        """Continues on another account after a refused upload or price request; raises if no other may accept it."""
        has_slot = self._lease.has_slot
        self._lease.release()
        if not self._switch_account(Answer.of(error)):
            raise error
        if has_slot:
            await self._await_slot()

    @property
    def _listed(self) -> Money | None:
        request = self._request
        return None if request.estimate is None else Money(request.estimate, request.currency)

    async def _find_price(self) -> None:
        """Determines the price on the account; sends a request to RunningHub only if a budget needs the price."""
        if is_native(self._request.endpoint):
            return  # RunningHub reports neither price nor cost of these.
        prices = self._lease.account.prices
        self._currency = await prices.currency()
        self._price, self._guess = await prices.listed(self._listed), prices.guess(self._listed)
        if self.context.policy.budget is not None:
            return  # `Reserve` requests it.
        self._spending.expect(self._charge, self._price, self._ask_price)
        if self._price is None and self._spending.is_limited:
            self._spending.expect(self._charge, await self._ask_price(), self._ask_price)

    async def _ask_price(self) -> Money | None:
        """Requests the price from RunningHub, once for each account of this job; None if the request fails."""
        account, payload = self._lease.account, self._submitter.wire_payload(self._links)
        ask = partial(account.prices.of, self._request.endpoint, payload, self._listed)
        try:
            self._price = await self._prices.get(account, ask)
        except RunningHubError as error:
            _log.warning("%s: its price is not known, so it is not counted in any budget: %s", self.context.job, error)
        return self._price

    def _switch_account(self, answer: Answer) -> bool:
        message = self._lease.after_refusal(answer)
        if message:
            self.context.notify("moved", message)
        return message is not None

    async def _reserve(self, n: int, budget: Decimal) -> Shortfall | None:
        payload = self._submitter.wire_payload(self._links)
        try:
            self._price = await self._lease.account.prices.of(self._request.endpoint, payload, self._listed)
        except ApiError as error:
            await self._leave_account(error)
            await self._prepare()
            return await self._reserve(n, budget)
        short = await self._spending.reserve(self._charge, n, self._price, budget=budget)
        self._reserved = n if short is None else None
        return short

    def _release(self) -> None:
        # Not what was claimed: another call of the run, with another storage, may have been first.
        if self._reserved is not None:
            self._spending.release(self._charge, self._reserved)
        self._reserved = None

    def _counted(self, submit: Submit, end: End) -> End:
        # Another run's task counts in that run's budget.
        if self.context.policy.is_own(submit):
            self._spending.note(self._charge, replace(submit, end=end))
        return end

    async def _claim(self, n: int) -> Intent | None:
        # From here on the journal determines the amount, however this call ends.
        self._reserved = None
        # Before the answer is recorded, so that a concurrent job with a budget counts it.
        self._spending.claim(self._charge, n, self._price, self._ask_price)
        price = self._price or self._guess
        cost = {"estimate": price and price.amount, "currency": price.currency if price else self._currency}
        try:
            return await self._submitter.claim(n, self.context.intent(self._lease.member).model_copy(update=cost))
        except BaseException:
            self._spending.release(self._charge, n)
            raise

    def _before_claim(self) -> float:
        """Maximum age in seconds of a check for a cancellation before a claim; longer if the claim itself checks it."""
        return BEFORE_CLAIM if as_cached(self.context.scope.journal) else REMEMBER

    def _since_answer(self) -> float:
        """Returns the seconds since the answer was sent to the journal: a later cancellation finds the ticket there."""
        return 0.0 if self._answered_at is None else self.context.services.clock() - self._answered_at

    async def _record_answer(self, intent: Intent, n: int, answer: Answer) -> Submit:
        self._answered_at = self.context.services.clock()
        submit = await self._submitter.record_answer(intent, n, answer)
        self._spending.note(self._charge, submit)
        if submit.state == "refused" and self.context.policy.budget is None:
            self._spending.expect(self._charge, self._price, self._ask_price)
        if submit.state == "ticket":
            before = self._spending.spent_on(self._charge)
            message = f"submitted as task {submit.task_id}"
            self.context.notify("submitted", message, task_id=submit.task_id, costs=before)
        return submit

    async def _pause(self, refusals: int, refused: Answer) -> None:
        if not self._is_refused:
            self._is_refused = True
            words = refused.reason or refused.code
            self.context.notify("waiting", f"not accepted yet ({words}); waiting to try again, at no cost")
        if refused.no_slot:
            # The limiter has paused for all jobs of the account, and knows when it has room.
            self._slot_refusals += 1
            refusals = self._slot_refusals - LIMITER_PAUSES
        if refusals > 0:
            services = self.context.services
            await services.sleep(pause_seconds(refusals, jitter=services.jitter()))

    async def _await_end(self, submit: Submit, *, adopted: bool) -> End:
        if not (self.context.policy.is_own(submit) or await self._can_query(submit)):
            return await self._await_record(submit)
        await self._lease.switch_to(submit.intent)
        self._lease.occupy()
        if adopted:
            task_id = submit.task_id
            self.context.notify("adopted", f"task {task_id} was already paid for; waiting for it", task_id=task_id)
        return await Waiter(self.context).wait(submit, first_view=self._submitter.first_view, age=self._age())

    async def _can_query(self, submit: Submit) -> bool:
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
        """Waits until another run has recorded the end of a task that this run cannot query."""
        services, account = self.context.services, submit.intent.account_words
        began, gap = services.clock(), 0.05
        message = (
            f"task {submit.task_id} is running on account {account}, whose key this run does not have; "
            "waiting for its end"
        )
        self.context.notify("adopted", message, task_id=submit.task_id)
        while services.clock() - began < LONGEST_WAIT:
            end = await self._records.read_end(submit.n)
            if end is not None:
                return end
            await services.sleep(gap)
            gap = min(_LONGEST_PAUSE, gap * 1.5)
        raise JobTimeout(
            f"{self.context.policy.title}: task {submit.task_id} was submitted by run {submit.intent.flow_run} on "
            f"account {account}, whose key this run does not have, and its end was not recorded within "
            f"{LONGEST_WAIT:.0f} s. Nothing was paid. What to do: configure the credentials of that account "
            "for this run, and run again.",
            job=self.context.job,
            task_id=submit.task_id,
        )

    def _age(self) -> float:
        """Seconds since RunningHub accepted the task, estimated from the POST; 0 if unknown."""
        accepted_at = self._submitter.accepted_at
        return 0.0 if accepted_at is None else self.context.services.clock() - accepted_at

    async def _cancel_task(self, submit: Submit) -> End:
        await self._lease.switch_to(submit.intent)
        return await Waiter(self.context).cancel(submit)


def _state_of(error: RunningHubError) -> JobEventState:
    if isinstance(error, SubmissionUnknown):
        return "unknown"
    return "cancelled" if isinstance(error, JobCancelled) else "failed"

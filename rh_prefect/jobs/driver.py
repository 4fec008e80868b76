"""Does what the lifecycle decides: a thin driver between one job's generator and the world."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Any, assert_never

from rh_prefect.errors import JobCancelled, JournalError, RunningHubError, SubmissionUnknown
from rh_prefect.jobs.accounts.account import Account, Member
from rh_prefect.jobs.accounts.comfy_account import is_native
from rh_prefect.jobs.accounts.limiter import pause_seconds
from rh_prefect.jobs.accounts.slot_lease import SlotLease
from rh_prefect.jobs.cancel import CancelWatch
from rh_prefect.jobs.completion import Waiter
from rh_prefect.jobs.context import JobContext
from rh_prefect.jobs.events import JobEventState
from rh_prefect.jobs.journal.budget import Money, Shortfall, SpendTracker
from rh_prefect.jobs.journal.job_records import RESUBMITTED, JobView, Submit
from rh_prefect.jobs.journal.process import uptime
from rh_prefect.jobs.journal.records import Answer, End, Intent, Resolution
from rh_prefect.jobs.journal.spool import Spool
from rh_prefect.jobs.lifecycle import Policy, lifecycle
from rh_prefect.jobs.loop_thread import LOOP
from rh_prefect.jobs.steps import (
    CRITICAL,
    AwaitEnd,
    AwaitSlot,
    CancelTask,
    CheckCancel,
    Claim,
    Forget,
    FreeSlot,
    Life,
    MoveOn,
    Pause,
    Post,
    Prepare,
    ReadJob,
    RecordAnswer,
    Release,
    Reserve,
    Step,
    Watch,
)
from rh_prefect.jobs.submission import Submitter
from rh_prefect.memory_cache import SingleFlight

_log = logging.getLogger("rh_prefect")


@dataclass(frozen=True, slots=True)
class Services:
    """What all jobs share in one process, whoever pays.

    Attributes:
        spool: This machine's memory of tickets on their way to the journal.
        cancels: Knows which runs were cancelled.
        sleep: Waits.
        jitter: Numbers from 0 to 1.
        clock: Monotonic seconds, which go on while the machine sleeps.
    """

    spool: Spool
    cancels: CancelWatch
    sleep: Callable[[float], Awaitable[None]]
    jitter: Callable[[], float]
    clock: Callable[[], float] = uptime


class JobDriver:
    """One job's run through its life, on the package's loop thread."""

    def __init__(
        self,
        call: JobContext,
        *,
        policy: Policy,
        seat: SlotLease,
        intent: Callable[[Member], Intent],
        check_store: Callable[[], Awaitable[None]],
        world: Services,
        ledger: SpendTracker,
        is_new: bool = False,
    ) -> None:
        """Prepares the run; nothing happens before `run`.

        Args:
            call: What is asked for.
            policy: The caller's wishes.
            seat: The account that pays, and the job's slot there.
            intent: Makes the record that precedes a POST on an account.
            check_store: Raises where outputs could not be written; asked before anything is paid.
            world: What it shares with the other jobs.
            ledger: What its scope has spent.
            is_new: Nothing was recorded of it when its scope was last looked at.
        """
        self._call = call
        self._order = call.order
        self._scope = call.scope
        self._key = call.key
        self._policy = policy
        self._seat = seat
        self._intent = intent
        self._check_store = check_store
        self._world = world
        self._ledger = ledger
        self._is_new = is_new
        self._desk = Submitter(
            call.order,
            key=call.key,
            job=policy.job,
            journal=call.scope.journal,
            spool=world.spool,
            sleep=world.sleep,
            callback=call.callback,
            clock=world.clock,
        )
        self._waiter = Waiter(
            call,
            seat=seat,
            clock=world.clock,
            is_cancelled=partial(self._is_cancelled, fresh=False),
            sleep=world.sleep,
        )
        self._links: dict[str, str] = {}
        self._currency: str | None = None
        self._price: Money | None = None
        self._prices: SingleFlight[Account, Money | None] = SingleFlight(10)
        self._reserved: int | None = None
        self._told_waiting = False
        self.first_time = False

    async def run(self) -> Submit | None:
        """Runs the job to its successful end.

        Returns:
            The submit that succeeded, with its end, or one without that was left to itself; None where nothing was
            paid and the policy forbids to pay.

        Raises:
            RunningHubError: As `lifecycle` says, and what client, journal and store raise.
        """
        # Before anything is awaited: the calls beside this one find their prices from here on.
        self._ledger.is_limited |= self._policy.budget is not None
        try:
            return await self._live(lifecycle(self._policy))
        except RunningHubError as error:
            self._call.tell(_state_of(error), error.message, costs=self._ledger.spent_on(self._key))
            raise
        finally:
            self._seat.free()
            self._ledger.drop(self._key)
            if self._reserved is not None:
                self._release(self._reserved)

    async def _live(self, life: Life) -> Submit | None:
        try:
            step = next(life)
            while True:
                if isinstance(step, CRITICAL):
                    step = await LOOP.critical(self._uninterrupted(life, step))
                else:
                    step = life.send(await self._do(step))
        except StopIteration as over:
            submit: Submit | None = over.value
            return submit

    async def _uninterrupted(self, life: Life, step: Step) -> Step:
        # What follows the recorded answer is always another step or an error, so the generator cannot end in here.
        while isinstance(step, CRITICAL):
            step = life.send(await self._do(step))
        return step

    async def _do(self, step: Step) -> Any:  # each step says what it comes back as
        match step:
            case ReadJob():
                return await self._read()
            case Prepare():
                return await self._prepare()
            case AwaitSlot():
                return await self._seat.take()
            case FreeSlot(full):
                return self._seat.free(full=full)
            case CheckCancel(fresh):
                return await self._is_cancelled(fresh=fresh)
            case Reserve(n, budget):
                return await self._reserve(n, budget)
            case Release(n):
                return self._release(n)
            case Claim(n):
                return await self._claim(n)
            case Post(intent, n):
                return await self._post(intent, n)
            case RecordAnswer(intent, n, answer):
                return await self._record_answer(intent, n, answer)
            case MoveOn(answer):
                return self._move_on(answer)
            case Pause(refusals, code, reason):
                return await self._pause(refusals, code, reason)
            case Watch(submit):
                return await self._desk.watch(submit)
            case Forget(n):
                return await self._desk.resolve(n, Resolution(outcome="forgotten", by=RESUBMITTED))
            case AwaitEnd(submit, adopted):
                end = await self._await_end(submit, adopted=adopted)
                return None if end is None else self._settled(submit, end)
            case CancelTask(submit):
                return self._settled(submit, await self._cancel_task(submit))
            case other:
                assert_never(other)

    async def _read(self) -> JobView:
        # Should it have been recorded since, its claim fails and it is read then.
        view = JobView(self._key, ()) if self._is_new else await self._desk.read()
        self._is_new = False
        self.first_time = not view.submits
        self._ledger.take(view)
        return view

    async def _prepare(self) -> None:
        if self._policy.budget is None:
            self._ledger.expect(self._key, self._price or self._listed)
        await self._check_store()
        if self._order.inputs and not self._links:
            self._call.tell("uploading", f"makes {len(self._order.inputs)} input(s) readable for RunningHub")
        if self._order.inputs:
            await self._seat.expect()
        account, store = self._seat.account, self._call.store
        self._links = {mark: await account.link(self._order, mark, store=store) for mark in self._order.inputs}
        await self._find_price()

    @property
    def _listed(self) -> Money | None:
        order = self._order
        return None if order.estimate is None else Money(order.estimate, order.currency)

    async def _find_price(self) -> None:
        """Finds what the submit will cost on its account; RunningHub is asked only where a budget needs it."""
        if is_native(self._order.endpoint):
            return  # RunningHub reports neither price nor cost of these.
        prices = self._seat.account.prices
        self._currency = await prices.currency()
        self._price = await prices.listed(self._listed)
        if self._policy.budget is not None:
            return  # `Reserve` asks.
        self._ledger.expect(self._key, self._price, self._ask_price)
        if self._price is None and self._ledger.is_limited:
            self._ledger.expect(self._key, await self._ask_price(), self._ask_price)

    async def _ask_price(self) -> Money | None:
        """Asks RunningHub for the price, once for each account of this job; None where there is no answer."""
        account = self._seat.account
        ask = partial(account.prices.of, self._order.endpoint, self._desk.wire_payload(self._links), self._listed)
        try:
            self._price = await self._prices.get(account, ask)
        except RunningHubError as error:
            _log.warning("%s: its price is not known, so no budget counts it: %s", self._policy.job, error)
        return self._price

    async def _post(self, intent: Intent, n: int) -> Answer:
        answer = await self._desk.post(intent, n, self._links, client=self._seat.account.client)
        if answer.outcome != "refused":
            self._seat.arrived()
        return answer

    def _move_on(self, why: Answer) -> bool:
        news = self._seat.move_on(why)
        if news:
            self._call.tell("moved", news)
        return news is not None

    async def _reserve(self, n: int, budget: Decimal) -> Shortfall | None:
        payload = self._desk.wire_payload(self._links)
        self._price = await self._seat.account.prices.of(self._order.endpoint, payload, self._listed)
        short = await self._ledger.reserve(self._key, n, self._price, budget=budget)
        self._reserved = n if short is None else None
        return short

    def _release(self, n: int) -> None:
        self._reserved = None
        self._ledger.release(self._key, n)

    def _settled(self, submit: Submit, end: End) -> End:
        self._ledger.note(self._key, replace(submit, end=end))
        return end

    async def _claim(self, n: int) -> Intent | None:
        # From here on the journal decides what it counts for, however this call ends.
        self._reserved = None
        price = self._price
        # At this moment, and not when the answer is recorded: a budget beside it would not see it until then.
        self._ledger.claim(self._key, n, price, self._ask_price)
        cost = {"estimate": price and price.amount, "currency": price.currency if price else self._currency}
        claimed: Intent | None = None
        try:
            claimed = await self._desk.claim(n, self._intent(self._seat.member).model_copy(update=cost))
        finally:
            if claimed is None:
                self._ledger.release(self._key, n)
        return claimed

    async def _is_cancelled(self, *, fresh: bool) -> bool:
        try:
            return await self._world.cancels.look(self._scope.journal, self._scope.attempt, fresh=fresh)
        except JournalError as error:
            # Before a claim the journal is about to be asked again; after a ticket, waiting on is what costs nothing.
            _log.warning("%s: cannot see whether the run was cancelled: %s", self._policy.job, error)
            return False

    async def _record_answer(self, intent: Intent, n: int, answer: Answer) -> Submit:
        submit = await self._desk.record_answer(intent, n, answer)
        self._ledger.note(self._key, submit)
        if submit.state == "refused" and self._policy.budget is None:
            self._ledger.expect(self._key, self._price, self._ask_price)
        if submit.state == "ticket":
            self._call.tell("submitted", f"submitted as task {submit.task_id}", task_id=submit.task_id)
        return submit

    async def _pause(self, refusals: int, code: str, reason: str) -> None:
        if not self._told_waiting:
            self._told_waiting = True
            self._call.tell("waiting", f"not accepted yet ({reason or code}); waits and tries again, at no cost")
        await self._world.sleep(pause_seconds(refusals, jitter=self._world.jitter()))

    async def _await_end(self, submit: Submit, *, adopted: bool) -> End | None:
        await self._seat.paid_on(submit.intent)
        self._seat.hold()
        if adopted:
            self._call.tell(
                "adopted", f"task {submit.task_id} was paid for earlier; waits for it", task_id=submit.task_id
            )
        try:
            return await self._waiter.wait(submit, first_view=self._desk.first_view)
        finally:
            self._seat.free()

    async def _cancel_task(self, submit: Submit) -> End:
        await self._seat.paid_on(submit.intent)
        return await self._waiter.cancel(submit)


def _state_of(error: RunningHubError) -> JobEventState:
    if isinstance(error, SubmissionUnknown):
        return "unknown"
    return "cancelled" if isinstance(error, JobCancelled) else "failed"

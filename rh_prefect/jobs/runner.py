"""Does what the lifecycle decides: a thin driver between one job's generator and the world."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, assert_never

from rh_prefect.client import Client, TaskView
from rh_prefect.errors import JobCancelled, JobTimeout, JournalError, RunningHubError, SubmissionUnknown
from rh_prefect.jobs.budget import RESUBMITTED, Ledger, Money, Prices, Shortfall
from rh_prefect.jobs.callback import Callback
from rh_prefect.jobs.cancel import CancelWatch, cancel_task
from rh_prefect.jobs.ending import broken_end, end_of, with_times
from rh_prefect.jobs.events import JobEvent, JobEventState, Observer
from rh_prefect.jobs.journal import TellingJournal
from rh_prefect.jobs.lifecycle import (
    CRITICAL,
    AwaitEnd,
    AwaitSlot,
    CancelTask,
    CheckCancel,
    Claim,
    Forget,
    FreeSlot,
    Life,
    Pause,
    Policy,
    Post,
    Prepare,
    ReadJob,
    RecordAnswer,
    Release,
    Reserve,
    Step,
    Watch,
    lifecycle,
)
from rh_prefect.jobs.order import Order
from rh_prefect.jobs.owner import uptime
from rh_prefect.jobs.poller import IsKnown, Poller, is_settled
from rh_prefect.jobs.posting import Desk
from rh_prefect.jobs.records import Answer, End, Intent, JobView, Resolution, Submit
from rh_prefect.jobs.scope import Scope
from rh_prefect.jobs.slots import Slots, pause_seconds
from rh_prefect.jobs.spool import Spool
from rh_prefect.jobs.thread import LOOP

_log = logging.getLogger("rh_prefect")


@dataclass(frozen=True, slots=True)
class World:
    """What one account's jobs share in one process.

    Attributes:
        client: Talks to RunningHub.
        poller: Waits for tasks.
        slots: Keeps refusals rare.
        spool: This machine's memory of tickets on their way to the journal.
        cancels: Knows which runs were cancelled.
        prices: Knows what a job will cost.
        sleep: Waits.
        jitter: Numbers from 0 to 1.
    """

    client: Client
    poller: Poller
    slots: Slots
    spool: Spool
    cancels: CancelWatch
    prices: Prices
    sleep: Callable[[float], Awaitable[None]]
    jitter: Callable[[], float]


class Runner:
    """One job's run through its life, on the package's loop thread."""

    def __init__(
        self,
        order: Order,
        *,
        key: str,
        scope: Scope,
        policy: Policy,
        intent: Callable[[], Intent],
        link: Callable[[str], Awaitable[str]],
        check_store: Callable[[], Awaitable[None]],
        world: World,
        ledger: Ledger,
        observer: Observer,
        deadline: float | None = None,
        callback: Callback | None = None,
        is_new: bool = False,
    ) -> None:
        """Prepares the run; nothing happens before `run`.

        Args:
            order: What is asked for.
            key: The job's key.
            scope: The run that it belongs to.
            policy: The caller's wishes.
            intent: Makes the record that precedes a POST.
            link: Gives a link that RunningHub can read, by an input's mark.
            check_store: Raises where outputs could not be written; asked before anything is paid.
            world: What it shares with the account's other jobs.
            ledger: What its scope has spent.
            observer: Is told of every change.
            deadline: Seconds to wait for the task's end; None waits as long as it takes.
            callback: Where RunningHub is to tell of the task's end.
            is_new: Nothing was recorded of it when its scope was last looked at.
        """
        self._order = order
        self._scope = scope
        self._policy = policy
        self._intent = intent
        self._link = link
        self._check_store = check_store
        self._world = world
        self._ledger = ledger
        self._observer = observer
        self._deadline = deadline
        self._is_new = is_new
        self._key = key
        self._desk = Desk(
            order,
            key=key,
            job=policy.job,
            journal=scope.journal,
            client=world.client,
            spool=world.spool,
            sleep=world.sleep,
            callback=callback,
        )
        self._links: dict[str, str] = {}
        self._price: Money | None = None
        self._reserved: int | None = None
        self._holds_slot = False
        self._is_on_its_way = False
        self._told_waiting = False
        self.first_time = False

    async def run(self) -> Submit | None:
        """Runs the job to its successful end.

        Returns:
            The submit that succeeded, with its end; None where nothing was paid and the policy forbids to pay.

        Raises:
            RunningHubError: As `lifecycle` says, and what client, journal and store raise.
        """
        try:
            return await self._live(lifecycle(self._policy))
        except RunningHubError as error:
            self._tell(_state_of(error), error.message)
            raise
        finally:
            self._free_slot()
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
                return await self._await_slot()
            case FreeSlot(full):
                return self._free_slot(full=full)
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
            case Pause(refusals, code, reason):
                return await self._pause(refusals, code, reason)
            case Watch(submit):
                return await self._desk.watch(submit)
            case Forget(n):
                return await self._desk.resolve(n, Resolution(outcome="forgotten", by=RESUBMITTED))
            case AwaitEnd(submit, adopted):
                return self._settled(submit, await self._await_end(submit, adopted=adopted))
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
        await self._check_store()
        if self._order.inputs and not self._links:
            self._tell("uploading", f"makes {len(self._order.inputs)} input(s) readable for RunningHub")
        self._links = {mark: await self._link(mark) for mark in self._order.inputs}

    async def _await_slot(self) -> None:
        # One that was answered with "unknown" and is resubmitted has its slot still.
        if not self._holds_slot:
            await self._world.slots.acquire()
            self._holds_slot = self._is_on_its_way = True

    async def _post(self, intent: Intent, n: int) -> Answer:
        answer = await self._desk.post(intent, n, self._links)
        if answer.outcome != "refused":
            self._has_arrived()
        return answer

    def _has_arrived(self) -> None:
        if self._is_on_its_way:
            self._is_on_its_way = False
            self._world.slots.posted()

    def _free_slot(self, *, full: bool = False) -> None:
        if self._holds_slot:
            self._holds_slot = False
            self._world.slots.release(full=full)
        # Only now: a refusal closes the door before the next ones go out.
        self._has_arrived()

    async def _reserve(self, n: int, budget: Decimal) -> Shortfall | None:
        order = self._order
        known = Money(order.estimate, order.currency) if order.estimate is not None else None
        self._price = await self._world.prices.of(order.endpoint, self._desk.wire_payload(self._links), known)
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
        intent, price = self._intent(), self._price
        if price is not None:
            intent = intent.model_copy(update={"estimate": price.amount, "currency": price.currency})
        return await self._desk.claim(n, intent)

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
        if submit.state == "ticket":
            self._tell("submitted", f"submitted as task {submit.task_id}", task_id=submit.task_id)
        return submit

    async def _pause(self, refusals: int, code: str, reason: str) -> None:
        if not self._told_waiting:
            self._told_waiting = True
            self._tell("waiting", f"not accepted yet ({reason or code}); waits and tries again, at no cost")
        await self._world.sleep(pause_seconds(refusals, jitter=self._world.jitter()))

    async def _await_end(self, submit: Submit, *, adopted: bool) -> End:
        if not self._holds_slot:
            self._world.slots.hold()
            self._holds_slot = True
        if adopted:
            self._tell("adopted", f"task {submit.task_id} was paid for earlier; waits for it", task_id=submit.task_id)
        try:
            return await self._wait_and_record(submit, submit.task_id or "")
        finally:
            self._free_slot()

    async def _wait_and_record(self, submit: Submit, task_id: str) -> End:
        began = uptime()
        ran_from: list[float] = []

        def changed(view: TaskView) -> None:
            if view.status == "RUNNING" and not ran_from:
                ran_from.append(uptime())
                self._tell("running", f"task {task_id} runs", task_id=task_id)

        view: TaskView | End | None = self._desk.first_view
        if not isinstance(view, TaskView) or view.task_id != task_id or not is_settled(view):
            view = await self._wait(submit, task_id, changed)
        # The task has ended, and the next one need not wait until that is recorded.
        self._free_slot()
        running_since = ran_from[0] if ran_from else began
        queued, ran = running_since - began, uptime() - running_since
        if isinstance(view, End):
            return with_times(view, queued=queued, ran=ran)
        return await self._record_end(submit, end_of(submit, view, scope=self._scope, queued=queued, ran=ran))

    async def _wait(self, submit: Submit, task_id: str, changed: Callable[[TaskView], None]) -> TaskView | End:
        recorded: list[End] = []

        async def is_recorded() -> bool:
            recorded.extend(filter(None, [await self._read_end(submit)]))
            return bool(recorded)

        is_told = submit.intent.webhook and isinstance(self._scope.journal, TellingJournal)
        try:
            async with asyncio.timeout(self._deadline):
                return await self._wait_or_hear(task_id, changed, is_recorded if is_told else None) or recorded[0]
        except TimeoutError:
            raise JobTimeout(
                f"{self._policy.job}: task {task_id} has not ended in {self._deadline} s. It goes on and stays paid "
                "for. What to do: run again to wait for it, or cancel the run.",
                job=self._policy.job,
                task_id=task_id,
            ) from None

    async def _wait_or_hear(
        self, task_id: str, changed: Callable[[TaskView], None], is_known: IsKnown | None
    ) -> TaskView | None:
        """The terminal view, or None where the end is recorded already."""
        view = await self._world.poller.wait(task_id, on_change=changed, is_known=is_known)
        if view is None and (is_known is None or not await is_known()):
            # It was recorded for another job that waits for the same task.
            return await self._world.poller.wait(task_id, on_change=changed)
        return view

    async def _read_end(self, submit: Submit) -> End | None:
        record = await self._scope.journal.read(f"{self._key}-end-{submit.n}")
        return None if record is None else End.model_validate(record)

    async def _record_end(self, submit: Submit, end: End) -> End:
        key = f"{self._key}-end-{submit.n}"
        try:
            if await self._scope.journal.create(key, end.model_dump(mode="json")):
                return end
            return End.model_validate(await self._scope.journal.read(key))
        except JournalError as error:
            # The ticket stands, so a later run asks RunningHub again; now the files come first, since their links die.
            _log.warning("%s: the end of task %s could not be recorded: %s", self._policy.job, end.task_id, error)
            return end

    async def _cancel_task(self, submit: Submit) -> End:
        view = await cancel_task(self._world.client, submit.task_id or "")
        return await self._record_end(submit, broken_end(submit, view, scope=self._scope))

    def _tell(self, state: JobEventState, message: str, *, task_id: str | None = None) -> None:
        event = JobEvent(
            state=state,
            job=self._policy.job,
            model=self._order.model,
            label=self._order.label,
            task_id=task_id,
            message=message,
        )
        self._observer.notify(event)


def _state_of(error: RunningHubError) -> JobEventState:
    if isinstance(error, SubmissionUnknown):
        return "unknown"
    return "cancelled" if isinstance(error, JobCancelled) else "failed"

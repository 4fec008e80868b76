"""The steps of the lifecycle for one work, which read and write the work's records and send its requests."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Coroutine
from dataclasses import replace
from decimal import Decimal
from itertools import count
from typing import Any, Final, TypeVar

from rh_prefect.bounded_caches_and_locks import LruSet
from rh_prefect.client import TaskView
from rh_prefect.errors import (
    NOT_PAID,
    AccountError,
    ApiError,
    ConfigError,
    JobTimeout,
    JournalError,
    KeyRejected,
    RunningHubError,
    TaskNotFound,
)
from rh_prefect.works.accounts.limiter import pause_seconds
from rh_prefect.works.completion import await_end, cancel_and_record
from rh_prefect.works.journal.costs_and_budget import Money, Shortfall
from rh_prefect.works.journal.job_records_and_state import RESUBMITTED, JobView, Submit
from rh_prefect.works.journal.record_types import (
    GAVE_UP,
    Answer,
    End,
    Intent,
    Resolution,
    is_surely_dead,
)
from rh_prefect.works.journal.spool import Spooled
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.work_in_progress import Work

LIMITER_PAUSES = 2
"""Number of refusals for lack of a slot before the job itself pauses; each refusal pauses the account's limiter."""

BEFORE_CLAIM = 10.0
"""Maximum age in seconds of a cached reading of the journal before a claim, and of the claim's note before the POST.

This is less than `run_cancellation.UNTIL_INTENT`, the seconds for which a cancellation waits for the intent of a claim.
"""

LONGEST_WAIT: Final = 12 * 3600.0
"""Seconds for which a run waits for the task of an account whose key it does not have."""

WATCH_MARGIN = 10.0
"""Seconds beyond another process's time limits after which this process records the other's submission as unknown."""

UNPOSTED: LruSet[str] = LruSet(10_000)
"""Tokens of this process's intents that may be recorded although their creation failed; these are not posted."""

_LONGEST_PAUSE: Final = 15.0

T = TypeVar("T")
_log = logging.getLogger("rh_prefect")


class Steps:
    """Performs the steps of one work, on the package's loop thread."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.policy = work.policy
        self.accepted_task: Submit | None = None
        """The submission whose task was accepted and has no known end; it may be awaited or be cancelled."""
        self.running_task: Submit | None = None
        """The submission whose task is awaited; unlike `accepted_task`, the run may be suspended until its end."""
        self.changed = asyncio.get_running_loop().create_future()
        """A future that is done when one of these two changes; a new one then takes its place."""
        self.records = work.records
        self._lease = work.lease
        self._clock = work.services.clock
        self._links: dict[str, str] = {}
        self._currency: str | None = None  # Of the account
        self._price: Money | None = None  # Of a submission, in this currency
        self._guess: Money | None = None  # The catalogue's price; the currency may be another one
        self._reserved: int | None = None  # The number of the submission for which an amount is reserved
        self._is_uninterrupted = self._is_over = False
        self._has_warned = False  # That the end of another run's task cannot be read
        self._slot_refusals = 0
        self._is_read = False  # Whether the result was just read with all records of the work
        self._first_time = False
        self._view = JobView(work.key)
        # When the last claim was noted; without a note, the journal is read again for a `fresh` answer
        self._noted_at = math.inf
        self._first_view: TaskView | None = None
        self._accepted_at: float | None = None

    def end(self) -> None:
        """Releases the slot and the reserved amount of an ended or interrupted work, after an uninterrupted step."""
        self._is_over = True
        if not self._is_uninterrupted:
            self._release_amount()
            self._lease.release()

    def uninterrupted(self, step: Coroutine[Any, Any, T]) -> Any:
        """Runs a step to its end, even if the caller is cancelled or the process exits; see `critical`."""
        self._is_uninterrupted = True
        return LOOP.critical(step, then=self._interruptible)

    def _interruptible(self) -> None:
        self._is_uninterrupted = False
        if self._is_over:
            self.end()

    # -- what is recorded ----------------------------------------------------------------------------------------------

    async def read_result(self) -> Any:
        """Reads the recorded result; None if there is no record of it or a file is missing."""
        delivery = self.work.delivery
        if self.records.is_shared:
            record = await self.records.read_result(delivery.shape)
        else:  # one reading has all records of a job
            await self._read_view()
            self._is_read, record = True, self._view.result
        if record is None and self.policy.reuse == "always" and not (await self.records.view()).submits:
            record = await delivery.adopt(self.work)
        return None if record is None else await delivery.restore(self.work, record)

    def known(self, n: int) -> Submit | None:
        """Returns submission n as this process last read it; None if it has not read it."""
        return self._view.find(n)

    async def read_submission(self, n: int) -> Submit | None:
        """Reads the records of submission n; None if there is no intent n."""
        known = self._view.find(n)
        if known is not None and known.state in ("refused", "forgotten"):
            return known  # final, and a work may have hundreds of refusals
        if not self._is_read and not self._view.submits:
            await self._read_view()
        elif not self._is_read:
            await self._read_again(n)
        self._is_read, self._first_time = False, self._first_time or not self._view.submits
        found, recorded = self._view.find(n), self.work.delivery.recorded
        if found is None and recorded is not None and n <= recorded.n:
            cause = "the record of the submission was deleted"
            if recorded.is_adopted:
                cause = f"this work has no submission of its own: its result is that of job {recorded.flow_run}"
            raise JournalError(
                f"{self.policy.title}: the result was paid for (task {recorded.task_id}), but its files are "
                f"not in the storage, and {cause}. No new task was submitted. What to do: put the files back, or "
                f"{self.policy.another_task or 'pass another take for a new result'}."
            )
        return found

    async def _read_view(self) -> None:
        self._view = await self.read()
        own = tuple(filter(self.policy.is_own, self._view.submits))
        self.work.spending.replace_job(replace(self._view, submits=own))
        for submit in self._view.submits:
            self.records.note_settled(submit)

    async def _read_again(self, n: int) -> None:
        """Reads submission n alone: the earlier ones no longer change what is done, and may be hundreds."""
        submit = await self._read(n)
        if submit is not None:
            self._view = self._view.adding(submit)
            if self.policy.is_own(submit):
                self.work.spending.note(self.records.key, submit)
            else:
                self.work.spending.leave(self.records.key, n)
            self.records.note_settled(submit)
        elif self._view.find(n) is not None:
            await self._read_view()  # its records were deleted

    async def _read(self, n: int) -> Submit | None:
        """Reads one submission, and its answer in this machine's spool; None if there is no intent n."""
        submit = await self.records.submission(n)
        return None if submit is None else await self._with_spooled_answer(submit)

    async def read(self) -> JobView:
        """Reads the work's records, and the answers in this machine's spool."""
        view = await self.records.view()
        for submit in view.submits:
            view = view.adding(await self._with_spooled_answer(submit))
        return view

    async def _with_spooled_answer(self, submit: Submit) -> Submit:
        """Records the answer to a submission that is only in this machine's spool; returns the recorded submission."""
        answer = self.work.services.spool.get(*self._name, submit.n, submit.intent.token)
        if answer is not None and submit.has_answer(answer):
            self._unspool(submit.n, submit.intent)
        elif answer is not None:
            return await self._record(submit, answer)
        return submit

    @property
    def _name(self) -> tuple[str, str]:
        return self.records.journal.scope, self.records.key

    def _unspool(self, n: int, intent: Intent) -> None:
        spool = self.work.services.spool
        try:
            spool.drop(*self._name, n, intent.token)
        except OSError as error:
            _log.warning(
                "%s: its answer in %s could not be deleted, although the journal contains it: %s",
                self.work.job,
                spool.folder,
                error,
            )

    async def watch(self, submit: Submit) -> None:
        """Waits until another process's submission has an answer, or until that process has certainly ended.

        Only this process's clock is used, because the clocks of two machines may differ.
        """
        began, pause = self._clock(), 0.05
        while (current := await self._read(submit.n)) is not None and current.state == "open":
            outcome = _outcome(submit.intent, watched=self._clock() - began)
            if outcome is not None:
                await self.records.create(submit.n, outcome)
                return
            await self.work.services.sleep(pause)
            pause = min(2.0, pause * 1.5)

    async def forget(self, n: int) -> None:
        """Marks unknown answer n as forgotten, so that another task may be submitted at the caller's risk."""
        await self.records.create(n, Resolution(outcome="forgotten", by=RESUBMITTED))

    async def is_cancelled(self, *, fresh: bool) -> bool:
        """Returns whether the run was cancelled; with `fresh`, ignores a state read before the last claim was noted."""
        # A cancellation after the note of a claim waits for the answer, and cancels the task itself.
        age = min(self._clock() - self._noted_at, BEFORE_CLAIM) if fresh else BEFORE_CLAIM
        return await self.work.is_cancelled(max_age=age)

    # -- before the claim ----------------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Checks that the outputs can be stored, gets a valid link for each input, and gets the price."""
        work, inputs = self.work, self.work.request.inputs
        await work.services.stores.check(work.store)
        if inputs and not self._links:
            work.notify("uploading", f"making {len(inputs)} input(s) available to RunningHub")
        while True:
            if inputs:  # outside of `try`: its error says that no account is left, not that this one has refused
                await self._lease.select_account()
            try:
                account, store = self._lease.account, work.store
                self._links = {
                    mark: await account.uploads.address(one, mark, store=store) for mark, one in inputs.items()
                }
                return await self._find_price()
            except ApiError as error:
                await self._leave_account(error)

    async def await_slot(self) -> None:
        """Waits for a free slot on an account, and takes the slot; raises `StoreError` if the store refuses outputs."""
        work = self.work
        await self._lease.acquire(on_wait=lambda: work.notify("queued", "waits for a free slot of the account"))
        work.services.stores.refuse_payment(work.run_attempt, work.store, work.job)

    async def free_slot(self, *, full: bool) -> None:
        """Releases the slot of a submission without a task; `full` says whether RunningHub had no free slot."""
        self._lease.release(full=full)

    @property
    def budget(self) -> Decimal | None:
        """What all works of the run may cost together at present."""
        policy = self.policy
        planned = self.work.spending.planned if policy.is_planned else Decimal(0)
        return None if policy.budget is None else max(policy.budget, planned)

    async def reserve(self, n: int, budget: Decimal) -> Shortfall | None:
        """Reserves the price of submission n in the budget; returns the `Shortfall` if the budget is too small."""
        self._release_amount()
        while True:
            try:
                self._price = await self._request_price()
                break
            except ApiError as error:
                await self._leave_account(error)
                await self.prepare()
        short = await self.work.spending.reserve(self.records.key, n, self._price, budget=budget)
        self._reserved = n if short is None else None
        return short

    def _release_amount(self) -> None:
        """Releases the amount that was reserved for a submission without a claim."""
        if self._reserved is not None:
            self.work.spending.unreserve(self.records.key, self._reserved)
        self._reserved = None

    async def _find_price(self) -> None:
        """Finds the catalogue's price in the account's currency."""
        prices, listed = self._lease.account.prices, self.work.request.listed
        assumed = self.work.assumed
        if not self._lease.account.provider.is_bare:  # of a machine, RunningHub reports neither price nor cost
            self._currency = await prices.currency()
            self._price, self._guess = await prices.listed(listed), prices.guess(listed or assumed)

    async def _request_price(self) -> Money | None:
        request, prices = self.work.request, self._lease.account.prices
        price = await prices.of(request.endpoint, request.sent(self._links), request.listed)
        # RunningHub was asked first: it charges its own price, also for a request with an assumed one.
        return price or prices.guess(self.work.assumed)

    async def _ask(self) -> Money | None:
        """Requests the price, which the budget of another job needs; returns the known one if the request fails."""
        try:
            self._price = await self._request_price()
        except RunningHubError as error:
            _log.warning("%s: its price is not known, so it is not counted in any budget: %s", self.work.job, error)
        return self._price

    async def _leave_account(self, error: ApiError) -> None:
        """Excludes the account that refused an upload or a price request; raises `error` if no account is left."""
        has_slot = self._lease.has_slot
        self._lease.release()
        if not await self.switch_account(Answer.of(error)):
            raise error.with_note(NOT_PAID)
        if has_slot:
            await self.await_slot()

    async def switch_account(self, refused: Answer) -> bool:
        """Excludes the account after its refusal; returns False if the refusal is not account-specific."""
        message = self._lease.after_refusal(refused)
        if message:
            self.work.notify("moved", message)
        return message is not None

    async def pause(self, refusals: int, refused: Answer) -> None:
        """Waits before the next POST, longer after more refusals.

        The first refusals for lack of a slot cause no pause, because `await_slot` waits until the account has a free
        slot.
        """
        if refusals == 1:
            words = refused.reason or refused.code
            self.work.notify("waiting", f"not accepted yet ({words}); waiting to try again, at no cost")
        if refused.no_slot:
            # The limiter has paused for all jobs of the account, and knows when it has room.
            self._slot_refusals += 1
            refusals = self._slot_refusals - LIMITER_PAUSES
        if refusals > 0:
            services = self.work.services
            await services.sleep(pause_seconds(refusals, jitter=services.jitter()))

    # -- from the claim to the answer ----------------------------------------------------------------------------------

    async def note_claim(self, n: int) -> None:
        """Notes in the run's journal that submission n is about to be claimed."""
        await self.records.check_place()
        self._noted_at = self._clock()
        await self.records.note_claim(n)

    async def claim(self, n: int) -> Intent | None:
        """Creates intent n; returns None if another process created it first."""
        price = self._price or self._guess
        priced = {"estimate": price and price.amount, "currency": price.currency if price else self._currency}
        intent = self.work.intent(self._lease.account).model_copy(update=priced)
        spending, key = self.work.spending, self.records.key
        # From here on the journal determines the amount, however this call ends.
        is_held, self._reserved = self._reserved == n, None
        # Before the answer is recorded, so that a concurrent job with a budget counts it.
        if not is_held:
            spending.hold(key, n, self._price, self._ask)
        try:
            is_ours = await self.records.create(n, intent)
        except BaseException:
            # The intent may be recorded all the same, and this process will not post for it.
            UNPOSTED.add(intent.token)
            spending.unreserve(key, n)
            raise
        spending.claim(key, n, self._price, self._ask)
        return intent if is_ours else None

    async def post(self, intent: Intent, n: int) -> Answer:
        """Sends POST n for the leased account; returns an `Answer` for each outcome, even for an error."""
        # The append of a note to a log reads the cancellations before it. A later one waits for this intent.
        if await self.is_cancelled(fresh=True):
            return _given_up("the run was cancelled before the POST")
        # Last, since a reading may take long. From the note on, since another process may read the intent before this
        # process knows that it is recorded.
        if self._clock() - self._noted_at > intent.give_up:
            # Another process may have recorded this intent as unknown; a POST could then be paid for twice.
            return _given_up("this process was stopped before the POST, or its records were read too slowly")
        callback, provider = self.work.callback, self._lease.account.provider
        # The address names the run, which knows the places of the works that it shares with other runs.
        address = callback.address(self.work.scope.journal.scope, self.records.key, n) if callback else None
        request, began = self.work.request, self._clock()
        try:
            view = await provider.submit(request.endpoint, request.sent(self._links), webhook_url=address)
        except Exception as error:
            answer = Answer.of(error)
        else:
            # RunningHub accepted the task at an unknown time between the request and its answer.
            self._first_view, self._accepted_at = view, (began + self._clock()) / 2
            answer = Answer(outcome="ticket", task_id=view.task_id, node_errors=view.node_errors)
        if callback:  # the message of RunningHub may repeat the request
            answer = answer.model_copy(update={"reason": callback.hide(answer.reason)})
        if answer.outcome != "refused":
            self._lease.submit_finished()
        return answer

    async def _put_in_spool(self, n: int, intent: Intent, answer: Answer) -> None:
        try:
            await self.work.services.spool.save(Spooled(*self._name, n, intent.token, answer))
        except OSError as error:
            # The answer is recorded in the journal even if the local disk is full.
            what = f"task {answer.task_id}" if answer.task_id else f"refusal {answer.code}"
            _log.error("%s: %s cannot be recorded on this machine, only in the journal: %s", self.work.job, what, error)

    async def record_answer(self, intent: Intent, n: int, answer: Answer) -> Submit:
        """Records answer n, even if another process has recorded it as unknown; returns the recorded submission."""
        if answer.outcome != "unknown":
            await self._put_in_spool(n, intent, answer)
        submit = await self._record(Submit(n, intent), answer)
        self._view = self._view.adding(submit)
        self.records.note_settled(submit)
        self.work.spending.note(self.records.key, submit)
        if submit.state == "ticket":
            message, before = f"submitted as task {submit.task_id}", self.work.costs
            self.work.notify("submitted", message, task_id=submit.task_id, costs=before)
        return submit

    async def _record(self, submit: Submit, answer: Answer) -> Submit:
        try:
            settled = await self.records.settle(submit, answer, by="the late owner")
        except JournalError as error:
            if answer.outcome != "ticket":
                raise
            job, cause = self.policy.job, error.message.partition(" What to do: ")[0]
            raise JournalError(
                f"{job}: task {answer.task_id} is paid for and running, but it could not be recorded in the journal: "
                f"{cause} The task id is stored in {self.work.services.spool.folder}. What to do: run again on this "
                f"machine (this records the task), or run rh-prefect jobs adopt {job} {answer.task_id} on another "
                "machine."
            ) from error
        self._unspool(submit.n, submit.intent)
        return settled

    # -- from the ticket to the result ---------------------------------------------------------------------------------

    def _set_task(self, accepted: Submit | None, *, running: Submit | None = None) -> None:
        self.accepted_task, self.running_task = accepted, running
        self.changed.set_result(None)
        self.changed = asyncio.get_running_loop().create_future()

    async def accepted(self, submit: Submit) -> None:
        """Shows callers that a submission has a task, as `accepted_task`."""
        self._set_task(submit)

    async def await_end(self, submit: Submit, *, adopted: bool) -> End:
        """Waits until the task has ended, while callers see it as `running_task`; records its end and returns it."""
        self._set_task(submit, running=submit)
        return self._ended(await self._end_of(submit, adopted=adopted))

    def _ended(self, end: End) -> End:
        self._lease.release()
        self._set_task(None)
        return end

    async def _end_of(self, submit: Submit, *, adopted: bool) -> End:
        if not (self.policy.is_own(submit) or await self._can_query(submit)):
            return await self._await_record(submit)
        await self._lease.switch_to(submit.intent)
        self._lease.occupy()
        task_id = submit.task_id
        if adopted:
            self.work.notify("adopted", f"task {task_id} was already paid for; waiting for it", task_id=task_id)
        accepted_at = None if adopted else self._accepted_at
        end = await await_end(self.work, submit, first_view=self._first_view, accepted_at=accepted_at)
        return self._counted(submit, end)

    async def cancel_task(self, submit: Submit) -> End:
        """Cancels the task at RunningHub and records its end; returns the recorded end."""
        await self._lease.switch_to(submit.intent)
        return self._ended(self._counted(submit, await cancel_and_record(self.work, submit)))

    def _counted(self, submit: Submit, end: End) -> End:
        submit = replace(submit, end=end)
        self._view = self._view.adding(submit)
        self.records.note_settled(submit)
        # Another run's task counts in that run's budget.
        if self.policy.is_own(submit):
            self.work.spending.note(self.records.key, submit)
        return end

    async def _can_query(self, submit: Submit) -> bool:
        """Returns whether an account of this run can query the task of another run, and no end is recorded."""
        began = self._clock()
        for tries in count(1):
            try:
                account = await self._lease.switch_to(submit.intent)
                if not account.is_of(submit.intent):
                    # This may be the recorded account with a new key or name; only a query shows it.
                    await account.provider.query(submit.task_id or "")
                break
            except (ConfigError, TaskNotFound):
                return False
            except (KeyRejected, AccountError):
                raise
            except RunningHubError as error:
                # The run that has paid may query the task although this run cannot.
                if await self._recorded_end(submit) is not None:
                    return False
                if self._clock() - began >= LONGEST_WAIT:
                    raise
                # If the call failed now, the run that has paid could cancel the task.
                _log.info("task %s could not be queried yet: %s", submit.task_id, error)
                await self.work.services.sleep(pause_seconds(tries, jitter=self.work.services.jitter()))
        return True

    async def _recorded_end(self, submit: Submit) -> End | None:
        """Reads the end of another run's task; None if none is recorded, or while the records cannot be read."""
        try:
            return await self.records.read_end(submit.n)
        except JournalError as error:
            if error.is_permanent:
                raise
            # If the call failed now, the run that has paid could cancel the task.
            level, self._has_warned = logging.INFO if self._has_warned else logging.WARNING, True
            _log.log(level, "the end of task %s could not be read yet: %s", submit.task_id, error)
            return None

    async def _await_record(self, submit: Submit) -> End:
        """Waits until another run has recorded the end of its task, which no key of this run can query."""
        work, account = self.work, submit.intent.account_words
        began, gap = self._clock(), 0.05
        message = (
            f"task {submit.task_id} is running on account {account}, whose key this run does not have; "
            "waiting for its end"
        )
        work.notify("adopted", message, task_id=submit.task_id)
        while self._clock() - began < LONGEST_WAIT:
            end = await self._recorded_end(submit)
            if end is not None:
                return end
            await work.services.sleep(gap)
            gap = min(_LONGEST_PAUSE, gap * 1.5)
        # If the records cannot be read, this raises the reason.
        if (end := await self.records.read_end(submit.n)) is not None:
            return end
        raise JobTimeout(
            f"{self.policy.title}: run {submit.intent.flow_run} has submitted task {submit.task_id} on account "
            f"{account}, and has not recorded the end of the task within {LONGEST_WAIT:.0f} s. This run does not have "
            "the key of that account, and paid nothing. What to do: configure the credentials of that account for this "
            "run, and run again.",
            job=self.policy.job,
            task_id=submit.task_id,
        )

    async def report_failure(self, submit: Submit, reason: str) -> None:
        """Notifies the observer of a failed task before another task is submitted."""
        message = f"task {submit.task_id} failed ({reason}) and its cost is counted; another task is submitted"
        # No task of the work runs now.
        self.work.notify("waiting", message, task_id="", costs=self.work.costs)

    async def publish(self, submit: Submit, end: End) -> Any:
        """Downloads and publishes missing outputs; returns the work's result, or `Invalid`."""
        work = self.work
        work.notify("collecting", "downloads its outputs", task_id=submit.task_id)
        return await work.delivery.publish(work, submit, end, first_time=self._first_time)

    async def record_result(self, result: Any) -> Any:
        """Records the result, and returns it; returns another process's result if that was recorded first."""
        return await self.work.delivery.record(self.work, result)


def _given_up(reason: str) -> Answer:
    """Returns the answer to record for a claim of this process that is not posted."""
    return Answer(outcome="refused", code=GAVE_UP, reason=reason, retry="throttled")


def _outcome(intent: Intent, *, watched: float) -> Answer | None:
    """Returns the answer to record for another process's submission; None while that process may still record it."""
    if intent.token in UNPOSTED:
        return _given_up("its POST was never started")
    if is_surely_dead(intent.owner):
        return Answer(outcome="unknown", reason="the process that posted it has ended unexpectedly", retry="unknown")
    if watched > intent.give_up + intent.submit_timeout + WATCH_MARGIN:
        return Answer(outcome="unknown", reason=f"no response was recorded within {watched:.0f} s", retry="unknown")
    return None

"""All decisions about the payment of a work, without I/O.

A *work* is one request that is paid for once in its scope. `run_work` decides what to do next, and awaits the methods
of `lifecycle_steps.Steps`, which do all I/O and which a test can replace. The steps in their order:

    result? -> waiter -> submission n? -> upload -> slot -> budget -> claim (intent) -> POST -> answer
    accepted -> wait -> end
    publish -> result

`journal/record_types.py` defines the records. No other run waits for works in the scope of one flow run, so there the
notes of waiters and claims are not written. The rules, in the order in which they apply:

- The records have precedence. A ticket is queried, never submitted again; a recorded end is final.
- An `end` with a success says that the work is paid for, and a `result` that it is done. Missing files of a result are
  downloaded again, and never lead to a payment.
- If an intent has no answer, its POST is in flight or its owner has died; the process waits until it knows which.
- An unknown answer stays unknown until a person, the late owner or the caller's own option resolves it.
- No task is submitted that would exceed the run's budget; a work that has a ticket ignores the budget.
- A refusal is recorded before any wait; the next POST has the next number.
- The end of a task is recorded before its outputs are downloaded.
- After a failed task, another task is paid for if `attempts` allows it, and if either the code says that a new task
  may succeed, or the failure belongs to an earlier attempt. If the same request would fail again, no task is paid for.

Records are only added, so a stale read shows an earlier state. If an exclusive creation fails because a
decision was based on such a state, the decision is made again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn, cast

from rh_prefect.errors import (
    NOT_PAID,
    ConnectFailed,
    InputError,
    JobCancelled,
    JobFailed,
    JournalError,
    NotPlanned,
    SubmissionUnknown,
    api_error,
)
from rh_prefect.works.job_options import Options
from rh_prefect.works.journal.costs_and_budget import exceeded
from rh_prefect.works.journal.job_records_and_state import JobRecords, Submit
from rh_prefect.works.journal.record_types import GAVE_UP, NOT_DELIVERED, NOT_SENT, Answer, End

if TYPE_CHECKING:
    from rh_prefect.works.lifecycle_steps import Steps


_UNDELIVERED_TRIES = 5
"""Maximum number of consecutive tries for a request that does not leave this machine."""

_NO_REASON = "no reason given"


@dataclass(frozen=True, slots=True)
class Invalid:
    """A successful task whose answer does not have the structure that the caller requires."""

    reason: str  # What is wrong with it


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy(Options):
    """The options of a call for a work, and the call's place in the run."""

    job: str  # The work's full name, as `rh-prefect jobs` takes it
    endpoint: str  # The endpoint, for messages
    name: str = ""  # The step or the call, for messages; the work's full name by default
    run: str = ""  # The run, as intents name it; empty in the scope of one run, whose submissions are all its own
    attempt: int = 1  # The attempt of the run, from 1
    first_attempt: int = 1  # The first attempt whose payments count together with this one's; see `Scope.first_attempt`
    budget: Decimal | None = None  # What all works of the run may cost together; None for no limit
    is_planned: bool = False  # Whether the budget rises to what all pipelines of the run may cost, by their prices
    assumed_price: Decimal | None = None  # What it costs at most, if neither the catalogue nor RunningHub knows it
    unpriced_advice: str = "run it without a budget"  # What to do if the budget needs a price that is not known
    may_switch_account: bool = False  # Whether another account may pay after an account-specific refusal
    # Why the run must not pay for the work, and what to do; empty if it may pay. An existing or coming result is used
    forbidden: str = ""
    # How a person asks for a new task of a request that failed permanently; empty if there is no way
    another_task: str = ""
    # Where a person looks for a task of the endpoint, and the form of its id
    task_list: tuple[str, str] = ("RunningHub's call log", "TASK_ID")

    @property
    def title(self) -> str:
        """The name at the start of messages."""
        return self.name or self.job

    def is_own(self, submit: Submit) -> bool:
        """Returns whether this run, or one of its earlier attempts, made a submission."""
        return submit.intent.flow_run == self.run

    def counts(self, submit: Submit) -> bool:
        """Returns whether a submission counts toward the `attempts` of this run."""
        return self.is_own(submit) and submit.intent.attempt >= self.first_attempt

    def is_of_attempt(self, submit: Submit) -> bool:
        """Returns whether this attempt of the run made a submission."""
        return self.is_own(submit) and submit.intent.attempt == self.attempt


@dataclass(slots=True)
class _Progress:
    """The state of the work, as far as this process knows it."""

    waits: set[int] = field(default_factory=set)  # Numbers whose task it waited for
    paid: int = 0  # How many of the run's attempts are used
    refusals: int = 0  # Refused submissions in a row
    undelivered: int = 0  # Submissions in a row that did not leave this machine
    # The error after which the run pays for no other task; a task that was paid for already is used all the same
    final: JobFailed | JobCancelled | None = None


async def run_work(steps: Steps) -> Any:
    """Returns the result of one work, and pays for it if necessary; None if an unpaid work may not be submitted."""
    policy = steps.policy
    result = await steps.read_result()
    if result is not None:
        return result
    await steps.records.note_waiter()
    progress, n = _Progress(), 1
    while True:
        submit = await steps.read_submission(n)
        is_recorded = submit is not None
        if submit is None:
            if progress.final is not None:
                _raise(progress.final, progress)
            if not policy.may_submit:
                return None
            if not await _may_claim(steps, n):
                continue
            submit = await steps.uninterrupted(_submit(steps, n))
            if submit is None or submit.state == "refused":
                await _end_attempt(steps, submit, progress)
            if submit is None:
                continue  # another process was first; its intent is read now
        match submit.state:
            case "open":
                await steps.watch(submit)
            case "unknown":
                await _settle_unknown(steps, submit, progress)
            case "refused" | "forgotten":
                progress.paid += submit.may_be_paid and policy.counts(submit)
                n += 1
            case _:
                result = await _finish(steps, submit, progress, adopted=is_recorded)
                if result is not None:
                    return result
                n += 1


async def may_cancel(records: JobRecords) -> bool:
    """Records that a cancelled run no longer waits for a work; returns whether the run may cancel the task."""
    # First: of two runs that are cancelled at once, at least one reads that the other waits no more.
    await records.release_waiter()
    return not await records.has_other_waiters()


async def _may_claim(steps: Steps, n: int) -> bool:
    """Prepares the inputs, slot and budget of submission n; returns False if another run has made submission n."""
    policy = steps.policy
    if policy.forbidden:
        raise NotPlanned(f"{policy.title}: {policy.forbidden} {NOT_PAID}", job=policy.job)
    await steps.prepare()
    await steps.await_slot()
    # The wait may have been long, and a link lives for a day only.
    await steps.prepare()
    while (budget := steps.budget) is not None and (short := await steps.reserve(n, budget)) is not None:
        if steps.budget == budget:  # else another pipeline has raised it meanwhile
            raise exceeded(policy.title, budget=budget, short=short, unpriced=policy.unpriced_advice)
    if not await steps.is_cancelled(fresh=False):
        return True
    await steps.free_slot(full=False)
    # Another run that is cancelled now leaves its task to this one, or reads that this one waits no more.
    await steps.records.release_waiter()
    if await steps.read_submission(n) is not None:
        return False
    raise JobCancelled(
        f"{policy.title}: the run was cancelled before this job was submitted. {NOT_PAID} What to do: "
        "run again; outside of flows, in a new process.",
        job=policy.job,
    )


async def _submit(steps: Steps, n: int) -> Submit | None:
    """Claims, posts and records submission n, without interruption; returns None if another process has claimed it."""
    # Noted first: a claim without an intent counts nothing, and an intent without a claim would escape the budget.
    await steps.note_claim(n)
    intent = await steps.claim(n)
    if intent is None:
        return None
    answer = await steps.post(intent, n)
    return await steps.record_answer(intent, n, answer)


async def _end_attempt(steps: Steps, submit: Submit | None, progress: _Progress) -> None:
    """Frees the slot of a submission without a task; after a refusal, waits or switches to another account.

    Raises an error if the same request would be refused again.
    """
    policy, refused = steps.policy, submit.answer if submit is not None else None
    await steps.free_slot(full=refused is not None and refused.no_slot)
    if refused is None:
        return
    if policy.may_switch_account and refused.retry != "throttled" and await steps.switch_account(refused):
        return
    progress.undelivered = progress.undelivered + 1 if refused.code in (NOT_DELIVERED, GAVE_UP) else 0
    _raise_unless_temporary(policy, refused, progress.undelivered)
    progress.refusals += 1
    await steps.pause(progress.refusals, refused)


def _raise_unless_temporary(policy: Policy, refused: Answer, undelivered: int) -> None:
    if refused.code == NOT_DELIVERED and undelivered >= _UNDELIVERED_TRIES:
        raise ConnectFailed(
            f"{policy.title}: RunningHub could not be reached in {undelivered} consecutive tries: {refused.reason}. "
            f"{NOT_PAID} What to do: check the network and RH_BASE_URL, then run again."
        )
    if refused.code == GAVE_UP and undelivered >= _UNDELIVERED_TRIES:
        raise JournalError(
            f"{policy.title}: the request was not sent in {undelivered} consecutive tries; the last reason: "
            f"{refused.reason}. {NOT_PAID} What to do: check why Prefect's API or the storage of the records "
            "takes so long to answer, then run again."
        )
    if refused.code == NOT_SENT:
        raise InputError(f"{policy.title}: {refused.reason}")
    if refused.retry != "throttled":
        doing = f"{policy.title}: submit to {policy.endpoint}"
        raise api_error(refused.code, refused.reason, doing=doing, refused=True)


async def _settle_unknown(steps: Steps, submit: Submit, progress: _Progress) -> None:
    policy = steps.policy
    # A service may accept each submission that it answers with an error, so the limit is the same.
    may_resubmit = policy.on_unknown == "resubmit" and policy.may_submit and progress.final is None
    if may_resubmit and progress.paid + policy.counts(submit) < policy.attempts:
        await steps.forget(submit.n)
        return
    answer = submit.answer
    reason = f" ({answer.reason})" if answer and answer.reason else ""
    place, form = policy.task_list
    raise SubmissionUnknown(
        f"{policy.title}: submission {submit.n} to {submit.intent.request_words} was started at {submit.intent.at}, "
        f"but it is not known whether RunningHub accepted it{reason}. The request is not sent again, because you "
        f"could pay twice. What to do: look for the task of account {submit.intent.account_words} in {place}. If a "
        f"task with this request exists, run rh-prefect jobs adopt {policy.job} {form}. If none exists, run rh-prefect "
        f"jobs mark-refused {policy.job}. Then run again.",
        job=policy.job,
    )


async def _finish(steps: Steps, submit: Submit, progress: _Progress, *, adopted: bool) -> Any:
    """Completes a submission that has a task, and returns the result; None if another submission may follow."""
    policy, end = steps.policy, submit.end
    if end is None:
        # Before the task is known to callers, who may suspend the run: the task then ends while no process waits.
        if not policy.is_of_attempt(submit):
            await steps.records.note_wait(submit.n)
        await steps.accepted(submit)
        end = await _wait(steps, submit, progress, adopted=adopted)
    failure: JobFailed | JobCancelled
    if end.status == "SUCCESS":
        result = await steps.publish(submit, end)
        if not isinstance(result, Invalid):
            return await steps.record_result(result)
        failure, end = _invalid(policy, submit, result), end.model_copy(update={"reason": result.reason})
    else:
        failure = _failure(policy, end)
    progress.final = await _final_error(steps, submit, end, failure, progress) or progress.final
    return None


def _raise(final: JobFailed | JobCancelled, progress: _Progress) -> NoReturn:
    try:
        raise final
    finally:
        del final, progress.final  # its traceback has these frames


async def _wait(steps: Steps, submit: Submit, progress: _Progress, *, adopted: bool) -> End:
    """Waits until a task has ended and its end is recorded; returns the end."""
    # A graph that RunningHub reports as broken fails or runs in part, so waiting for it would pay for nothing.
    if submit.answer is not None and submit.answer.node_errors:
        return cast(End, await steps.uninterrupted(steps.cancel_task(submit)))
    # A caller that only downloads paid results needs them even if its run was cancelled.
    if steps.policy.may_submit and await steps.is_cancelled(fresh=True):
        return await _cancel_own(steps, submit)
    progress.waits.add(submit.n)
    return await steps.await_end(submit, adopted=adopted)


async def _cancel_own(steps: Steps, submit: Submit) -> End:
    """Cancels the task of this cancelled run, unless another run waits for its result."""
    policy = steps.policy
    if not await may_cancel(steps.records):
        raise JobCancelled(
            f"{policy.title}: the run was cancelled; task {submit.task_id} continues, because another run waits "
            "for it. The task is charged once. What to do: run again to use its result.",
            job=policy.job,
            task_id=submit.task_id,
        )
    end = await steps.cancel_task(submit)
    if end.status == "CANCELLED" and not policy.is_own(submit):
        raise _failure(policy, end)
    return end


async def _final_error(
    steps: Steps, submit: Submit, end: End, failure: JobFailed | JobCancelled, progress: _Progress
) -> JobFailed | JobCancelled | None:
    """Returns the error of a work after a failure; None if this run may submit another task."""
    policy = steps.policy
    if isinstance(failure, JobCancelled):
        # A cancelled run leaves the work to the others; the task of this run was cancelled by a person.
        if not policy.is_own(submit):
            return None
        progress.paid += policy.counts(submit)
        may_pay = progress.paid < policy.attempts and await _is_earlier(steps, submit, end, progress)
        return None if may_pay else failure
    if end.next_task == "never":
        return failure
    if not policy.counts(submit) and not await _has_met(steps, submit, end, progress, since=policy.first_attempt):
        return None  # the failure belongs to an earlier run, or to an earlier attempt of this one
    progress.paid += 1
    if progress.paid >= policy.attempts:
        return _used_up(policy, failure)
    may_pay = policy.may_submit and failure.new_task
    if not may_pay and not (policy.is_own(submit) and await _is_earlier(steps, submit, end, progress)):
        return failure
    await steps.report_failure(submit, end.reason or end.code or _NO_REASON)
    return None


async def _is_earlier(steps: Steps, submit: Submit, end: End, progress: _Progress) -> bool:
    """Returns whether the failure of an own task belongs to an earlier attempt, so that this one may not know it."""
    policy = steps.policy
    is_known = bool(policy.run) and policy.is_of_attempt(submit)
    return not (is_known or await _has_met(steps, submit, end, progress, since=policy.attempt))


async def _has_met(steps: Steps, submit: Submit, end: End, progress: _Progress, *, since: int) -> bool:
    """Returns whether this attempt, or an earlier one from attempt `since` on, has waited for a task."""
    if submit.n in progress.waits:
        return True
    # In the scope of one run, the end names the attempt that recorded it; for a shared work, that may be another run's.
    if not steps.policy.run:
        return end.attempt >= since
    return await steps.records.has_waited(submit.n, since=since)


def _failure(policy: Policy, end: End) -> JobFailed | JobCancelled:
    if end.status == "CANCELLED":
        return JobCancelled(
            f"{policy.title}: task {end.task_id} was cancelled. What to do: run again (this pays for a new task).",
            job=policy.job,
            task_id=end.task_id,
        )
    return JobFailed(
        f"{policy.title}: task {end.task_id} of {policy.endpoint} failed: {end.reason or _NO_REASON} "
        f"(code {end.code or 'none'}). What to do: {_advice(policy, end)}.",
        job=policy.job,
        task_id=end.task_id,
        code=end.code,
        new_task=end.next_task == "at_once",
    )


def _invalid(policy: Policy, submit: Submit, invalid: Invalid) -> JobFailed:
    return JobFailed(
        f"{policy.title}: the answer of task {submit.task_id} does not match `parse`: {invalid.reason}. The answer "
        "was paid for. What to do: run again (this pays for a new answer), increase `attempts` of the step, or "
        "change the prompt or `parse`.",
        job=policy.job,
        task_id=submit.task_id,
        new_task=True,
    )


def _used_up(policy: Policy, failure: JobFailed) -> JobFailed:
    """Returns the error after the last task that `attempts` allows; no retry of the run submits another task."""
    limit = f"`attempts` allows {policy.attempts}"
    message = f"{failure.message} This run submits no further task for the job: {limit}."
    return JobFailed(message, job=failure.job, task_id=failure.task_id, code=failure.code, new_task=False)


def _advice(policy: Policy, end: End) -> str:
    if end.next_task != "never":
        return end.advice or "run again (this pays for a new task)"
    another_task = policy.another_task
    if not end.advice:  # of broken nodes, which a person may repair on the site; the request is then the same
        another_task = another_task or "then, if you did so on the site, pass another `take` or start a new run"
    advice = end.advice or "repair the nodes"
    return f"{advice}; {another_task}" if another_task else advice

"""The lifecycle of a work: all decisions about payment, without I/O.

A *work* is one request that is paid for once in its scope. `run_work` is a generator: it yields the next step and
receives the result of the step. `step_executor` performs the steps. So each rule about money is tested state by state,
without a clock, a network or a journal:

    result? -> waiter -> submission n? -> upload -> slot -> budget -> claim (intent) -> POST -> answer    Accepted
    wait -> end                                                                                           Ended
    publish -> result

`Accepted` and `Ended` are stages: an executor may stop there and continue later, or another process may.

| record       | written                                   | holds                                      |
|--------------|-------------------------------------------|--------------------------------------------|
| waiter       | before a run waits for the work           | the run, its process                       |
| released     | when it ends without the result           | nothing: this waiter counts no more        |
| intent n     | before POST n, exclusively                | run, owner, account, parameters            |
| answer n     | after it                                  | a ticket, `refused` or `unknown`           |
| resolution n | by a person, or the late owner            | `adopted` with a task id, or `forgotten`   |
| end n        | when the task is terminal, exclusively    | the outputs' links, or the failure; cost   |
| result       | after the files are published             | the files, the cost; the work is done      |

In the scope of one flow run, no other run waits for its works, and its claims need no notes: these steps do nothing
there. The rules, in the order in which they apply:

- The records have precedence. A ticket is queried, never submitted again; a recorded end is final.
- An `end` with a success says that the work is paid for, and a `result` that it is done. Missing files of a result are
  downloaded again; they never lead to a payment.
- An intent without an answer is a POST in flight, or its owner has died; the process waits until this is decided.
- An unknown answer stays unknown until a person, the late owner or the caller's own option resolves it.
- No task is submitted that would exceed the run's budget; the budget never stops a work that has a ticket.
- A refusal is recorded before any wait; the next POST has the next number.
- A ticket's end is recorded before its outputs are fetched.
- A failed task is paid for again while `attempts` allows it, if its code says that a new task may help or an earlier
  attempt of the run has met the failure; never if the same request would fail again.

Records are only ever added, so a stale reading is an earlier state; what is decided by it is decided again when an
exclusive creation fails.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, get_args

from rh_prefect.client import NativeSubmit
from rh_prefect.errors import (
    ConnectFailed,
    InputError,
    JobCancelled,
    JobFailed,
    NotPlanned,
    SubmissionUnknown,
    api_error,
)
from rh_prefect.works.journal.budget import exceeded
from rh_prefect.works.journal.job_records import Submit
from rh_prefect.works.journal.record_types import NOT_DELIVERED, NOT_SENT, Answer, End, Intent
from rh_prefect.works.lifecycle_step_types import (
    Accepted,
    AwaitEnd,
    AwaitSlot,
    CancelStep,
    CancelTask,
    CheckCancel,
    Claim,
    Ended,
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
    Step,
    SwitchAccount,
    Watch,
)


@dataclass(frozen=True, slots=True)
class Invalid:
    """A successful task whose answer does not have the structure that the caller requires.

    Attributes:
        reason: What is wrong with it.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Policy:
    """The options of a call for a work, and its position in the run.

    Attributes:
        job: The work's full name, as `rh-prefect jobs` takes it.
        endpoint: The endpoint, for messages.
        name: The step or the call, for messages; the work's full name by default.
        run: The run, as intents name it; empty in the scope of one run, whose submissions are all its own.
        attempt: The attempt of the run, from 1.
        first_attempt: The first attempt whose payments count together with this one's; see `Scope.first_attempt`.
        attempts: How many tasks one work may pay for from `first_attempt` on, failed ones and invalid answers included,
            and unknown ones where they are resubmitted.
        on_unknown: `raise` requires a person to resolve an unknown submission; `resubmit` pays again, at the caller's
            risk.
        may_submit: False if only results that are already paid for are downloaded.
        undelivered_tries: How often in a row a request that cannot leave this machine is tried.
        budget: What all works of the run may cost together; None for no limit.
        unpriced_advice: What to do if the budget needs a price that is not known.
        may_switch_account: Whether another account may pay after an account-specific refusal.
        forbidden: Why the run must not pay for it, and what to do; empty where it may. A result that exists, or comes,
            is still used.
        another_task: How a person asks for a new task of a request that failed permanently; empty if there is no way.
    """

    job: str
    endpoint: str
    name: str = ""
    run: str = ""
    attempt: int = 1
    first_attempt: int = 1
    attempts: int = 3
    on_unknown: Literal["raise", "resubmit"] = "raise"
    may_submit: bool = True
    undelivered_tries: int = 5
    budget: Decimal | None = None
    unpriced_advice: str = "run it without a budget"
    may_switch_account: bool = False
    forbidden: str = ""
    another_task: str = ""

    @property
    def title(self) -> str:
        """The name that messages begin with."""
        return self.name or self.job

    def is_own(self, submit: Submit) -> bool:
        """Whether this run, or one of its earlier attempts, made a submission."""
        return submit.intent.flow_run == self.run

    def counts(self, submit: Submit) -> bool:
        """Whether a submission is one of the `attempts` of this run."""
        return self.is_own(submit) and submit.intent.attempt >= self.first_attempt


@dataclass(slots=True)
class _Progress:
    """The state of the work as far as this process has seen it.

    Attributes:
        waits: Numbers whose task it waited for.
        paid: How many of the run's attempts are used.
        refusals: Refused submissions in a row.
        undelivered: Submissions in a row that did not leave this machine.
    """

    waits: set[int] = field(default_factory=set)
    paid: int = 0
    refusals: int = 0
    undelivered: int = 0


def run_work(policy: Policy) -> Generator[Step, Any, Any]:
    """Gets the result of one work, and pays for it if that was not done.

    Args:
        policy: The options of the call.

    Yields:
        Steps; each class documents its result.

    Returns:
        The result; None where `may_submit` is false and nothing was paid.

    Raises:
        SubmissionUnknown: It is unknown whether a submission was accepted; a user decides.
        JobFailed: The task failed, or its answer was invalid, and this run may not pay for another now.
        JobCancelled: The run or the task was cancelled.
        BudgetExceeded: The price does not fit into the run's budget.
        NotPlanned: The run's reviewed plan does not name the work.
        ApiError: RunningHub refused the submission permanently.
        ConnectFailed: RunningHub could not be reached, several times in a row.
        InputError: The request could not be written.
    """
    result = yield ReadResult()
    if result is not None:
        return result
    yield NoteWaiter()
    progress, n = _Progress(), 1
    while True:
        recorded: Submit | None = yield ReadSubmission(n)
        if recorded is None and not policy.may_submit:
            return None
        submit = recorded or (yield from _pay(policy, n, progress))
        match submit:
            case None:
                continue  # another process was first; its intent is read now
            case Submit(state="open"):
                yield Watch(submit)
            case Submit(state="unknown"):
                yield from _settle_unknown(policy, submit, progress)
            case Submit(state="refused" | "forgotten"):
                progress.paid += submit.may_be_paid and policy.counts(submit)
                n += 1
            case _:
                result = yield from _finish(policy, submit, progress, adopted=recorded is not None)
                if result is not None:
                    return result
                n += 1


def cancel_work(n: int) -> Generator[CancelStep, Any, bool]:
    """Cancels the task that a cancelled run claimed or waited for, unless another run waits for the work.

    Args:
        n: The number of the task's submission.

    Yields:
        Steps.

    Returns:
        Whether the task was cancelled.
    """
    submit: Submit | None = yield ReadSubmission(n)
    if submit is None or submit.state != "ticket":
        return False
    # First: of two runs that are cancelled at once, at least one reads that the other waits no more.
    yield ReleaseWaiter()
    if (yield ReadWaiters()):
        return False
    yield CancelTask(submit)
    return True


def _pay(policy: Policy, n: int, progress: _Progress) -> Generator[Step, Any, Submit | None]:
    """Submits number n; None where another process has claimed it."""
    if policy.forbidden:
        raise NotPlanned(f"{policy.title}: {policy.forbidden} Nothing was paid for it.", job=policy.job)
    yield Prepare()
    yield AwaitSlot()
    # The wait may have been long, and a link lives for a day only.
    yield Prepare()
    if policy.budget is not None and (short := (yield Reserve(n, policy.budget))) is not None:
        raise exceeded(policy.title, budget=policy.budget, short=short, unpriced=policy.unpriced_advice)
    if (yield CheckCancel(fresh=False)):
        yield from _give_back(policy, n)
        # Another run that is cancelled now leaves its task to this one, or reads that this one waits no more.
        yield ReleaseWaiter()
        if (yield ReadSubmission(n)) is not None:
            return None
        raise JobCancelled(
            f"{policy.title}: the run was cancelled before this job was submitted. Nothing was paid for it. What "
            "to do: run it again.",
            job=policy.job,
        )
    # Noted first: a claim without an intent counts nothing, and an intent without a claim would escape the budget.
    yield NoteClaim(n)
    intent: Intent | None = yield Claim(n)
    if intent is None:
        yield from _give_back(policy, n)
        return None
    answer: Answer = yield Post(intent, n)
    submit: Submit = yield RecordAnswer(intent, n, answer)
    if submit.state == "refused":
        refused = submit.answer or answer
        yield from _give_back(policy, n, full=refused.no_slot)
        yield from _retry_or_raise(policy, refused, progress)
    return submit


def _give_back(policy: Policy, n: int, *, full: bool = False) -> Generator[Step, Any, None]:
    """Releases the slot and the budget of submission n, which has no task of this process."""
    yield FreeSlot(full=full)
    if policy.budget is not None:
        yield Release(n)


def _retry_or_raise(policy: Policy, refused: Answer, progress: _Progress) -> Generator[Step, Any, None]:
    """Switches to another account or waits after a refusal; raises if the same request would be refused again."""
    if policy.may_switch_account and refused.retry != "throttled" and (yield SwitchAccount(refused)):
        return
    progress.undelivered = progress.undelivered + 1 if refused.code == NOT_DELIVERED else 0
    _raise_unless_temporary(policy, refused, progress.undelivered)
    progress.refusals += 1
    yield Pause(progress.refusals, refused)


def _raise_unless_temporary(policy: Policy, refused: Answer, undelivered: int) -> None:
    if refused.code == NOT_DELIVERED and undelivered >= policy.undelivered_tries:
        raise ConnectFailed(
            f"{policy.title}: RunningHub could not be reached, {undelivered} times in a row: {refused.reason}. "
            "Nothing was paid. What to do: check the network and RH_BASE_URL, then run again."
        )
    if refused.code == NOT_SENT:
        raise InputError(f"{policy.title}: {refused.reason}")
    if refused.retry != "throttled":
        raise api_error(refused.code, refused.reason, doing=f"{policy.title}: submit to {policy.endpoint}")


def _settle_unknown(policy: Policy, submit: Submit, progress: _Progress) -> Generator[Step, Any, None]:
    # A service may accept each submission that it answers with an error, so the limit is the same.
    may_resubmit = policy.on_unknown == "resubmit" and policy.may_submit
    if may_resubmit and progress.paid + policy.counts(submit) < policy.attempts:
        yield Forget(submit.n)
        return
    answer = submit.answer
    reason = f" ({answer.reason})" if answer and answer.reason else ""
    place, form = _task_list_of(submit.intent)
    raise SubmissionUnknown(
        f"{policy.title}: submission {submit.n} to {policy.endpoint} was started at {submit.intent.at} and it is not "
        f"known whether RunningHub accepted it{reason}. It is not sent again, because you could pay twice. What to do: "
        f"look for the task in {place}. If it is there: rh-prefect jobs adopt {policy.job} {form}. "
        f"If it is not: rh-prefect jobs mark-refused {policy.job}. Then run again.",
        job=policy.job,
    )


def _task_list_of(intent: Intent) -> tuple[str, str]:
    """Returns the list that contains the tasks of an endpoint, and the format of its ids."""
    if intent.endpoint in get_args(NativeSubmit):
        shown = f"{intent.endpoint}/<key>/history and {intent.endpoint}/<key>/queue"
        prefix = f"{intent.endpoint.lstrip('/')}."
        return (
            f"ComfyUI's own job lists, at {shown} (RunningHub's call log does not include these jobs)",
            f"{prefix}PROMPT_ID",
        )
    return f"RunningHub's call log of the account {intent.account_words}", "TASK_ID"


def _finish(policy: Policy, submit: Submit, progress: _Progress, *, adopted: bool) -> Generator[Step, Any, Any]:
    """Completes a submission that has a task, and returns the result; None if the next number may be tried."""
    end = submit.end
    # Before the stage, at which a run may be suspended: the task then ends while no process of the run waits for it.
    if end is None and not policy.counts(submit):
        yield NoteWait(submit.n)
    if end is None or end.status == "SUCCESS":
        yield Accepted(submit, adopted)
        if end is None:
            end = yield from _wait(policy, submit, progress, adopted=adopted)
        yield Ended(submit, end)
    failure: JobFailed | JobCancelled
    if end.status == "SUCCESS":
        result = yield Publish(submit, end)
        if not isinstance(result, Invalid):
            return (yield RecordResult(result))
        failure = _invalid(policy, submit, result)
    else:
        failure = _failure(policy, end)
    final = yield from _final_error(policy, submit, end, failure, progress)
    # A caller that only downloads does not decide whether another task is paid for: that is recorded.
    if final is not None and (policy.may_submit or (yield ReadSubmission(submit.n + 1)) is None):
        raise final
    return None


def _wait(policy: Policy, submit: Submit, progress: _Progress, *, adopted: bool) -> Generator[Step, Any, End]:
    """Waits for the end of a task, which is recorded before it is returned."""
    # A graph that RunningHub reports as broken fails or runs in part, so waiting for it would pay for nothing.
    if submit.answer is not None and submit.answer.node_errors:
        broken: End = yield CancelTask(submit)
        return broken
    # A caller that only downloads paid results needs them even if its run was cancelled.
    if policy.may_submit and (yield CheckCancel(fresh=True)):
        cancelled: End = yield from _cancel_own(policy, submit)
        return cancelled
    progress.waits.add(submit.n)
    end: End = yield AwaitEnd(submit, adopted=adopted)
    return end


def _cancel_own(policy: Policy, submit: Submit) -> Generator[Step, Any, End]:
    """Cancels the task for which this cancelled run waits, unless another run wants its result."""
    yield ReleaseWaiter()
    if (yield ReadWaiters()):
        raise JobCancelled(
            f"{policy.title}: the run was cancelled; task {submit.task_id} continues, because another run waits "
            "for it.",
            job=policy.job,
            task_id=submit.task_id,
        )
    end: End = yield CancelTask(submit)
    if end.status == "CANCELLED" and not policy.is_own(submit):
        raise _failure(policy, end)
    return end


def _final_error(
    policy: Policy, submit: Submit, end: End, failure: JobFailed | JobCancelled, progress: _Progress
) -> Generator[Step, Any, JobFailed | JobCancelled | None]:
    """Returns the error with which the work ends after a failure; None if this run may pay for the next number."""
    is_earlier = submit.n not in progress.waits and end.attempt < policy.attempt
    if isinstance(failure, JobCancelled):
        # A cancelled run leaves the work to the others; the task of this run was cancelled by a person.
        return failure if policy.is_own(submit) and not is_earlier else None
    if end.status == "FAILED" and end.next_task == "never":
        return failure
    # In the scope of one run the end names the attempt that met it; of a shared work it may be another run's.
    has_met = submit.n in progress.waits or (not policy.run and end.attempt >= policy.first_attempt)
    if not (policy.counts(submit) or has_met or (yield ReadWait(submit.n))):
        return None  # a failure that an earlier run, or an earlier attempt of this one, has met
    progress.paid += 1
    if progress.paid >= policy.attempts:
        return _used_up(policy, failure)
    may_pay = policy.may_submit and failure.new_task
    if not (may_pay or (policy.is_own(submit) and is_earlier)):
        return failure
    yield ReportFailure(submit, end.reason or end.code)
    return None


def _failure(policy: Policy, end: End) -> JobFailed | JobCancelled:
    if end.status == "CANCELLED":
        return JobCancelled(
            f"{policy.title}: task {end.task_id} was cancelled. What to do: run it again to pay for a new one.",
            job=policy.job,
            task_id=end.task_id,
        )
    return JobFailed(
        f"{policy.title}: task {end.task_id} of {policy.endpoint} failed: {end.reason or 'no reason given'} "
        f"(code {end.code or 'none'}). What to do: {_advice(policy, end)}.",
        job=policy.job,
        task_id=end.task_id,
        code=end.code,
        new_task=end.next_task == "at_once",
    )


def _invalid(policy: Policy, submit: Submit, invalid: Invalid) -> JobFailed:
    return JobFailed(
        f"{policy.title}: the answer of task {submit.task_id} does not match parse: {invalid.reason}. What to "
        "do: run it again, which pays for a new answer, increase the number of attempts of the step, or "
        "change the prompt or parse.",
        job=policy.job,
        task_id=submit.task_id,
        new_task=True,
    )


def _used_up(policy: Policy, failure: JobFailed) -> JobFailed:
    """The error of the last task that `attempts` allows: no retry of the run pays for another."""
    limit = f"`attempts` allows {policy.attempts}"
    message = f"{failure.message} Retries of this run pay for no more of them: {limit}."
    return JobFailed(message, job=failure.job, task_id=failure.task_id, code=failure.code, new_task=False)


def _advice(policy: Policy, end: End) -> str:
    if end.next_task != "never":
        return end.advice or "run it again, which pays for a new task"
    advice = end.advice or "the same request would fail again; change it"
    return f"{advice}; {policy.another_task}" if policy.another_task else advice

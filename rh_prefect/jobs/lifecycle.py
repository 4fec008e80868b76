"""The lifecycle of one paid job: all decisions, without I/O.

`submitting`, `finding` and `completing` are generators: each yields the next step and receives the result of the
step. `step_executor` performs the steps. So each rule about money is tested state by state, without a clock, a network
or a journal:

    submitting: validate -> upload -> slot -> budget -> claim (intent) -> POST -> answer
    completing: wait -> end

The rules, in the order in which they apply:

- The journal has precedence. A ticket is queried, never submitted again; a recorded end is final.
- An intent without an answer is a POST in flight, or its owner has died; the process waits until this is decided.
- An unknown answer stays unknown until a person, the late owner or the caller's own option resolves it.
- No task is submitted that would exceed the run's budget; the budget never stops a job that has a ticket.
- A refusal is recorded before any wait; the next POST has the next number.
- A ticket's end is recorded before its outputs are fetched.
- A failed task is paid for again only by a later attempt, within `max_attempts`, and never if the same request would
  fail again.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, assert_never, get_args

from rh_prefect.client import NativeSubmit
from rh_prefect.errors import (
    CODES,
    ConnectFailed,
    GenerationFailed,
    InputError,
    JobCancelled,
    JobFailed,
    SubmissionUnknown,
    api_error,
    explain,
)
from rh_prefect.jobs.journal.budget import Shortfall, exceeded
from rh_prefect.jobs.journal.job_records import JobView, Submit
from rh_prefect.jobs.journal.record_types import BROKEN, NOT_DELIVERED, NOT_SENT, Answer, End, Intent
from rh_prefect.jobs.lifecycle_step_types import (
    AwaitEnd,
    AwaitSlot,
    CancelTask,
    CheckCancel,
    Claim,
    Forget,
    FreeSlot,
    Pause,
    Post,
    Prepare,
    ReadJob,
    RecordAnswer,
    Release,
    Reserve,
    Step,
    SwitchAccount,
    Watch,
)


@dataclass(frozen=True, slots=True)
class Policy:
    """The caller's options, and the position of the call in the run.

    Attributes:
        job: The job's full name, for messages.
        endpoint: The endpoint, for messages.
        attempt: The flow-run attempt, from 1.
        task_attempt: The task-run attempt, from 1.
        first_attempt: The first attempt whose payments count together with this one's; see `Scope.first_attempt`.
        max_attempts: How many tasks one job may pay for from `first_attempt` on, failed ones included, and unknown ones
            where they are resubmitted.
        on_unknown: `raise` requires a person to resolve an unknown submission; `resubmit` pays again, at the caller's
            risk.
        may_submit: False if only results that are already paid for are downloaded.
        undelivered_tries: How often in a row a request that cannot leave this machine is tried.
        budget: What all jobs of the run may cost together; None for no limit.
        may_switch_account: Whether another account may pay after an account-specific refusal.
    """

    job: str
    endpoint: str
    attempt: int = 1
    task_attempt: int = 1
    first_attempt: int = 1
    max_attempts: int = 3
    on_unknown: Literal["raise", "resubmit"] = "raise"
    may_submit: bool = True
    undelivered_tries: int = 5
    budget: Decimal | None = None
    may_switch_account: bool = False


@dataclass(frozen=True, slots=True)
class Accepted:
    """A submission whose task is known.

    Attributes:
        job: The job, with all its submissions.
        submit: The submission: its task runs, or has succeeded.
        adopted: Whether an earlier call has made it.
    """

    job: JobView
    submit: Submit
    adopted: bool


def submitting(policy: Policy) -> Generator[Step, Any, Accepted]:
    """Makes the decisions for one job, from reading its records to an accepted submission.

    Args:
        policy: The options of the call.

    Yields:
        Steps; each class documents its result.

    Returns:
        The submission that was accepted now or earlier.

    Raises:
        SubmissionUnknown: It is not known whether a submission was accepted.
        JobFailed: Its task has failed, and this attempt may not pay for another.
        JobCancelled: The task or the run was cancelled.
        ApiError: RunningHub refused the submission for good.
        InputError: The request could not be written.
    """
    adopted = True
    job: JobView = yield ReadJob()
    while True:
        job = yield from _settled(policy, job)
        accepted = _accepted(policy, job, adopted=adopted)
        if accepted is not None:
            return accepted
        # New, refused, forgotten, or failed with another task allowed.
        job = yield from _submit(policy, job)
        adopted = False


def finding(policy: Policy) -> Generator[Step, Any, Accepted | None]:
    """Finds the paid submission of one job, without ever submitting.

    Args:
        policy: The options of the call, with `may_submit` false.

    Yields:
        Steps; each class documents its result.

    Returns:
        The accepted submission; None where nothing was paid.

    Raises:
        SubmissionUnknown: It is not known whether a submission was accepted.
        JobFailed: Its task has failed.
        JobCancelled: Its task was cancelled.
    """
    read: JobView = yield ReadJob()
    job = yield from _settled(policy, read)
    return _accepted(policy, job, adopted=True)


def completing(policy: Policy, accepted: Accepted) -> Generator[Step, Any, End]:
    """Makes the decisions for one job, from its accepted submission to the task's success.

    Args:
        policy: The options of the call.
        accepted: The submission.

    Yields:
        Steps; each class documents its result.

    Returns:
        The end of the task that succeeded, whose outputs are to be collected.

    Raises:
        JobFailed: The task failed, and this attempt may not pay for another.
        JobCancelled: The task or the run was cancelled.
    """
    if accepted.submit.end is not None:
        return accepted.submit.end
    end = yield from _to_its_end(policy, accepted.submit, adopted=accepted.adopted)
    return _only_success(policy, accepted.job, end)


def _settled(policy: Policy, job: JobView) -> Generator[Step, Any, JobView]:
    """Waits until the job's last submission is answered, and settles an unknown answer."""
    while True:
        match job.state, job.last:
            case "open", Submit() as last:
                job = yield Watch(last)
            case "unknown", Submit() as last:
                yield from _settle_unknown(policy, job, last)
                job = yield ReadJob()
            case _:
                return job


def _accepted(policy: Policy, job: JobView, *, adopted: bool) -> Accepted | None:
    last = job.last
    if last is None or last.state not in ("ticket", "ended") or (last.end and may_pay_again(policy, job)):
        return None
    if last.end is not None:
        _only_success(policy, job, last.end)
    return Accepted(job, last, adopted)


def _submit(policy: Policy, job: JobView) -> Generator[Step, Any, JobView]:
    """Posts until there is a ticket or an unknown answer, or until another process is first."""
    refusals = undelivered = 0
    while True:
        yield Prepare()
        yield AwaitSlot()
        # The wait may have been long, and a link lives for a day only.
        yield Prepare()
        yield from _within_budget(policy, job.next_n)
        if (yield CheckCancel(fresh=False)):
            raise JobCancelled(f"{policy.job}: the run was cancelled before this job was submitted.", job=policy.job)
        intent: Intent | None = yield Claim(job.next_n)
        if intent is None:
            yield from _give_back(policy, job.next_n)
            read: JobView = yield ReadJob()
            return read
        answer: Answer = yield Post(intent, job.next_n)
        submit: Submit = yield RecordAnswer(intent, job.next_n, answer)
        job = job.adding(submit)
        if submit.state in ("ended", "forgotten"):
            # While this process was stopped, another process continued the job; its records are read.
            since: JobView = yield ReadJob()
            return since
        if submit.state != "refused":
            return job
        refused = submit.answer or answer
        yield from _give_back(policy, submit.n, full=explain(refused.code).no_slot)
        if policy.may_switch_account and refused.retry != "throttled" and (yield SwitchAccount(refused)):
            continue
        undelivered = undelivered + 1 if refused.code == NOT_DELIVERED else 0
        raise_unless_temporary(policy.job, policy.endpoint, refused, undelivered, tries=policy.undelivered_tries)
        refusals += 1
        yield Pause(refusals, refused.code, refused.reason)


def _within_budget(policy: Policy, n: int) -> Generator[Step, Any, None]:
    if policy.budget is None:
        return
    short: Shortfall | None = yield Reserve(n, policy.budget)
    if short is not None:
        raise exceeded(policy.job, budget=policy.budget, short=short)


def _give_back(policy: Policy, n: int, *, full: bool = False) -> Generator[Step, Any, None]:
    """Releases the slot and the budget of submission n: it was refused, or another process was first."""
    yield FreeSlot(full=full)
    if policy.budget is not None:
        yield Release(n)


def raise_unless_temporary(job: str, endpoint: str, refused: Answer, undelivered: int, *, tries: int = 5) -> None:
    """Raises the error of a permanent rejection; returns if a later submission may be accepted.

    Args:
        job: The job's full name, for messages.
        endpoint: The endpoint, for messages.
        refused: The refusal.
        undelivered: How many submissions in a row have not left this machine.
        tries: How many of them are allowed.

    Raises:
        ConnectFailed: RunningHub could not be reached.
        InputError: The request could not be written.
        ApiError: RunningHub refused it for good.
    """
    if refused.code == NOT_DELIVERED and undelivered >= tries:
        raise ConnectFailed(
            f"{job}: RunningHub could not be reached, {undelivered} times in a row: {refused.reason}. "
            "Nothing was paid. What to do: check the network and RH_BASE_URL, then run again."
        )
    if refused.code == NOT_SENT:
        raise InputError(f"{job}: {refused.reason}")
    if refused.retry != "throttled":
        raise api_error(refused.code, refused.reason, doing=f"{job}: submit to {endpoint}")


def _settle_unknown(policy: Policy, job: JobView, submit: Submit) -> Generator[Step, Any, None]:
    # A service may accept each submission that it answers with an error, so the limit is the same.
    if policy.on_unknown == "resubmit" and policy.may_submit and not _is_used_up(policy, job):
        yield Forget(submit.n)
        return
    answer = submit.answer
    reason = f" ({answer.reason})" if answer and answer.reason else ""
    place, form = _task_list_of(submit.intent)
    raise SubmissionUnknown(
        f"{policy.job}: submit {submit.n} to {policy.endpoint} was begun at {submit.intent.at} and it is unknown "
        f"whether RunningHub accepted it{reason}. It is not sent again, since that could pay twice. What to do: look "
        f"for the task in {place}. If it is there: rh-prefect jobs adopt {policy.job} {form}. "
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
    return f"RunningHub's call log of account {intent.account}", "TASK_ID"


def _to_its_end(policy: Policy, submit: Submit, *, adopted: bool) -> Generator[Step, Any, End]:
    # A graph that RunningHub reports as broken fails or runs in part, so its task is cancelled.
    is_broken = submit.answer is not None and bool(submit.answer.node_errors)
    # A caller that only downloads paid results needs them even if its run was cancelled.
    stop: bool = is_broken or (policy.may_submit and (yield CheckCancel(fresh=True)))
    end: End = yield CancelTask(submit) if stop else AwaitEnd(submit, adopted=adopted)
    return end


def _is_used_up(policy: Policy, job: JobView) -> bool:
    """Returns whether the job has paid for `max_attempts` tasks; a run that a user starts resets the count."""
    return job.payments(since=policy.first_attempt) >= policy.max_attempts


def _only_success(policy: Policy, job: JobView, end: End) -> End:
    match end.status:
        case "SUCCESS":
            return end
        case "CANCELLED":
            raise JobCancelled(
                f"{policy.job}: task {end.task_id} was cancelled. What to do: run it again to pay for a new one.",
                job=policy.job,
                task_id=end.task_id,
            )
        case "FAILED":
            raise _failure(policy, end, is_used_up=_is_used_up(policy, job))
        case other:
            assert_never(other)


def _failure(policy: Policy, end: End, *, is_used_up: bool) -> JobFailed:
    row = explain(end.code, end.reason)
    return JobFailed(
        f"{policy.job}: task {end.task_id} of {policy.endpoint} failed: {end.reason or row.meaning} "
        f"(code {end.code or 'none'}). What to do: {_advice(policy, end, is_used_up=is_used_up)}.",
        job=policy.job,
        task_id=end.task_id,
        code=end.code,
        new_task=row.new_task and not is_used_up,
    )


def _advice(policy: Policy, end: End, *, is_used_up: bool) -> str:
    if is_hopeless(end.code):
        row = CODES.get(end.code)
        return row.advice if row else "the same request would fail again; change it"
    if is_used_up:
        return (
            "this run has paid for as many tasks of this job as max_attempts allows ("
            f"{policy.max_attempts}) and its retries do not pay for more. Run the flow run again (Retry "
            "in the dashboard, `--resume`) to pay for new ones"
        )
    row = explain(end.code, end.reason)
    if end.code in CODES and row.retry in ("final", "action_required"):
        return row.advice
    # The table's advice for an unclear code is about a submission; this task has ended.
    return "run it again; it pays for a new task"


def is_hopeless(code: str) -> bool:
    """Whether a task that failed with this code would fail again with the same request."""
    if code == BROKEN:
        return True
    row = CODES.get(code)
    return row is not None and row.retry == "final" and not issubclass(row.error, GenerationFailed)


def may_pay_again(policy: Policy, job: JobView) -> bool:
    """Whether a job whose task did not succeed may submit another.

    A later attempt of the flow run may, unless the request is hopeless. A retry of the calling task may only where the
    code itself says that a new task helps: a task is retried for many reasons, and most of them have nothing to do with
    the job.
    """
    end = job.last.end if job.last else None
    if end is None or end.status == "SUCCESS" or _is_used_up(policy, job) or is_hopeless(end.code):
        return False
    if policy.attempt > end.attempt:
        return True
    return explain(end.code, end.reason).new_task and policy.task_attempt > end.task_attempt

"""Decides, without I/O, which run pays for a work (one request with one take), and which result all runs share.

A *work* is one request with one take. Its records lie in `works/<work>/` of the records' place. No run owns them, so
any run on any machine can continue the work:

| record               | written                                         | holds                                     |
|----------------------|-------------------------------------------------|-------------------------------------------|
| `waiter-<run>-<k>`   | before a flow run waits for the work            | the flow run, its process                 |
| `released-<run>-<k>` | when it ends without the result                 | nothing: this waiter counts no more       |
| `intent-n`           | before POST n, exclusively                      | flow run, owner, account, parameters      |
| `answer-n`           | after it                                        | a ticket, `refused` or `unknown`          |
| `resolution-n`       | by a person                                     | `adopted` with a task id, or `forgotten`  |
| `end-n`              | when the task is terminal, exclusively          | the outputs' links, or the failure; cost  |
| `home[-<shape>]`     | after the files are published, exclusively      | the result; nothing else decides it       |

`run_work` and `cancel_work` are generators as `jobs.lifecycle`: they yield the next step and are sent its outcome.
Records are only ever added, so a stale reading is an earlier state; what is decided by it is decided again when an
exclusive creation fails.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeAlias

from rh_prefect.errors import JobCancelled, JobFailed, NotPlanned, SubmissionUnknown, explain
from rh_prefect.jobs.journal.budget import exceeded
from rh_prefect.jobs.journal.job_records import Submit
from rh_prefect.jobs.journal.process_identity import Owner
from rh_prefect.jobs.journal.record_types import NOT_DELIVERED, Answer, End, Intent, Record
from rh_prefect.jobs.lifecycle import is_hopeless, raise_unless_temporary
from rh_prefect.jobs.lifecycle_step_types import (
    AwaitEnd,
    AwaitSlot,
    CancelTask,
    CheckCancel,
    Claim,
    FreeSlot,
    Pause,
    Post,
    Prepare,
    RecordAnswer,
    Release,
    Reserve,
    SwitchAccount,
    Watch,
)
from rh_prefect.media.media import Media


class Waiting(Record):
    """The record that a flow run waits for a work, or may pay for it.

    Attributes:
        flow_run: The flow run.
        owner: Its process.
    """

    flow_run: str
    owner: Owner


class Home(Record):
    """The result of a work.

    Attributes:
        task_id: RunningHub's task id.
        n: The number of its submission.
        flow_run: The flow run that paid for it.
        store: The place of its files.
        outputs: Its files; `uri` is the name in the store, made of the content.
        texts: Its texts.
        value: The answer as `parse` read it; None without `parse`.
        cost: The cost of the task, if RunningHub reports it.
        currency: Of the cost.
        coins: The coins of a task that cost coins beside its money.
    """

    task_id: str
    n: int
    flow_run: str = ""
    store: str = ""
    outputs: tuple[Media, ...] = ()
    texts: tuple[str, ...] = ()
    value: Any = None
    cost: Decimal | None = None
    currency: str | None = None
    coins: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Invalid:
    """A successful task whose answer does not have the structure that `parse` requires.

    Attributes:
        reason: What is wrong with it.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class WorkPolicy:
    """The options of a run for a work.

    Attributes:
        name: The step and the work, for messages.
        job: The work's full name, as `rh-prefect jobs` takes it.
        endpoint: The endpoint, for messages.
        flow_run: The flow run; its submissions are its own.
        attempts: How many tasks this run may pay for, failed ones and invalid answers included.
        since: The first attempt of the flow run whose submissions count as this one's.
        budget: What the works of this run may cost together; None for no limit.
        may_switch_account: Whether another account may pay after an account-specific refusal.
        forbidden: Why the run must not pay for it, and what to do; empty where it may. A result that exists, or
            comes, is still used.
    """

    name: str
    job: str
    endpoint: str
    flow_run: str
    attempts: int = 1
    since: int = 1
    budget: Decimal | None = None
    may_switch_account: bool = False
    forbidden: str = ""

    def is_own(self, submit: Submit) -> bool:
        """Whether this run made a submission."""
        return submit.intent.flow_run == self.flow_run and submit.intent.attempt >= self.since


@dataclass(frozen=True, slots=True)
class ReadHome:
    """A step that reads `home` with the requested shape; its result is a `Home` or None."""


@dataclass(frozen=True, slots=True)
class RecordWaiter:
    """A step that creates `waiter-<flow run>-<k>`; its result is None."""


@dataclass(frozen=True, slots=True)
class ReleaseWaiter:
    """A step that creates `released-<flow run>-<k>` for each waiter of this flow run; its result is None."""


@dataclass(frozen=True, slots=True)
class ReadSubmission:
    """A step that reads the records of number n; its result is a `Submit`, or None without an intent."""

    n: int


@dataclass(frozen=True, slots=True)
class NoteClaim:
    """A step that records in the flow run's journal that the run is about to claim n; its result is None."""

    n: int


@dataclass(frozen=True, slots=True)
class NoteWait:
    """A step that records in the flow run's journal that it waits for another's task; its result is None."""

    n: int


@dataclass(frozen=True, slots=True)
class ReadWait:
    """A step that checks whether an earlier process of the run recorded a wait for n; its result is a bool."""

    n: int


@dataclass(frozen=True, slots=True)
class Publish:
    """A step that downloads, parses and publishes the outputs; its result is a `Home` or `Invalid`."""

    submit: Submit
    end: End


@dataclass(frozen=True, slots=True)
class RecordHome:
    """A step that creates `home` exclusively; its result is the recorded `Home`."""

    home: Home


@dataclass(frozen=True, slots=True)
class ReadWaiters:
    """A step that checks whether another flow run may still wait for the work; its result is a bool."""


WorkStep: TypeAlias = (
    ReadHome
    | RecordWaiter
    | ReleaseWaiter
    | ReadSubmission
    | NoteClaim
    | NoteWait
    | ReadWait
    | Publish
    | RecordHome
    | ReadWaiters
    | Prepare
    | AwaitSlot
    | FreeSlot
    | Reserve
    | Release
    | CheckCancel
    | Claim
    | Post
    | RecordAnswer
    | SwitchAccount
    | Pause
    | Watch
    | AwaitEnd
    | CancelTask
)


@dataclass(slots=True)
class _Progress:
    """The state of the work as far as this process has seen it.

    Attributes:
        waits: Numbers whose task it waited for.
        failures: How many of the run's attempts are used.
        refusals: Refused submissions in a row.
        undelivered: Submissions in a row that did not leave this machine.
    """

    waits: set[int] = field(default_factory=set)
    failures: int = 0
    refusals: int = 0
    undelivered: int = 0


def run_work(policy: WorkPolicy) -> Generator[WorkStep, Any, Home]:
    """Gets the result of one work, and pays for it if no run has done so.

    Args:
        policy: What the run wants.

    Yields:
        Steps; each class documents its result.

    Returns:
        The result, which is the same for every run.

    Raises:
        SubmissionUnknown: It is unknown whether a submission was accepted; a user decides.
        JobFailed: The task failed, or its answer was invalid, and this run may not pay for another.
        JobCancelled: The run was cancelled, or its own task was.
        BudgetExceeded: The price does not fit into the run's budget.
        NotPlanned: The run's reviewed plan does not name the work.
        ApiError: RunningHub refused the submission for good.
        ConnectFailed: RunningHub could not be reached, several times in a row.
    """
    home: Home | None = yield ReadHome()
    if home is not None:
        return home
    yield RecordWaiter()
    progress, n = _Progress(), 1
    while True:
        submit: Submit | None = (yield ReadSubmission(n)) or (yield from _pay(policy, n, progress))
        match submit:
            case None:
                continue  # another process was first; its intent is read now
            case Submit(state="open"):
                yield Watch(submit)
            case Submit(state="unknown"):
                raise _unknown(policy, submit)
            case Submit(state="refused" | "forgotten"):
                n += 1
            case _:
                home = yield from _finish(policy, submit, progress)
                if home is not None:
                    return home
                n += 1


def cancel_work(n: int) -> Generator[WorkStep, Any, bool]:
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


def _pay(policy: WorkPolicy, n: int, progress: _Progress) -> Generator[WorkStep, Any, Submit | None]:
    """Submits number n; None where another process has claimed it."""
    if policy.forbidden:
        raise NotPlanned(
            f"{policy.name}: {policy.forbidden} Nothing was paid for it.",
            job=policy.job,
        )
    yield Prepare()
    yield AwaitSlot()
    # The wait may have been long, and a link lives for a day only.
    yield Prepare()
    if policy.budget is not None and (short := (yield Reserve(n, policy.budget))) is not None:
        advice = "give the step a price in the file, as in assume: {price: 0.50}, and run again"
        raise exceeded(policy.name, budget=policy.budget, short=short, unpriced=advice)
    if (yield CheckCancel(fresh=False)):
        raise JobCancelled(f"{policy.name}: the run was cancelled before this job was submitted.", job=policy.job)
    # Noted first: a claim without an intent counts nothing, and an intent without a claim would escape the budget.
    yield NoteClaim(n)
    intent: Intent | None = yield Claim(n)
    if intent is None:
        yield from _give_back(policy, n)
        return None
    answer: Answer = yield Post(intent, n)
    submit: Submit = yield RecordAnswer(intent, n, answer)
    if submit.state == "refused":
        yield from _give_back(policy, n, full=explain(answer.code).no_slot)
        yield from _retry_or_raise(policy, submit.answer or answer, progress)
    return submit


def _give_back(policy: WorkPolicy, n: int, *, full: bool = False) -> Generator[WorkStep, Any, None]:
    yield FreeSlot(full=full)
    if policy.budget is not None:
        yield Release(n)


def _retry_or_raise(policy: WorkPolicy, refused: Answer, progress: _Progress) -> Generator[WorkStep, Any, None]:
    """Switches to another account or waits after a refusal; raises if the same request would be refused again."""
    if policy.may_switch_account and refused.retry != "throttled" and (yield SwitchAccount(refused)):
        return
    progress.undelivered = progress.undelivered + 1 if refused.code == NOT_DELIVERED else 0
    raise_unless_temporary(policy.name, policy.endpoint, refused, progress.undelivered)
    progress.refusals += 1
    yield Pause(progress.refusals, refused.code, refused.reason)


def _finish(policy: WorkPolicy, submit: Submit, progress: _Progress) -> Generator[WorkStep, Any, Home | None]:
    """Completes a submission that has a task, and returns the result; None if the next number may be tried."""
    end = submit.end or (yield from _wait(policy, submit, progress))
    if end.status == "SUCCESS":
        result: Home | Invalid = yield Publish(submit, end)
        if isinstance(result, Home):
            home: Home = yield RecordHome(result)
            return home
        failure: JobFailed | JobCancelled = _invalid(policy, submit, result)
    else:
        failure = _failure(policy, end)
    yield from _continue_or_raise(policy, submit, end, failure, progress)
    return None


def _wait(policy: WorkPolicy, submit: Submit, progress: _Progress) -> Generator[WorkStep, Any, End]:
    """Waits for the end of a task, which is recorded before it is returned."""
    is_own = policy.is_own(submit)
    # A graph that RunningHub reports as broken fails or runs in part, so waiting for it would pay for nothing.
    if submit.answer is not None and submit.answer.node_errors:
        broken: End = yield CancelTask(submit)
        return broken
    if (yield CheckCancel(fresh=True)):
        cancelled: End = yield from _cancel_own(policy, submit)
        return cancelled
    if not is_own:
        yield NoteWait(submit.n)
    progress.waits.add(submit.n)
    end: End = yield AwaitEnd(submit, adopted=not is_own)
    return end


def _cancel_own(policy: WorkPolicy, submit: Submit) -> Generator[WorkStep, Any, End]:
    """Cancels the task for which this cancelled run waits, unless another run wants its result."""
    yield ReleaseWaiter()
    if (yield ReadWaiters()):
        raise JobCancelled(
            (
                f"{policy.name}: the run was cancelled; task {submit.task_id} continues, because another run "
                "waits for it."
            ),
            job=policy.job,
            task_id=submit.task_id,
        )
    end: End = yield CancelTask(submit)
    if end.status == "CANCELLED" and not policy.is_own(submit):
        raise _failure(policy, end)
    return end


def _continue_or_raise(
    policy: WorkPolicy, submit: Submit, end: End, failure: JobFailed | JobCancelled, progress: _Progress
) -> Generator[WorkStep, Any, None]:
    """Raises the failure unless this run may pay for the next number."""
    if isinstance(failure, JobCancelled):
        # A cancelled run leaves the work to the others; the task of this run was cancelled by a person.
        if policy.is_own(submit):
            raise failure
        return
    if end.status == "FAILED" and is_hopeless(end.code):
        raise failure
    if not (policy.is_own(submit) or submit.n in progress.waits or (yield ReadWait(submit.n))):
        return  # a failure of an earlier run
    progress.failures += 1
    if progress.failures >= policy.attempts or not failure.new_task:
        raise failure


def _failure(policy: WorkPolicy, end: End) -> JobFailed | JobCancelled:
    if end.status == "CANCELLED":
        return JobCancelled(
            f"{policy.name}: task {end.task_id} was cancelled. What to do: run it again to pay for a new one.",
            job=policy.job,
            task_id=end.task_id,
        )
    row = explain(end.code, end.reason)
    advice = (
        f"{row.advice}; for a new task of the same request, run again with --retake"
        if is_hopeless(end.code)
        else "run it again, which pays for a new task, or increase the number of attempts of the step"
    )
    return JobFailed(
        f"{policy.name}: task {end.task_id} of {policy.endpoint} failed: {end.reason or row.meaning} "
        f"(code {end.code or 'none'}). What to do: {advice}.",
        job=policy.job,
        task_id=end.task_id,
        code=end.code,
        new_task=row.new_task,
    )


def _invalid(policy: WorkPolicy, submit: Submit, invalid: Invalid) -> JobFailed:
    return JobFailed(
        f"{policy.name}: the answer of task {submit.task_id} does not match parse: {invalid.reason}. What to "
        "do: run it again, which pays for a new answer, increase the number of attempts of the step, or "
        "change the prompt or parse.",
        job=policy.job,
        task_id=submit.task_id,
        new_task=True,
    )


def _unknown(policy: WorkPolicy, submit: Submit) -> SubmissionUnknown:
    reason = f" ({submit.answer.reason})" if submit.answer and submit.answer.reason else ""
    return SubmissionUnknown(
        f"{policy.name}: submission {submit.n} to {policy.endpoint} was started at {submit.intent.at} and "
        f"it is not known whether RunningHub accepted it{reason}. It is not sent again, because you could "
        "pay twice. What to do: look for the task in RunningHub's call log of account "
        f"{submit.intent.account}. If it is there: rh-prefect jobs adopt {policy.job} TASK_ID. If it is "
        f"not: rh-prefect jobs mark-refused {policy.job}. Then run again.",
        job=policy.job,
    )

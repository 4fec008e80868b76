"""The errors of this package, and the table of RunningHub's codes; docs/errors.md shows the class hierarchy.

`CODES` maps each code in RunningHub's error reference (v1 and v2) to an error class, a meaning and advice. The class
determines how to continue (`Retry`), so this table alone decides whether a code means "wait", "never" or "unknown".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, Self

if TYPE_CHECKING:
    from rh_prefect.works.result import Result

Retry = Literal["final", "throttled", "unknown", "pending", "action_required"]
"""How to continue after an error.

- `final`: the same request fails again.
- `throttled`: the request was not accepted this time; wait and send the request again.
- `unknown`: the request may have been accepted; a submission must not be sent again.
- `pending`: not an error; the task is queued or running.
- `action_required`: pay, change the plan or save the workflow; then send the request again.
"""

RefusalScope = Literal["account", "model", "job"]
"""The jobs that an account refuses and another account may accept: every job, those of one model, or only this job."""

NextTask = Literal["at_once", "later", "never"]
"""When another task may be paid for after a task of a request has failed.

- `at_once`: in the same call, since another task may well succeed.
- `later`: in a later attempt, or when a person asks for it.
- `never`: the same request would fail again.
"""


HTTP_401: Final = "HTTP 401"
"""The code for a rejected key if RunningHub's HTTP 401 response contains no code."""

NOT_PAID: Final = "Nothing was paid for this submission."
"""The sentence about a submission that was refused or not sent; an earlier one of the same job may have been paid."""

REDIRECTS: Final = frozenset({301, 307, 308})
"""HTTP statuses that ask for the same request at another address; 302 and 303 may follow a processed request."""


class Transient:
    """A mixin for errors after which the same request may safely be sent again."""


class RunningHubError(Exception):
    """The base class of the errors of this package.

    Args:
        message: What happened, to which job, and what to do next.
        facts: The error's attributes; they survive pickling, which Prefect applies to every exception.

    Attributes:
        step: The label or model of the failed call, which the message names; None outside of calls.
    """

    step: str | None = None

    def __init__(self, message: str, **facts: Any) -> None:  # facts differ by class
        super().__init__(message)
        self.message = message
        self.__dict__.update(facts)
        self._facts = facts

    def __str__(self) -> str:
        return self.message if not self.step or self.step in self.message else f"{self.step}: {self.message}"

    def of_step(self, step: str) -> Self:
        """Returns a copy with the step's name and without a traceback, because several calls may share one error."""
        return type(self)(self.message, **{**self._facts, "step": self.step or step})

    def with_note(self, note: str) -> Self:
        """Returns a copy of the error with an additional sentence in the message."""
        return type(self)(f"{self.message} {note}", **self._facts)

    def with_others(self, others: Iterable[BaseException]) -> Self:
        """Returns a copy with the messages of other errors that occurred at the same time."""
        return type(self)(" ".join(causes([self, *others])), **self._facts)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self._facts)


def _rebuild(kind: type[RunningHubError], message: str, facts: dict[str, Any]) -> RunningHubError:
    return kind(message, **facts)


class JobsFailed(ExceptionGroup[Exception]):
    """The error for several failed jobs or steps of a run; its text lists each cause once, with the failed steps.

    Attributes:
        results: For `generate_many`: the result or the error of each job, in the order of the requests.
    """

    results: Sequence[Result | Exception] = ()

    def __str__(self) -> str:
        return self.message

    def derive(self, excs: Sequence[Exception], /) -> JobsFailed:  # type: ignore[override]
        """Creates an error group from some of this group's errors, as `except*` requires."""
        return JobsFailed(" ".join(causes(excs)), excs)


def jobs_failed(errors: Sequence[Exception], *, total: int, what: str) -> JobsFailed:
    """Returns one error for several errors; `what` names in the plural what failed, as in "jobs"."""
    # The traceback of this package's own error adds nothing to its text.
    known = [one.with_traceback(None) if isinstance(one, RunningHubError) else one for one in errors]
    return JobsFailed(" ".join([f"{len(errors)} of {total} {what} failed.", *causes(errors)]), known)


def causes(errors: Iterable[BaseException]) -> list[str]:
    """Returns the text of each cause once, after the names of all steps that failed because of it."""
    steps: dict[str, list[str]] = {}
    for error in single(errors):
        text, step = f"{type(error).__name__}: {error}", None
        if isinstance(error, RunningHubError):
            text, step = error.message, error.step
            if step:  # jobs with one cause have different names
                text = re.sub(r"^\S+/[0-9a-f]{40}: ", "", text)
        named = steps.setdefault(text, [])
        if step and step not in named:
            named.append(step)
    return [
        text if not named or (len(named) == 1 and named[0] in text) else f"{', '.join(named)}: {text}"
        for text, named in steps.items()
    ]


def single(errors: Iterable[BaseException]) -> Iterator[BaseException]:
    """Yields the errors, and those in groups one by one."""
    for error in errors:
        if isinstance(error, BaseExceptionGroup):
            yield from single(error.exceptions)
        else:
            yield error


class InputError(RunningHubError):
    """The call or one of its arguments is not valid; nothing was paid for this call."""


class UnknownModelError(InputError):
    """The catalogue has no model with this name."""

    nearest: tuple[str, ...] = ()


class PlanChanged(InputError):
    """A run differs from the plan that was reviewed for it; nothing was paid."""


class EqualRequest(InputError):
    """An earlier call in the run has the same request and the same `take`; nothing was paid for this call."""

    job: str | None = None


class MediaError(InputError):
    """A file is missing, broken, or not what the model accepts."""


class ConfigError(RunningHubError):
    """A key, a block or a setting is missing or unusable."""


class StoreError(RunningHubError):
    """The file storage cannot be read or written.

    Attributes:
        is_permanent: Whether every further try fails until the storage's address, a key or a permission is changed.
    """

    is_permanent: bool = False


class JournalError(RunningHubError):
    """The record of a paid job cannot be read or written.

    Attributes:
        is_permanent: Whether every further try fails until a person has changed something.
    """

    is_permanent: bool = False


class BatchIncomplete(RunningHubError):
    """A batch has ended, and some of its rows have no result.

    Attributes:
        report: The result of the batch; see `rh_prefect.flows.batch.BatchReport`.
    """

    report: Any = None  # its class is defined in a higher layer


class PipelineIncomplete(RunningHubError):
    """A pipeline run has ended, and some of its results are missing.

    Attributes:
        result: The outcome of each step; see `rh_prefect.pipelines.run.result.PipelineResult`.
    """

    result: Any = None  # its class is defined in a higher layer


class TransportError(RunningHubError):
    """RunningHub gave no usable answer.

    Attributes:
        what: A clause about what happened, for messages that add whether anything was paid and what to do.
    """

    what: str = ""


class ConnectFailed(TransportError, Transient):
    """The connection, the name resolution or TLS failed; the request was not sent."""


class ResponseLost(TransportError):
    """The request may have arrived, but its answer is lost or not readable: never resend a submission."""


class PriceUnknown(TransportError):
    """RunningHub has answered a price preview without a price."""


class LinkExpired(TransportError):
    """The link to a file is unusable: expired, removed, or not a link; a query of the task may return a new link."""


class ApiError(RunningHubError):
    """RunningHub answered with an error code.

    Attributes:
        code: RunningHub's code as a string of digits, or RunningHub's message if the error has no number.
        reason: RunningHub's own words.
        retry: How to continue; see `Retry`.
        advice: What to do.
        no_slot: Whether the account has no free slot; see `Code`.
        account_scope: The jobs that this account refuses, if another account may accept the request; otherwise None.
    """

    code: str = ""
    reason: str = ""
    retry: Retry = "final"
    advice: str = ""
    no_slot: bool = False
    account_scope: RefusalScope | None = None


class RequestRejected(ApiError):
    """RunningHub rejects the request, and would reject the same request again."""


class ModerationError(ApiError):
    """RunningHub's content check refused the prompt or a file."""


class KeyRejected(ApiError):
    """The API key is missing, wrong, disabled or expired, or it belongs to the other site (.cn or .ai)."""

    retry: Retry = "action_required"
    account_scope: RefusalScope | None = "account"


class AccountError(ApiError):
    """The account is not allowed to make this request, or cannot pay for it."""

    retry: Retry = "action_required"
    account_scope: RefusalScope | None = "account"


class TaskNotFound(ApiError):
    """The task does not exist, or its record has expired."""


class Busy(ApiError, Transient):
    """A limit of the account or of the service was reached; the request was not accepted."""

    retry: Retry = "throttled"


class GenerationFailed(ApiError):
    """The task ran and failed; a new task may succeed."""


class TaskState(ApiError):
    """Not a failure: the task is queued or running."""

    retry: Retry = "pending"


class OutcomeUnknown(ApiError):
    """RunningHub did not report whether the request was accepted."""

    retry: Retry = "unknown"


class JobError(RunningHubError):
    """The base class of errors about one paid job.

    Attributes:
        job: The job's full name, `<scope>/<key>`, as used by `rh-prefect jobs`.
        task_id: RunningHub's task id, if known.
    """

    job: str = ""
    task_id: str | None = None


class JobFailed(JobError):
    """The remote task failed.

    Attributes:
        code: RunningHub's code.
        new_task: Whether a new task, which is paid for again, may succeed.
    """

    code: str = ""
    new_task: bool = False


class JobCancelled(JobError):
    """The job, or the run that it belongs to, was cancelled."""


class JobTimeout(JobError):
    """The caller's deadline passed; the paid task continues, and the next run waits for this task."""


class BudgetExceeded(JobError):
    """The job was not submitted: the rest of the run's budget is too small.

    Attributes:
        price: The price of the job; None if unknown.
        currency: The currency of all amounts, if known.
        budget: The budget of the run.
        spent: The cost of the run's ended jobs.
        reserved: The total price of the run's running jobs.
    """

    price: Decimal | None = None
    currency: str | None = None
    budget: Decimal = Decimal(0)
    spent: Decimal = Decimal(0)
    reserved: Decimal = Decimal(0)


class NotPlanned(JobError):
    """The job was not submitted: the reviewed plan of its run does not contain the job."""


class SubmissionUnknown(JobError):
    """A submission was sent and its answer is lost: look for the task, since it may have been paid for."""


class OutputsPending(JobError):
    """The task has succeeded, but RunningHub lists no file yet; the next run queries the task again."""


class OutputsExpired(JobError):
    """The job was paid for and has ended, but its files cannot be fetched; a later run tries again."""


@dataclass(frozen=True, slots=True)
class Code:
    """One row of RunningHub's error reference: how this package treats one of RunningHub's codes."""

    error: type[ApiError]  # The class that is raised
    meaning: str  # What the code says, in one clause
    advice: str  # What a person does about it
    new_task: bool = False  # A task retry may pay for a new task, because the same request may succeed next time
    no_slot: bool = False  # The account has no free slot. Other throttled codes concern the rate or the service
    # What this account refuses, if another account may accept the request; by default that of the class
    account_scope: RefusalScope | None = None
    task_status: Literal["QUEUED", "RUNNING", "FAILED"] | None = None  # The task's status, if v1 states it by this code

    @property
    def retry(self) -> Retry:
        """The category that determines how to continue; see `Retry`."""
        return self.error.retry

    @property
    def next_task(self) -> NextTask:
        """When another task is paid for after a task that failed with this code; see `NextTask`."""
        if self.new_task:
            return "at_once"
        is_clear = self.retry == "final" and self is not _NO_ROW and not issubclass(self.error, GenerationFailed)
        return "never" if is_clear else "later"

    @property
    def failure_advice(self) -> str:
        """The advice for a person after a task failed with this code; empty if there is none."""
        # The advice for an unclear code asks whether the task was accepted; a task that has failed was.
        is_clear = self.retry in ("final", "action_required") and self is not _NO_ROW
        return self.advice if is_clear else ""


_WAIT = "wait, because the package retries by itself; if it gives up, run again later"
_CHECK_CALL_LOG = "look for the task in RunningHub's call log before you send the request again"
_INPUT = "correct the request; the same request would fail again"
_KEY = "check that the key is complete and enabled, and that it belongs to this site (.cn or .ai)"
_NEW = "run again: a new task may succeed, and is paid for"

CODES: dict[str, Code] = {
    "1": Code(RequestRejected, "the id does not exist", _INPUT),
    "301": Code(RequestRejected, "a parameter is missing or wrong", _INPUT),
    "380": Code(
        RequestRejected,
        "this workflow does not exist on this site",
        "check the workflow id and the site (.cn or .ai)",
        account_scope="model",
    ),
    "401": Code(KeyRejected, "the key is unknown", _KEY),
    "412": Code(KeyRejected, "the key is missing or unknown", _KEY),
    "414": Code(AccountError, "not enough coins", "buy coins, then run again"),
    "415": Code(Busy, "no dedicated machine is free", _WAIT, no_slot=True),
    "416": Code(AccountError, "the wallet is empty", "top up the wallet, then run again"),
    "421": Code(Busy, "the key has reached its limit of running tasks", _WAIT, no_slot=True),
    "423": Code(TaskNotFound, "the task does not exist", "check the task id and the account that paid for it"),
    "429": Code(Busy, "too many requests", _WAIT),
    "433": Code(
        RequestRejected,
        "the workflow graph is not valid, or its paid nodes cannot be paid for",
        _INPUT,
        account_scope="job",
    ),
    "435": Code(
        RequestRejected, "the account has no machine of this class", "set another instance type", account_scope="job"
    ),
    "436": Code(AccountError, "the exclusive contract has ended", "renew the contract, then run again"),
    "500": Code(OutcomeUnknown, "unknown error", _CHECK_CALL_LOG),
    "801": Code(AccountError, "free accounts cannot use the API", "upgrade the account"),
    "802": Code(KeyRejected, "the key is wrong, disabled or expired", _KEY),
    "803": Code(RequestRejected, "the node list does not match the workflow", _INPUT),
    "804": Code(TaskState, "the task is running", "wait", task_status="RUNNING"),
    "805": Code(GenerationFailed, "the task failed or was interrupted", _NEW, task_status="FAILED"),
    "806": Code(KeyRejected, "the key belongs to no user", _KEY),
    "807": Code(TaskNotFound, "the task does not exist", "check the task id and the account that paid for it"),
    "808": Code(Busy, "the upload failed on RunningHub's side", _WAIT),
    "809": Code(RequestRejected, "the file is too large", "make the file smaller"),
    "810": Code(
        AccountError,
        "the workflow was never saved or run",
        "save and run the workflow once on the site",
        account_scope="model",
    ),
    "811": Code(KeyRejected, "the enterprise key is not valid", _KEY),
    "812": Code(AccountError, "the enterprise balance is empty", "top up the balance, then run again"),
    "813": Code(TaskState, "the task is queued", "wait", task_status="QUEUED"),
    "814": Code(Busy, "the personal queue is full", _WAIT, no_slot=True),
    "901": Code(
        RequestRejected,
        "this AI app does not exist on this site",
        "check the app id and the site (.cn or .ai)",
        account_scope="model",
    ),
    "1000": Code(OutcomeUnknown, "unknown error", _CHECK_CALL_LOG),
    "1001": Code(RequestRejected, "the endpoint does not exist", "check the endpoint's name"),
    "1002": Code(KeyRejected, "the key is not valid", _KEY),
    "1003": Code(Busy, "too many requests", _WAIT),
    "1004": Code(TaskNotFound, "the task is not known, or its record has expired", "check the task id and the account"),
    "1005": Code(OutcomeUnknown, "internal error", _CHECK_CALL_LOG),
    "1006": Code(GenerationFailed, "the task ran out of time", _NEW, new_task=True),
    "1007": Code(RequestRejected, "a parameter is not valid", _INPUT),
    "1008": Code(RequestRejected, "a file is too large", "make the file smaller"),
    "1009": Code(RequestRejected, "wrong HTTP method", _INPUT),
    # That 1010 and 1011 mean "not accepted" is an assumption; nothing published confirms it.
    "1010": Code(Busy, "the service is not available", _WAIT),
    "1011": Code(Busy, "the service is busy", _WAIT),
    "1012": Code(OutcomeUnknown, "the model's provider returned an invalid response", _CHECK_CALL_LOG),
    "1013": Code(RequestRejected, "a file could not be read", "check that the file opens and its link works"),
    "1014": Code(
        AccountError, "models need an enterprise shared key", "use an enterprise shared key", account_scope="model"
    ),
    "1015": Code(GenerationFailed, "the generation failed", _NEW, new_task=True),
    "1101": Code(RequestRejected, "a node's settings are wrong", _INPUT),
    "1501": Code(ModerationError, "the content check refused the prompt or a file", "change the prompt or the file"),
    "1504": Code(GenerationFailed, "the model ran out of time", _NEW, new_task=True),
    "1505": Code(
        ModerationError, "pictures of real people are not allowed", "use a registered asset or another picture"
    ),
    **dict.fromkeys(
        ("1516", "1517", "1518", "1519"),
        Code(OutcomeUnknown, "the meaning of the code is not published", _CHECK_CALL_LOG),
    ),
    "1520": Code(Busy, "the key has reached its limit of running tasks", _WAIT, no_slot=True),
    "1601": Code(KeyRejected, "the key is missing from the body", _KEY),
    "40310": Code(
        RequestRejected,
        "the model is not offered on this site",
        "use another model, or a key from www.runninghub.ai and the base URL of that site",
        account_scope="model",
    ),
    "TASK_CREATE_TOO_FAST": Code(Busy, "tasks are created too fast", _WAIT),
    "TASK_CREATE_FAILED_BY_NOT_ENOUGH_POWER_VALUE": Code(AccountError, "not enough coins", "buy coins, then run again"),
}
"""RunningHub's error reference: v1 numbers, v2 numbers, and the two messages that have no known number."""

_REDIRECTED = Code(
    RequestRejected,
    "the base URL leads to another address, and redirects are not followed",
    "correct RH_BASE_URL, or the base URL in the credentials block",
)
_OF_HTTP = {
    HTTP_401: Code(KeyRejected, "the key was rejected", _KEY),
    **{f"HTTP {status}": _REDIRECTED for status in REDIRECTS},
}
_NO_ROW = Code(RequestRejected, "the code is not documented", "read RunningHub's message")
_NO_ROW_ON_SUBMIT = Code(OutcomeUnknown, "the code is not documented", _CHECK_CALL_LOG)


def explain(code: str, reason: str = "", *, submitting: bool = False) -> Code:
    """Returns the row of `CODES` for an answer. The row for an unlisted code prevents a second payment.

    Args:
        code: RunningHub's code; v1 errors without a known number are found by their message.
        reason: RunningHub's message.
        submitting: Whether the answer is to a paid submission, for which an undocumented code means "may have been
            accepted".
    """
    # Only a message that is not a number can stand for a code: a reason of "429" is text.
    named = None if reason.strip().isdecimal() else CODES.get(reason.strip())
    row = named or CODES.get(code) or _OF_HTTP.get(code)
    if row is not None:
        return row
    return _NO_ROW_ON_SUBMIT if submitting else _NO_ROW


def api_error(
    code: str, reason: str = "", *, doing: str, submitting: bool = False, refused: bool = False, **facts: Any
) -> ApiError:
    """Returns the exception for an answer from RunningHub.

    The message begins with `doing`, as in "submit to kling-v2.6-pro/image-to-video"; with `refused`, it says that
    nothing was paid. `facts` are further attributes.
    """
    row = explain(code, reason, submitting=submitting)
    scope = row.account_scope or row.error.account_scope
    quote = f' RunningHub said: "{reason}".' if reason else ""
    paid = f" {NOT_PAID}" if refused else ""
    message = f"{doing}: {row.meaning} (code {code}).{quote}{paid} What to do: {row.advice}."
    return row.error(
        message, code=code, reason=reason, advice=row.advice, no_slot=row.no_slot, account_scope=scope, **facts
    )

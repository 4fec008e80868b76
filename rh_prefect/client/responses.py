"""What an HTTP response means: its object, a task's state, or an error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from rh_prefect.client.parsing import compact, first_text, loads, rows, table, text, unfold
from rh_prefect.client.wire import (
    RemoteOutput,
    TaskView,
    WebhookDelivery,
    is_task_id,
    read_item_usage,
    read_outputs,
    read_progress_url,
    read_status,
    read_task,
    read_task_id,
)
from rh_prefect.errors import CODES, ApiError, KeyRejected, RequestRejected, ResponseLost, api_error, explain
from rh_prefect.redaction import mask

_REFUSALS: Final = frozenset({400, 401, 403, 404, 405, 413, 414, 415, 422, 431})
"""HTTP statuses by which a server says that it did not act on a request."""

_LONGEST_REASON: Final = 600


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """What is being asked for.

    Attributes:
        doing: Opens every error's message, as in "submit to alibaba/wan-2.6/text-to-video".
        paid: Whether asking twice may cost twice.
        makes: Whether asking twice makes two of something that costs nothing.
        pace_seconds: How long RunningHub's "too busy" is waited out; None for as long as is usual.
    """

    doing: str
    paid: bool = False
    makes: bool = False
    pace_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A readable answer.

    Attributes:
        source: The JSON object.
        code: RunningHub's code; empty where all is well.
        reason: RunningHub's words.
        status: The HTTP status.
    """

    source: dict[str, object]
    code: str
    reason: str
    status: int = 200

    @property
    def data(self) -> dict[str, object]:
        """The `data` of an envelope."""
        return table(self.source.get("data"))

    @property
    def task(self) -> dict[str, object]:
        """The task object, bare as documented, or inside an envelope."""
        return self.data if read_task_id(self.data) and not read_task_id(self.source) else self.source

    @property
    def is_pace(self) -> bool:
        """Whether it says that the request was not accepted for now; the code of a failed task says nothing of it."""
        is_task = bool(first_text(self.task, "status", "taskStatus"))
        return bool(self.code) and not is_task and explain(self.code, self.reason).retry == "throttled"


def read(status: int, body: bytes, ask: RequestInfo) -> Answer:
    """Makes sense of an answer.

    Returns:
        The answer, which may still carry an error code.

    Raises:
        ResponseLost: It is not readable, or the error came from something between here and RunningHub.
        Busy: HTTP 429.
        RequestRejected: HTTP says that a paid request was not acted on.
        KeyRejected: HTTP 401.
    """
    answer = _parse(body)
    if status == 429:
        reason = answer.reason if answer and answer.reason else "HTTP 429"
        raise api_error("429", reason, doing=ask.doing)
    if answer and _is_believed(status, answer, ask):
        return replace(answer, status=status)
    raise _http_error(status, body, ask)


def _parse(body: bytes) -> Answer | None:
    source = loads(body)
    return judge(source) if isinstance(source, dict) else None


def judge(source: dict[str, object]) -> Answer:
    """Finds the code and the words in an answer's object, wherever they stand."""
    code, reason = _code(source), _reason(source)
    if not code and reason in CODES and not read_task_id(source):
        code = reason  # an error without a known number is found by its message
    return Answer(source, code, reason)


def _code(source: dict[str, object]) -> str:
    for name in ("errorCode", "error_code", "code"):
        code = text(source.get(name)).strip()
        if code.strip("0"):
            return "" if code == "200" and _is_upload(source) else code
    return ""


def _is_upload(source: dict[str, object]) -> bool:
    """Tells whether an answer holds an uploaded file: one reading of the documentation gives it the code 200."""
    return bool(text(table(source.get("data")).get("download_url")))


def _reason(source: dict[str, object]) -> str:
    said = first_text(source, "errorMessage", "error_message", "message", "msg")
    said = said or "; ".join(filter(None, (compact(row) for row in rows(source.get("errorMessages")))))
    reason = mask(said)[:_LONGEST_REASON]
    return f'"{reason}"' if reason.isdigit() else reason  # a number here must not be looked up as a code


def _is_believed(status: int, answer: Answer, ask: RequestInfo) -> bool:
    if 200 <= status < 300:
        return True
    if not answer.code:
        return bool(ask.paid and read_task_id(answer.task))
    # An HTTP 5xx says that something broke on the way: on a submit, no code from there may lead to a second one.
    return status < 500 or not ask.paid or explain(answer.code, answer.reason, submitting=True).retry != "throttled"


def _http_error(status: int, body: bytes, ask: RequestInfo) -> Exception:
    said = _describe(status, body)
    if status == 401:
        advice = CODES["401"].advice
        message = f"{ask.doing}: the key was rejected ({said}). What to do: {advice}."
        return KeyRejected(message, code="HTTP 401", reason=said, retry="action_required", advice=advice)
    if status == 413 or (ask.paid and status in _REFUSALS):
        advice = "make the file smaller" if status == 413 else "check the base URL, the address and the proxy"
        message = f"{ask.doing}: refused before RunningHub read it ({said}). What to do: {advice}."
        return RequestRejected(message, code=f"HTTP {status}", reason=said, retry="final", advice=advice)
    return no_answer(ask, f"no readable answer ({said})")


def _describe(status: int, body: bytes) -> str:
    words = " ".join(mask(body[:2000].decode("utf-8", "replace")).split())
    redirect = "; redirects are not followed, check the base URL" if 300 <= status < 400 else ""
    return f"HTTP {status}{redirect}, " + (f'body "{words[:160]}"' if words else "empty body")


def no_answer(ask: RequestInfo, what: str) -> ResponseLost:
    """Builds the error for an answer that was lost or makes no sense."""
    next_step = "Nothing is lost: ask again"
    if ask.paid:
        next_step = "The task may exist and be paid for: look into RunningHub's call log before sending it again"
    elif ask.makes:
        next_step = "It may have been made all the same: look at the list before asking again"
    return ResponseLost(f"{ask.doing}: {what}. {next_step}.", what=what)


def _error(answer: Answer, ask: RequestInfo, **facts: object) -> ApiError | ResponseLost:
    if ask.paid and explain(answer.code, answer.reason, submitting=True).retry == "pending":
        return no_answer(ask, f"the answer names a state (code {answer.code}) but no task id")
    return api_error(answer.code, answer.reason, doing=ask.doing, submitting=ask.paid, **facts)


def checked(answer: Answer, ask: RequestInfo) -> Answer:
    """Raises the error that an answer carries.

    Raises:
        ApiError: By the table of codes.
    """
    if answer.code:
        raise _error(answer, ask)
    return answer


def with_data(answer: Answer, ask: RequestInfo) -> dict[str, object]:
    """The `data` of an envelope that reports success.

    Raises:
        ApiError: By the table of codes.
        ResponseLost: There is no data.
    """
    data = checked(answer, ask).data
    if not data:
        raise no_answer(ask, "the answer reports success but holds no data")
    return data


def with_rows(answer: Answer, ask: RequestInfo) -> list[dict[str, object]]:
    """The objects of a `data` that is a list, in an envelope that reports success.

    Raises:
        ApiError: By the table of codes.
        ResponseLost: There is no list.
    """
    data = unfold(checked(answer, ask).source.get("data"))
    if not isinstance(data, list):
        raise no_answer(ask, "the answer reports success but holds no list")
    return [row for row in data if isinstance(row, dict)]


def submitted(answer: Answer, ask: RequestInfo) -> TaskView:
    """Reads the answer to a paid submit.

    Raises:
        ApiError: By the table of codes; a code that is not listed is `OutcomeUnknown`.
        ResponseLost: There is neither a task id nor a code, or the task id is not valid.
    """
    task = answer.task
    task_id = read_task_id(task)
    if not task_id and answer.code:
        raise _error(answer, ask)
    if not task_id:
        raise no_answer(ask, "the answer holds neither a task id nor an error code")
    check_task_id(task_id, ask)
    view = read_task(task, task_id=task_id, code=answer.code, reason=answer.reason if answer.code else "")
    return view or TaskView(task_id=task_id, status="QUEUED", code=answer.code, reason=answer.reason)


def check_task_id(task_id: str, ask: RequestInfo) -> str:
    """Checks the task id in the answer to a submit, before anything is done with it.

    Raises:
        ResponseLost: It is not a valid id. A task may run all the same, so the outcome is unknown.
    """
    if not is_task_id(task_id):
        raise no_answer(ask, f"the answer names a task id that is not valid, {task_id[:40]!r}")
    return task_id


def parse_query(answer: Answer, ask: RequestInfo, *, task_id: str) -> TaskView:
    """Reads the answer to a query.

    Raises:
        ApiError: By the table of codes, where the answer is no task's state.
        ResponseLost: It tells no state, or is about another task.
    """
    task = answer.task
    named = read_task_id(task)
    if named and named != task_id:
        raise no_answer(ask, f"the answer is about another task, {named[:40]!r}")
    reason = answer.reason if answer.code else ""
    view = read_task(task, task_id=task_id, code=answer.code, reason=reason) or by_code(answer, task_id)
    if view is None and answer.code:
        raise _error(answer, ask, task_id=task_id)
    if view is None:
        raise no_answer(ask, "the answer tells no status")
    return view


def by_code(answer: Answer, task_id: str) -> TaskView | None:
    """The state that a v1 code stands for; None where it stands for none."""
    status = explain(answer.code).task_status
    if status is None:
        return None
    if status != "FAILED":
        source: dict[str, object] = {"status": status, "netWssUrl": answer.data.get("netWssUrl")}
        return read_task(source, task_id=task_id)
    source = {"status": status, "failedReason": answer.data.get("failedReason")}
    return read_task(source, task_id=task_id, code=answer.code, reason=answer.reason)


def read_v1_outputs(answer: Answer, ask: RequestInfo, *, task_id: str) -> TaskView:
    """Reads the answer of v1's outputs.

    Raises:
        ApiError: By the table of codes, where the code is no state.
        ResponseLost: It tells no state.
    """
    return _told(answer, ask, _by_outputs, task_id=task_id)


def read_v1_status(answer: Answer, ask: RequestInfo, *, task_id: str) -> TaskView:
    """Reads the answer of v1's status; see `read_v1_outputs`."""
    return _told(answer, ask, _by_word, task_id=task_id)


def read_webhook_payload(data: object, *, task_id: str) -> TaskView | None:
    """Reads a webhook's `eventData`: what outputs would answer, or a v2 task; an object, or a string with one.

    Returns:
        The task; None where it tells no state, or that of another task.
    """
    source = table(data)
    if read_task_id(source) not in {"", task_id}:
        return None
    answer = judge(source)
    reason = answer.reason if answer.code else ""
    task = read_task(source, task_id=task_id, code=answer.code, reason=reason)
    return task or by_code(answer, task_id) or (None if answer.code else _by_outputs(answer, task_id))


def read_delivery(body: bytes | str) -> WebhookDelivery | None:
    """Reads what RunningHub posts to a webhook; see `WebhookDelivery`.

    Args:
        body: Anything at all: whoever knows the address can post there.

    Returns:
        The delivery; None where it names no task.
    """
    source = table(loads(body))
    task_id = read_task_id(source)
    if not is_task_id(task_id) or not task_id.isdigit():
        return None
    # One public client expects the task itself in place of the event.
    view = read_webhook_payload(source.get("eventData", source), task_id=task_id)
    return WebhookDelivery(task_id=task_id, event=first_text(source, "event")[:40], view=view)


def _told(
    answer: Answer, ask: RequestInfo, read: Callable[[Answer, str], TaskView | None], *, task_id: str
) -> TaskView:
    view = by_code(answer, task_id)
    view = view or read(checked(answer, ask), task_id)
    if view is None:
        raise no_answer(ask, "the answer tells no status")
    return view


def _by_outputs(answer: Answer, task_id: str) -> TaskView | None:
    if "data" not in answer.source:
        return None
    data = unfold(answer.source["data"])
    if isinstance(data, list):
        return _done(data, task_id)
    if data is None:
        return TaskView(task_id=task_id, status="QUEUED" if "QUEUED" in answer.reason.upper() else "RUNNING")
    if isinstance(data, dict) and read_outputs(data):
        return _done([data], task_id)
    if isinstance(data, dict) and (url := read_progress_url(data.get("netWssUrl"))):
        return TaskView(task_id=task_id, status="RUNNING", progress_url=url)
    return None


def _done(items: list[object], task_id: str) -> TaskView:
    outputs: tuple[RemoteOutput, ...] = read_outputs(items)
    return TaskView(task_id=task_id, status="SUCCESS", outputs=outputs, usage=read_item_usage(items))


def _by_word(answer: Answer, task_id: str) -> TaskView | None:
    data = answer.source.get("data")
    status = read_status(text(data).strip() or first_text(table(data), "taskStatus", "status"))
    return status and TaskView(task_id=task_id, status=status)

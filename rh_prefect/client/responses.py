"""Parses an HTTP response into its JSON object or a task's state, or raises the matching error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from rh_prefect.client.json_values import compact, first_text, loads, rows, table, text, unfold
from rh_prefect.client.wire.task import (
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
from rh_prefect.errors import (
    CODES,
    HTTP_401,
    REDIRECTS,
    ApiError,
    KeyRejected,
    RequestRejected,
    ResponseLost,
    api_error,
    explain,
)
from rh_prefect.redaction import mask

_REFUSALS: Final = REDIRECTS | {400, 401, 403, 404, 405, 413, 414, 415, 422, 431}
"""HTTP statuses that mean that the server did not process the request."""

_LONGEST_REASON: Final = 600


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """The purpose of a request; each error's message begins with `doing`."""

    doing: str
    paid: bool = False  # a request that is sent twice may cost twice
    makes: bool = False  # a request that is sent twice creates two objects, at no cost
    pace_seconds: float | None = None  # seconds of repetition while RunningHub is too busy, if not the default


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """A readable response; `code` is RunningHub's error code or empty, and `reason` is RunningHub's message."""

    ask: RequestInfo
    source: dict[str, object]
    code: str = ""
    reason: str = ""
    status: int = 200

    @property
    def data(self) -> dict[str, object]:
        """The object in the response's `data`; empty if there is none."""
        return table(self.source.get("data"))

    @property
    def task(self) -> dict[str, object]:
        """The task object: the response itself, or its `data`."""
        return self.data if read_task_id(self.data) and not read_task_id(self.source) else self.source

    @property
    def is_throttled(self) -> bool:
        """Whether the request was not accepted because of a limit. A code that comes with a task does not count."""
        is_task = bool(first_text(self.task, "status", "taskStatus") or read_task_id(self.task))
        return bool(self.code) and not is_task and explain(self.code, self.reason).retry == "throttled"

    def checked(self) -> ApiResponse:
        """Returns this response if it has no code; otherwise raises the error for the code."""
        if self.code:
            raise self.error()
        return self

    def with_data(self) -> dict[str, object]:
        """Returns the `data` of a successful response; raises `ResponseLost` if `data` is missing."""
        if not self.checked().data:
            raise no_answer(self.ask, "the response reports success but contains no data")
        return self.data

    def with_rows(self) -> list[dict[str, object]]:
        """Returns the objects in `data`; raises `ResponseLost` if `data` is not a list."""
        data = unfold(self.checked().source.get("data"))
        if not isinstance(data, list):
            raise no_answer(self.ask, "the response reports success but contains no list")
        return [row for row in data if isinstance(row, dict)]

    def error(self, **facts: Any) -> ApiError | ResponseLost:
        """Returns the error for the response's code."""
        ask = self.ask
        if ask.paid and explain(self.code, self.reason, submitting=True).retry == "pending":
            return no_answer(ask, f"the response has a state (code {self.code}) but no task id")
        return api_error(self.code, self.reason, doing=ask.doing, submitting=ask.paid, **facts)


def read(status: int, body: bytes, ask: RequestInfo) -> ApiResponse:
    """Parses a response, which may contain an error code; raises an error for HTTP 429 or an unreadable response."""
    source = loads(body)
    answer = judge(source, ask) if isinstance(source, dict) else None
    # A task id means that the task exists and is paid for, even beside a status that asks for another submission.
    if status == 429 and not (answer and ask.paid and read_task_id(answer.task)):
        reason = answer.reason if answer and answer.reason else "HTTP 429"
        raise api_error("429", reason, doing=ask.doing)
    if answer and _is_reliable(status, answer):
        return replace(answer, status=status)
    raise _http_error(status, body, ask)


def judge(source: dict[str, object], ask: RequestInfo) -> ApiResponse:
    """Reads the code and the message from a response's object."""
    code, reason = _code(source), _reason(source)
    if not code and reason in CODES and not read_task_id(source):
        code = reason  # an error without a known number is found by its message
    return ApiResponse(ask, source, code, reason)


def _code(source: dict[str, object]) -> str:
    for name in ("errorCode", "error_code", "code"):
        code = text(source.get(name)).strip()
        if code.strip("0"):
            return "" if code == "200" and _is_upload(source) else code
    return ""


def _is_upload(source: dict[str, object]) -> bool:
    """Returns whether a response describes an uploaded file; according to one document, its code is then 200."""
    return bool(text(table(source.get("data")).get("download_url")))


def _reason(source: dict[str, object]) -> str:
    message = first_text(source, "errorMessage", "error_message", "message", "msg")
    message = message or "; ".join(filter(None, (compact(row) for row in rows(source.get("errorMessages")))))
    reason = mask(message)[:_LONGEST_REASON]
    return f'"{reason}"' if reason.isdigit() else reason  # a number here must not be looked up as a code


def _is_reliable(status: int, answer: ApiResponse) -> bool:
    is_paid = answer.ask.paid
    if 200 <= status < 300 or (is_paid and read_task_id(answer.task)):
        return True
    # HTTP 5xx may come from a gateway: after a submission its code must not lead to a second one.
    may_resend = explain(answer.code, answer.reason, submitting=is_paid).retry == "throttled"
    return bool(answer.code) and (status < 500 or not is_paid or not may_resend)


def _http_error(status: int, body: bytes, ask: RequestInfo) -> Exception:
    description = _describe(status, body)
    if status == 401:
        advice = CODES["401"].advice
        message = f"{ask.doing}: the key was rejected ({description}). What to do: {advice}."
        return KeyRejected(message, code=HTTP_401, reason=description, retry="action_required", advice=advice)
    if status not in _REFUSALS:
        return no_answer(ask, f"no readable response ({description})")
    advice = "make the request smaller" if status == 413 else "check the base URL, the address and the proxy"
    advice = explain(f"HTTP {status}").advice if status in REDIRECTS else advice
    what = f"the request was rejected ({description})"
    if ask.paid or status == 413:
        what = f"the request was rejected before it reached RunningHub ({description})"
        message = f"{ask.doing}: {what}. What to do: {advice}."
        return RequestRejected(message, code=f"HTTP {status}", reason=description, retry="final", advice=advice)
    # Not a final error: a gateway may answer so for a moment, and a query of a paid task is repeated.
    return ResponseLost(f"{ask.doing}: {what}. Nothing is lost. What to do: {advice}.", what=what)


def _describe(status: int, body: bytes) -> str:
    words = " ".join(mask(body[:2000].decode("utf-8", "replace")).split())
    redirect = "; redirects are not followed; check the base URL" if 300 <= status < 400 else ""
    return f"HTTP {status}{redirect}, " + (f'body "{words[:160]}"' if words else "empty body")


def no_answer(ask: RequestInfo, what: str) -> ResponseLost:
    """Returns the error for a lost or unreadable response."""
    next_step = "Nothing is lost. What to do: repeat the call"
    if ask.paid:
        next_step = (
            "The task may exist and be paid for. What to do: check RunningHub's call log before you send the request "
            "again"
        )
    elif ask.makes:
        next_step = "The object may have been created. What to do: check the list before you repeat the call"
    return ResponseLost(f"{ask.doing}: {what}. {next_step}.", what=what)


def submitted(answer: ApiResponse) -> TaskView:
    """Reads the response to a paid submission. Without a valid task id or a refusal code, the outcome is unknown."""
    task = answer.task
    task_id = read_task_id(task)
    if not task_id and answer.code:
        raise answer.error()
    if not task_id:
        raise no_answer(answer.ask, "the response has neither a task id nor an error code")
    if not is_task_id(task_id):  # a task may run, so the outcome is unknown
        raise no_answer(answer.ask, f"the response has an invalid task id, {task_id[:40]!r}")
    view = read_task(task, task_id=task_id, code=answer.code, reason=answer.reason if answer.code else "")
    return view or TaskView(task_id=task_id, status="QUEUED", code=answer.code, reason=answer.reason)


def parse_query(answer: ApiResponse, task_id: str) -> TaskView:
    """Reads the response to a query; raises an error if it does not contain the state of this task."""
    named = read_task_id(answer.task)
    if named and named != task_id:
        raise no_answer(answer.ask, f"the response is about another task, {named[:40]!r}")
    view = _view(answer.task, answer, task_id)
    if view is None and answer.code:
        raise answer.error(task_id=task_id)
    return _with_state(view, answer)


def _view(task: dict[str, object], answer: ApiResponse, task_id: str) -> TaskView | None:
    """Reads a state from a v2 task object, or from the response's v1 code; None if there is none."""
    reason = answer.reason if answer.code else ""
    return read_task(task, task_id=task_id, code=answer.code, reason=reason) or by_code(answer, task_id)


def _with_state(view: TaskView | None, answer: ApiResponse) -> TaskView:
    if view is None:
        raise no_answer(answer.ask, "the response has no status")
    return view


def by_code(answer: ApiResponse, task_id: str) -> TaskView | None:
    """Returns the task's state according to a v1 code; None if the code does not denote a state."""
    status = explain(answer.code).task_status
    if status is None:
        return None
    detail = "failedReason" if status == "FAILED" else "netWssUrl"
    code, reason = (answer.code, answer.reason) if status == "FAILED" else ("", "")
    return read_task({"status": status, detail: answer.data.get(detail)}, task_id=task_id, code=code, reason=reason)


def read_v1(answer: ApiResponse, read: Callable[[ApiResponse, str], TaskView | None], task_id: str) -> TaskView:
    """Reads a task from a v1 response: from the code if it denotes a state, otherwise with the given function."""
    return _with_state(by_code(answer, task_id) or read(answer.checked(), task_id), answer)


def read_webhook_payload(data: object, *, task_id: str) -> TaskView | None:
    """Parses a webhook's `eventData`: v1 outputs or a v2 task, as an object or a JSON string.

    Returns None if the payload contains no state, or the state of another task.
    """
    source = table(data)
    if read_task_id(source) not in {"", task_id}:
        return None
    answer = judge(source, RequestInfo(f"webhook of task {task_id}"))
    return _view(source, answer, task_id) or (None if answer.code else by_outputs(answer, task_id))


def read_delivery(body: bytes | str) -> WebhookDelivery | None:
    """Reads the body of a webhook; None if the body names no task. See `WebhookDelivery`.

    The body is not trusted: anyone who knows the URL can send one.
    """
    source = table(loads(body))
    task_id = read_task_id(source)
    if not is_task_id(task_id) or not task_id.isdigit():
        return None
    # One public client expects the task itself in place of the event.
    view = read_webhook_payload(source.get("eventData", source), task_id=task_id)
    return WebhookDelivery(task_id=task_id, event=first_text(source, "event")[:40], view=view)


def by_outputs(answer: ApiResponse, task_id: str) -> TaskView | None:
    """Reads a task from the response of v1's outputs endpoint; None if the response has no state."""
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
    return TaskView(task_id=task_id, status="SUCCESS", outputs=read_outputs(items), usage=read_item_usage(items))


def by_word(answer: ApiResponse, task_id: str) -> TaskView | None:
    """Reads a task from the response of v1's status endpoint; None if the response has no state."""
    data = answer.source.get("data")
    status = read_status(text(data).strip() or first_text(table(data), "taskStatus", "status"))
    return status and TaskView(task_id=task_id, status=status)

"""A task's state as the v1 endpoints and the webhooks tell it (api.md 3.10, 3.11 and 3.13).

The state is carried by the code, by the form of `data`, or by a word in it. Here alone is decided what each means:

- code 0 with a list: done, also where the list is empty;
- code 0 with null: not done, or not yet (official code meets it while a task is starting);
- 804, 813 and 805: running, queued, failed. 805 without a reason may also be a cancelled task; nothing tells.
"""

from __future__ import annotations

from collections.abc import Callable

from rh_prefect.client.parsing import first_text, loads, table, text, unfold
from rh_prefect.client.responses import Answer, RequestInfo, by_code, checked, judge, no_answer
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

"""Webhook deliveries, and what RunningHub remembers of them (api.md 3.13 and 3.14)."""

from __future__ import annotations

from pydantic import Field

from rh_prefect.client.parsing import count, first_text, rows
from rh_prefect.client.redaction import mask
from rh_prefect.client.wire.task import TaskView
from rh_prefect.client.wire.value import Value


class WebhookDelivery(Value):
    """A webhook's body: nobody has signed it, so believe nothing that a query does not confirm.

    Attributes:
        task_id: The task that it claims to be about.
        event: What it says has happened.
        view: The task as it says it is; None where it says nothing readable.
    """

    task_id: str
    event: str = ""
    view: TaskView | None = None


class WebhookEvent(Value):
    """What RunningHub remembers of one task's webhook.

    Attributes:
        event_id: What `resend` takes.
        task_id: The task.
        url: Where it was sent. It may hold the receiver's secret, and is in no repr.
        event: What it told.
        view: The task as it told it.
        status: How the delivery ended: SUCCESS and FAILED are known.
        response: What the receiver answered, or why it could not be reached. In no repr, as `url`.
        retries: How often it was tried again.
        created_at: When, in RunningHub's words, without a time zone.
        updated_at: When it was last tried.
    """

    event_id: str
    task_id: str = ""
    url: str = Field(default="", repr=False)
    event: str = ""
    view: TaskView | None = None
    status: str = ""
    response: str = Field(default="", repr=False)
    retries: int = 0
    created_at: str = ""
    updated_at: str = ""


def read_webhook_event(data: dict[str, object], *, task_id: str, view: TaskView | None) -> WebhookEvent | None:
    """Reads an event's detail; `userApiKey` is dropped.

    Returns:
        The event, or None where it has no id.
    """
    event_id = first_text(data, "id", "webhookId")
    if not event_id:
        return None
    return WebhookEvent(
        event_id=event_id,
        task_id=first_text(data, "taskId") or task_id,
        url=first_text(data, "webhookUrl"),
        event=first_text(data, "event"),
        view=view,
        status=first_text(data, "callbackStatus").upper(),
        response=mask(first_text(data, "callbackResponse")),
        retries=count(data.get("retryCount")) or 0,
        created_at=_read_time(data.get("createTime")),
        updated_at=_read_time(data.get("updateTime")),
    )


def _read_time(value: object) -> str:
    parts = [first_text({"part": part}, "part") for part in rows(value)]
    return "-".join(filter(None, parts))  # Java also writes a time as a list of numbers

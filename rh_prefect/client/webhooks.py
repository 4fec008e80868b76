"""What became of a task's webhook, and sending it again."""

from __future__ import annotations

from rh_prefect.client import responses, wire
from rh_prefect.client.core import Core, usable_id
from rh_prefect.client.responses import RequestInfo
from rh_prefect.client.task_states import read_webhook_payload
from rh_prefect.client.wire import WebhookEvent


class Webhooks:
    """Asks about webhooks. `read_delivery` reads what they bring."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def detail(self, task_id: str) -> WebhookEvent:
        """Asks what became of a task's webhook (api.md 3.14).

        Raises:
            InputError: The id is none.
            ConnectFailed: No connection.
            ResponseLost: No readable answer.
            ApiError: By the table of codes; `RequestRejected` with code 1 where the task has no webhook, or none yet.
        """
        ask = RequestInfo(f"webhook of task {task_id}")
        body = {"taskId": usable_id(task_id, of="a task")}
        data = responses.with_data(await self._core.call_v1("task/openapi/getWebhookDetail", body, ask), ask)
        view = read_webhook_payload(data.get("eventData"), task_id=task_id)
        event = wire.read_webhook_event(data, task_id=task_id, view=view)
        if event is None:
            raise responses.no_answer(ask, "the answer names no event")
        return event

    async def resend(self, event_id: str, *, url: str | None = None) -> None:
        """Has an event delivered again; receivers must bear a double one anyway (api.md 3.15).

        Args:
            event_id: Of the event, as `detail` tells it; not the task's.
            url: Where to, if not where it went before.

        Raises:
            InputError: The id is none.
            ConnectFailed: No connection.
            ResponseLost: No readable answer.
            ApiError: By the table of codes.
        """
        ask = RequestInfo(f"resend of webhook event {event_id}")
        body: dict[str, object] = {"webhookId": usable_id(event_id, of="a webhook event")}
        if url is not None:
            body["webhookUrl"] = url
        responses.checked(await self._core.call_v1("task/openapi/retryWebhook", body, ask), ask)

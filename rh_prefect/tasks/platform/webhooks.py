"""What became of the webhook of a task, and sending it again."""

from __future__ import annotations

from rh_prefect.client import WebhookEvent
from rh_prefect.errors import InputError
from rh_prefect.settings import get_settings
from rh_prefect.tasks.platform.base import ask, once, repeatable
from rh_prefect.tasks.platform.task_status import storable


@repeatable("webhook of task {task_id}")
async def webhook_detail(task_id: str, *, credentials: str | None = None) -> WebhookEvent:
    """Reads what RunningHub remembers of a task's webhook; costs nothing.

    Args:
        task_id: RunningHub's task id.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.

    Returns:
        The event; its `event_id` is what `resend_webhook` takes. The secret of our own receiver's address is masked.

    Raises:
        RequestRejected: The task has no webhook, or none yet.
    """
    event = await ask(lambda client: client.webhooks.detail(task_id), credentials, of_task=task_id)
    told = event.view and storable(event.view)
    return event.model_copy(update={"url": _hidden(event.url), "response": _hidden(event.response), "view": told})


@once("resend of webhook event {event_id}")
async def resend_webhook(event_id: str, *, url: str | None = None, credentials: str | None = None) -> None:
    """Has a webhook delivered again; a receiver must bear a double one anyway.

    Args:
        event_id: The event's id, as `webhook_detail` tells it; not the task's.
        url: Where to, if not where it went before.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.

    Raises:
        InputError: This is no address; nothing was sent.
    """
    if url is not None and not url.startswith(("http://", "https://")):
        raise InputError("url must be the http(s) address of a receiver, or be left out. Nothing was sent.")
    await ask(lambda client: client.webhooks.resend(event_id, url=url), credentials)


def _hidden(text: str) -> str:
    token = get_settings().webhook_token
    return text.replace(token.get_secret_value(), "***") if token and token.get_secret_value() else text

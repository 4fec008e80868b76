"""Webhooks after the fact: the detail of an event, and its repetition."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from rh_prefect.emulator import answers, auth
from rh_prefect.emulator.answers import Refused
from rh_prefect.emulator.model_submits import webhook_of
from rh_prefect.emulator.routes.workflows import needed
from rh_prefect.emulator.serving import Call, Endpoint


async def detail(call: Call) -> Response:
    """Tells what became of a task's event."""
    task = call.state.tasks.find(needed(call, "taskId"), key=call.key)
    event = call.state.webhooks.event_of(task) if task else None
    if event is None:
        raise Refused(*call.state.assumptions.webhook_unknown)
    return answers.success(call.state.webhooks.shown(event))


async def resend(call: Call) -> Response:
    """Delivers an event again, by its own id."""
    url = webhook_of(call.body, code="301")
    event = call.state.webhooks.find(needed(call, "webhookId"), key=call.key)
    if event is None:
        raise Refused(*call.state.assumptions.webhook_unknown)
    call.state.webhooks.resend(event, url=url)
    return answers.success(msg="")


ENDPOINTS: Final = (
    Endpoint("/task/openapi/getWebhookDetail", detail, auth.body_key, answers.v1, on="event"),
    Endpoint("/task/openapi/retryWebhook", resend, auth.body_key, answers.v1, on="resend"),
)
"""The routes of this family."""

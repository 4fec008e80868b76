"""Routes for tasks and webhooks: v2 query, v1 status, outputs and cancel; detail and resend of a webhook."""

from __future__ import annotations

import re
from typing import Final

from starlette.responses import JSONResponse, Response

from rh_prefect.emulator import auth, responses, task_formats
from rh_prefect.emulator.assumptions import Assumptions
from rh_prefect.emulator.endpoint import NOT_POSITIVE, Call, Endpoint, is_positive
from rh_prefect.emulator.faults import Fault
from rh_prefect.emulator.model_submits import webhook_of
from rh_prefect.emulator.responses import Refused
from rh_prefect.emulator.routes.graphs import needed
from rh_prefect.emulator.tasks import Status, Task


async def query(call: Call) -> Response:
    """Returns the status of a task; counts as a poll."""
    assumptions, task_id = call.state.assumptions, _task_id(call)
    task = call.state.tasks.find(task_id, key=call.key)
    if task is None:
        raise Refused(*assumptions.unknown_task, envelope=_unknown(task_id))
    return JSONResponse(_spoiled(task_formats.queried(assumptions, task, await poll(call, task)), call.fault))


def _task_id(call: Call) -> str:
    """Reads the id in a v2 query, which is a string or a number; raises `Refused` if it is not a positive number."""
    sent = call.body.get("taskId")
    if sent in (None, ""):
        raise Refused(*call.state.assumptions.missing_task_id)
    if not is_positive(sent):
        is_number = re.fullmatch(r"-?[0-9]+", str(sent)) is not None
        raise Refused(*(("1007", NOT_POSITIVE) if is_number else call.state.assumptions.malformed_task_id))
    return str(sent)


def _spoiled(told: dict[str, object], fault: Fault | None) -> dict[str, object]:
    """Applies a fault to the results of a query."""
    results = told["results"]
    if fault is None or not isinstance(results, list):
        return told
    if fault.kind == "no-results":
        return {**told, "results": []}
    if fault.kind == "odd-link":
        return {**told, "results": [{**result, "url": fault.link} for result in results]}
    return told


async def poll(call: Call, task: Task) -> Status:
    """Counts one poll by a client, and waits for the rendering of a task that is due."""
    status = call.state.tasks.poll(task)
    if call.state.clock.mode != "real" and status == "RUNNING":
        await call.state.render_queue.settle(task)
        status = call.state.tasks.status(task)
    return status


def _unknown(task_id: str) -> responses.Envelope:
    def refuse(assumptions: Assumptions, code: str, words: str) -> Response:
        known = {"taskId": task_id, "status": assumptions.unknown_task_status}
        return responses.task_refusal(assumptions, code, words, **known)

    return refuse


async def status(call: Call) -> Response:
    """Returns the status as one word; counts as a poll."""
    word = await poll(call, _named(call))
    return responses.success(task_formats.v1_word_of(call.state.assumptions, word), msg="")


async def outputs(call: Call) -> Response:
    """Returns the results, or a code for the status; counts as a poll."""
    known, task = call.state.assumptions, _named(call)
    word = await poll(call, task)
    if word == "SUCCESS":
        return responses.success(task_formats.v1_outputs(known, task))
    if word == "QUEUED":
        return responses.state(known, "813", None)
    if word == "RUNNING":
        return responses.state(known, "804", {"netWssUrl": call.state.progress.url(task, word)})
    if word == "FAILED":
        return responses.state(known, "805", task_formats.v1_failure(task))
    return responses.state(known, known.v1_cancelled_outputs, None)


async def cancel(call: Call) -> Response:
    """Cancels a task that is queued or running."""
    assumptions, task = call.state.assumptions, _named(call)
    if task.spec.graph is None and not assumptions.cancel_models:
        raise Refused(*assumptions.v1_unknown_task)
    if not call.state.tasks.cancel(task) and assumptions.cancel_finished is not None:
        raise Refused(*assumptions.cancel_finished)
    return responses.success()


def _named(call: Call) -> Task:
    """Finds the task that a v1 request names."""
    task_id = call.body.get("taskId")
    if task_id in (None, ""):
        raise Refused("301", call.state.assumptions.v1_blank.format(field="taskId"))
    if str(task_id) == "0":
        raise Refused("301", "taskId must be positive")
    task = call.state.tasks.find(str(task_id), key=call.key)
    if task is None:
        raise Refused(*call.state.assumptions.v1_unknown_task)
    return task


async def detail(call: Call) -> Response:
    """Returns the state of a task's webhook event."""
    task = call.state.tasks.find(needed(call, "taskId"), key=call.key)
    event = call.state.webhooks.event_of(task) if task else None
    if event is None:
        raise Refused(*call.state.assumptions.webhook_unknown)
    return responses.success(call.state.webhooks.shown(event))


async def resend(call: Call) -> Response:
    """Delivers an event again; the request names the event by the event's id."""
    url = webhook_of(call.body, code="301")
    event = call.state.webhooks.find(needed(call, "webhookId"), key=call.key)
    if event is None:
        raise Refused(*call.state.assumptions.webhook_unknown)
    call.state.webhooks.resend(event, url=url)
    return responses.success(msg="")


ENDPOINTS: Final = (
    Endpoint("/openapi/v2/query", query, auth.bearer, responses.v2, on="query"),
    Endpoint("/task/openapi/status", status, auth.body_key, responses.v1, on="status"),
    Endpoint("/task/openapi/outputs", outputs, auth.body_key, responses.v1, on="outputs"),
    Endpoint("/task/openapi/cancel", cancel, auth.body_key, responses.v1, on="cancel"),
    Endpoint("/task/openapi/getWebhookDetail", detail, auth.body_key, responses.v1, on="event"),
    Endpoint("/task/openapi/retryWebhook", resend, auth.body_key, responses.v1, on="resend"),
)
"""The routes of this family."""

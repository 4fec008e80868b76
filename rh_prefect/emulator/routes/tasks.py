"""Tasks: the v2 query, the v1 status and outputs, and the cancel that has only a v1 form."""

from __future__ import annotations

from typing import Final

from starlette.responses import JSONResponse, Response

from rh_prefect.emulator import answers, assumptions, auth, views
from rh_prefect.emulator.answers import Refused
from rh_prefect.emulator.faults import Fault
from rh_prefect.emulator.serving import Call, Endpoint
from rh_prefect.emulator.tasks import Status, Task


async def query(call: Call) -> Response:
    """Tells how a task stands; on a clock that counts looks, this is one."""
    task_id = call.body.get("taskId")
    if not isinstance(task_id, str) or not task_id:
        raise Refused("1007", "Invalid parameters: taskId is required")
    task = call.state.tasks.find(task_id, key=call.key)
    if task is None:
        raise Refused(*assumptions.UNKNOWN_TASK, envelope=_unknown(task_id))
    return JSONResponse(_spoiled(views.queried(task, await look(call, task)), call.fault))


def _spoiled(told: dict[str, object], fault: Fault | None) -> dict[str, object]:
    """What a fault makes of the results that a query tells."""
    results = told["results"]
    if fault is None or not isinstance(results, list):
        return told
    if fault.kind == "no-results":
        return {**told, "results": []}
    if fault.kind == "odd-link":
        return {**told, "results": [{**result, "url": fault.link} for result in results]}
    return told


async def look(call: Call, task: Task) -> Status:
    """Counts one look of a client, and waits for what only its rendering holds up."""
    status = call.state.tasks.look(task)
    if call.state.clock.mode != "real" and status == "RUNNING":
        await call.state.workshop.settle(task)
        status = call.state.tasks.status(task)
    return status


def _unknown(task_id: str) -> answers.Envelope:
    def refuse(code: str, words: str) -> Response:
        body = {"taskId": task_id, "status": assumptions.UNKNOWN_TASK_STATUS, "errorCode": code, "errorMessage": words}
        return JSONResponse({**assumptions.REFUSED_TASK, **body}, status_code=assumptions.REFUSAL_STATUS)

    return refuse


async def status(call: Call) -> Response:
    """Tells the status in one word; on a clock that counts looks, this is one."""
    word = await look(call, _named(call))
    return answers.success(assumptions.V1_STATUSES.get(word, word), msg="")


async def outputs(call: Call) -> Response:
    """Gives the results, or a code that tells the status; on a clock that counts looks, this is one."""
    task = _named(call)
    word = await look(call, task)
    if word == "SUCCESS":
        return answers.success(views.v1_outputs(task))
    if word == "QUEUED":
        return answers.state("813", None)
    if word == "RUNNING":
        return answers.state("804", {"netWssUrl": call.state.progress.url(task, word)})
    return answers.state("805", views.v1_failure(task) if word == "FAILED" else None)


async def cancel(call: Call) -> Response:
    """Cancels a task that is queued or running."""
    if not call.state.tasks.cancel(_named(call)) and assumptions.CANCEL_FINISHED is not None:
        raise Refused(*assumptions.CANCEL_FINISHED)
    return answers.success()


def _named(call: Call) -> Task:
    """Finds the task of a v1 request."""
    task_id = call.body.get("taskId")
    if task_id in (None, ""):
        raise Refused("301", assumptions.V1_BLANK.format(field="taskId"))
    if str(task_id) == "0":
        raise Refused("301", "taskId must be positive")
    task = call.state.tasks.find(str(task_id), key=call.key)
    if task is None:
        raise Refused(*assumptions.V1_UNKNOWN_TASK)
    return task


ENDPOINTS: Final = (
    Endpoint("/openapi/v2/query", query, auth.bearer, answers.v2, on="query"),
    Endpoint("/task/openapi/status", status, auth.body_key, answers.v1, on="status"),
    Endpoint("/task/openapi/outputs", outputs, auth.body_key, answers.v1, on="outputs"),
    Endpoint("/task/openapi/cancel", cancel, auth.body_key, answers.v1, on="cancel"),
)
"""The routes of this family."""

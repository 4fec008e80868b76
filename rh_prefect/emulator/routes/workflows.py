"""ComfyUI workflows: started by v1 and by v2, and their JSON."""

from __future__ import annotations

import asyncio
import json
from typing import Final

from starlette.responses import JSONResponse, Response

from rh_prefect.emulator import acceptance, answers, assumptions, auth, views
from rh_prefect.emulator.answers import Refused
from rh_prefect.emulator.runs import V1, V2, Run, Target, prepare, workflow_target
from rh_prefect.emulator.serving import Call, Endpoint, Handler
from rh_prefect.emulator.tasks import Status, Task


async def create(call: Call) -> Response:
    """Starts a workflow by v1, basic or advanced: the same path with more or fewer fields."""
    workflow_id = needed(call, "workflowId")
    return await start_v1(call, workflow_target(call.state, workflow_id, call.body))


async def run(call: Call) -> Response:
    """Starts a workflow by v2."""
    workflow_id = call.request.path_params["workflow_id"]
    return await start_v2(call, workflow_target(call.state, workflow_id, call.body))


async def api_format(call: Call) -> Response:
    """Gives a workflow's JSON, as a string inside the answer."""
    workflow = call.state.workflows.find(needed(call, "workflowId"))
    if workflow is None:
        raise Refused("380")
    if not workflow.saved:
        raise Refused("810")
    return answers.success({"prompt": json.dumps(workflow.graph, ensure_ascii=False)}, msg="SUCCESS")


async def start_v1(call: Call, target: Target) -> Response:
    """Starts a graph and answers as v1 does."""
    run = await asyncio.to_thread(prepare, call.state, call.key, call.endpoint, call.body, target=target, family=V1)
    task, status = await _accept(call, run)
    progress = call.state.progress.url(task, status)
    tips = acceptance.tips(call, run.verdict.tips())
    return answers.success(views.started(task, status, tips=tips, progress=progress))


async def start_v2(call: Call, target: Target) -> Response:
    """Starts a graph and answers with the v2 task object."""
    run = await asyncio.to_thread(prepare, call.state, call.key, call.endpoint, call.body, target=target, family=V2)
    task, status = await _accept(call, run)
    return JSONResponse(views.submitted(task, status, tips=acceptance.tips(call, run.verdict.tips())))


async def _accept(call: Call, run: Run) -> tuple[Task, Status]:
    task = acceptance.accept(call, run.order, breakdown=run.breakdown, may_wait=run.may_wait)
    return task, await acceptance.first_status(call, task)


def needed(call: Call, name: str) -> str:
    """Reads a field of a v1 body that must be there; ids may be numbers.

    Raises:
        Refused: It is missing or blank.
    """
    value = call.body.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise Refused("301", assumptions.V1_BLANK.format(field=name))
    return str(value)


def v1_start(path: str, handler: Handler) -> Endpoint:
    """Describes the route of a v1 start."""
    return Endpoint(path, handler, auth.body_key, answers.v1, on="submit", on_refusal=acceptance.book_refusal)


def v2_start(path: str, handler: Handler) -> Endpoint:
    """Describes the route of a v2 start."""
    return Endpoint(path, handler, auth.bearer, answers.v2, on="submit", on_refusal=acceptance.book_refusal)


ENDPOINTS: Final = (
    v1_start("/task/openapi/create", create),
    v2_start("/openapi/v2/run/workflow/{workflow_id}", run),
    Endpoint("/api/openapi/getJsonApiFormat", api_format, auth.body_key, answers.v1, on="workflow"),
)
"""The routes of this family."""

"""ComfyUI workflows: started by v1 and by v2, and their JSON."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Final

from starlette.responses import JSONResponse, Response

from rh_prefect.emulator import acceptance, answers, auth, views
from rh_prefect.emulator.answers import Refused
from rh_prefect.emulator.graph_submits import (
    V1,
    V2,
    Family,
    FindTarget,
    Run,
    Start,
    Startable,
    prepare,
    workflow_target,
)
from rh_prefect.emulator.serving import NOT_POSITIVE, Call, Endpoint, Handler, is_positive
from rh_prefect.emulator.tasks import Status, Task


async def create(call: Call) -> Response:
    """Starts a workflow by v1, basic or advanced: the same path with more or fewer fields."""
    return await start_v1(call, "workflow", partial(workflow_target, workflow_id=_positive(call, "workflowId")))


async def run(call: Call) -> Response:
    """Starts a workflow by v2."""
    workflow_id = call.request.path_params["workflow_id"]
    return await start_v2(call, "workflow", partial(workflow_target, workflow_id=workflow_id))


def _positive(call: Call, name: str) -> str:
    value = needed(call, name)
    if not is_positive(value):
        raise Refused("301", NOT_POSITIVE)
    return value


async def api_format(call: Call) -> Response:
    """Gives a workflow's JSON, as a string inside the answer."""
    workflow = call.state.workflows.find(needed(call, "workflowId"))
    if workflow is None:
        raise Refused("380")
    if not workflow.saved:
        raise Refused("810")
    return answers.success({"prompt": json.dumps(workflow.graph, ensure_ascii=False)}, msg="SUCCESS")


async def start_v1(call: Call, kind: Startable, find: FindTarget) -> Response:
    """Starts a graph and answers as v1 does."""
    run = await asyncio.to_thread(prepare, _start(call, kind, V1), find)
    task, status = await _accept(call, run)
    progress = call.state.progress.url(task, status)
    tips = acceptance.tips(call, run.verdict.tips())
    return answers.success(views.started(call.state.assumptions, task, status, tips=tips, progress=progress))


async def start_v2(call: Call, kind: Startable, find: FindTarget) -> Response:
    """Starts a graph and answers with the v2 task object."""
    run = await asyncio.to_thread(prepare, _start(call, kind, V2), find)
    task, status = await _accept(call, run)
    tips = acceptance.tips(call, run.verdict.tips())
    return JSONResponse(views.submitted(call.state.assumptions, task, status, tips=tips))


def _start(call: Call, kind: Startable, family: Family) -> Start:
    return Start(call.state, call.key, call.endpoint, call.body, kind, family)


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
        raise Refused("301", call.state.assumptions.v1_blank.format(field=name))
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

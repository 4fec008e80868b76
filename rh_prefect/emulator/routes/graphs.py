"""Routes that start, show and list ComfyUI workflows, AI apps and quick-create modules."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from functools import partial
from typing import Final

from starlette.responses import JSONResponse, Response

from rh_prefect.emulator import auth, model_submits, responses, task_formats
from rh_prefect.emulator.comfy.apps import App
from rh_prefect.emulator.endpoint import NOT_POSITIVE, Call, Endpoint, Handler, is_positive
from rh_prefect.emulator.graph_request_checks import (
    FindTarget,
    Run,
    Start,
    Startable,
    app_target,
    find_app,
    prepare,
    quick_target,
    workflow_target,
)
from rh_prefect.emulator.responses import Refused
from rh_prefect.emulator.tasks import Status, Task


async def create(call: Call) -> Response:
    """Starts a workflow through the v1 API, basic or advanced: the same path with fewer or more fields."""
    return await start_v1(call, "workflow", partial(workflow_target, workflow_id=_positive(call, "workflowId")))


async def run(call: Call) -> Response:
    """Starts a workflow through the v2 API."""
    workflow_id = call.request.path_params["workflow_id"]
    return await start_v2(call, "workflow", partial(workflow_target, workflow_id=workflow_id))


def _positive(call: Call, name: str) -> str:
    value = needed(call, name)
    if not is_positive(value):
        raise Refused("301", NOT_POSITIVE)
    return value


async def api_format(call: Call) -> Response:
    """Returns a workflow's JSON, as a string inside the response."""
    workflow = call.state.workflows.find(needed(call, "workflowId"))
    if workflow is None:
        raise Refused("380")
    if not workflow.saved:
        raise Refused("810")
    return responses.success({"prompt": json.dumps(workflow.graph, ensure_ascii=False)}, msg="SUCCESS")


async def start_v1(call: Call, kind: Startable, find: FindTarget) -> Response:
    """Starts a graph and responds as v1 does."""
    run = await asyncio.to_thread(prepare, Start(call, kind, is_v1=True), find)
    task, status = await _accept(call, run)
    progress = call.state.progress.url(task, status)
    tips = model_submits.tips(call, run.verdict.tips())
    return responses.success(task_formats.started(call.state.assumptions, task, status, tips=tips, progress=progress))


async def start_v2(call: Call, kind: Startable, find: FindTarget) -> Response:
    """Starts a graph and responds with the v2 task object."""
    run = await asyncio.to_thread(prepare, Start(call, kind, is_v1=False), find)
    task, status = await _accept(call, run)
    tips = model_submits.tips(call, run.verdict.tips())
    return JSONResponse(task_formats.submitted(call.state.assumptions, task, status, tips=tips))


async def _accept(call: Call, run: Run) -> tuple[Task, Status]:
    task = model_submits.accept(call, run.spec, failure=run.failure, may_wait=run.may_wait)
    return task, await model_submits.first_status(call, task)


def needed(call: Call, name: str) -> str:
    """Reads a required field of a v1 body; ids may be numbers. Raises `Refused` if it is missing or blank."""
    value = call.body.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise Refused("301", call.state.assumptions.v1_blank.format(field=name))
    return str(value)


def v1_start(path: str, handler: Handler) -> Endpoint:
    """Returns the route for a v1 start request."""
    return Endpoint(path, handler, auth.body_key, responses.v1, on="submit", on_refusal=model_submits.record_refusal)


def v2_start(path: str, handler: Handler) -> Endpoint:
    """Returns the route for a v2 start request."""
    return Endpoint(path, handler, auth.bearer, responses.v2, on="submit", on_refusal=model_submits.record_refusal)


_SORTS: Final = ("RECOMMEND", "HOTTEST", "NEWEST")
_NOTHING: Final = ("likeCount", "downloadCount", "pv", "collectCount")
_STYLES: Final = (
    ("Comic style", "input1", "hand painting style", "style_V1.safetensors", 0.7),
    ("Ink style", "input2", "ink wash", "ink_V1.safetensors", 0.8),
    ("Plain", "input3", "", None, None),
)


async def run_v1(call: Call) -> Response:
    """Starts an app through the v1 API."""
    app_id = needed(call, "webappId")
    _need_list(call)
    return await start_v1(call, "app", partial(app_target, app_id=app_id))


async def run_v2(call: Call) -> Response:
    """Starts an app through the v2 API."""
    return await start_v2(call, "app", partial(app_target, app_id=call.request.path_params["app_id"]))


async def run_quick(call: Call) -> Response:
    """Starts a module of quick create."""
    app_id, code = needed(call, "webappId"), needed(call, "quickCreateCode")
    _need_list(call)
    return await start_v1(call, "app", partial(quick_target, app_id=app_id, code=code))


def _need_list(call: Call) -> None:
    if not isinstance(call.body.get("nodeInfoList"), list):
        raise Refused("301", call.state.assumptions.v1_blank.format(field="nodeInfoList"))


async def demo(call: Call) -> Response:
    """Returns the fields of an app; the example call in the response contains the caller's key."""
    asked = call.request.query_params.get("webappId", "")
    if not asked.strip():
        raise Refused("301", call.state.assumptions.v1_blank.format(field="webappId"))
    app = find_app(call.state, asked)
    cover = f"{call.state.file_store.url}/covers/{app.id}.png"
    return responses.success(
        {
            "curl": _curl(call, app, key=call.key.secret),
            "accessEncrypted": bool(app.password),
            "webappName": app.name,
            "statisticsInfo": {**dict.fromkeys(_NOTHING, "0"), "useCount": str(app.uses)},
            "nodeInfoList": app.node_list(),
            "covers": [
                {
                    "id": f"{app.id[:-1]}9",
                    "objName": f"covers/{app.id}.png",
                    "url": cover,
                    "thumbnailUri": f"{cover}?t=1",
                    "imageWidth": "1104",
                    "imageHeight": "1472",
                }
            ],
            "tags": [{"id": "1870000000000000001", "name": "图像", "nameEn": "Image", "labels": None}],
        }
    )


async def browse(call: Call) -> Response:
    """Lists apps; an app's id is only inside the example call, and numbers are strings."""
    sort = call.body.get("sort") or "RECOMMEND"
    if sort not in _SORTS:
        raise Refused(call.state.assumptions.list_refusal, f"sort must be one of {', '.join(_SORTS)}")
    found = list(call.state.apps)
    if sort != "RECOMMEND":
        found.sort(key=lambda app: app.id if sort == "NEWEST" else app.uses, reverse=True)
    return responses.success(page_of(call, [_listed(call, app) for app in found], size=10))


def _listed(call: Call, app: App) -> dict[str, object]:
    return {
        "title": app.name,
        "description": f"{app.name}, with {len(app.fields)} fields.",
        "cover": f"{call.state.file_store.url}/covers/{app.id}.png",
        "invokeExample": _curl(call, app, key="YOUR_API_KEY"),
    }


def page_of(call: Call, rows: Sequence[object], *, size: int) -> dict[str, object]:
    """Returns the requested page of a list in RunningHub's format; raises `Refused` for a page that cannot be."""
    known, body = call.state.assumptions, call.body
    current, asked = (body.get(name) or default for name, default in (("current", 1), ("size", size)))
    if not all(isinstance(number, int) and number > 0 for number in (current, asked)):
        raise Refused(known.list_refusal, "current and size must be whole numbers from 1")
    here, many = int(str(current)), min(int(str(asked)), known.list_page)
    pages = -(-len(rows) // many)
    return {
        "records": list(rows[(here - 1) * many : here * many]),
        "current": str(here),
        "size": str(many),
        "total": str(len(rows)),
        "pages": str(pages),
        "hasNext": here < pages,
        "hasPrevious": here > 1,
    }


def _curl(call: Call, app: App, *, key: str) -> str:
    body = {"nodeInfoList": app.node_list(), "instanceType": "default", "usePersonalQueue": "false"}
    return (
        f"curl --location --request POST '{call.state.url}/openapi/v2/run/ai-app/{app.id}' "
        f"--header 'Content-Type: application/json' --header 'Authorization: Bearer {key}' "
        f"--data-raw '{json.dumps(body, ensure_ascii=False)}'"
    )


async def params(call: Call) -> Response:
    """Lists the styles of a module of quick create."""
    kind = call.body.get("type")
    if not isinstance(kind, int) or isinstance(kind, bool):
        raise Refused("301", call.state.assumptions.v1_blank.format(field="type"))
    app = find_app(call.state, needed(call, "webappId"))
    rows = enumerate(_STYLES, start=1)
    return responses.success([_style(call, app.id, kind, number, *style) for number, style in rows])


def _style(
    call: Call, app_id: str, kind: int, number: int, name: str, key: str, trigger: str, lora: str | None, weight: object
) -> dict[str, object]:
    return {
        "id": str(number),
        "type": kind,
        "webappId": app_id,
        "modelCategory": 1,
        "modelName": name,
        "modelKey": key,
        "modelPreviewUrl": f"{call.state.file_store.url}/covers/{number}.png",
        "content": f"a lighthouse, {trigger}".strip(", "),
        "modelTrigger": trigger,
        "modelLoar1FileName": lora,
        "modelLoar1Weight": weight,
        "modelLoar2FileName": None,
        "modelLoar2Weight": None,
    }


ENDPOINTS: Final = (
    v1_start("/task/openapi/create", create),
    v2_start("/openapi/v2/run/workflow/{workflow_id}", run),
    Endpoint("/api/openapi/getJsonApiFormat", api_format, auth.body_key, responses.v1, on="workflow"),
    v1_start("/task/openapi/ai-app/run", run_v1),
    v1_start("/task/openapi/quick-ai-app/run", run_quick),
    v2_start("/openapi/v2/run/ai-app/{app_id}", run_v2),
    Endpoint("/api/webapp/apiCallDemo", demo, auth.query_key, responses.v1, on="app", reads="nothing", method="GET"),
    Endpoint("/openapi/v2/aiapp/list", browse, auth.header_key, responses.v1, on="apps"),
    Endpoint("/api/fast/creation/model/params", params, auth.quick_params_key, responses.v1, on="quick-create"),
)
"""The routes of this family."""

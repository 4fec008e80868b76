"""The native proxy: a ComfyUI behind `/proxy/{key}` and `/proxy-plus/{key}`, with the key in the path."""

from __future__ import annotations

import asyncio
import json
import platform
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from rh_prefect.emulator import faults
from rh_prefect.emulator.accounts import ApiKey, run_charge
from rh_prefect.emulator.auth import path_key
from rh_prefect.emulator.broken_responses import BrokenResponse
from rh_prefect.emulator.comfy.graph import Graph, parse
from rh_prefect.emulator.comfy.nodes import object_info
from rh_prefect.emulator.comfy.outputs import model_for
from rh_prefect.emulator.faults import Subject
from rh_prefect.emulator.file_store import DeadLink
from rh_prefect.emulator.graph_request_checks import examine
from rh_prefect.emulator.native_prompts import Prompt, history
from rh_prefect.emulator.responses import Refused, message_of
from rh_prefect.emulator.routes.uploads import read_form
from rh_prefect.emulator.state import State
from rh_prefect.emulator.tasks import ACTIVE, Failure, OutputSpec, Task, TaskSpec

_MACHINES: Final[dict[str, str]] = {"proxy": "default", "proxy-plus": "plus"}
Handler = Callable[[Request], Awaitable[Response]]
_GIGABYTE: Final = 1 << 30
_MEMORY: Final[dict[str, int]] = {"default": 24 * _GIGABYTE, "plus": 48 * _GIGABYTE}
_PICTURES: Final = ("png", "jpg", "jpeg", "webp")


async def prompt(request: Request) -> Response:
    """Queues a graph; refuses an invalid graph with status 400, as ComfyUI does."""
    state = _state(request)
    key = path_key(state.keys, request)
    if key is None:
        return _no_key(request)
    body = await _json(request)
    graph = parse(body.get("prompt") if isinstance(body.get("prompt"), dict) else "")  # type: ignore[arg-type]
    if graph is None:
        return _invalid({"type": "no_prompt", "message": "No prompt provided", "details": "", "extra_info": {}})
    try:
        return await _take(request, state, key, graph, client_id=str(body.get("client_id") or ""))
    except Refused as refused:
        error = {
            "type": refused.code,
            "message": message_of(state.assumptions, refused.code, refused.words),
            "details": "",
            "extra_info": {},
        }
        return _invalid(error)


async def _take(request: Request, state: State, key: ApiKey, graph: Graph, *, client_id: str) -> Response:
    verdict, outputs, failure = await asyncio.to_thread(examine, state, key, graph)
    if verdict.error is not None:
        return _invalid(verdict.error, verdict.node_errors)
    spec = _spec(request, state, key, graph, outputs)
    task = _accept(state, spec, failure)
    taken = state.proxy.add(task, client_id=client_id)
    return JSONResponse({"prompt_id": taken.id, "number": taken.number, "node_errors": verdict.node_errors})


def _spec(request: Request, state: State, key: ApiKey, graph: Graph, outputs: tuple[OutputSpec, ...]) -> TaskSpec:
    kind = _kind(request)
    queued, seconds = state.durations(outputs[0].model if outputs else model_for(), graph)
    charge = run_charge(state.assumptions, key.tier, seconds, _MACHINES[kind])
    return TaskSpec(key, f"/{kind}", {"prompt": graph}, outputs, charge, seconds, queued, graph=dict(graph))


def _accept(state: State, spec: TaskSpec, failure: Failure | None) -> Task:
    with state.lock:
        task = state.tasks.accept(spec, failure=failure, may_wait=True)
    state.render_queue.begin(task)
    return task


async def all_history(request: Request) -> Response:
    """Lists the finished prompts; counts as a poll of each requested prompt."""
    state = _state(request)
    key = path_key(state.keys, request)
    if key is None:
        return _no_key(request)
    asked = request.path_params.get("prompt_id")
    found = [item for item in state.proxy.of(key.account.name) if asked in (None, item.id)]
    return JSONResponse({item.id: shown for item in found if (shown := await _ended(state, item))})


async def _ended(state: State, item: Prompt) -> dict[str, object] | None:
    status = state.tasks.poll(item.task)
    if state.clock.mode != "real" and status == "RUNNING":
        await state.render_queue.settle(item.task)
        status = state.tasks.status(item.task)
    return None if status in ACTIVE else history(item, status)


async def queue(request: Request) -> Response:
    """Lists the running and pending prompts."""
    state = _state(request)
    key = path_key(state.keys, request)
    if key is None:
        return _no_key(request)
    lists: dict[str, list[object]] = {"queue_running": [], "queue_pending": []}
    for item in state.proxy.of(key.account.name):
        status = state.tasks.status(item.task)
        if status in ACTIVE:
            lists["queue_running" if status == "RUNNING" else "queue_pending"].append([item.number, item.id])
    return JSONResponse(lists)


async def change_queue(request: Request) -> Response:
    """Deletes pending prompts from the queue: the named ones, or all."""
    state = _state(request)
    key = path_key(state.keys, request)
    if key is None:
        return _no_key(request)
    body = await _json(request)
    named = body.get("delete")
    for item in state.proxy.of(key.account.name):
        is_meant = bool(body.get("clear")) or (isinstance(named, list) and item.id in named)
        if is_meant and state.tasks.status(item.task) == "QUEUED":
            state.tasks.cancel(item.task)
            state.proxy.forget(item)
    return Response()


async def interrupt(request: Request) -> Response:
    """Stops the running prompt; if the request names a prompt, only if this prompt is the running one."""
    state = _state(request)
    key = path_key(state.keys, request)
    if key is None:
        return _no_key(request)
    named = (await _json(request)).get("prompt_id")
    for item in state.proxy.of(key.account.name):
        if named in (None, item.id) and state.tasks.status(item.task) == "RUNNING":
            state.tasks.cancel(item.task)
    return Response()


async def view(request: Request) -> Response:
    """Returns a file by name: an output or an uploaded input."""
    state = _state(request)
    key = path_key(state.keys, request)
    if key is None:
        return _no_key(request)
    name = request.query_params.get("filename", "")
    if request.query_params.get("type", "output") == "input":
        path = state.file_store.named(name)
        return FileResponse(path) if path else Response(status_code=404)
    try:
        found = state.file_store.find(f"/u/output/{name}")
    except DeadLink:
        return Response(status_code=404)
    task = state.tasks.find(found.task_id, key=key)
    return FileResponse(found.path) if task else Response(status_code=404)


async def upload(request: Request) -> Response:
    """Stores a picture as an input, under its file name."""
    state = _state(request)
    key = path_key(state.keys, request)
    if key is None:
        return _no_key(request)
    limit, no_form = state.assumptions.upload_max_bytes, Refused(*state.assumptions.upload_no_file)
    try:
        form = await read_form(request, state.file_store.folder, limit=limit, no_form=no_form)
    except Refused as refused:
        return Response(message_of(state.assumptions, refused.code, refused.words), 400)
    try:
        received = next((file for file in form.files if file.field == "image"), None)
        extension = Path(received.file_name).suffix.lstrip(".").lower() if received else ""
        if received is None or extension not in _PICTURES:
            return Response(status_code=400)
        name = Path(received.file_name).name
        state.file_store.keep(received.path, name, sha256=received.sha256, extension=extension)
        return JSONResponse({"name": name, "subfolder": "", "type": "input"})
    finally:
        for file in form.files:
            file.path.unlink(missing_ok=True)


async def info(request: Request) -> Response:
    """Returns the node classes; the key is not checked, as measured on the service."""
    state = _state(request)
    known = object_info(state.workflows.foreign | state.apps.foreign)
    asked = request.path_params.get("node_class")
    return JSONResponse(known if asked is None else {name: known[name] for name in [asked] if name in known})


async def stats(request: Request) -> Response:
    """Returns the system statistics."""
    if path_key(_state(request).keys, request) is None:
        return _no_key(request)
    memory = _MEMORY[_MACHINES[_kind(request)]]
    device = {"name": "cuda:0 emulated", "type": "cuda", "index": 0, "vram_total": memory, "vram_free": memory}
    system = {"os": "posix", "python_version": platform.python_version(), "comfyui_version": "0.3.0"}
    return JSONResponse({"system": system, "devices": [device]})


def _state(request: Request) -> State:
    state: State = request.app.state.emulator
    return state


def _kind(request: Request) -> str:
    return request.url.path.split("/")[1]


async def _json(request: Request) -> dict[str, object]:
    try:
        body = json.loads(await request.body() or b"{}")
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _no_key(request: Request) -> Response:
    return JSONResponse({"code": 412, "msg": "TOKEN_INVALID"}, status_code=_state(request).assumptions.proxy_key_status)


def _invalid(error: object, node_errors: object = None) -> Response:
    return JSONResponse({"error": error, "node_errors": node_errors or {}}, status_code=400)


def _faulty(on: faults.Route, handler: Handler) -> Handler:
    """Applies faults to a route of the proxy; faults know the route's endpoint as `/proxy` or `/proxy-plus`."""

    async def served(request: Request) -> Response:
        state = _state(request)
        body = await _json(request) if request.headers.get("content-type") == "application/json" else {}
        fault = state.faults.match(Subject(on, f"/{_kind(request)}", body))
        if fault is None:
            return await handler(request)
        response = Response() if fault.is_early else await handler(request)
        if fault.kind == "code":
            response = JSONResponse({"code": int(fault.code), "msg": fault.message})
        return BrokenResponse(response, fault, state.held)

    return served


def _routes(kind: str) -> list[BaseRoute]:
    at = f"/{kind}/{{key}}"
    return [
        Route(f"{at}/prompt", _faulty("submit", prompt), methods=["POST"]),
        Route(f"{at}/history", all_history, methods=["GET"]),
        Route(f"{at}/history/{{prompt_id}}", _faulty("query", all_history), methods=["GET"]),
        Route(f"{at}/queue", queue, methods=["GET"]),
        Route(f"{at}/queue", _faulty("cancel", change_queue), methods=["POST"]),
        Route(f"{at}/interrupt", _faulty("cancel", interrupt), methods=["POST"]),
        Route(f"{at}/view", _faulty("download", view), methods=["GET"]),
        Route(f"{at}/upload/image", _faulty("upload", upload), methods=["POST"]),
        Route(f"{at}/object_info", info, methods=["GET"]),
        Route(f"{at}/object_info/{{node_class}}", info, methods=["GET"]),
        Route(f"{at}/system_stats", stats, methods=["GET"]),
    ]


ROUTES: Final = [route for kind in _MACHINES for route in _routes(kind)]
"""The routes of this family, whose responses have no envelope."""

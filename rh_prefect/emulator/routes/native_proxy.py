"""The native proxy: a ComfyUI behind `/proxy/{key}` and `/proxy-plus/{key}`, with the key in the path."""

from __future__ import annotations

import asyncio
import json
import platform
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute

from rh_prefect.emulator import auth, model_submits, responses
from rh_prefect.emulator.accounts import ApiKey, ApiKeys, run_charge
from rh_prefect.emulator.assumptions import Assumptions
from rh_prefect.emulator.comfy.graph import Graph, parse
from rh_prefect.emulator.comfy.nodes import object_info
from rh_prefect.emulator.comfy.outputs import model_for
from rh_prefect.emulator.endpoint import Call, Endpoint
from rh_prefect.emulator.file_host import ResultFile
from rh_prefect.emulator.file_store import DeadLink
from rh_prefect.emulator.graph_request_checks import examine
from rh_prefect.emulator.native_prompts import Prompt, history
from rh_prefect.emulator.responses import Refused, message_of
from rh_prefect.emulator.routes.tasks import poll
from rh_prefect.emulator.routes.uploads import received
from rh_prefect.emulator.tasks import ACTIVE, NATIVE_MACHINES, OutputSpec, TaskSpec

_GIGABYTE: Final = 1 << 30
_MEMORY: Final[dict[str, int]] = {"default": 24 * _GIGABYTE, "plus": 48 * _GIGABYTE}


def _path_key(keys: ApiKeys, request: Request, body: Mapping[str, object]) -> ApiKey:  # noqa: ARG001
    """Reads the key in the path; see `Auth`."""
    key = auth.path_key(keys, request)
    if key is None:
        raise Refused("412", envelope=_no_key)
    return key


def _no_key(assumptions: Assumptions, code: str, words: str) -> Response:
    body = {"code": int(code), "msg": message_of(assumptions, code, words)}
    return JSONResponse(body, status_code=assumptions.proxy_key_status)


async def prompt(call: Call) -> Response:
    """Queues a graph; refuses an invalid graph with status 400, as ComfyUI does."""
    graph = parse(call.body.get("prompt") if isinstance(call.body.get("prompt"), dict) else "")  # type: ignore[arg-type]
    if graph is None:
        raise _invalid("no_prompt", {"type": "no_prompt", "message": "No prompt provided", **_NO_DETAILS})
    try:
        return await _take(call, graph)
    except Refused as refused:
        if refused.envelope is not None:
            raise
        message = message_of(call.state.assumptions, refused.code, refused.words)
        raise _invalid(refused.code, {"type": refused.code, "message": message, **_NO_DETAILS}) from refused


_NO_DETAILS: Final = {"details": "", "extra_info": {}}


def _invalid(code: str, error: object, node_errors: object = None) -> Refused:
    body = {"error": error, "node_errors": node_errors or {}}
    return Refused(code, envelope=lambda *_: JSONResponse(body, status_code=400))


async def _take(call: Call, graph: Graph) -> Response:
    state = call.state
    verdict, outputs, failure = await asyncio.to_thread(examine, state, call.key, graph, folder=_folder(call))
    if verdict.error is not None:
        raise _invalid(str(verdict.error.get("type")), verdict.error, verdict.node_errors)
    task = model_submits.accept(call, _spec(call, graph, outputs), failure=failure, may_wait=True)
    await model_submits.first_status(call, task)
    taken = state.proxy.add(task, client_id=str(call.body.get("client_id") or ""))
    errors = json.loads(model_submits.tips(call))["node_errors"] or verdict.node_errors
    return JSONResponse({"prompt_id": taken.id, "number": taken.number, "node_errors": errors})


def _spec(call: Call, graph: Graph, outputs: tuple[OutputSpec, ...]) -> TaskSpec:
    state, key = call.state, call.key
    queued, seconds = state.durations(outputs[0].model if outputs else model_for(), graph)
    charge = run_charge(state.assumptions, key.tier, seconds, NATIVE_MACHINES[call.endpoint])
    return TaskSpec(key, call.endpoint, {"prompt": graph}, outputs, charge, seconds, queued, graph=dict(graph))


def _folder(call: Call) -> str:
    """Returns the folder of the machine's uploads: each account has its own machines."""
    return f"{call.key.account.name}{call.endpoint}/"


async def all_history(call: Call) -> Response:
    """Lists the finished prompts; counts as a poll of each requested prompt."""
    asked = call.request.path_params.get("prompt_id")
    found = [item for item in _prompts(call) if asked in (None, item.id)]
    return JSONResponse({item.id: shown for item in found if (shown := await _ended(call, item))})


def _prompts(call: Call) -> list[Prompt]:
    return list(call.state.proxy.of(call.key.account.name, call.endpoint))


async def _ended(call: Call, item: Prompt) -> dict[str, object] | None:
    status = await poll(call, item.task)
    if status in ACTIVE:
        return None
    shown = history(item, status)
    return {**shown, "outputs": {}} if model_submits.has(call.fault, "no-results") else shown


async def queue(call: Call) -> Response:
    """Lists the running and pending prompts."""
    lists: dict[str, list[object]] = {"queue_running": [], "queue_pending": []}
    for item in _prompts(call):
        status = call.state.tasks.status(item.task)
        if status in ACTIVE:
            lists["queue_running" if status == "RUNNING" else "queue_pending"].append([item.number, item.id])
    return JSONResponse(lists)


async def change_queue(call: Call) -> Response:
    """Deletes pending prompts from the queue: the named ones, or all."""
    state, named = call.state, call.body.get("delete")
    for item in _prompts(call):
        is_meant = bool(call.body.get("clear")) or (isinstance(named, list) and item.id in named)
        if is_meant and state.tasks.status(item.task) == "QUEUED":
            state.tasks.cancel(item.task)
            state.proxy.forget(item)
    return Response()


async def interrupt(call: Call) -> Response:
    """Stops the running prompt; if the request names a prompt, only if this prompt is the running one."""
    named = call.body.get("prompt_id") if call.state.assumptions.interrupt_reads_id else None
    running = [item for item in _prompts(call) if call.state.tasks.status(item.task) == "RUNNING"]
    for item in running:  # not the next prompt, which begins when this one has ended
        if named in (None, item.id):
            call.state.tasks.cancel(item.task)
    return Response()


async def view(call: Call) -> Response:
    """Returns a file by name: an output or an uploaded input."""
    state, asked = call.state, call.request.query_params
    name = asked.get("filename", "")
    if asked.get("type", "output") == "input":
        path = state.file_store.named(_folder(call) + name)
        return FileResponse(path) if path else Response(status_code=404)
    try:
        found = state.file_store.find(f"/u/output/{name}")
    except DeadLink:
        return Response(status_code=404)
    task = state.tasks.find(found.task_id, key=call.key)
    if task is None or task.endpoint != call.endpoint or model_submits.has(call.fault, "expired"):
        return Response(status_code=404)
    return ResultFile(state, found, call.fault)


async def upload(call: Call) -> Response:
    """Stores a file of any kind as an input, under its file name, as ComfyUI does."""
    state, limit = call.state, call.state.assumptions.upload_max_bytes
    no_file = Refused("400", envelope=lambda *_: Response(status_code=400))
    async with received(call, "image", limit=limit, no_form=no_file, large=no_file) as file:
        name = Path(file.file_name)
        if not name.name:
            raise no_file
        extension = name.suffix.lstrip(".").lower()
        state.file_store.keep(file.path, _folder(call) + name.name, sha256=file.sha256, extension=extension)
    return JSONResponse({"name": name.name, "subfolder": "", "type": "input"})


async def info(call: Call) -> Response:
    """Returns the node classes; the key is not checked, as measured on the service."""
    known = object_info(call.state.workflows.foreign | call.state.apps.foreign)
    asked = call.request.path_params.get("node_class")
    return JSONResponse(known if asked is None else {name: known[name] for name in [asked] if name in known})


async def stats(call: Call) -> Response:
    """Returns the system statistics."""
    memory = _MEMORY[NATIVE_MACHINES[call.endpoint]]
    device = {"name": "cuda:0 emulated", "type": "cuda", "index": 0, "vram_total": memory, "vram_free": memory}
    system = {"os": "posix", "python_version": platform.python_version(), "comfyui_version": "0.3.0"}
    return JSONResponse({"system": system, "devices": [device]})


def _routes(kind: str) -> list[BaseRoute]:
    at = f"{kind}/{{key}}"
    reads = partial(Endpoint, auth=_path_key, envelope=responses.bare, reads="nothing", method="GET")
    posts = partial(Endpoint, auth=_path_key, envelope=responses.bare)
    endpoints = [
        posts(f"{at}/prompt", prompt, on="submit", on_refusal=model_submits.record_refusal),
        reads(f"{at}/history", all_history),
        reads(f"{at}/history/{{prompt_id}}", all_history, on="query"),
        reads(f"{at}/queue", queue),
        posts(f"{at}/queue", change_queue, on="cancel"),
        posts(f"{at}/interrupt", interrupt, on="cancel"),
        reads(f"{at}/view", view, on="download"),
        posts(f"{at}/upload/image", upload, on="upload", reads="nothing"),
        reads(f"{at}/object_info", info, auth=auth.in_handler),
        reads(f"{at}/object_info/{{node_class}}", info, auth=auth.in_handler),
        reads(f"{at}/system_stats", stats),
    ]
    return [endpoint.route() for endpoint in endpoints]


ROUTES: Final = [route for kind in NATIVE_MACHINES for route in _routes(kind)]
"""The routes of this family, whose responses have no envelope."""

"""The emulator's own routes under `/_emulator`, for a test in another process."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rh_prefect.catalog.model import decode_model
from rh_prefect.emulator.comfy.apps import AppField
from rh_prefect.emulator.faults import fault_from_json
from rh_prefect.emulator.state import State
from rh_prefect.errors import InputError


async def about(request: Request) -> Response:
    """Returns the address of the file host, the time, the random seed, the keys, workflows and apps."""
    state = _state(request)
    workflows = [{"id": workflow.id, "name": workflow.name} for workflow in state.workflows]
    apps = [{"id": app.id, "name": app.name, "quickCreateCode": app.quick_code} for app in state.apps]
    keys = [{"name": key.name, "tier": key.tier, "limit": key.limit} for key in state.keys]
    facts = {
        "files_url": state.file_store.url,
        "now": state.clock.now(),
        "keys": keys,
        "random_seed": state.random.seed,
    }
    return JSONResponse({**facts, "workflows": workflows, "apps": apps})


async def recorder(request: Request) -> Response:
    """Returns the recorded requests."""
    return JSONResponse(_state(request).recorder.to_json())


async def list_faults(request: Request) -> Response:
    """Lists the scripted faults with their counts."""
    return JSONResponse(_state(request).faults.to_json())


async def add_faults(request: Request) -> Response:
    """Adds one fault, or a list of faults."""
    raw = await _json(request)
    faults = [fault_from_json(item) for item in (raw if isinstance(raw, list) else [raw])]
    _state(request).faults.add(*faults)
    return JSONResponse({"added": len(faults)})


async def clear_faults(request: Request) -> Response:
    """Removes all faults."""
    return JSONResponse({"removed": _state(request).faults.clear()})


async def release(request: Request) -> Response:
    """Releases the held responses."""
    return JSONResponse({"released": _state(request).held.release()})


async def move_clock(request: Request) -> Response:
    """Advances the clock by `advance` seconds."""
    state = _state(request)
    try:
        seconds = float((await _object(request)).get("advance", 0))
    except (TypeError, ValueError) as error:
        raise InputError(f"`advance` is a number of seconds: {error}") from error
    if not math.isfinite(seconds):
        raise InputError("`advance` is a finite number of seconds.")
    state.clock.advance(seconds)
    return JSONResponse({"now": state.clock.now()})


async def add_key(request: Request) -> Response:
    """Adds a key; takes the arguments of `ApiKeys.add` and returns the key's value."""
    try:
        key = _state(request).keys.add(**await _object(request))
    except (TypeError, KeyError) as error:
        raise InputError(f"A key needs a name, and takes the arguments of ApiKeys.add: {error}") from error
    return JSONResponse({"name": key.name, "secret": key.secret})


async def moderate(request: Request) -> Response:
    """Adds `words` to those that the content check refuses."""
    words = (await _object(request)).get("words", [])
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise InputError('`words` is a list of texts, as in {"words": ["gun"]}.')
    _state(request).moderated.update(words)
    return JSONResponse({"words": sorted(_state(request).moderated)})


async def add_workflow(request: Request) -> Response:
    """Saves a workflow; takes the arguments of `Workflows.add` and returns the workflow's id."""
    raw = await _object(request)
    try:
        return JSONResponse({"id": _state(request).workflows.add(**raw)})
    except TypeError as error:
        raise InputError(f"A workflow needs a graph, and takes the arguments of Workflows.add: {error}") from error


async def add_model(request: Request) -> Response:
    """Adds a model: an object as in the catalogue's data, with at least `endpoint` and `output`."""
    raw = await _json(request)
    try:
        model = decode_model({"name": raw["endpoint"], "family": raw["endpoint"].partition("/")[0], **raw})
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"A model needs `endpoint` and `output`, and takes the catalogue's fields: {error}") from error
    _state(request).models.add(model)
    return JSONResponse({"endpoint": model.endpoint})


async def add_app(request: Request) -> Response:
    """Publishes an app; takes the arguments of `Apps.add`, each field as a list, and returns the app's id."""
    raw = await _json(request)
    try:
        fields = raw.pop("fields", None)
        read = None if fields is None else [AppField(*field) for field in fields]
        return JSONResponse({"id": _state(request).apps.add(fields=read, **raw)})
    except (TypeError, AttributeError) as error:
        raise InputError(f"An app needs a graph, and takes the arguments of Apps.add: {error}") from error


async def events(request: Request) -> Response:
    """Lists the webhook events."""
    return JSONResponse(_state(request).webhooks.events())


async def update_options(request: Request) -> Response:
    """Sets runtime options, and returns all of them."""
    options = _state(request).options
    options.update(**await _object(request))
    return JSONResponse(asdict(options))


def _state(request: Request) -> State:
    state: State = request.app.state.emulator
    return state


async def _object(request: Request) -> dict[str, Any]:
    raw = await _json(request)
    if not isinstance(raw, dict):
        raise InputError("The body must be a JSON object.")
    return raw


async def _json(request: Request) -> Any:  # any JSON
    try:
        return json.loads(await request.body() or b"{}")
    except (ValueError, RecursionError) as error:
        raise InputError(f"The body is not JSON: {error}") from error


ROUTES: Final = (
    Route("/_emulator", about, methods=["GET"]),
    Route("/_emulator/recorder", recorder, methods=["GET"]),
    Route("/_emulator/faults", list_faults, methods=["GET"]),
    Route("/_emulator/faults", add_faults, methods=["POST"]),
    Route("/_emulator/faults", clear_faults, methods=["DELETE"]),
    Route("/_emulator/release", release, methods=["POST"]),
    Route("/_emulator/clock", move_clock, methods=["POST"]),
    Route("/_emulator/keys", add_key, methods=["POST"]),
    Route("/_emulator/moderated", moderate, methods=["POST"]),
    Route("/_emulator/workflows", add_workflow, methods=["POST"]),
    Route("/_emulator/apps", add_app, methods=["POST"]),
    Route("/_emulator/models", add_model, methods=["POST"]),
    Route("/_emulator/webhooks", events, methods=["GET"]),
    Route("/_emulator/options", update_options, methods=["POST"]),
)
"""The emulator's own routes."""

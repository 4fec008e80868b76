"""One API route: parses and authenticates the request, applies faults, calls the handler, formats errors."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NoReturn
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route as StarletteRoute

from rh_prefect.emulator import faults, responses
from rh_prefect.emulator.accounts import ApiKey
from rh_prefect.emulator.auth import Auth
from rh_prefect.emulator.broken_responses import BrokenResponse
from rh_prefect.emulator.faults import Fault, Subject
from rh_prefect.emulator.file_store import ANY_ADDRESS
from rh_prefect.emulator.responses import Envelope, Refused
from rh_prefect.emulator.state import State

NOT_POSITIVE: Final = "must be greater than 0"
"""The message for an id that is not a positive number; measured for tasks and workflows."""

Reads = Literal["json", "form", "nothing"]
"""The kind of body that a request has; a form is read by the handler, straight to disk."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request that has passed the check of its key, with the state that its handler needs."""

    state: State
    request: Request
    key: ApiKey
    body: dict[str, object]
    fault: Fault | None

    @property
    def endpoint(self) -> str:
        """The endpoint as records show it; see `endpoint_of`."""
        return endpoint_of(self.request)


Handler = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A route of the API: how a request is read, authenticated, refused and recorded.

    Attributes:
        path: Starlette's path.
        handler: Handles the request, or raises `Refused`.
        auth: Reads the key, or refuses the request.
        envelope: The format of a refusal.
        on: The route's name in faults; None if no fault can apply to the route.
        reads: The kind of body.
        method: GET or POST.
        on_refusal: Called for a request without effect, with RunningHub's code or the kind of the fault.
    """

    path: str
    handler: Handler
    auth: Auth
    envelope: Envelope
    on: faults.Route | None = None
    reads: Reads = "json"
    method: Literal["GET", "POST"] = "POST"
    on_refusal: Callable[[Call, str], None] = field(default=lambda call, code: None)  # noqa: ARG005

    def route(self) -> StarletteRoute:
        """Returns the Starlette route."""
        return StarletteRoute(self.path, self._serve, methods=[self.method])

    async def _serve(self, request: Request) -> Response:
        state: State = request.app.state.emulator
        try:
            _check_host(state, request)
            body = await _read_json(request) if self.reads == "json" else {}
            key = self.auth(state.keys, request, body)
        except Refused as refused:
            return self._refuse(state, refused)
        try:
            state.rate_limit.count(key.name)
        except Refused as refused:
            self.on_refusal(Call(state, request, key, body, None), refused.code)
            return self._refuse(state, refused)
        fault = self._fault(state, request, body)
        response = _with_host_of(request, state, await self._answer(Call(state, request, key, body, fault)))
        return response if fault is None else BrokenResponse(response, fault, state.held)

    def _fault(self, state: State, request: Request, body: dict[str, object]) -> Fault | None:
        if self.on is None:
            return None
        task = state.tasks.find(body.get("taskId"))
        known = task.endpoint if task else endpoint_of(request)
        payload: Mapping[str, object] = task.spec.payload if task else body
        return state.faults.match(Subject(self.on, known, payload))

    async def _answer(self, call: Call) -> Response:
        fault = call.fault
        try:
            if fault is not None and fault.is_early:
                return self._lose(call, fault)
            response = await self.handler(call)
        except Refused as refused:
            self.on_refusal(call, refused.code)
            return self._refuse(call.state, refused)
        if fault is not None and fault.kind == "code":
            return self._refuse(call.state, _refusal_by(call.state, fault))
        return response

    def _lose(self, call: Call, fault: Fault) -> Response:
        """Handles a request that has no effect because of its fault; `BrokenResponse` breaks the connection later."""
        if fault.kind == "code":
            raise _refusal_by(call.state, fault)
        self.on_refusal(call, fault.kind)
        return Response()

    def _refuse(self, state: State, refused: Refused) -> Response:
        return (refused.envelope or self.envelope)(state.assumptions, refused.code, refused.words)


def endpoint_of(request: Request) -> str:
    """Returns the endpoint of a request: the path after `/openapi/v2/`, `/proxy`, `/proxy-plus`, or the whole path."""
    if "key" in request.path_params:  # the path of the native proxy contains the key
        return f"/{request.url.path.split('/')[1]}"
    return str(request.path_params.get("endpoint") or request.url.path.removeprefix("/openapi/v2/"))


def is_positive(value: object) -> bool:
    """Returns whether an id is a positive integer, as a string or as a number."""
    return not isinstance(value, bool) and re.fullmatch(r"0*[1-9][0-9]*", str(value)) is not None


def _with_host_of(request: Request, state: State, response: Response) -> Response:
    """Replaces 0.0.0.0 in the emulator's own links, which no browser can open, by the host of the request."""
    if urlsplit(state.url).hostname == ANY_ADDRESS and not isinstance(response, FileResponse):
        body = bytes(response.body)
        for own in (urlsplit(url).netloc for url in (state.url, state.file_store.url)):
            body = body.replace(own.encode(), own.replace(ANY_ADDRESS, str(request.url.hostname)).encode())
        response.body, response.headers["content-length"] = body, str(len(body))
    return response


def _check_host(state: State, request: Request) -> None:
    refusal = state.assumptions.wrong_host
    if refusal is not None and request.headers.get("host") != urlsplit(state.url).netloc:
        raise Refused(*refusal)


def _refusal_by(state: State, fault: Fault) -> Refused:
    if fault.code == faults.TOO_FAST:
        return Refused(*state.assumptions.too_fast)
    envelope = responses.bare if fault.code == "412" else None  # the gateway refuses a key, before the route
    return Refused(fault.code, fault.message, envelope=envelope)


async def _read_json(request: Request) -> dict[str, object]:
    """Reads the body; an invalid body counts as empty, because the key is checked first."""
    try:
        body = json.loads(await request.body() or b"{}", parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")

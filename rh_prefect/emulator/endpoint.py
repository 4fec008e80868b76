"""How every route of the API is served: read, authenticate, script faults, handle, refuse in the route's own form."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NoReturn
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute

from rh_prefect.emulator import faults
from rh_prefect.emulator.accounts import ApiKey
from rh_prefect.emulator.auth import Auth
from rh_prefect.emulator.broken_responses import BrokenResponse
from rh_prefect.emulator.faults import Fault, Subject
from rh_prefect.emulator.responses import Envelope, Refused
from rh_prefect.emulator.state import State

NOT_POSITIVE: Final = "must be greater than 0"
"""What an id is told that is not a positive number; measured for a task's and for a workflow's."""

Reads = Literal["json", "form", "nothing"]
"""What a route's request carries; a form is read by its handler, straight to disk."""


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated request.

    Attributes:
        state: The emulator.
        request: The HTTP request.
        key: Whose it is.
        body: Its JSON object; empty where the route reads none.
        fault: What goes wrong with it.
    """

    state: State
    request: Request
    key: ApiKey
    body: dict[str, object]
    fault: Fault | None

    @property
    def endpoint(self) -> str:
        """What is asked, as the recorder call it; see `endpoint_of`."""
        return endpoint_of(self.request)


Handler = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One route of the API.

    Attributes:
        path: Starlette's path.
        handler: Does the work, or raises `Refused`.
        auth: Where the key is, and how its absence is told.
        envelope: The form of a refusal.
        on: What faults call it; None for routes that no fault can be scripted for.
        reads: What the request carries.
        method: GET or POST.
        on_refusal: Told of a request that had no effect, with RunningHub's code or the fault's kind.
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
        """Makes Starlette's route of it."""
        return StarletteRoute(self.path, self._serve, methods=[self.method])

    async def _serve(self, request: Request) -> Response:
        state: State = request.app.state.emulator
        try:
            _check_host(state, request)
            body = await _read_json(request) if self.reads == "json" else {}
            key = self.auth(state.keys, request, body)
            state.rate_limit.count(key.name)
        except Refused as refused:
            return self._refuse(state, refused)
        fault = self._fault(state, request, body)
        response = await self._answer(Call(state, request, key, body, fault))
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
            if fault is not None and fault.kind == "code":
                _refuse_by(call.state, fault)
        except Refused as refused:
            self.on_refusal(call, refused.code)
            response = self._refuse(call.state, refused)
        return response

    def _lose(self, call: Call, fault: Fault) -> Response:
        """Answers a request that is to have no effect; the wire is broken later."""
        if fault.kind == "code":
            _refuse_by(call.state, fault)
        self.on_refusal(call, fault.kind)
        return Response()

    def _refuse(self, state: State, refused: Refused) -> Response:
        return (refused.envelope or self.envelope)(state.assumptions, refused.code, refused.words)


def endpoint_of(request: Request) -> str:
    """Names what a request asks: what comes after `/openapi/v2/`, or the whole path."""
    return str(request.path_params.get("endpoint") or request.url.path.removeprefix("/openapi/v2/"))


def is_positive(value: object) -> bool:
    """Tells whether an id is a positive whole number, as text or as a number."""
    return not isinstance(value, bool) and re.fullmatch(r"0*[1-9][0-9]*", str(value)) is not None


def _check_host(state: State, request: Request) -> None:
    refusal = state.assumptions.wrong_host
    if refusal is not None and request.headers.get("host") != urlsplit(state.url).netloc:
        raise Refused(*refusal)


def _refuse_by(state: State, fault: Fault) -> NoReturn:
    code, words = state.assumptions.too_fast
    if fault.code == words:  # a refusal whose number is not published: a script names it by its words
        raise Refused(code, words)
    raise Refused(fault.code, fault.message)


async def _read_json(request: Request) -> dict[str, object]:
    """Reads the body; what is no JSON object counts as an empty one, so that the key is asked for first."""
    try:
        body = json.loads(await request.body() or b"{}", parse_constant=_no_constant)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")

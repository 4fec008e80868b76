"""The API as an ASGI application: all routes, the recording of requests, and the response to an unknown path."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rh_prefect.emulator import auth, progress, responses
from rh_prefect.emulator.broken_responses import is_closing
from rh_prefect.emulator.recorder import Recorder
from rh_prefect.emulator.responses import Refused
from rh_prefect.emulator.routes import account, assets, control, graphs, models, native_proxy, tasks, uploads
from rh_prefect.emulator.state import State
from rh_prefect.errors import InputError

# The catch-all route of the models must be the last.
_ENDPOINTS = (
    *tasks.ENDPOINTS,
    *graphs.ENDPOINTS,
    *uploads.ENDPOINTS,
    *account.ENDPOINTS,
    *assets.ENDPOINTS,
    *models.ENDPOINTS,
)


def api_app(state: State) -> Starlette:
    """Creates the application."""
    app = Starlette(
        routes=[
            *control.ROUTES,
            *native_proxy.ROUTES,
            *progress.ROUTES,
            *(endpoint.route() for endpoint in _ENDPOINTS),
        ],
        middleware=[Middleware(RequestLog, state=state)],
        exception_handlers={HTTPException: _no_route, InputError: _bad_control},
    )
    app.state.emulator = state
    return app


class RequestLog:
    """Records every request to the API, except those to the emulator's own routes."""

    def __init__(self, app: ASGIApp, *, state: State) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request and records the status of its response."""
        if scope["type"] != "http" or scope["path"].startswith("/_emulator"):
            await self._app(scope, receive, send)
            return
        recorder: Recorder = self._state.recorder
        number = recorder.add_request(scope["method"], scope["path"], at=self._state.clock.now())

        async def log_status(message: Message) -> None:
            if message["type"] == "http.response.start" and not is_closing(scope):
                recorder.update_request(number, message["status"])
            await send(message)

        try:
            await self._app(scope, receive, log_status)
        except ClientDisconnect:
            return  # disconnected in the middle of its request: there is no one to respond to


async def _no_route(request: Request, error: Exception) -> Response:
    """Responds to an unknown path or method: v2 has codes for these errors; other misspelt paths get 412."""
    state: State = request.app.state.emulator
    if not request.url.path.startswith("/openapi/v2/"):
        return responses.bare(state.assumptions, *state.assumptions.v1_no_route)
    try:
        auth.bearer(state.keys, request, {})
    except Refused as refused:
        return responses.bare(state.assumptions, refused.code, refused.words)
    is_method = isinstance(error, HTTPException) and error.status_code == 405
    return responses.v2(state.assumptions, "1009" if is_method else "1001", "")


async def _bad_control(request: Request, error: Exception) -> Response:  # noqa: ARG001 - Starlette's signature
    return JSONResponse({"error": str(error)}, status_code=400)

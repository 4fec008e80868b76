"""The API as an ASGI application: all routes, the log of requests, and what an unknown path is told."""

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
from rh_prefect.emulator.routes import account, assets, control, graphs, models, proxy, tasks, uploads
from rh_prefect.emulator.state import State
from rh_prefect.errors import InputError

# The models' catch-all comes last.
_ENDPOINTS = (
    *tasks.ENDPOINTS,
    *graphs.ENDPOINTS,
    *uploads.ENDPOINTS,
    *account.ENDPOINTS,
    *assets.ENDPOINTS,
    *models.ENDPOINTS,
)


def api_app(state: State) -> Starlette:
    """Makes the application.

    Args:
        state: What the routes work on.
    """
    app = Starlette(
        routes=[*control.ROUTES, *proxy.ROUTES, *progress.ROUTES, *(endpoint.route() for endpoint in _ENDPOINTS)],
        middleware=[Middleware(RequestLog, state=state)],
        exception_handlers={HTTPException: _no_route, InputError: _bad_control},
    )
    app.state.emulator = state
    return app


class RequestLog:
    """Writes every request of the API into the recorder; the emulator's own routes are not in them."""

    def __init__(self, app: ASGIApp, *, state: State) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, with its answer's status written down."""
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
            return  # killed in the middle of its request: nothing to answer


async def _no_route(request: Request, error: Exception) -> Response:
    """Answers a path or method that does not exist: v2 has codes for it, elsewhere a misspelt path gives 412."""
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

"""The webhook receiver: an ASGI application, and a server that limits connections and logs no URLs.

The receiver responds at once and verifies deliveries afterwards. A request without the token gets status 404. Webhooks
are not signed, so the receiver uses only the task id in a body; see `delivery_confirmation`. URLs contain the token.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from operator import itemgetter
from typing import Any, Final

import uvicorn
from prefect.settings import PREFECT_API_URL
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from rh_prefect.client import read_delivery
from rh_prefect.errors import ConfigError
from rh_prefect.flow_runs.suspended_run_resumer import SuspendedRunResumer
from rh_prefect.gallery.server import listen
from rh_prefect.prefect_internals import drain
from rh_prefect.settings import get_settings
from rh_prefect.webhook.delivery_confirmation import Confirmer, Delivery
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.work_in_progress import usable_token

LARGEST_BODY: Final = 1024 * 1024
"""Maximum bytes of a body; a delivery with a hundred outputs needs less than a tenth of this size."""

BODY_SECONDS: Final = 15.0
"""Maximum seconds for receiving a body."""

_SCOPE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_KEY: Final = re.compile(r"[a-z0-9]{1,64}")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,5}")
_log = logging.getLogger("rh_prefect")


def create_app(
    *, token: SecretStr | None = None, confirmer: Confirmer | None = None, resumer: SuspendedRunResumer | None = None
) -> Starlette:
    """Creates the receiver, to be served alone or mounted in another web service.

    uvicorn --factory rh_prefect.webhook:create_app
    """
    secret = token or get_settings().webhook_token
    if secret is None:
        raise ConfigError(
            "The receiver needs a token. What to do: set RH_WEBHOOK_TOKEN, or run `rh-prefect webhook serve` without "
            "this variable, which generates and shows a token."
        )
    watch = resumer or SuspendedRunResumer()
    receiver = _Receiver(usable_token(secret), confirmer or Confirmer(on_end=watch.notify), watch)
    hook = Route("/hook/{token}/{scope}/{key}/{n}", receiver.receive, methods=["POST"])
    routes = [hook, Route("/health", _health, methods=["GET"])]
    return Starlette(routes=routes, middleware=[Middleware(_Unlogged)], lifespan=receiver.watching)


async def _health(_: Request) -> Response:
    return PlainTextResponse("ok")


class _Unlogged:
    """Masks the path of each HTTP request, which contains the token, in the server's access log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        inner = dict(scope)
        if scope["type"] == "http":
            scope["path"] = "/hook/***"
            scope["raw_path"] = b"/hook/***"
        await self._app(inner, receive, send)


class _Receiver:
    """Checks the token and the body of each request, and passes the delivery to the `Confirmer`."""

    def __init__(self, token: SecretStr, confirmer: Confirmer, resumer: SuspendedRunResumer) -> None:
        self._token = token.get_secret_value().encode()
        self._confirmer = confirmer
        self._resumer = resumer

    @asynccontextmanager
    async def watching(self, _: Starlette) -> AsyncIterator[None]:
        """Checks suspended runs from the start, because webhooks may have been sent while no receiver was running."""
        self._resumer.start()
        try:
            yield
        finally:
            await LOOP.call(self._resumer.close())

    async def receive(self, request: Request) -> Response:
        """Responds to one delivery; RunningHub sends the delivery again unless the status is 2xx."""
        delivery = await self._read(request)
        self._resumer.start()
        if not self._confirmer.accept(delivery):
            raise HTTPException(503, headers={"Retry-After": "60"})
        return PlainTextResponse("noted")

    async def _read(self, request: Request) -> Delivery:
        place = request.path_params
        token = str(place["token"]).encode("utf-8", "surrogatepass")
        if not secrets.compare_digest(token, self._token) or not _is_place(place):
            raise HTTPException(404)
        body = await _body(request)
        delivery = read_delivery(body)
        if delivery is None:
            # The content is not logged.
            _log.warning("a webhook's body of %d bytes contains no task id and is ignored", len(body))
            raise HTTPException(400)
        return Delivery(place["scope"], place["key"], int(place["n"]), delivery.task_id)


def _is_place(place: Mapping[str, str]) -> bool:
    return bool(_SCOPE.fullmatch(place["scope"]) and _KEY.fullmatch(place["key"]) and _NUMBER.fullmatch(place["n"]))


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > LARGEST_BODY:
                    raise HTTPException(413)
    except TimeoutError:
        raise HTTPException(408) from None
    except ClientDisconnect:
        raise HTTPException(400) from None
    return bytes(body)


HEAD_SECONDS: Final = 10.0
"""Maximum seconds for receiving the head of a request, counted from the connection or the previous answer."""

MOST_WAITING: Final = 500
"""Maximum number of connections without a request; a further connection closes the oldest one."""


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 with a limit on the time and the number of connections without a request.

    uvicorn limits only the time between two requests. Its own limit on connections would refuse new requests, so a few
    hundred idle connections would block the receiver.
    """

    head_seconds = HEAD_SECONDS
    most_waiting = MOST_WAITING

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.deadline: asyncio.TimerHandle | None = None
        """The end of the connection if no request comes; None while a request is in progress."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Accepts a connection; closes the oldest idle one if there are too many."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > self.most_waiting:
            ours = [one for one in self.connections if isinstance(one, BoundedProtocol)]
            waiting = [(one.deadline.when(), one) for one in ours if one.deadline is not None]
            if len(waiting) > self.most_waiting:
                min(waiting, key=itemgetter(0))[1].close()

    def data_received(self, data: bytes) -> None:
        """Receives a part of a request; an incomplete header does not extend the deadline."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """Starts to wait for the next request."""
        super().on_response_complete()
        if (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing():
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Removes the connection from the list of open connections."""
        self._stop_waiting()
        super().connection_lost(exc)

    def close(self) -> None:
        """Closes the connection at once."""
        self.connections.discard(self)
        self.transport.abort()

    def _wait(self) -> None:
        self._stop_waiting()
        self.deadline = self.loop.call_later(self.head_seconds, self.close)

    def _stop_waiting(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None


def serve(on_ready: Callable[[str], object], *, host: str, port: int, token: SecretStr | None = None) -> None:
    """Serves in the foreground until SIGINT or SIGTERM; call it from the main thread."""
    config = uvicorn.Config(
        create_app(token=token),
        access_log=False,
        log_config=None,
        lifespan="on",
        server_header=False,
        http=BoundedProtocol,
        ws="none",
    )
    with listen(host, port, what="webhook serve") as listener:
        # The socket listens already: requests that arrive before the server runs are queued.
        on_ready(f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}")
        try:
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            # Without an API nothing was sent, and draining would start a throw-away Prefect server.
            if PREFECT_API_URL.value():
                asyncio.run(drain())

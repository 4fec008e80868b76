"""Serves applications with uvicorn in a thread, and stops at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from rh_prefect.emulator.broken_responses import TRANSPORT
from rh_prefect.errors import ConfigError

_KEEP_ALIVE = 75
"""Seconds for which idle connections are kept: longer than any client keeps one, so that no request is cut."""


class _Protocol(H11Protocol):
    """Puts each connection's transport into the scope's state, so that a fault can close the connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, TRANSPORT: transport}
        self.access_log = False


class _Server(uvicorn.Server):
    """A server that stops without waiting for its clients."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(
            uvicorn.Config(
                self._silently(app),
                http=_Protocol,
                ws="rh_prefect.emulator.server:QuietSockets",
                lifespan="off",
                log_config=None,
                timeout_keep_alive=_KEEP_ALIVE,
            )
        )
        self.stopping = asyncio.Event()

    def _silently(self, app: ASGIApp) -> ASGIApp:
        """Suppresses the errors of requests that the shutdown cancels."""

        async def run(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await app(scope, receive, send)
            except asyncio.CancelledError:
                if not self.stopping.is_set():
                    raise

        return run

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to the process."""
        yield

    async def main_loop(self) -> None:
        """Waits until the server stops."""
        await self.stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Closes every connection and cancels every request."""
        for server in self.servers:
            server.close()
        for held in sockets or ():
            held.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # the connections close before their requests are cancelled
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def listen(host: str, port: int) -> socket.socket:
    """Opens a socket to serve on; raises `ConfigError` for a port that is taken, or another machine's address."""
    # With the protocol named, asyncio switches Nagle's algorithm off, which costs 40 ms an answer.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(2048)
    except (OSError, OverflowError) as error:
        bound.close()
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"Cannot listen on {host}:{port}: {reason}. What to do: choose another port, or 0, and an address of this "
            "machine."
        ) from error
    bound.setblocking(False)
    return bound


def address(bound: socket.socket) -> str:
    """Returns a socket's address as a URL."""
    host, port = bound.getsockname()[:2]
    return f"http://{host}:{port}"


class ServerThread:
    """Serves applications from a thread.

    Args:
        apps: Each application with its socket; the sockets are closed at the end.
        beside: Coroutines that run in the same event loop until the end.
    """

    def __init__(
        self,
        apps: Sequence[tuple[ASGIApp, socket.socket]],
        *,
        beside: Sequence[Callable[[], Coroutine[object, object, None]]] = (),
    ) -> None:
        self._apps = apps
        self._beside = beside
        self._ready = threading.Event()
        self._servers: list[_Server] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="rh-emulator", daemon=True)

    def start(self) -> None:
        """Starts serving and returns when the server is ready."""
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """Cancels every request and waits for the thread."""
        if self._loop is not None:
            for server in self._servers:
                self._loop.call_soon_threadsafe(server.stopping.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._servers = [_Server(app) for app, _ in self._apps]
        serving = [server.serve(sockets=[bound]) for server, (_, bound) in zip(self._servers, self._apps)]
        beside = [asyncio.create_task(run()) for run in self._beside]
        self._ready.set()  # the sockets listen already: a request waits until the servers take it
        await asyncio.gather(*serving)
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)


_log = logging.getLogger(__name__)
_log.setLevel(logging.WARNING)


class QuietSockets(WebSocketsSansIOProtocol):
    """uvicorn's protocol without access logs: addresses contain keys and tickets."""

    def __init__(self, *args: Any, **options: Any) -> None:  # uvicorn's arguments
        super().__init__(*args, **options)
        self.logger = _log
        self.conn.logger = _log
        self.conn.debug = False

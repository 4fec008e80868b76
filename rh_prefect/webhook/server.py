"""Serves the receiver with uvicorn: limited connections, and no log of URLs, which contain the token."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final

import uvicorn
from prefect.settings import PREFECT_API_URL
from pydantic import SecretStr
from uvicorn.protocols.http.h11_impl import H11Protocol

from rh_prefect.errors import ConfigError
from rh_prefect.flow_runs.prefect_internals import drain
from rh_prefect.webhook.app import create_app

HEAD_SECONDS: Final = 10.0
"""How long the head of a request may take to arrive, from the connection or from the answer before it."""

MOST_WAITING: Final = 500
"""Connections that have sent no request yet; for a further one, the oldest of these is closed."""


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 with a limit on the time and the number of connections without a request.

    uvicorn limits the time between two requests only, and refuses requests where there are many connections, whatever
    these do. So a few hundred silent ones would shut the receiver.
    """

    head_seconds = HEAD_SECONDS
    most_waiting = MOST_WAITING

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.waits_since = 0.0
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether it has no request to be answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Accepts a connection; closes the oldest idle one if there are too many."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > self.most_waiting:
            waiting = [one for one in self.connections if isinstance(one, BoundedProtocol) and one.is_waiting]
            if len(waiting) > self.most_waiting:
                min(waiting, key=lambda one: one.waits_since).close()

    def data_received(self, data: bytes) -> None:
        """Takes a piece of a request; what is not a whole head leaves the deadline as it is."""
        super().data_received(data)
        if not self.is_waiting:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """Waits for the next request."""
        super().on_response_complete()
        if self.is_waiting and not self.transport.is_closing():
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def close(self) -> None:
        """Closes the connection at once."""
        self.connections.discard(self)
        self.transport.abort()

    def _wait(self) -> None:
        self._stop_waiting()
        self.waits_since = self.loop.time()
        self._deadline = self.loop.call_later(self.head_seconds, self.close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def serve(on_ready: Callable[[str], object], *, host: str, port: int, token: SecretStr | None = None) -> None:
    """Serves in the foreground until SIGINT or SIGTERM; call it from the main thread.

    Args:
        on_ready: Called once with the receiver's own address, when deliveries are taken.
        host: The address to serve on.
        port: The port; 0 takes a free one.
        token: The secret part of the address; by default RH_WEBHOOK_TOKEN.

    Raises:
        ConfigError: The port is in use, or the token is missing or too short.
    """
    config = uvicorn.Config(
        create_app(token=token),
        access_log=False,
        log_config=None,
        lifespan="on",
        server_header=False,
        http=BoundedProtocol,
        ws="none",
    )
    with _listen(host, port) as listener:
        # The socket listens already: what comes before the server runs waits in line.
        on_ready(f"http://{host}:{listener.getsockname()[1]}")
        try:
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            # Without an API nothing was sent, and draining would start a throw-away server for itself.
            if PREFECT_API_URL.value():
                asyncio.run(drain())


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=512)
    except OSError as error:
        raise ConfigError(
            f"The receiver cannot listen on {host}:{port}: {error.strerror or error}. What to do: name another --port, "
            "or end what listens there."
        ) from error

"""Serves the receiver with uvicorn. Nothing logs an address: the token is in it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import uvicorn
from prefect.settings import PREFECT_API_URL
from pydantic import SecretStr

from rh_prefect.errors import ConfigError
from rh_prefect.flow_runs.prefect_internals import drain
from rh_prefect.webhook.app import create_app
from rh_prefect.webhook.connections import BoundedProtocol


def serve(on_ready: Callable[[str], object], *, host: str, port: int, token: SecretStr | None = None) -> None:
    """Serves in the foreground until SIGINT or SIGTERM; call it from the main thread.

    Args:
        on_ready: Called once with the receiver's own address, when deliveries are taken.
        host: The address to serve on.
        port: The port; 0 takes a free one.
        token: The secret part of the address; by default RH_WEBHOOK_TOKEN.

    Raises:
        ConfigError: The port is taken, or there is no usable token.
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

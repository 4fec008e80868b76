"""Serves a gallery on this machine, for browsers that do not open local files."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from rh_prefect.errors import ConfigError
from rh_prefect.gallery.entries import Entry
from rh_prefect.media.store import MediaStore

HOST = "127.0.0.1"


def app_of(store: MediaStore, pages: Sequence[str], entries: Sequence[Entry]) -> Starlette:
    """Returns the web application: the pages and the files that they show, but no other file of the storage."""
    shown = {*pages, *(one.file.uri for one in entries if one.file is not None)}

    def answer(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in shown or not store.exists(name):
            return PlainTextResponse("There is no such output.", status_code=404)
        if store.protocol == "file":
            return FileResponse(Path(store.uri(name)))
        return Response(store.read_bytes(name), media_type="text/html")  # the pages of an object store link to it

    def first(_: Request) -> Response:
        return RedirectResponse(f"/{pages[0]}")

    # Otherwise another site could read the files, by a host name that it resolves to this address.
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    return Starlette(routes=[Route("/", first), Route("/{name:path}", answer)], middleware=[hosts])


def serve(app: Starlette, announce: Callable[[str], None], *, port: int) -> None:
    """Serves the web application to browsers on this machine until Ctrl-C; calls `announce` with the address."""
    with listen(HOST, port, what="gallery") as listening:
        announce(f"http://{HOST}:{listening.getsockname()[1]}/")
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


def listen(host: str, port: int, *, what: str) -> socket.socket:
    """Returns a listening socket; raises `ConfigError`, which names `what` has to listen, if it cannot."""
    try:
        return socket.create_server(
            (host, port),
            family=socket.AF_INET6 if ":" in host else socket.AF_INET,
            backlog=512,
            dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        advice = "check --host, which must be an address of this machine"
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            advice = "choose another --port, or stop the process that uses this port"
        raise ConfigError(
            f"{what}: cannot listen on {host}:{port}: {error.strerror or error}. What to do: {advice}."
        ) from error

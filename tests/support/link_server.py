"""A file host for inputs: links that differ in a token, that give other bytes each time, that refuse HEAD."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.support import samples

_SIZE = (64, 48)


def picture(name: str) -> bytes:
    """A picture of its own for each name; a long text would not fit into it."""
    return samples.picture("PNG", _SIZE, sha256(name.encode())[:6])


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class LinkServer:
    """Serves a picture for each path and query.

    Attributes:
        url: Its address.
    """

    def __init__(self) -> None:
        self._reads = itertools.count()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self._content))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Stops serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def token(self, name: str) -> tuple[str, str]:
        """A link whose token names the file, and the hash of what it gives."""
        return f"{self.url}/photo.png?token={name}", sha256(picture(f"token={name}"))

    def varying(self, name: str) -> tuple[str, str]:
        """A link that gives other bytes at each read."""
        return f"{self.url}/varying.png?photo={name}", ""

    def without_head(self, name: str) -> tuple[str, str]:
        """A link that refuses HEAD, and the hash of what it gives."""
        return f"{self.url}/no-head.png?photo={name}", sha256(picture(f"photo={name}"))

    def _content(self, path: str) -> bytes:
        asked = urlsplit(path)
        read = next(self._reads)
        return picture(f"{asked.query} {read}" if asked.path == "/varying.png" else asked.query)


def _handler(content: Callable[[str], bytes]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            if self.path.startswith("/no-head.png"):
                self.send_error(403)
            else:
                self._head(content(self.path))

        def do_GET(self) -> None:
            body = content(self.path)
            self._head(body)
            self.wfile.write(body)

        def _head(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base
            """Says nothing."""

    return Handler


@contextmanager
def link_server() -> Iterator[LinkServer]:
    """Serves for the length of a `with` block."""
    server = LinkServer()
    try:
        yield server
    finally:
        server.close()

"""HTTP servers in threads of this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Answers requests with a subclass's methods `get`, `post`…, others with 405; `get` answers HEAD, too."""

    def _dispatch(self) -> None:
        name = self.command.lower()
        if name == "head" and not hasattr(self, name):
            name = "get"
        getattr(self, name, partial(self.answer, 405))()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _dispatch  # noqa: N815 - as the standard library has them

    def answer(self, status: int, body: bytes = b"", **headers: object) -> None:
        """Sends a whole answer; an underscore in a header's name stands for a hyphen. Empty headers are left out."""
        self.send_response(status)
        for name, value in {"Content_Length": len(body), **headers}.items():
            if value != "":
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], server: HTTPServer | None = None) -> Iterator[str]:
    """Runs a server, by default of this machine only; gives its address."""
    running = server or ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_address[1]}"
    finally:
        running.shutdown()
        running.server_close()
        thread.join()

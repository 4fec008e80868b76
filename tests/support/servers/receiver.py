"""A receiver of webhooks for tests of the emulator."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.servers.caller import Json


class Receiver:
    """A real receiver: keeps what it gets, and answers as it is told."""

    def __init__(self) -> None:
        self.got: list[Json] = []
        self.answers: list[int] = []
        self.delay = 0.0
        self._closed = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append(json.loads(body))
                receiver._closed.wait(receiver.delay)
                with contextlib.suppress(OSError):  # the sender may have given up
                    self.send_response(receiver.answers.pop(0) if receiver.answers else 200)
                    self.end_headers()
                    self.wfile.write(b"noted")

            def log_message(self, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        self.server.shutdown()
        self.server.server_close()

"""A small S3 server whose conditional writes are wrong under a race, or answer "409 try again" once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"


class RacingS3:
    """Objects of one server.

    Args:
        winners: How many conditional writes of one key that are under way at once succeed.
        conflicts: How many of the first conditional writes of each key are answered with 409.

    Attributes:
        url: Its address.
        objects: The content by path.
        writes: How many conditional writes each path had.
    """

    def __init__(self, *, winners: int = 1, conflicts: int = 0) -> None:
        self.winners, self.conflicts = winners, conflicts
        self.url = ""
        self.objects: dict[str, bytes] = {}
        self.writes: Counter[str] = Counter()
        self._won: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def options(self) -> dict[str, Any]:
        """fsspec's storage options."""
        checksums = {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
        config = {**checksums, "retries": {"max_attempts": 1}}
        return {"key": "id", "secret": "secret", "endpoint_url": self.url, "config_kwargs": config}

    def put(self, path: str, data: bytes, *, is_conditional: bool) -> tuple[int, str]:
        if not is_conditional:
            self.objects[path] = data
            return 200, ""
        with self._lock:
            self.writes[path] += 1
            if self.writes[path] <= self.conflicts:
                return 409, "ConditionalRequestConflict"
            if path in self.objects:  # a later write is always refused
                return 412, "PreconditionFailed"
        time.sleep(0.1)  # the others come meanwhile
        with self._lock:
            if self._won[path] == self.winners:
                return 412, "PreconditionFailed"
            self._won[path] += 1
            self.objects[path] = data
        return 200, ""


@contextmanager
def racing_s3(**behaviour: int) -> Iterator[RacingS3]:
    """Runs a server; see `RacingS3`."""
    s3 = RacingS3(**behaviour)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, code = s3.put(self.path, data, is_conditional="If-None-Match" in self.headers)
            self._answer(status, code)

        def do_GET(self) -> None:
            data = s3.objects.get(self.path)
            self._answer(200 if data is not None else 404, "" if data is not None else "NoSuchKey", data or b"")

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_DELETE(self) -> None:
            s3.objects.pop(self.path, None)
            self._answer(204, "")

        def _answer(self, status: int, code: str, data: bytes = b"") -> None:
            body = _ERROR.format(code=code).encode() if code else data
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", '"0"')
            self.send_header("Last-Modified", "Sun, 29 Nov 2026 12:00:00 GMT")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    s3.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield s3
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

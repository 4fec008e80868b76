"""What the tests of the media room share: stores of three kinds, and a web server to read from."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from rh_prefect.media.store import MediaStore
from tests.support.samples import media as samples


@pytest.fixture(params=["file", "memory", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> MediaStore:
    """An empty store, of each kind in turn."""
    if request.param == "file":
        return MediaStore(tmp_path / "out")
    if request.param == "memory":
        return MediaStore(f"memory://{uuid.uuid4().hex}/out")
    server = request.getfixturevalue("s3")
    return MediaStore(server.url("out"), options=server.options)


class _Web(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        self.etag = unquote(query.removeprefix("etag=")) if query.startswith("etag=") else ""
        if path == "/turn":
            self._answer(302, b"", location="/photo.png")
        elif path.startswith("/status/"):
            self._answer(int(path.rpartition("/")[2]), b"no")
        elif path == "/empty":
            self._answer(200, b"")
        elif path == "/cut":
            self._answer(200, b"half", length=1000)
        elif path == "/drip":
            self._drip()
        elif self.etag and self.headers["Range"] == "bytes=0-0":
            picture = samples.picture("PNG")
            self._answer(206, picture[:1], content_range=f"bytes 0-0/{len(picture)}")
        else:
            self._answer(200, samples.picture("PNG"))

    def _drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):  # the reader gives up
            for _ in range(600):
                self.wfile.write(b"x")
                time.sleep(0.05)

    def _answer(
        self, status: int, body: bytes, *, location: str = "", length: int | None = None, content_range: str = ""
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        if self.etag:
            self.send_header("ETag", self.etag)
        if content_range:
            self.send_header("Content-Range", content_range)
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def web() -> Iterator[str]:
    """The address of a web server: a picture under any name, and the paths of `_Web` that go wrong."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Web)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()

"""What the tests of the media room share: stores of three kinds, and a web server to read from."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

import pytest

from rh_prefect.media.store import MediaStore
from tests.support.samples import media as samples
from tests.support.servers.http_server import Handler, serving


@pytest.fixture(params=["file", "memory", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> MediaStore:
    """An empty store, of each kind in turn."""
    if request.param == "file":
        return MediaStore(tmp_path / "out")
    if request.param == "memory":
        return MediaStore(f"memory://{uuid.uuid4().hex}/out")
    server = request.getfixturevalue("s3")
    return MediaStore(server.url("out"), options=server.options)


class _Web(Handler):
    def get(self) -> None:
        path, _, query = self.path.partition("?")
        etag = unquote(query.removeprefix("etag=")) if query.startswith("etag=") else ""
        picture = samples.picture("PNG")
        if path == "/turn":
            self.answer(302, Location="/photo.png")
        elif path.startswith("/status/"):
            self.answer(int(path.rpartition("/")[2]), b"no")
        elif path == "/empty":
            self.answer(200)
        elif path == "/cut":
            self.answer(200, b"half", Content_Length=1000)
        elif path == "/drip":
            self._drip()
        elif etag and self.headers["Range"] == "bytes=0-0":
            self.answer(206, picture[:1], ETag=etag, Content_Range=f"bytes 0-0/{len(picture)}")
        else:
            self.answer(200, picture, ETag=etag)

    def _drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):  # the reader gives up
            for _ in range(600):
                self.wfile.write(b"x")
                time.sleep(0.05)


@pytest.fixture(scope="session")
def web() -> Iterator[str]:
    """The address of a web server: a picture under any name, and the paths of `_Web` that go wrong."""
    with serving(_Web) as url:
        yield url

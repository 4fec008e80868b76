"""Hosts of links for tests: contents that can change, requests that are counted, and links that differ in a token."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.samples import media as samples


@dataclass
class LinkHost:
    """What the host serves.

    Attributes:
        url: Its address.
        files: The content by path and query, and its ETag as it is sent; without an ETag none is sent.
        makers: In place of a fixed content: makes it anew for each whole reading.
        reads: Whole readings, by path and query, in order.
        looks: Requests for the first byte.
        most_at_once: How many whole readings of any one link were under way together.
    """

    url: str = ""
    files: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    makers: dict[str, Callable[[], bytes]] = field(default_factory=dict)
    reads: list[str] = field(default_factory=list)
    looks: list[str] = field(default_factory=list)
    most_at_once: int = 0

    def put(self, name: str, content: bytes, *, etag: str = "") -> str:
        """Puts a content under a name with its query; returns the link."""
        self.files[f"/{name}"] = (content, etag)
        return f"{self.url}/{name}"

    def make(self, name: str, maker: Callable[[], bytes]) -> str:
        """Makes the content of a link anew at each reading, without an ETag."""
        self.makers[f"/{name}"] = maker
        return f"{self.url}/{name}"

    def drop(self, name: str) -> None:
        """Lets a link die."""
        del self.files[f"/{name}"]


@pytest.fixture
def links() -> Iterator[LinkHost]:
    """A host of links, empty."""
    host = LinkHost()
    under_way: dict[str, int] = {}
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(403, b"")

        def do_GET(self) -> None:
            if self.path not in host.files and self.path not in host.makers:
                self._answer(404, b"no")
            elif self.headers["Range"] == "bytes=0-0":
                host.looks.append(self.path)
                content, etag = host.files.get(self.path) or (host.makers[self.path](), "")
                self._answer(206, content[:1], etag, content_range=f"bytes 0-0/{len(content)}")
            else:
                self._whole()

        def _whole(self) -> None:
            with lock:
                host.reads.append(self.path)
                under_way[self.path] = under_way.get(self.path, 0) + 1
                host.most_at_once = max(host.most_at_once, under_way[self.path])
            content, etag = host.files.get(self.path) or (host.makers[self.path](), "")
            self._answer(200, content, etag)
            with lock:
                under_way[self.path] -= 1

        def _answer(self, status: int, body: bytes, etag: str = "", *, content_range: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if etag:
                self.send_header("ETag", etag)
            if content_range:
                self.send_header("Content-Range", content_range)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    host.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield host
    server.shutdown()
    server.server_close()
    thread.join()


_SIZE = (64, 48)


def picture(name: str) -> bytes:
    """A different picture for each name; a long text would not fit into it."""
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

"""A host of links for tests: contents that can change, and requests that are counted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from tests.support.samples import media as samples
from tests.support.servers.http_server import Handler, serving


@dataclass
class LinkHost:
    """What the host serves, by path and query."""

    url: str = ""
    files: dict[str, tuple[bytes, str]] = field(default_factory=dict)  # the contents, each with its ETag if it has one
    makers: dict[str, Callable[[], bytes]] = field(default_factory=dict)  # what makes a content for each whole reading
    reads: list[str] = field(default_factory=list)  # whole readings, in order
    busy: int = 0  # how many of the next requests are answered with HTTP 503

    def put(self, name: str, content: bytes, *, etag: str = "") -> str:
        """Puts a content under a name with its query; returns the link."""
        self.files[f"/{name}"] = (content, etag)
        return f"{self.url}/{name}"

    def make(self, name: str, maker: Callable[[], bytes]) -> str:
        """Makes the content of a link anew at each reading, without an ETag."""
        self.makers[f"/{name}"] = maker
        return f"{self.url}/{name}"

    def drop(self, name: str) -> None:
        del self.files[f"/{name}"]


@pytest.fixture
def links() -> Iterator[LinkHost]:
    host = LinkHost()

    class Links(Handler):
        def head(self) -> None:
            self.answer(403)

        def get(self) -> None:
            if host.busy:
                host.busy -= 1
                self.answer(503)
                return
            if self.path not in host.files and self.path not in host.makers:
                self.answer(404, b"no")
                return
            is_whole = self.headers["Range"] != "bytes=0-0"
            if is_whole:
                host.reads.append(self.path)
            content, etag = host.files.get(self.path) or (host.makers[self.path](), "")
            if is_whole:
                self.answer(200, content, ETag=etag)
            else:
                self.answer(206, content[:1], ETag=etag, Content_Range=f"bytes 0-0/{len(content)}")

    with serving(Links) as host.url:
        yield host


def picture(name: str) -> bytes:
    """A different picture for each name; a long text would not fit into it."""
    return samples.picture("PNG", (64, 48), sha256(name.encode())[:6])


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

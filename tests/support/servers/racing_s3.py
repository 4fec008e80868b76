"""A small S3 server whose conditional writes are wrong under a race, or answer "409 try again" once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.servers.http_server import Handler, serving

_ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"


class RacingS3:
    """Objects of one server.

    Args:
        winners: How many conditional writes of one key that are under way at once succeed.
        conflicts: How many of the first conditional writes of each key are answered with 409.
    """

    def __init__(self, *, winners: int = 1, conflicts: int = 0) -> None:
        self.winners, self.conflicts = winners, conflicts
        self.url = ""
        self.objects: dict[str, bytes] = {}  # by path
        self.writes: Counter[str] = Counter()  # how many conditional writes each path had
        self._won: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def options(self) -> dict[str, Any]:
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
    s3 = RacingS3(**behaviour)

    class Objects(Handler):
        protocol_version = "HTTP/1.1"

        def put(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, code = s3.put(self.path, data, is_conditional="If-None-Match" in self.headers)
            self._told(status, code=code)

        def get(self) -> None:
            data = s3.objects.get(self.path)
            self._told(404, code="NoSuchKey") if data is None else self._told(200, data)

        def delete(self) -> None:
            s3.objects.pop(self.path, None)
            self._told(204)

        def _told(self, status: int, data: bytes = b"", *, code: str = "") -> None:
            body = _ERROR.format(code=code).encode() if code else data
            self.answer(status, body, ETag='"0"', Last_Modified="Sun, 29 Nov 2026 12:00:00 GMT")

    with serving(Objects) as s3.url:
        yield s3

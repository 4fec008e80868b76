"""A receiver of webhooks for tests of the emulator."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from tests.support.servers.caller import Json
from tests.support.servers.http_server import Handler, serving


class Receiver:
    """A real receiver: keeps what it gets, and answers as it is told."""

    def __init__(self) -> None:
        self.got: list[Json] = []
        self.answers: list[int] = []
        self.delay = 0.0
        self._closed = threading.Event()
        self._stack = ExitStack()
        receiver = self

        class Hook(Handler):
            def post(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append(json.loads(body))
                receiver._closed.wait(receiver.delay)
                with suppress(OSError):  # the sender may have given up
                    self.answer(receiver.answers.pop(0) if receiver.answers else 200, b"noted")

        self.url = self._stack.enter_context(serving(Hook)) + "/hook"

    def close(self) -> None:
        self._closed.set()
        self._stack.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()

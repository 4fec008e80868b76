"""Connections to the receiver: one that sends no request is closed, and never keeps out one that does."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS: Final = 10.0
"""How long the head of a request may take to arrive, from the connection or from the answer before it."""

MOST_WAITING: Final = 500
"""Connections that have sent no request yet; for a further one, the oldest of these is closed."""


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 with a limit on the time and the number of connections without a request.

    uvicorn limits the time between two requests only, and refuses requests where there are many connections, whatever
    these do. So a few hundred silent ones would shut the receiver.
    """

    head_seconds = HEAD_SECONDS
    most_waiting = MOST_WAITING

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.waits_since = 0.0
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether it has no request to be answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Takes a connection; closes the oldest waiting one where there are too many."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > self.most_waiting:
            waiting = [one for one in self.connections if isinstance(one, BoundedProtocol) and one.is_waiting]
            if len(waiting) > self.most_waiting:
                min(waiting, key=lambda one: one.waits_since).close()

    def data_received(self, data: bytes) -> None:
        """Takes a piece of a request; what is not a whole head leaves the deadline as it is."""
        super().data_received(data)
        if not self.is_waiting:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """Waits for the next request."""
        super().on_response_complete()
        if self.is_waiting and not self.transport.is_closing():
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def close(self) -> None:
        """Closes the connection at once."""
        self.connections.discard(self)
        self.transport.abort()

    def _wait(self) -> None:
        self._stop_waiting()
        self.waits_since = self.loop.time()
        self._deadline = self.loop.call_later(self.head_seconds, self.close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

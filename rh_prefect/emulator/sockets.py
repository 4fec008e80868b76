"""Serves WebSockets without writing their addresses into logs: keys and tickets stand in them."""

from __future__ import annotations

import logging
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

_log = logging.getLogger(__name__)
_log.setLevel(logging.WARNING)


class QuietSockets(WebSocketsSansIOProtocol):
    """The protocol of uvicorn, with a logger that tells of errors only."""

    def __init__(self, *args: Any, **options: Any) -> None:  # whatever uvicorn makes its protocols with
        super().__init__(*args, **options)
        self.logger = _log
        self.conn.logger = _log
        self.conn.debug = False

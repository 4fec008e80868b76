"""A proxy in front of a server that is down, overloaded, slow or forbids requests, from a given request on.

with FaultyProxy(s3.endpoint) as store:
    store.add_fault("^PUT .*/results/", "503")       # from the first one on, until it is repaired
    store.add_fault('"rh-log-.*[0-9a-f]-answer-', "lost", times=1)
    store.clear_faults()
"""

from __future__ import annotations

import asyncio
import re
import threading
from dataclasses import dataclass
from typing import Any, Final, Literal

from tests.support.servers.holding_proxy import Connection, Proxy

Kind = Literal["500", "503", "403", "slow", "cut", "lost", "down"]
"""What happens to a request.

- `500`, `503`, `403`: it is answered so, and goes no further. `slow`: it is answered later.
- `cut`: it is not answered and goes no further. `lost`: it goes through, and its answer is lost.
- `down`: from here on there is nobody, whatever is asked.
"""

SLOW_SECONDS: Final = 0.7
_S3: Final = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>{words}</Message></Error>"
_ANSWERS: Final = {
    "500": ("500 Internal Server Error", _S3.format(code="InternalError", words="We encountered an internal error.")),
    "503": ("503 Service Unavailable", _S3.format(code="SlowDown", words="Please reduce your request rate.")),
    "403": ("403 Forbidden", _S3.format(code="AccessDenied", words="Access Denied.")),
}


@dataclass
class ProxyFault:
    pattern: str
    kind: Kind
    number: int
    times: int | None
    seen: int = 0
    happened: int = 0

    def fits(self, text: str) -> bool:
        """Counts a request; tells whether it happens to this one."""
        if not re.search(self.pattern, text):
            return False
        self.seen += 1
        if self.seen < self.number or (self.times is not None and self.happened >= self.times):
            return False
        self.happened += 1
        return True


class FaultyProxy(Proxy):
    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._lock = threading.Lock()
        self._strikes: list[ProxyFault] = []
        self._is_down = False

    def add_fault(self, pattern: str, kind: Kind, *, number: int = 1, times: int | None = None) -> ProxyFault:
        made = ProxyFault(pattern, kind, number, times)
        with self._lock:
            self._strikes.append(made)
        return made

    def clear_faults(self) -> None:
        with self._lock:
            self._strikes.clear()
            self._is_down = False

    def connection(self, *sides: Any) -> Connection:
        return _Struck(*sides, outage=self)

    def due(self, head: bytes, body: bytes) -> Kind | None:
        text = (head.split(b"\r\n", 1)[0] + b"\n" + body[: 1 << 16]).decode("latin-1")
        with self._lock:
            found = next((add_fault.kind for add_fault in self._strikes if add_fault.fits(text)), None)
            self._is_down = self._is_down or found == "down"
            return "down" if self._is_down else found


class _Struck(Connection):
    def __init__(self, *sides: Any, outage: FaultyProxy) -> None:
        super().__init__(*sides)
        self._outage = outage
        self._loses = False

    async def is_over(self, head: bytes, body: bytes) -> bool:
        match self._outage.due(head, body):
            case "cut" | "down":
                raise ConnectionResetError("struck")
            case "slow":
                await asyncio.sleep(SLOW_SECONDS)
            case "lost":
                self._loses = True
            case "500" | "503" | "403" as status:
                line, page = _ANSWERS[status]
                told = f"HTTP/1.1 {line}\r\nContent-Type: application/xml\r\nContent-Length: {len(page)}\r\n\r\n{page}"
                self.to_client.write(told.encode())
                await self.to_client.drain()
                return True
        return False

    async def is_answered(self) -> None:
        if self._loses:
            raise ConnectionResetError("the answer is lost")

"""A small HTTP/1.1 transport for API calls, built on h11 and asyncio; it uses a fifth of httpcore's CPU time.

Only small requests that may be repeated use it. Paid submissions and files do not.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from typing import Any, Final, TypeAlias, cast

import h11
import httpx

_LARGEST_HEAD: Final = 100 * 1024
_Origin: TypeAlias = "tuple[str, str, int]"


class CallTransport(httpx.AsyncBaseTransport):
    """Sends requests over connections that are kept."""

    def __init__(self, *, verify: ssl.SSLContext, limits: httpx.Limits) -> None:
        self._tls = verify
        self._most = limits.max_keepalive_connections or 0
        self._seconds = limits.keepalive_expiry or 0.0
        self._idle: deque[tuple[_Origin, _Connection, float]] = deque()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request and reads the response; errors are those of httpx."""
        content = await request.aread()
        timeout = request.extensions.get("timeout", {})
        origin = _origin(request.url)
        connection = self._pop_idle(origin)
        if connection is None:
            await _tell(request, "connection.connect_tcp.started")
            connection = await self._open(origin, timeout.get("connect"))
        try:
            await _tell(request, "http11.send_request_headers.started")
            response = await connection.exchange(request, content, timeout.get("read"))
        except BaseException:
            connection.close()
            raise
        self._keep(origin, connection)
        return response

    def _pop_idle(self, origin: _Origin) -> _Connection | None:
        """Removes and returns the most recently used connection; closes connections that are too old."""
        oldest = time.monotonic() - self._seconds
        while self._idle and self._idle[0][2] < oldest:
            self._idle.popleft()[1].close()
        for place in reversed(range(len(self._idle))):
            if self._idle[place][0] == origin:
                connection = self._idle[place][1]
                del self._idle[place]
                if connection.is_usable:
                    return connection
                connection.close()
        return None

    def _keep(self, origin: _Origin, connection: _Connection) -> None:
        if connection.is_usable and self._most:
            self._idle.append((origin, connection, time.monotonic()))
        else:
            connection.close()
        while len(self._idle) > self._most:
            self._idle.popleft()[1].close()

    async def _open(self, origin: _Origin, seconds: float | None) -> _Connection:
        scheme, host, port = origin
        loop, tls = asyncio.get_running_loop(), self._tls if scheme == "https" else None
        try:
            async with asyncio.timeout(seconds):
                _, connection = await loop.create_connection(
                    _Connection, host, port, ssl=tls, happy_eyeballs_delay=0.25
                )
        except TimeoutError as error:
            raise httpx.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error
        return connection

    async def aclose(self) -> None:
        """Closes every connection that is kept."""
        while self._idle:
            self._idle.pop()[1].close()


class _Connection(asyncio.Protocol):
    """One connection, for one request at a time."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LARGEST_HEAD)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self.is_usable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        # Data that arrives without a request, such as an HTTP 408, must not be read as the next response.
        self.is_usable &= self._waiter is not None
        self._receive(data)

    def eof_received(self) -> None:
        self.is_usable = False
        self._receive(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_usable = False
        self._error = exc or self._error
        self._receive(b"")

    def _receive(self, data: bytes) -> None:
        try:
            self._http.receive_data(data)
        except RuntimeError as error:  # data after the end
            self._error = self._error or error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def exchange(self, request: httpx.Request, content: bytes, seconds: float | None) -> httpx.Response:
        """Sends a request and reads the whole response; waits at most `seconds` for the next bytes.

        Raises:
            httpx.TransportError: The connection broke, nothing came in time, or what came is not HTTP.
        """
        try:
            self._write(request, content)
            response, body = await self._read(seconds)
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError(str(error)) from error
        except h11.RemoteProtocolError as error:
            raise httpx.RemoteProtocolError(str(error)) from error
        self.is_usable &= self._begin_next()
        return httpx.Response(response.status_code, headers=response.headers.raw_items(), content=body, request=request)

    def _write(self, request: httpx.Request, content: bytes) -> None:
        head = h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
        events: list[h11.Event] = [head, *([h11.Data(data=content)] if content else []), h11.EndOfMessage()]
        data = b"".join(self._http.send(event) or b"" for event in events)
        if self._transport is None or self._transport.is_closing():
            raise httpx.WriteError("the connection was closed")
        self._transport.write(data)

    async def _read(self, seconds: float | None) -> tuple[h11.Response, bytes]:
        response: h11.Response | None = None
        body = bytearray()
        while True:
            event: Any = self._http.next_event()
            if event is h11.NEED_DATA:
                await self._wait(seconds)
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and response is not None:
                return response, bytes(body)
            elif isinstance(event, h11.ConnectionClosed):
                raise httpx.RemoteProtocolError("Server disconnected without sending a response.")

    async def _wait(self, seconds: float | None) -> None:
        if self._error is not None:
            raise httpx.ReadError(str(self._error)) from self._error
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(seconds):
                await self._waiter
        except TimeoutError as error:
            raise httpx.ReadTimeout(str(error)) from error
        finally:
            self._waiter = None

    def _begin_next(self) -> bool:
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        if self._http.trailing_data[0]:
            return False
        self._http.start_next_cycle()
        return True

    def close(self) -> None:
        """Closes the connection."""
        self.is_usable = False
        if self._transport is not None:
            self._transport.close()


def _origin(url: httpx.URL) -> _Origin:
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


async def _tell(request: httpx.Request, event: str) -> None:
    """Passes an httpcore event to the request's `trace`."""
    trace = request.extensions.get("trace")
    if trace is not None:
        await trace(event, {})

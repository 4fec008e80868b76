"""A small HTTP/1.1 transport for API calls, built on h11 and asyncio.

A call takes 0.45 ms of CPU time; with httpx's own transport and client, it takes 1.0 ms, or 1.7 ms if 16 calls run at
once. Each mixed job of the benchmark makes 8 such calls, so httpx would add 4 ms. Submissions and files use httpx.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any, Final, TypeAlias

import h11
import httpx

_LARGEST_HEAD: Final = 100 * 1024
_PIECE: Final = 64 * 1024
_LARGEST_BODY: Final = 64 * 1024 * 1024
"""Maximum size of the response to an API call, which is held in memory; a download is written to disk, of any size."""

_Origin: TypeAlias = "tuple[str, str, int]"


class CallTransport(httpx.AsyncBaseTransport):
    """Sends requests over persistent connections."""

    def __init__(self, *, verify: ssl.SSLContext, limits: httpx.Limits) -> None:
        self._tls = verify
        self._most = limits.max_keepalive_connections or 0
        self._seconds = limits.keepalive_expiry or 0.0
        self._idle: list[_Connection] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request and reads the response; raises httpx's errors."""
        content = await request.aread()
        timeout = request.extensions.get("timeout", {})
        origin = _origin(request.url)
        connection = await self._pop_idle(origin)
        if connection is None:
            await _tell(request, "connection.connect_tcp.started")
            connection = await self._open(origin, timeout.get("connect"))
        try:
            await _tell(request, "http11.send_request_headers.started")
            response = await connection.exchange(request, content, timeout.get("read"))
        except BaseException:
            connection.close()
            raise
        self._keep(connection)
        return response

    async def _pop_idle(self, origin: _Origin) -> _Connection | None:
        """Removes and returns the most recently used connection; closes connections that are too old."""
        while self._idle and self._idle[0].idle_since < time.monotonic() - self._seconds:
            self._idle.pop(0).close()
        while self._idle:
            connection = self._idle.pop()
            if connection.origin == origin and await connection.is_quiet():
                return connection
            connection.close()  # every API call has the same origin
        return None

    def _keep(self, connection: _Connection) -> None:
        if not connection.begin_next():
            connection.close()
            return
        connection.idle_since = time.monotonic()
        self._idle.append(connection)
        while len(self._idle) > self._most:
            self._idle.pop(0).close()

    async def _open(self, origin: _Origin, seconds: float | None) -> _Connection:
        scheme, host, port = origin
        tls = self._tls if scheme == "https" else None
        try:
            async with asyncio.timeout(seconds):
                reader, writer = await asyncio.open_connection(host, port, ssl=tls, happy_eyeballs_delay=0.25)
        except TimeoutError as error:
            raise httpx.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error
        return _Connection(origin, reader, writer)

    async def aclose(self) -> None:
        """Closes all idle connections."""
        while self._idle:
            self._idle.pop().close()


class _Body(httpx.AsyncByteStream):
    """A body in pieces, so that a compressed one is decompressed only as far as it is read."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._body), _PIECE):
            yield self._body[start : start + _PIECE]


class _Connection:
    """One connection, for one request at a time."""

    def __init__(self, origin: _Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.origin = origin
        self.idle_since = 0.0
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LARGEST_HEAD)

    async def exchange(self, request: httpx.Request, content: bytes, seconds: float | None) -> httpx.Response:
        """Sends a request and reads the whole response; waits at most `seconds` for each part."""
        head = h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
        events: list[h11.Event] = [head, *([h11.Data(data=content)] if content else []), h11.EndOfMessage()]
        try:
            self._writer.write(b"".join(self._http.send(event) or b"" for event in events))
            response, body = await self._read(seconds)
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError(str(error)) from error
        except h11.RemoteProtocolError as error:
            raise httpx.RemoteProtocolError(str(error)) from error
        except TimeoutError as error:
            raise httpx.ReadTimeout(str(error)) from error
        except OSError as error:
            raise httpx.ReadError(str(error)) from error
        headers = response.headers.raw_items()
        return httpx.Response(response.status_code, headers=headers, stream=_Body(body), request=request)

    async def _read(self, seconds: float | None) -> tuple[h11.Response, bytes]:
        response: h11.Response | None = None
        body = bytearray()
        while True:
            event: Any = self._http.next_event()
            if event is h11.NEED_DATA:
                async with asyncio.timeout(seconds):
                    self._http.receive_data(await self._reader.read(_PIECE))
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += event.data
                _check_size(body)
            elif isinstance(event, h11.EndOfMessage) and response is not None:
                return response, bytes(body)
            elif isinstance(event, h11.ConnectionClosed):
                raise httpx.RemoteProtocolError("Server disconnected without sending a response.")

    async def is_quiet(self) -> bool:
        """Returns whether the server has sent nothing, such as HTTP 408, and has not closed since its last response."""
        try:
            async with asyncio.timeout(0):  # only bytes, or an end, that have arrived already are read in time
                await self._reader.read(1)
        except TimeoutError:
            return True
        except OSError:
            pass
        return False

    def begin_next(self) -> bool:
        """Prepares for the next request; returns False if the connection cannot be used again."""
        is_done = self._http.our_state is h11.DONE and self._http.their_state is h11.DONE
        if not is_done or self._http.trailing_data[0]:
            return False
        self._http.start_next_cycle()
        return True

    def close(self) -> None:
        """Closes the connection."""
        self._writer.close()


async def read_body(response: httpx.Response) -> bytes:
    """Reads the body of a response to an API call, and closes the response."""
    body = bytearray()
    try:
        async for piece in response.aiter_bytes():
            body += piece
            _check_size(body)
    finally:
        await response.aclose()
    return bytes(body)


def _check_size(body: bytearray) -> None:
    """Raises an error if the body of a response is too large to be held in memory."""
    if len(body) > _LARGEST_BODY:
        raise httpx.RemoteProtocolError(f"it has more than {_LARGEST_BODY >> 20} MiB")


def _origin(url: httpx.URL) -> _Origin:
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


async def _tell(request: httpx.Request, event: str) -> None:
    """Passes an httpcore event to the request's `trace` callback."""
    trace = request.extensions.get("trace")
    if trace is not None:
        await trace(event, {})

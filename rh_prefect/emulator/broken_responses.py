"""Broken HTTP responses: closed connections, half a body, HTML; and responses that wait until a test releases them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from rh_prefect.emulator.faults import Fault


class HeldResponses:
    """The responses that a fault holds; a test in any thread can count and release them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    @property
    def count(self) -> int:
        """Number of responses that are held now."""
        return len(self._held)

    async def hold(self, seconds: float) -> None:
        """Holds a response until its release, for at most the given number of seconds."""
        event = asyncio.Event()
        with self._changed:
            self._held[event] = asyncio.get_running_loop()
            self._changed.notify_all()
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            pass
        finally:
            with self._changed:
                self._held.pop(event, None)

    def release(self) -> int:
        """Releases the responses that are held now, and returns their number."""
        with self._changed:
            for event, loop in self._held.items():
                loop.call_soon_threadsafe(event.set)
            count = len(self._held)
            self._held.clear()
            return count

    def wait(self, count: int = 1, *, seconds: float = 300.0) -> bool:
        """Blocks until the given number of responses are held.

        Returns:
            Whether the number was reached in time.
        """
        with self._changed:
            return self._changed.wait_for(lambda: len(self._held) >= count, timeout=seconds)


TRANSPORT: Final = "rh_transport"
"""The name of a connection's transport in the scope's state."""

STALL_SECONDS: Final = 600.0
HOLD_SECONDS: Final = 300.0
SLOW_SECONDS: Final = 1.0

_PAGE: Final = "<html><head><title>{title}</title></head><body><center><h1>{title}</h1></center></body></html>"
_TITLES: Final = {
    "429": "429 Too Many Requests",
    "500": "500 Internal Server Error",
    "502": "502 Bad Gateway",
    "503": "503 Service Temporarily Unavailable",
    "504": "504 Gateway Time-out",
}


class BrokenResponse(Response):
    """Sends a response with a fault."""

    def __init__(self, response: Response, fault: Fault, held: HeldResponses) -> None:
        self._response = response
        self._fault = fault
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the response as an ASGI application."""
        fault = self._fault
        match fault.kind:
            case "cut":
                await close_connection(scope, receive)
            case "half":
                await self._send_half(scope, receive, send)
            case "stall":
                await wait_for_disconnect(receive, STALL_SECONDS if fault.seconds is None else fault.seconds)
                await close_connection(scope, receive)
            case "hold":
                seconds = HOLD_SECONDS if fault.seconds is None else fault.seconds
                await _first(self._held.hold(seconds), _gone(receive))
                await self._response(scope, receive, send)
            case "slow":
                await wait_for_disconnect(receive, SLOW_SECONDS if fault.seconds is None else fault.seconds)
                await self._response(scope, receive, send)
            case _:
                await (_page(fault) or self._response)(scope, receive, send)

    async def _send_half(self, scope: Scope, receive: Receive, send: Send) -> None:
        left = 0

        async def send_half(message: Message) -> None:
            nonlocal left
            if message["type"] == "http.response.start":
                left = int(Headers(raw=message["headers"]).get("content-length", "0")) // 2
            else:
                body = message.get("body", b"")[:left]
                left -= len(body)
                message = {**message, "body": body, "more_body": True}
            await send(message)

        await self._response(scope, receive, send_half)
        await close_connection(scope, receive)


def _page(fault: Fault) -> Response | None:
    if fault.kind == "html":
        return HTMLResponse(_PAGE.format(title="Just a moment..."))
    if fault.kind == "empty":
        return PlainTextResponse("")
    if fault.kind in _TITLES:
        return HTMLResponse(_PAGE.format(title=_TITLES[fault.kind]), status_code=int(fault.kind))
    return None


def is_closing(scope: Scope) -> bool:
    """Returns whether the client has disconnected."""
    transport: asyncio.Transport = scope["state"][TRANSPORT]
    return transport.is_closing()


async def close_connection(scope: Scope, receive: Receive) -> None:
    """Closes the connection after the bytes written so far, and waits for the server to notice."""
    transport: asyncio.Transport = scope["state"][TRANSPORT]
    transport.close()
    await wait_for_disconnect(receive, 5.0)


async def wait_for_disconnect(receive: Receive, seconds: float) -> None:
    """Waits for the given seconds, or until the client disconnects."""
    await _first(asyncio.sleep(seconds), _gone(receive))


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _first(*waits: Coroutine[object, object, None]) -> None:
    """Waits for the first of several coroutines and cancels the others."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()

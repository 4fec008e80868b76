"""Breaks an answer on the wire: a cut connection, half a body, a web page instead of JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Final

from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from rh_prefect.emulator.faults import Fault
from rh_prefect.emulator.hold import Gate

TRANSPORT: Final = "rh_transport"
"""Where the server keeps a connection's transport in the scope's state."""

STALL_SECONDS: Final = 600.0
HOLD_SECONDS: Final = 30.0
SLOW_SECONDS: Final = 1.0

_PAGE: Final = "<html><head><title>{title}</title></head><body><center><h1>{title}</h1></center></body></html>"
_TITLES: Final = {
    "429": "429 Too Many Requests",
    "500": "500 Internal Server Error",
    "502": "502 Bad Gateway",
    "503": "503 Service Temporarily Unavailable",
    "504": "504 Gateway Time-out",
}


class Broken(Response):
    """Sends another response, with a fault.

    Args:
        response: What would be answered.
        fault: What happens to it.
        gate: Where held answers wait.
    """

    def __init__(self, response: Response, fault: Fault, gate: Gate) -> None:
        self._response = response
        self._fault = fault
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as an ASGI application."""
        fault = self._fault
        match fault.kind:
            case "cut":
                await hang_up(scope, receive)
            case "half":
                await self._send_half(scope, receive, send)
            case "stall":
                await until_gone(receive, fault.seconds or STALL_SECONDS)
                await hang_up(scope, receive)
            case "hold":
                await _first(self._gate.wait(fault.seconds or HOLD_SECONDS), _gone(receive))
                await self._response(scope, receive, send)
            case "slow":
                await until_gone(receive, SLOW_SECONDS if fault.seconds is None else fault.seconds)
                await self._response(scope, receive, send)
            case _:
                await (_page(fault) or self._response)(scope, receive, send)

    async def _send_half(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_half(message: Message) -> None:
            if message["type"] == "http.response.body":
                body = message.get("body", b"")
                message = {**message, "body": body[: len(body) // 2], "more_body": True}
            await send(message)

        await self._response(scope, receive, send_half)
        await hang_up(scope, receive)


def _page(fault: Fault) -> Response | None:
    if fault.kind == "html":
        return HTMLResponse(_PAGE.format(title="Just a moment..."))
    if fault.kind == "empty":
        return PlainTextResponse("")
    if fault.kind in _TITLES:
        return HTMLResponse(_PAGE.format(title=_TITLES[fault.kind]), status_code=int(fault.kind))
    return None


def is_closing(scope: Scope) -> bool:
    """Tells whether the client has gone."""
    transport: asyncio.Transport = scope["state"][TRANSPORT]
    return transport.is_closing()


async def hang_up(scope: Scope, receive: Receive) -> None:
    """Ends the connection after what was written so far, and waits until the server has noticed."""
    transport: asyncio.Transport = scope["state"][TRANSPORT]
    transport.close()
    await until_gone(receive, 5.0)


async def until_gone(receive: Receive, seconds: float) -> None:
    """Waits so long, or until the client has gone."""
    await _first(asyncio.sleep(seconds), _gone(receive))


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _first(*waits: Coroutine[object, object, None]) -> None:
    """Waits for the first of some coroutines, and ends the others."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()

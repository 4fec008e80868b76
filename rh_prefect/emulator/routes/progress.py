"""Progress over WebSocket: at `netWssUrl`, and at the native proxy's `/ws`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Final

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from rh_prefect.emulator.progress import Send
from rh_prefect.emulator.routes.proxy import key_of
from rh_prefect.emulator.state import State

_LOOK_SECONDS: Final = 0.02
_REFUSED: Final = 1008
_DROPPED: Final = 1011


async def watch(socket: WebSocket) -> None:
    """Plays the frames of the task that the ticket opens, then closes."""
    state: State = socket.app.state.emulator
    task = state.progress.find(socket.query_params.get("Rh-Comfy-Auth", ""))
    if task is None:
        await socket.close(_REFUSED)
        return
    await socket.accept()

    async def play() -> None:
        whole = await state.progress.play(task, _sender(socket))
        await socket.close(1000 if whole else _DROPPED)

    await _until_gone(socket, play())


async def proxied(socket: WebSocket) -> None:
    """Plays the frames of every prompt of a client, one after the other, until it goes."""
    state: State = socket.app.state.emulator
    key, client_id = key_of(socket), socket.query_params.get("clientId", "")
    if key is None:
        await socket.close(_REFUSED)
        return
    await socket.accept()
    account = key.account.name

    async def play() -> None:
        await socket.send_json({"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 0}}}})
        played: set[str] = set()
        while True:
            for prompt in state.proxy.of(account, client_id=client_id):
                if prompt.id not in played:
                    played.add(prompt.id)
                    if not await state.progress.play(prompt.task, _sender(socket), prompt_id=prompt.id):
                        await socket.close(_DROPPED)
                        return
            await asyncio.sleep(_LOOK_SECONDS)

    await _until_gone(socket, play())


def _sender(socket: WebSocket) -> Send:
    async def send(frame: str | bytes) -> None:
        await (socket.send_text(frame) if isinstance(frame, str) else socket.send_bytes(frame))

    return send


async def _until_gone(socket: WebSocket, playing: Coroutine[object, object, None]) -> None:
    """Plays until the end, or until the client has gone; what it sends is not read."""
    tasks = [asyncio.create_task(playing), asyncio.create_task(_gone(socket))]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        error = task.exception() if not task.cancelled() else None
        if error is not None and not isinstance(error, WebSocketDisconnect):
            raise error


async def _gone(socket: WebSocket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


ROUTES: Final = [
    WebSocketRoute("/ws/c_instance", watch),
    WebSocketRoute("/proxy/{key}/ws", proxied),
    WebSocketRoute("/proxy-plus/{key}/ws", proxied),
]
"""The routes of this family."""

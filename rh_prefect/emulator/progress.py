"""Progress of a running graph over WebSocket: at `netWssUrl`, and at the native proxy's `/ws`."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from rh_prefect.emulator.assumptions import Assumptions
from rh_prefect.emulator.auth import path_key
from rh_prefect.emulator.clock import Clock
from rh_prefect.emulator.comfy.graph import class_type, in_order, inputs_of, parse
from rh_prefect.emulator.faults import Faults, Subject
from rh_prefect.emulator.tasks import Status, Task, Tasks

if TYPE_CHECKING:
    from rh_prefect.emulator.state import State

Frame = dict[str, object]
Send = Callable[[str | bytes], Awaitable[None]]

_LOOK_SECONDS: Final = 0.02
_STEPS: Final = 4
_PREVIEW: Final = b"\x00\x00\x00\x01\x00\x00\x00\x01\xff\xd8\xff\xd9"
"""A binary frame, as previews are: two numbers and a JPEG, here an empty one."""


class Progress:
    """Issues tickets, and sends the frames of tasks."""

    def __init__(self, tasks: Tasks, faults: Faults, clock: Clock, *, url: str, assumptions: Assumptions) -> None:
        self._assumptions = assumptions
        self._tasks = tasks
        self._faults = faults
        self._clock = clock
        self._url = url.replace("http", "ws", 1)
        self._secret = secrets.token_bytes(16)

    def url(self, task: Task, status: Status) -> str | None:
        """Returns the `netWssUrl` of a task; None if the task is not running."""
        if status != "RUNNING" or task.spec.graph is None:
            return None
        host, _, port = self._url.rpartition(":")
        query = {
            "c_host": host.rpartition("/")[2],
            "c_port": port,
            "clientId": task.client_id,
            "workflowId": task.spec.payload.get("workflowId", ""),
            "Rh-Comfy-Auth": self._ticket(task, int(self._clock.now()) + self._assumptions.ticket_seconds),
            "target": self._url,
        }
        return f"{self._url}/ws/c_instance?{urlencode(query)}"

    def find(self, ticket: str) -> Task | None:
        """Finds the task of a ticket; None if the ticket is invalid or has expired."""
        try:
            task_id, end, _ = base64.b64decode(ticket, validate=True).decode().split(";")
            task, is_alive = self._tasks.find(task_id), self._clock.now() < int(end)
        except (binascii.Error, ValueError):
            return None
        if task is None or not is_alive or not hmac.compare_digest(ticket, self._ticket(task, int(end))):
            return None
        return task

    async def play(self, task: Task, send: Send, **more: object) -> bool:
        """Sends the frames of a task while the task runs.

        Args:
            task: The task.
            send: Sends one frame.
            more: Additional data for every frame.

        Returns:
            Whether all frames were sent; a fault may drop the connection.
        """
        drop = self._faults.match(Subject("progress", task.endpoint, task.spec.payload))
        told = list(frames(task.spec.graph or {}))
        for index, frame in enumerate(told):
            share = index / len(told)
            if drop is not None and share >= drop.at:
                return False
            if await self._reach(task, share) not in ("RUNNING", "SUCCESS"):
                break
            await send(json.dumps(_with(frame, more)))
            if frame["type"] == "progress":
                await send(_PREVIEW)
        for frame in self._last(task, await self._reach(task, 1.0)):
            await send(json.dumps(_with(frame, more)))
        return True

    async def _reach(self, task: Task, share: float) -> Status:
        """Waits until a task reaches a share of its run, or ends."""
        while True:
            status, here = self._tasks.status(task), self._tasks.progress(task)
            is_over = status not in ("QUEUED", "RUNNING")
            if is_over or (status == "RUNNING" and here >= share and share < 1):
                return status
            await asyncio.sleep(_LOOK_SECONDS)

    def _last(self, task: Task, status: Status) -> Iterator[Frame]:
        if status == "FAILED" and task.failure:
            yield {"type": "execution_error", "data": dict(task.failure.reason)}
        elif status == "CANCELLED":
            yield {"type": "execution_interrupted", "data": {}}
        else:
            yield {"type": "execution_success", "data": {}}
            yield {"type": "executing", "data": {"node": None}}

    def _ticket(self, task: Task, end: int) -> str:
        signed = f"{task.id};{end}"
        signature = hmac.new(self._secret, signed.encode(), "sha256").hexdigest()
        return base64.b64encode(f"{signed};{signature}".encode()).decode()


def frames(graph: Mapping[str, object]) -> Iterator[Frame]:
    """Lists the frames of a run except the last: loaders are cached, samplers report their steps."""
    read = parse(graph) or {}
    order = in_order(read)
    cached = [node_id for node_id in order if "Loader" in class_type(read[node_id])]
    yield {"type": "execution_cached", "data": {"nodes": cached}}
    for node_id in order:
        if node_id in cached:
            continue
        yield {"type": "executing", "data": {"node": node_id}}
        steps = inputs_of(read[node_id]).get("steps")
        if isinstance(steps, int):
            for part in range(1, _STEPS + 1):
                yield {"type": "progress", "data": {"node": node_id, "value": steps * part // _STEPS, "max": steps}}


def _with(frame: Frame, more: Mapping[str, object]) -> Frame:
    data = frame["data"]
    return {"type": frame["type"], "data": {**(data if isinstance(data, dict) else {}), **more}}


_REFUSED: Final = 1008
_DROPPED: Final = 1011


async def watch(socket: WebSocket) -> None:
    """Sends the frames of the ticket's task, then closes."""
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
    """Sends the frames of every prompt of a client, one after the other, until the client disconnects."""
    state: State = socket.app.state.emulator
    key, client_id = path_key(state.keys, socket), socket.query_params.get("clientId", "")
    if key is None:
        await socket.close(_REFUSED)
        return
    await socket.accept()
    account, endpoint = key.account.name, f"/{socket.url.path.split('/')[1]}"

    async def play() -> None:
        await socket.send_json({"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 0}}}})
        played: set[str] = set()
        while True:
            for prompt in state.proxy.of(account, endpoint, client_id=client_id):
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
    """Sends frames until the end, or until the client disconnects; the client's messages are ignored."""
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

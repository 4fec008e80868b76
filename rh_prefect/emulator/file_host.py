"""The file host: serves uploads and results on its own address, with ranges, and receives LoRAs at signed links."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from rh_prefect.emulator.broken_responses import (
    STALL_SECONDS,
    BrokenResponse,
    close_connection,
    is_closing,
    wait_for_disconnect,
)
from rh_prefect.emulator.faults import Fault, Subject
from rh_prefect.emulator.file_store import DeadLink, StoredFile
from rh_prefect.emulator.recorder import Upload
from rh_prefect.emulator.state import State

_ERROR: Final = "<?xml version='1.0' encoding='utf-8' ?>\n<Error><Code>{code}</Code><Message>{words}</Message></Error>"
_MIDWAY: Final = ("cut", "half", "stall", "wrong-length", "short")
_PROMISED: Final = 1024


def file_app(state: State) -> Starlette:
    """Creates the application."""
    routes = [
        Route("/{place:path}", _take_lora, methods=["PUT"]),
        Route("/{place:path}", _serve, methods=["GET"]),
    ]
    app = Starlette(routes=routes)
    app.state.emulator = state
    return app


async def _serve(request: Request) -> Response:
    state: State = request.app.state.emulator
    try:
        found = state.file_store.find(f"{request.url.path}?{request.url.query}")
    except DeadLink as dead:
        return _refuse(state, request, dead)
    fault = _fault(state, found) if request.method == "GET" else None
    if fault is not None and fault.kind == "expired":
        return _refuse(state, request, state.file_store.expired(), found)
    response = ResultFile(state, found, fault)
    return response if fault is None or fault.kind in _MIDWAY else BrokenResponse(response, fault, state.held)


async def _take_lora(request: Request) -> Response:
    """Receives a LoRA at a signed link, straight to disk; refuses requests with a RunningHub key."""
    state: State = request.app.state.emulator
    try:
        place = state.file_store.check(f"{request.url.path}?{request.url.query}")
        if request.headers.get("authorization"):
            raise DeadLink(400, "InvalidArgument", "Only one auth mechanism allowed: the signature of the link.")
        await _receive(request, state, place)
    except DeadLink as dead:
        return Response(_ERROR.format(code=dead.code, words=dead.words), dead.status, media_type="application/xml")
    return Response()


async def _receive(request: Request, state: State, place: str) -> None:
    announced = PurePosixPath(place).stem
    digest, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    part = state.file_store.folder / f"{announced}-{secrets.token_hex(4)}.part"
    size = 0
    try:
        with part.open("wb") as file:
            async for chunk in request.stream():
                digest.update(chunk)
                sha256.update(chunk)
                size += file.write(chunk)
        if state.assumptions.lora_checked and digest.hexdigest() != announced:
            raise DeadLink(400, "BadDigest", "The MD5 that was announced is not the MD5 of what was sent.")
        part.replace(state.file_store.folder / f"{announced}.safetensors")
    finally:
        part.unlink(missing_ok=True)
    name = place.lstrip("/")
    state.file_store.loras.add(name)
    state.recorder.add_upload(Upload(name, size, sha256.hexdigest(), "", state.clock.now()))


def _fault(state: State, found: StoredFile) -> Fault | None:
    """Returns the fault of a download; uploads have none, because only RunningHub downloads them."""
    task = state.tasks.find(found.task_id)
    if task is None:
        return None
    return state.faults.match(Subject("download", task.endpoint, task.spec.payload))


def _refuse(state: State, request: Request, dead: DeadLink, found: StoredFile | None = None) -> Response:
    task_id = found.task_id if found else ""
    state.recorder.add_download(request.url.path, task_id=task_id, status=dead.status, at=state.clock.now())
    body = _ERROR.format(code=dead.code, words=dead.words)
    return Response(body, dead.status, media_type="application/xml")


class ResultFile(FileResponse):
    """A file with ranges and an ETag; counts the bytes sent, and applies a fault."""

    chunk_size = 256 * 1024

    def __init__(self, state: State, found: StoredFile, fault: Fault | None) -> None:
        super().__init__(found.path, stat_result=found.path.stat())
        self._state = state
        self._found = found
        self._fault = fault
        if fault is not None and fault.kind == "changed":
            self.headers["etag"] = f'"{self.headers["etag"].strip(chr(34))[::-1]}"'
            self.headers["last-modified"] = "Thu, 01 Jan 2026 00:00:00 GMT"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the file, or the requested range."""
        count = _Count(self._fault)
        number = 0

        async def counted(message: Message) -> None:
            nonlocal number
            if count.is_over or is_closing(scope):
                return
            taken = count.take(message)
            number = number or self._book(scope["path"], taken["status"])
            self._state.recorder.update_download(number, count.sent)
            await send(taken)

        await super().__call__(scope, receive, counted)
        if self._fault is not None and self._fault.kind == "stall":
            seconds = STALL_SECONDS if self._fault.seconds is None else self._fault.seconds
            await wait_for_disconnect(receive, seconds)
        if count.is_broken:
            await close_connection(scope, receive)

    def _book(self, place: str, status: int) -> int:
        recorder, now = self._state.recorder, self._state.clock.now()
        return recorder.add_download(place, task_id=self._found.task_id, status=status, at=now)


@dataclass(slots=True)
class _Count:
    """Counts the bytes of one response and applies its fault."""

    fault: Fault | None
    sent: int = 0
    budget: int | None = None
    is_over: bool = False

    @property
    def is_broken(self) -> bool:
        """Whether the client receives fewer bytes than the headers announce."""
        return self.fault is not None and self.fault.kind in ("cut", "half", "stall", "wrong-length")

    def take(self, message: Message) -> Message:
        """Counts a message and applies the fault to the message."""
        if message["type"] == "http.response.start":
            return self._start(message)
        body = message.get("body", b"")
        if self.budget is not None:
            body = body[: self.budget - self.sent]
        self.sent += len(body)
        last = not message.get("more_body", False) or self.sent == self.budget
        self.is_over = last
        return {**message, "body": body, "more_body": not last or self.is_broken}

    def _start(self, message: Message) -> Message:
        headers = MutableHeaders(raw=list(message["headers"]))
        length = int(headers.get("content-length", "0"))
        kind = self.fault.kind if self.fault else ""
        if self.fault is not None and kind in ("cut", "stall", "half", "short"):
            self.budget = int(length * (self.fault.at if kind in ("cut", "stall") else 0.5))
        if kind in ("wrong-length", "short"):
            headers["content-length"] = str(length + _PROMISED if kind == "wrong-length" else self.budget)
        return {**message, "headers": headers.raw}

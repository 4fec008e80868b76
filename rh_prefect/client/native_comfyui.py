"""Calls ComfyUI's own API on a RunningHub machine: single requests, and tasks built from them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final, Literal
from urllib.parse import urlencode

import httpx

from rh_prefect.client import responses
from rh_prefect.client.download import discard_note, discard_partial, download
from rh_prefect.client.json_values import loads, table
from rh_prefect.client.responses import ApiResponse, RequestInfo
from rh_prefect.client.session import JSON, Session, json_bytes, usable_id
from rh_prefect.client.upload_body import FileBody
from rh_prefect.client.wire.account_and_files import Download
from rh_prefect.client.wire.apps_and_comfyui import (
    ComfyFile,
    ComfyPrompt,
    ComfyQueue,
    ComfyRun,
    read_comfy_prompt,
    read_comfy_queue,
    read_comfy_run,
)
from rh_prefect.client.wire.task import RemoteOutput, TaskStatus, TaskView, is_task_id, read_extension, read_node_errors
from rh_prefect.errors import InputError, LinkExpired, RunningHubError, api_error
from rh_prefect.redaction import HIDDEN, MASK, bare, mask

Family = Literal["proxy", "proxy-plus"]

_CHANGE_SECONDS: Final = 90.0


class NativeProxy:
    """ComfyUI's own API; errors as in `Client`. The family `proxy` has 24 GB, `proxy-plus` 48 GB.

    Run one graph at a time; more is not documented. The machine does not always refuse a wrong key: check it with
    `Client.queue_status`.
    """

    def __init__(self, session: Session, family: Family) -> None:
        self._session = session
        self.family = family
        self._view = str(self._request(session.pools.calls, "GET", "view").url)

    async def prompt(self, graph: Mapping[str, object], *, client_id: str = "") -> ComfyPrompt:
        """Runs a graph in API format, which costs machine time.

        It is sent once; after a `ResponseLost` it may be running.
        """
        ask = RequestInfo(f"prompt to ComfyUI at /{self.family}", paid=True)
        body = {"prompt": graph, **({"client_id": client_id} if client_id else {})}
        client, limit = self._session.pools.submits, self._session.submit_timeout
        request = self._request(client, "POST", "prompt", content=json_bytes(body, ask), headers=JSON)
        status, answer = await self._session.exchange(client, request, ask, deadline=limit, auth=False)
        return judged(status, answer, ask)

    async def history(self, prompt_id: str) -> ComfyRun:
        """Returns the state of a graph."""
        ask = RequestInfo(f"history of prompt {prompt_id}")
        answer = await self._get(f"history/{usable_id(prompt_id, of='a prompt')}", ask)
        entry = table(answer.source.get(prompt_id.strip()))
        return read_comfy_run(entry, prompt_id=prompt_id.strip())

    async def queue(self) -> ComfyQueue:
        """Lists running and waiting graphs, including those of other clients."""
        answer = await self._get("queue", RequestInfo(f"queue of ComfyUI at /{self.family}"))
        return read_comfy_queue(answer.source)

    async def _get(self, path: str, ask: RequestInfo) -> ApiResponse:
        client = self._session.pools.calls
        answer = await self._session.resent(client, self._request(client, "GET", path), ask, auth=False)
        return responses.checked(answer, ask)

    async def cancel(self, prompt_id: str) -> None:
        """Removes a graph from the queue or stops it; does nothing if it has ended."""
        found = usable_id(prompt_id, of="a prompt")
        ask = RequestInfo(f"cancel of prompt {found}")
        queue = await self.queue()
        if found in queue.waiting:
            await self._change("queue", {"delete": [found]}, ask)
        elif found in queue.running:
            # Older ComfyUI versions ignore the id and stop the running graph, so the queue is checked first.
            await self._change("interrupt", {"prompt_id": found}, ask)

    async def _change(self, path: str, body: Mapping[str, object], ask: RequestInfo) -> None:
        """Requests a change to which ComfyUI responds with an empty body."""
        client = self._session.pools.calls
        request = self._request(client, "POST", path, content=json_bytes(body, ask), headers=JSON)

        async def once() -> ApiResponse:
            status, body = await self._session.exchange(client, request, ask, deadline=_CHANGE_SECONDS, auth=False)
            is_done = 200 <= status < 300 and not body.strip()
            return ApiResponse({}, "", "") if is_done else responses.read(status, body, ask)

        responses.checked(await self._session.paced(once, ask), ask)

    async def view(self, file: ComfyFile, to: Path) -> Download:
        """Downloads a file of a run; errors as in `Client.download`."""
        return await self.fetch(self.link(file), to)

    def link(self, file: ComfyFile) -> str:
        """Returns the address of a file of a run, with a mask in place of the key."""
        return f"{self._view}?{urlencode({'filename': file.name, 'subfolder': file.subfolder, 'type': file.kind})}"

    def is_link(self, url: str) -> bool:
        """Returns whether a link is the address of a file on this machine."""
        return url.startswith(f"{self._view}?")

    async def fetch(self, link: str, to: Path) -> Download:
        """Downloads a file by its `link`; raises `LinkExpired` for a lost file, or a URL of another machine."""
        if not self.is_link(link):
            raise LinkExpired(
                f"{mask(bare(link))} is not a URL of a file of ComfyUI at /{self.family}. What to do: query the task "
                "again."
            )
        client = self._session.pools.calls
        request = self._request(client, "GET", f"view?{link.partition('?')[2]}")
        # The addresses of two files differ only in the query, so a partial download could be of another file.
        await asyncio.to_thread(discard_partial, to)
        async with self._session.downloads:
            shown = str(request.url)
            got = await download(self._session.pools.files, shown, to, hidden=request.extensions[HIDDEN])
        await asyncio.to_thread(discard_note, to)
        return got

    async def upload(self, path: Path, *, name: str, mime: str, subfolder: str = "") -> ComfyFile:
        """Sends a file to the machine. Loader nodes take its `name`, after its `subfolder` and a slash if any."""
        ask = RequestInfo(f"upload of {path} to ComfyUI at /{self.family}")
        # Resending it must not leave a second copy under another name.
        fields = {"type": "input", "overwrite": "true", **({"subfolder": subfolder} if subfolder else {})}
        body = await asyncio.to_thread(FileBody, path, name=name, mime=mime, field="image", fields=fields)
        client = self._session.pools.uploads
        request = self._request(client, "POST", "upload/image", content=body, headers=body.headers)
        answer = await self._session.resent(client, request, ask, auth=False)
        file = ComfyFile.read(responses.checked(answer, ask).source)
        if not file.name:
            raise responses.no_answer(ask, "the response names no file")
        return file

    def _request(
        self,
        client: httpx.AsyncClient,
        method: str,
        path: str,
        *,
        content: bytes | FileBody | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Request:
        url = f"{self.family}/{MASK}/{path}"
        return self._session.masked_request(client, method, url, content=content, headers=headers)


def judged(status: int, body: bytes, ask: RequestInfo) -> ComfyPrompt:
    """Parses the response to a prompt, from ComfyUI or a gateway."""
    source = loads(body)
    taken = read_comfy_prompt(source) if isinstance(source, dict) else None
    if taken is not None and not is_task_id(f"proxy.{taken.prompt_id}"):
        raise responses.no_answer(ask, f"the response has an invalid prompt id, {taken.prompt_id[:40]!r}")
    if taken is not None:
        return taken  # even with an error status: the id shows that ComfyUI has the graph
    errors = read_node_errors(source) if status == 400 else {}
    if errors:
        message = "; ".join(f"node {node}: {error}" if node else error for node, error in errors.items())
        raise api_error("433", message[:600], doing=ask.doing, submitting=True)
    responses.checked(responses.read(status, body, ask), ask)
    raise responses.no_answer(ask, "the response has neither a prompt id nor an error code")


NativeSubmit = Literal["/proxy", "/proxy-plus"]
"""The endpoints of submissions to the native proxy: a machine of 24 GB, and one of 48 GB."""

_STATUSES: Final[dict[str, TaskStatus]] = {
    "pending": "RUNNING",
    "succeeded": "SUCCESS",
    "failed": "FAILED",
    "interrupted": "CANCELLED",
}


class NativeTasks:
    """The tasks of one machine."""

    def __init__(self, comfy: NativeProxy) -> None:
        self.comfy = comfy
        self._prefix = f"{comfy.family}."

    def owns(self, name: str) -> bool:
        """Returns whether an endpoint, a task id or a file link belongs to this machine."""
        return name == f"/{self.comfy.family}" or name.startswith(self._prefix) or self.comfy.is_link(name)

    async def submit(self, payload: Mapping[str, object]) -> TaskView:
        """Runs the graph in the payload's `prompt`; see `Client.submit`."""
        graph = payload.get("prompt")
        if not isinstance(graph, Mapping):
            raise InputError("A submit to ComfyUI needs a graph in API format as its `prompt`. Nothing was sent.")
        taken = await self.comfy.prompt(graph)
        return TaskView(
            task_id=f"{self._prefix}{taken.prompt_id}", status="QUEUED", node_errors=dict(taken.node_errors)
        )

    async def query(self, task_id: str) -> TaskView:
        """Returns the state of a graph; raises `TaskNotFound` if it is neither in the history nor in the queue."""
        prompt_id = task_id.removeprefix(self._prefix)
        run = await self.comfy.history(prompt_id)
        if run.state != "pending":
            return self._task_view(task_id, run)
        waiting = await self._waiting(task_id, prompt_id)
        if waiting is not None:
            return waiting
        # It may have ended between the two requests.
        run = await self.comfy.history(prompt_id)
        if run.state == "pending":
            raise api_error("807", doing=f"query of task {task_id}", task_id=task_id)
        return self._task_view(task_id, run)

    async def cancel(self, task_id: str) -> None:
        """Removes a graph from the queue or stops it; see `Client.cancel`."""
        await self.comfy.cancel(task_id.removeprefix(self._prefix))

    async def _waiting(self, task_id: str, prompt_id: str) -> TaskView | None:
        """Returns the state of a graph in the machine's queue; None if it is not in the queue."""
        try:
            queue = await self.comfy.queue()
        except RunningHubError:
            return TaskView(task_id=task_id, status="RUNNING")  # there is no evidence that the task is lost
        if prompt_id in queue.running:
            return TaskView(task_id=task_id, status="RUNNING")
        if prompt_id not in queue.waiting:
            return None
        ahead = len(queue.running) + queue.waiting.index(prompt_id)
        return TaskView(task_id=task_id, status="QUEUED", ahead=ahead)

    def _task_view(self, task_id: str, run: ComfyRun) -> TaskView:
        # Previews lie among the temporary files; they count if a graph saves nothing else.
        saved = [file for file in run.files if file.kind == "output"] or list(run.files)
        return TaskView(
            task_id=task_id,
            status=_STATUSES[run.state],
            reason=str(run.failure) if run.failure else "",
            outputs=tuple(self._output(file) for file in saved) if run.state == "succeeded" else (),
            failure=run.failure,
        )

    def _output(self, file: ComfyFile) -> RemoteOutput:
        extension = read_extension(PurePosixPath(file.name).suffix)
        return RemoteOutput(url=self.comfy.link(file), type=extension, node_id=file.node_id or None)

"""Runs graphs as tasks through ComfyUI's own API on a RunningHub machine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final, Literal
from urllib.parse import urlencode

import httpx

from rh_prefect.client import responses
from rh_prefect.client.download import discard_note, discard_partial, download
from rh_prefect.client.json_values import first_text, flag, loads, rows, table, text
from rh_prefect.client.request_sender import Session, json_bytes, usable_id
from rh_prefect.client.responses import ApiResponse, RequestInfo
from rh_prefect.client.upload_body import FileBody
from rh_prefect.client.wire.account_files_and_assets import Download, Upload
from rh_prefect.client.wire.task import (
    Failure,
    RemoteOutput,
    TaskView,
    is_task_id,
    read_extension,
    read_failure,
    read_node_errors,
)
from rh_prefect.errors import InputError, LinkExpired, RunningHubError, api_error
from rh_prefect.redaction import HIDDEN, MASK, bare, mask

Family = Literal["proxy", "proxy-plus"]
NativeSubmit = Literal["/proxy", "/proxy-plus"]
"""The endpoints for submissions to the native proxy: a 24 GB machine and a 48 GB machine."""

_CHANGE_SECONDS: Final = 90.0


class NativeProxy:
    """ComfyUI's own API on a machine of the family `proxy` (24 GB) or `proxy-plus` (48 GB); errors as in `Client`.

    The id of a task is `proxy.` or `proxy-plus.`, followed by ComfyUI's prompt id. Run one graph at a time: whether
    more are possible is not documented. The machine does not always refuse a wrong key: check the key with
    `Client.queue_status`.
    """

    def __init__(self, session: Session, family: Family) -> None:
        self._session = session
        self.family = family
        self._prefix = f"{family}."
        self.files = str(self._request(session.pools.calls, "GET", "view").url)  # their address, without the key

    def owns(self, name: str) -> bool:
        """Returns whether an endpoint, a task id or a file link belongs to this machine."""
        return name == f"/{self.family}" or name.startswith((self._prefix, f"{self.files}?"))

    async def submit(self, payload: Mapping[str, object]) -> TaskView:
        """Runs the graph in the payload's `prompt`; the run costs machine time. See `Client.submit`.

        The graph is sent once; after a `ResponseLost`, the graph may be running.
        """
        ask, graph = RequestInfo(f"prompt to ComfyUI at /{self.family}", paid=True), payload.get("prompt")
        if not isinstance(graph, Mapping):
            what = "The payload for ComfyUI has no graph in its `prompt`. Nothing was sent."
            raise InputError(f"{what} What to do: pass a graph in API format.")
        client, limit = self._session.pools.submits, self._session.submit_timeout
        request = self._request(client, "POST", "prompt", json_bytes({"prompt": graph}, ask))
        status, answer = await self._session.exchange(client, request, ask, deadline=limit, auth=None)
        return judged(status, answer, ask, prefix=self._prefix)

    async def query(self, task_id: str) -> TaskView:
        """Returns the state of a graph; raises `TaskNotFound` if neither the history nor the queue has it."""
        # The graph may end between the first two requests.
        found = await self._ended(task_id) or await self._waiting(task_id) or await self._ended(task_id)
        if found is None:
            raise api_error("807", doing=f"query of task {task_id}", task_id=task_id)
        return found

    async def _ended(self, task_id: str) -> TaskView | None:
        """Returns the final state of a graph; None without an entry in the history, which lists only ended graphs."""
        prompt_id = self._prompt_id(task_id)
        answer = await self._get(f"history/{prompt_id}", RequestInfo(f"history of prompt {prompt_id}"))
        return read_run(table(answer.source.get(prompt_id)), task_id=task_id, view=self.files)

    async def _waiting(self, task_id: str) -> TaskView | None:
        """Returns the state of a graph in the machine's queue; None if the graph is not there."""
        prompt_id = self._prompt_id(task_id)
        try:
            running, waiting = await self._queue()
        except RunningHubError:
            return TaskView(task_id=task_id, status="RUNNING")  # there is no evidence that the task is lost
        if prompt_id in running:
            return TaskView(task_id=task_id, status="RUNNING")
        if prompt_id not in waiting:
            return None
        return TaskView(task_id=task_id, status="QUEUED", ahead=len(running) + waiting.index(prompt_id))

    async def cancel(self, task_id: str) -> None:
        """Removes a graph from the queue or stops it; does nothing if the graph has ended."""
        prompt_id = self._prompt_id(task_id)
        ask = RequestInfo(f"cancellation of prompt {prompt_id}")
        running, waiting = await self._queue()
        if prompt_id in waiting:
            await self._change("queue", {"delete": [prompt_id]}, ask)
        if prompt_id not in running:  # it may have begun since
            try:
                running, _ = await self._queue()
            except RunningHubError:
                if prompt_id not in waiting:  # a deleted one is cancelled; the caller queries it
                    raise
        if prompt_id in running:
            # Older ComfyUI versions ignore the id and stop the running graph, so the queue is checked first.
            await self._change("interrupt", {"prompt_id": prompt_id}, ask)

    async def fetch(self, link: str, to: Path) -> Download:
        """Downloads a file by its link; raises `LinkExpired` if the file is lost or on another machine."""
        if not link.startswith(f"{self.files}?"):
            raise LinkExpired(
                f"{mask(bare(link))} is not the URL of a file on ComfyUI at /{self.family}. What to do: query the "
                "task again."
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

    async def upload(self, path: Path, *, name: str, mime: str) -> Upload:
        """Sends a file to the machine; loader nodes take the upload's `file_name`."""
        ask = RequestInfo(f"upload of {path} to ComfyUI at /{self.family}")
        # If the file is sent again, it must not leave a second copy under another name.
        fields = {"type": "input", "overwrite": "true"}
        body = await asyncio.to_thread(FileBody, path, name=name, mime=mime, field="image", fields=fields)
        client = self._session.pools.uploads
        request = self._request(client, "POST", "upload/image", body)
        answer = (await self._session.resent(client, request, ask, auth=None)).checked().source
        if not (named := first_text(answer, "name")):
            raise responses.no_answer(ask, "the response contains no file name")
        place = "/".join(filter(None, (first_text(answer, "subfolder"), named)))
        return Upload(url="", file_name=place, size=body.size, kind=first_text(answer, "type"))

    async def _queue(self) -> tuple[list[str], list[str]]:
        """Returns the ids of the running and of the waiting prompts, including prompts of other clients."""
        answer = await self._get("queue", RequestInfo(f"queue of ComfyUI at /{self.family}"))
        return _ids(answer.source.get("queue_running")), _ids(answer.source.get("queue_pending"))

    async def _get(self, path: str, ask: RequestInfo) -> ApiResponse:
        client = self._session.pools.calls
        answer = await self._session.resent(client, self._request(client, "GET", path), ask, auth=None)
        return answer.checked()

    async def _change(self, path: str, body: Mapping[str, object], ask: RequestInfo) -> None:
        """Requests a change to which ComfyUI responds with an empty body."""
        client = self._session.pools.calls
        request = self._request(client, "POST", path, json_bytes(body, ask))

        async def once() -> ApiResponse:
            status, body = await self._session.exchange(client, request, ask, deadline=_CHANGE_SECONDS, auth=None)
            is_done = 200 <= status < 300 and not body.strip()
            return ApiResponse(ask, {}) if is_done else responses.read(status, body, ask)

        (await self._session.paced(once, ask)).checked()

    def _prompt_id(self, task_id: str) -> str:
        return usable_id(task_id.removeprefix(self._prefix), of="a prompt")

    def _request(
        self, client: httpx.AsyncClient, method: str, path: str, body: bytes | FileBody | None = None
    ) -> httpx.Request:
        return self._session.masked_request(client, method, f"{self.family}/{MASK}/{path}", body)


def judged(status: int, body: bytes, ask: RequestInfo, *, prefix: str) -> TaskView:
    """Parses the response to a submitted graph, from ComfyUI or from a gateway in front of it."""
    source = table(loads(body))
    prompt_id, errors = first_text(source, "prompt_id"), read_node_errors(source)
    if prompt_id and not is_task_id(f"{prefix}{prompt_id}"):
        raise responses.no_answer(ask, f"the response has an invalid prompt id, {prompt_id[:40]!r}")
    if prompt_id:  # even with an error status: ComfyUI has the graph, or the part of it without errors
        return TaskView(task_id=f"{prefix}{prompt_id}", status="QUEUED", node_errors=errors)
    if status == 400 and errors:
        message = "; ".join(f"node {node}: {error}" if node else error for node, error in errors.items())
        raise api_error("433", message[:600], doing=ask.doing, submitting=True)
    responses.read(status, body, ask).checked()
    raise responses.no_answer(ask, "the response has neither a prompt id nor an error code")


def read_run(entry: dict[str, object], *, task_id: str, view: str) -> TaskView | None:
    """Reads one history entry; returns None if the run has not ended. `view` is the base address of files."""
    status = table(entry.get("status"))
    word, messages = first_text(status, "status_str").lower(), [rows(one) for one in rows(status.get("messages"))]
    failure = _failure(messages)
    if word == "error" or failure is not None:
        was_cancelled = any(message[:1] == ["execution_interrupted"] for message in messages)
        reason = "" if failure is None else str(failure)
        return TaskView(
            task_id=task_id, status="CANCELLED" if was_cancelled else "FAILED", reason=reason, failure=failure
        )
    found = [one for node, saved in table(entry.get("outputs")).items() for one in _results(node, table(saved), view)]
    if not (found or word == "success" or flag(status.get("completed"))):
        return None
    # Previews lie among the temporary files; they count if a graph saves no other file.
    has_saved = any(kind == "output" for kind, _ in found)
    outputs = tuple(output for kind, output in found if kind in ("output", "text") or not has_saved)
    return TaskView(task_id=task_id, status="SUCCESS", outputs=outputs)


_PREVIEWS = ("result", "model_file", "bg_image", "b64_images")
"""Fields whose strings are no texts: paths of previewed 3D files on the machine, and the data of pictures."""


def _results(node: str, saved: dict[str, object], view: str) -> Iterator[tuple[str, RemoteOutput]]:
    """Yields the files of a node, each with the kind of its folder, and its texts, with the kind `text`."""
    for field, listed in saved.items():
        for row in listed if isinstance(listed, list) else [listed]:
            # A text may be JSON, so it is not decoded: its `name` is not the name of a file. Nodes show texts in fields
            # of any name, such as `tags`.
            if field not in _PREVIEWS and isinstance(row, str) and row.strip():
                yield "text", RemoteOutput(text=row, node_id=node or None)
            if isinstance(row, dict) and (name := first_text(row, "filename", "name")):
                kind = first_text(row, "type") or "output"
                query = urlencode({"filename": name, "subfolder": first_text(row, "subfolder"), "type": kind})
                extension = read_extension(PurePosixPath(name).suffix)
                yield kind, RemoteOutput(url=f"{view}?{query}", type=extension, node_id=node or None)


def _failure(messages: list[list[object]]) -> Failure | None:
    for message in messages:
        if len(message) > 1 and message[0] in {"execution_error", "execution_interrupted"}:
            return read_failure(message[1]) or Failure(exception_message=str(message[0]))
    return None


def _ids(listed: object) -> list[str]:
    """Returns the graph ids in order of position; the entries are unordered, and each begins with position and id."""
    entries = [entry for entry in map(rows, rows(listed)) if len(entry) > 1 and text(entry[1])]
    entries.sort(key=lambda entry: float(entry[0]) if isinstance(entry[0], int | float) else 0.0)
    return [text(entry[1]) for entry in entries]

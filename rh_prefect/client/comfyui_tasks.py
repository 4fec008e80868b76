"""Graphs of the native proxy as tasks, so that whoever starts, waits for and fetches tasks need not know of ComfyUI.

A prompt's id is ComfyUI's own. As a task's id it has its machine before it, as in `proxy.8f1c2ab1-…`; RunningHub's own
ids are digits only. A file's link is the proxy's address with a mask in place of the key, so it can be written down.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final, Literal

from rh_prefect.client.comfyui import NativeProxy
from rh_prefect.client.wire import ComfyFile, ComfyRun, Download, RemoteOutput, TaskStatus, TaskView, read_extension
from rh_prefect.errors import InputError, RunningHubError, api_error

NativeSubmit = Literal["/proxy", "/proxy-plus"]
"""What a submit to the native proxy names as its endpoint: a machine of 24 GB, and one of 48 GB."""

_STATUSES: Final[dict[str, TaskStatus]] = {
    "pending": "RUNNING",
    "succeeded": "SUCCESS",
    "failed": "FAILED",
    "interrupted": "CANCELLED",
}


class NativeTasks:
    """The tasks of one machine.

    Args:
        comfy: ComfyUI on that machine.
    """

    def __init__(self, comfy: NativeProxy) -> None:
        self._comfy = comfy
        self._prefix = f"{comfy.family}."

    def owns(self, name: str) -> bool:
        """Tells whether an endpoint, a task's id or a file's link is this machine's."""
        return name == f"/{self._comfy.family}" or name.startswith(self._prefix) or self._comfy.is_link(name)

    async def submit(self, payload: Mapping[str, object]) -> TaskView:
        """Runs a graph; see `Client.submit`.

        Args:
            payload: With the graph as its `prompt`.
        """
        graph = payload.get("prompt")
        if not isinstance(graph, Mapping):
            raise InputError("A submit to ComfyUI needs a graph in API format as its `prompt`. Nothing was sent.")
        taken = await self._comfy.prompt(graph)
        return TaskView(
            task_id=f"{self._prefix}{taken.prompt_id}", status="QUEUED", node_errors=dict(taken.node_errors)
        )

    async def query(self, task_id: str) -> TaskView:
        """Asks how a graph is; see `Client.query`.

        Raises:
            TaskNotFound: The machine has written nothing about it, and has it not in its queue.
        """
        prompt_id = task_id.removeprefix(self._prefix)
        run = await self._comfy.history(prompt_id)
        if run.state != "pending":
            return self._seen(task_id, run)
        status = await self._place(prompt_id)
        if status is not None:
            return TaskView(task_id=task_id, status=status)
        # It may have ended between the two questions.
        run = await self._comfy.history(prompt_id)
        if run.state == "pending":
            raise api_error("807", doing=f"query of task {task_id}", task_id=task_id)
        return self._seen(task_id, run)

    async def cancel(self, task_id: str) -> None:
        """Takes a graph out of the queue, or stops it; see `Client.cancel`."""
        await self._comfy.cancel(task_id.removeprefix(self._prefix))

    async def download(self, url: str, to: Path) -> Download:
        """Fetches a file of a run; see `Client.download`."""
        return await self._comfy.fetch(url, to)

    async def _place(self, prompt_id: str) -> TaskStatus | None:
        """Where in the machine's queue a graph is; None where it is not in it."""
        try:
            queue = await self._comfy.queue()
        except RunningHubError:
            return "RUNNING"  # a proxy that does not tell its queue does not tell that anything is lost either
        if prompt_id in queue.running:
            return "RUNNING"
        return "QUEUED" if prompt_id in queue.waiting else None

    def _seen(self, task_id: str, run: ComfyRun) -> TaskView:
        # Previews lie among the temporary files; they count where a graph saves nothing else.
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
        return RemoteOutput(url=self._comfy.link(file), type=extension, node_id=file.node_id or None)

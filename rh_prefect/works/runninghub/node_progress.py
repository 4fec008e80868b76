"""Reports the progress of a graph's nodes, from RunningHub's websocket for a running task."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import get_args

from pydantic import SecretStr

from rh_prefect.client import Client, TaskView, V1Submit
from rh_prefect.client.progress import ProgressEvent, watch_progress
from rh_prefect.works.checked_request import JobRequest

EVERY = 3.0
"""Seconds between two progress lines of one job; the newest line is always reported."""

AT_ONCE = 16
"""Maximum number of jobs of this process that report the progress of their nodes."""

_log = logging.getLogger("rh_prefect")
_watching: set[asyncio.Task[None]] = set()


class NodeProgress:
    """The node progress of one job's task, while the job waits for the end of the task."""

    def __init__(self, client: Client, request: JobRequest, task_id: str, report: Callable[[str], None]) -> None:
        self._client = client
        self._request = request
        self._task_id = task_id
        self._report = report
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def during(self, first_view: TaskView | None) -> Iterator[None]:
        """Reports progress during a `with` block. The answer to the submission may contain the websocket's address."""
        url = first_view.progress_url if first_view is not None and first_view.task_id == self._task_id else None
        if url is not None:
            self._begin(url)
        try:
            yield
        finally:
            if self._task is not None:
                self._task.cancel()

    def runs(self) -> None:
        """Records that the task is running; requests the websocket's address for a v1 task if it is not known."""
        if self._task is None and self._request.endpoint in get_args(V1Submit):
            self._begin(None)

    def _begin(self, url: SecretStr | None) -> None:
        if len(_watching) >= AT_ONCE:
            return
        _watching.add(task := asyncio.ensure_future(self._watch(url)))
        task.add_done_callback(_watching.discard)
        self._task = task

    async def _watch(self, url: SecretStr | None) -> None:
        """Reads the progress at an address; asks RunningHub for the address if none is given."""
        with closing(Lines(self._report, self._request.node_names)) as lines:
            try:
                url = url or (await self._client.workflows.outputs_v1(self._task_id)).progress_url
                if url is not None:
                    async for event in watch_progress(url):
                        lines.update(event)
            except Exception as error:  # the task is polled elsewhere
                _log.debug("task %s: the progress of its nodes is not reported: %s", self._task_id, error)


class Lines:
    """Limits progress lines: reports the first line at once, and then only the newest line every few seconds."""

    def __init__(self, report: Callable[[str], None], names: Mapping[str, str]) -> None:
        self._report = report
        self._names = names
        self._next = self._reported = ""
        self._timer: asyncio.TimerHandle | None = None

    def update(self, event: ProgressEvent) -> None:
        """Accepts an event; its progress line may be reported later."""
        if event.node is None or event.done:
            return
        self._next = self._line(event.node, event)
        if self._timer is None:
            self._report_next()

    def close(self) -> None:
        """Stops reporting."""
        if self._timer is not None:
            self._timer.cancel()

    def _report_next(self) -> None:
        self._timer = None
        if self._next != self._reported:
            self._reported = self._next
            self._report(self._reported)
            self._timer = asyncio.get_running_loop().call_later(EVERY, self._report_next)

    def _line(self, node: str, event: ProgressEvent) -> str:
        name = self._names.get(node) or f"node {node[:40]}"
        return f"{name} {event.value}/{event.max}" if event.value is not None and event.max else name

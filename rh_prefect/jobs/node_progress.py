"""How far a running graph is, node by node, where RunningHub offers to tell: a comfort, on which nothing rests.

It is told at an address that a v1 start gives out, or v1's outputs once the task runs (api.md 3.26). Polling goes on
beside it; whatever goes wrong here ends the telling and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import get_args

from pydantic import SecretStr

from rh_prefect.client import Client, TaskView, V1Submit
from rh_prefect.client.progress import ProgressEvent, watch_progress
from rh_prefect.jobs.context import JobContext

EVERY = 3.0
"""Seconds between two lines about one job; the newest one is never lost."""

AT_ONCE = 16
"""How many jobs of this process are watched so at a time; the others are told of as if nothing was offered."""

_log = logging.getLogger("rh_prefect")
_watching: set[asyncio.Task[None]] = set()


class NodeProgress:
    """Watches one job's task while the job waits for its end."""

    def __init__(self, context: JobContext, task_id: str, client: Client, *, every: float = EVERY) -> None:
        """Prepares the watch.

        Args:
            context: The job; only a v1 start has an address.
            task_id: RunningHub's task id.
            client: Asks for the address.
            every: Seconds between two lines.
        """
        self._context = context
        self._task_id = task_id
        self._client = client
        self._every = every
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def during(self, first_view: TaskView | None) -> Iterator[None]:
        """Tells for the length of a `with` block.

        Args:
            first_view: The answer to the submit, where this process has it.
        """
        url = first_view.progress_url if first_view is not None and first_view.task_id == self._task_id else None
        if url is not None:
            self._begin(lambda: self._watch(url))
        try:
            yield
        finally:
            if self._task is not None:
                self._task.cancel()

    def runs(self) -> None:
        """Learns that the task runs: from now on there is an address, though no query tells it."""
        if self._task is None and self._context.request.endpoint in get_args(V1Submit):
            self._begin(self._ask_and_watch)

    def _begin(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        if len(_watching) >= AT_ONCE:
            return
        self._task = asyncio.ensure_future(work())
        _watching.add(self._task)
        self._task.add_done_callback(_watching.discard)

    async def _ask_and_watch(self) -> None:
        try:
            view = await self._client.workflows.outputs_v1(self._task_id)
        except Exception as error:  # whatever it is: the task is asked about elsewhere
            _log.debug("task %s: nothing is told of its nodes: %s", self._task_id, error)
            return
        if view.progress_url is not None:
            await self._watch(view.progress_url)

    async def _watch(self, url: SecretStr) -> None:
        lines = Lines(self._tell, self._context.request.node_names, every=self._every)
        try:
            async for event in watch_progress(url):
                lines.take(event)
        except Exception as error:  # whatever it is: see above
            _log.debug("nothing more is told of a task's nodes: %s", error)
        finally:
            lines.close()

    def _tell(self, line: str) -> None:
        self._context.notify("running", line, task_id=self._task_id, is_step=True)


class Lines:
    """Makes lines of events: the first at once, then at most one every few seconds, each the newest."""

    def __init__(self, tell: Callable[[str], None], names: Mapping[str, str], *, every: float) -> None:
        """Starts with nothing told.

        Args:
            tell: Takes a line.
            names: Node id -> class, as far as is known.
            every: Seconds between two lines.
        """
        self._tell = tell
        self._names = names
        self._every = every
        self._next = self._told = ""
        self._timer: asyncio.TimerHandle | None = None

    def take(self, event: ProgressEvent) -> None:
        """Takes an event; what it tells may wait for its turn."""
        if event.node is None or event.done:
            return
        self._next = self._line(event.node, event)
        if self._timer is None:
            self._say()

    def close(self) -> None:
        """Tells nothing more."""
        if self._timer is not None:
            self._timer.cancel()

    def _say(self) -> None:
        self._timer = None
        if self._next != self._told:
            self._told = self._next
            self._tell(self._told)
            self._timer = asyncio.get_running_loop().call_later(self._every, self._say)

    def _line(self, node: str, event: ProgressEvent) -> str:
        name = self._names.get(node) or f"node {node[:40]}"
        return f"{name} {event.value}/{event.max}" if event.value is not None and event.max else name

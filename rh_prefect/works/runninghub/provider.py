"""What works need from an account at RunningHub, or from a ComfyUI machine of its native proxy."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import get_args

from pydantic import SecretStr

from rh_prefect.client import Client, NativeSubmit, TaskView, V1Submit
from rh_prefect.client.progress import ProgressEvent, watch_progress
from rh_prefect.works.checked_request import JobRequest
from rh_prefect.works.input_identification import Inputs
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.runninghub.graph_request import GraphRequest, graph_request

LINK_SECONDS = 20 * 3600.0
"""Seconds for which a link is used. RunningHub documents one day; a job may wait for a slot in that time."""

MACHINE_FILE_SECONDS = 600.0
"""Seconds for which a file is assumed to remain on a machine, since the machine may be replaced."""

GRAPHS_AT_ONCE = 1
"""Maximum number of graphs of this process on a machine; RunningHub does not document that it accepts more."""

PROGRESS_SECONDS = 3.0
"""Seconds between two progress lines of one job; the newest line is always reported."""

WATCHED_AT_ONCE = 16
"""Maximum number of jobs of this process that report the progress of their nodes."""

_log = logging.getLogger("rh_prefect")
_watching: set[asyncio.Task[None]] = set()


class RunningHub:
    """RunningHub's calls that works need, with one account; they raise the errors of `rh_prefect.client.Client`."""

    # Whether it is a machine without the account's services: no webhooks, no prices and costs, no count of tasks, and
    # files only with the key
    is_bare = False
    file_seconds = LINK_SECONDS  # for which an uploaded file can be used
    # Where a person finds a task, and the form of its id
    task_list = ("RunningHub's call log", "TASK_ID")

    def __init__(self, client: Client) -> None:
        self.client = client
        self.site = client.site
        self.account_id = client.account_id
        # The client's own methods: no frame lies between them and their callers.
        self.submit, self.query, self.cancel = client.submit, client.query, client.cancel
        self.download, self.upload = client.download, client.upload
        self.price = client.price_preview

    @classmethod
    def open(cls, api_key: SecretStr, *, base_url: str, submit_timeout: float) -> RunningHub:
        """Opens the account of a key; its client is closed at process exit."""
        client = Client(api_key, base_url=base_url, submit_timeout=submit_timeout)
        LOOP.on_close(client.aclose)
        return cls(client)

    async def prepare(self, request: GraphRequest, inputs: Inputs, label: str | None) -> JobRequest:
        """Checks a request against its graph, if the graph is known, and identifies its files by content."""
        return await graph_request(request, client=self.client, inputs=inputs, label=label)

    async def slots(self) -> tuple[int | None, int | None]:
        """Returns the key's limit of concurrent tasks, and the number of its running and queued tasks."""
        status = await self.client.queue_status()
        return status.limit, status.running + status.queued

    async def currency(self, *, pace_seconds: float | None = None) -> str | None:
        """Returns the currency of the account's wallet; None if RunningHub does not report it."""
        return (await self.client.account(pace_seconds=pace_seconds)).currency

    def progress(self, request: JobRequest, task_id: str, report: Callable[[str], None]) -> NodeProgress:
        """Creates the reader of the progress of a graph's nodes."""
        return NodeProgress(self.client, request, task_id, report)


class Machine(RunningHub):
    """One ComfyUI machine of an account. The account's queue, prices and call log do not include the machine."""

    is_bare = True
    file_seconds = MACHINE_FILE_SECONDS

    def __init__(self, client: Client, endpoint: NativeSubmit) -> None:
        super().__init__(client)
        self.upload = (client.comfy if endpoint == "/proxy" else client.comfy_plus).upload
        lists = f"{endpoint}/<key>/history and {endpoint}/<key>/queue"
        self.task_list = (
            f"ComfyUI's own job lists, at {lists} (RunningHub's call log does not include these jobs)",
            f"{endpoint.lstrip('/')}.PROMPT_ID",
        )

    async def slots(self) -> tuple[int | None, int | None]:
        """Returns the maximum number of concurrent graphs, and None, because the machine reports no count."""
        return GRAPHS_AT_ONCE, None


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
        if len(_watching) >= WATCHED_AT_ONCE:
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
            self._timer = asyncio.get_running_loop().call_later(PROGRESS_SECONDS, self._report_next)

    def _line(self, node: str, event: ProgressEvent) -> str:
        name = self._names.get(node) or f"node {node[:40]}"
        return f"{name} {event.value}/{event.max}" if event.value is not None and event.max else name

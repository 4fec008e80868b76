"""The calls that works need from an account at RunningHub, or from a ComfyUI machine of its native proxy."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import SecretStr

from rh_prefect.client import Client, NativeSubmit
from rh_prefect.works.checked_request import JobRequest
from rh_prefect.works.input_identification import Inputs
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.runninghub.graph_request import GraphRequest, graph_request
from rh_prefect.works.runninghub.node_progress import NodeProgress

LINK_SECONDS = 20 * 3600.0
"""Seconds for which a link is used. RunningHub documents one day; a job may wait for a slot in that time."""

MACHINE_FILE_SECONDS = 600.0
"""Seconds for which a file is assumed to remain on a machine, since the machine may be replaced."""

GRAPHS_AT_ONCE = 1
"""Maximum number of graphs of this process on a machine; RunningHub does not document that it accepts more."""


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

"""What works need of the service that runs their tasks; `works/runninghub/` is the service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from rh_prefect.client import Download, TaskView, Upload
from rh_prefect.client.wire.platform import PricePreview
from rh_prefect.workflows import AppInput, GraphInput, QuickCreateInput, WorkflowInput
from rh_prefect.works.requests.input_identification import Inputs
from rh_prefect.works.requests.request_preparation import JobRequest

GraphRequest: TypeAlias = WorkflowInput | AppInput | QuickCreateInput | GraphInput
"""A request that is checked against a graph of the site, or is one."""


class Progress(Protocol):
    """The progress of one task inside the service."""

    def during(self, first_view: TaskView | None) -> AbstractContextManager[None]:
        """Reports progress for the duration of a `with` block; the answer to the submit may say where to read it."""
        ...

    def runs(self) -> None:
        """Records that the task runs."""
        ...


class Provider(Protocol):
    """One account at the service, or a machine of it; errors are those of `rh_prefect.client.Client`.

    Attributes:
        site: The service's host.
        account_id: Identifies the account without its key.
        is_bare: Whether it is a machine without the account's services: no webhooks, no prices and costs, no count of
            tasks, and files only with the key.
        file_seconds: Seconds for which an uploaded file can be used.
    """

    site: str
    account_id: str
    is_bare: bool
    file_seconds: float

    def at(self, endpoint: str) -> Provider:
        """Returns where the tasks of an endpoint run: a machine, or the account itself."""
        ...

    def task_list(self, endpoint: str) -> tuple[str, str]:
        """Returns where a person looks for a task of an endpoint, and the form of its id."""
        ...

    async def prepare(self, request: GraphRequest, inputs: Inputs, label: str | None) -> JobRequest:
        """Checks a request against its graph, and identifies its files; costs nothing."""
        ...

    async def submit(self, endpoint: str, payload: Mapping[str, object], *, webhook_url: str | None) -> TaskView:
        """Creates a task, which costs money; sent once."""
        ...

    async def query(self, task_id: str) -> TaskView:
        """Returns a task's state."""
        ...

    async def cancel(self, task_id: str) -> None:
        """Cancels a task; a query returns the outcome."""
        ...

    async def slots(self) -> tuple[int | None, int | None]:
        """Returns the limit of running tasks, and how many tasks there are; None if unknown."""
        ...

    async def currency(self, *, pace_seconds: float | None = None) -> str | None:
        """Returns the account's currency; None if it is not reported."""
        ...

    async def price(self, endpoint: str, payload: Mapping[str, Any]) -> PricePreview:
        """Returns the price of a submission."""
        ...

    async def upload(self, path: Path, *, name: str, mime: str) -> Upload:
        """Sends a file for the inputs of tasks."""
        ...

    async def download(self, url: str, to: Path) -> Download:
        """Downloads an output; resumes an interrupted download."""
        ...

    def progress(self, request: JobRequest, task_id: str, report: Callable[[str], None]) -> Progress:
        """Makes the reader of a task's progress, which passes on lines for people."""
        ...

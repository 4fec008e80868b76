"""Creates a run's Prefect artifacts: Markdown pages and a progress bar.

A failure is logged and never raised, because a missing artifact must not make a paid job fail. Functions that create an
artifact return its id, or None outside of flows and after a failure. By default, `page` is that of the caller's flow
run; a hook that a worker calls must pass one. `what` is the suffix of the artifact's key: lower-case letters, dashes.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate
from typing import Any, TypeVar
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow

from rh_prefect.errors import ConfigError
from rh_prefect.prefect_api import FAILURES, ask
from rh_prefect.prefect_internals import is_continued, is_exiting

_T = TypeVar("_T")
_logger = logging.getLogger("rh_prefect.artifacts")
MAX_PAGE = 500_000
"""Maximum size in bytes of a Markdown artifact, including its pictures. Prefect Cloud refuses requests above 5 MiB. A
Prefect server has no limit, but its database keeps each version, and a browser loads an artifact as a whole.
"""
_PATIENCE = 15.0


PIPELINE_PREFIX = "pipeline--"
"""The prefix of pipelines' artifact keys; the keys of other flows contain no double dash."""

_OF_PIPELINE = "rh_prefect_pipeline"


def mark_pipeline(function: Callable[..., Any]) -> None:
    """Marks a pipeline's flow function, so that a hook in a worker recognises the pipeline."""
    setattr(function, _OF_PIPELINE, True)


@dataclass(frozen=True, slots=True)
class Page:
    """Writes the artifacts of one flow run."""

    flow: str  # The name of its flow
    flow_run_id: UUID
    is_pipeline: bool = False  # The keys of a pipeline's flow differ from those of a flow with the same name
    # Artifacts from before this time are of earlier attempts and are replaced; None in the first attempt
    replaces_before: datetime | None = field(default=None, compare=False)

    @classmethod
    def of(cls, flow: Flow[..., Any], flow_run_id: UUID, *, replaces_before: datetime | None = None) -> Page:
        """Returns the page of a flow run; the keys of its artifacts contain the flow's name."""
        is_pipeline = hasattr(flow.fn, _OF_PIPELINE)
        return cls(flow.name, flow_run_id, is_pipeline=is_pipeline, replaces_before=replaces_before)

    @classmethod
    def of_context(cls, context: FlowRunContext | None) -> Page | None:
        """Returns the page of the flow run with a context; None if the context is incomplete, as in a worker's hook."""
        if context is None or context.flow is None or context.flow_run is None:
            return None
        began = context.start_time if is_continued(context.flow_run) else None
        return cls.of(context.flow, context.flow_run.id, replaces_before=began)

    @classmethod
    def current(cls) -> Page | None:
        """Returns the page of the caller's flow run; None outside of flows, and in a hook that a worker calls."""
        return cls.of_context(FlowRunContext.get())

    @classmethod
    def current_key(cls, what: str) -> str:
        """Returns the key of an artifact of the caller's flow run; see `key`."""
        page = cls.current()
        return page.key(what) if page is not None else what

    def key(self, what: str) -> str:
        """Returns an artifact's key, which is the same in all runs of a flow, so that the artifact has a history."""
        flow = re.sub(r"[^a-z0-9]+", "-", self.flow.lower()).strip("-") or "flow"
        if not self.flow.isascii():  # Other characters are not allowed; names that differ in these would share a key
            flow = f"{flow}-{hashlib.sha256(self.flow.encode()).hexdigest()[:8]}"
        return f"{PIPELINE_PREFIX if self.is_pipeline else ''}{flow}-{what}"


async def markdown(text: str, *, what: str, description: str, page: Page | None = None) -> UUID | None:
    """Creates a Markdown artifact; text longer than `MAX_PAGE` bytes is cut at the end of a line."""
    return await _create(page, what, "markdown", _within_page(text), description)


def _within_page(text: str) -> str:
    if size_of(text) <= MAX_PAGE:
        return text
    note = f"\n\nThe rest is not shown: a page has at most {MAX_PAGE // 1000} kB."
    head = text.encode()[: MAX_PAGE - size_of(note) - len("\n```")].decode(errors="ignore").rpartition("\n")[0]
    is_open = sum(line.startswith("```") for line in head.splitlines()) % 2
    return f"{head}{chr(10) + '```' if is_open else ''}{note}"


def size_of(text: str) -> int:
    """Returns the size of a string in bytes, for comparison with `MAX_PAGE`."""
    return len(text.encode())


def fitting(parts: Sequence[str], room: int, *, what: str) -> list[str]:
    """Returns the first parts that fit into `room` bytes, and a line with the number of omitted parts (`what`)."""
    sizes = accumulate(size_of(part) + 2 for part in parts)
    first = [part for part, size in zip(parts, sizes, strict=True) if size <= room]
    return [*first, *not_shown(len(first), len(parts), what)]


def not_shown(shown: int, total: int, what: str) -> list[str]:
    """Returns a line with the number of entries that a page omits, as in `Not shown: 3 of 9 steps`, if it omits any."""
    return [f"Not shown: {total - shown} of {total} {what}."] if shown < total else []


class Progress:
    """One progress bar of a run, in percent: created at the first report, then updated at most every few seconds.

    Use a bar on one event loop only.
    """

    def __init__(
        self, *, page: Page | None = None, every: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._page = page
        self._every = every
        self._clock = clock
        self._id: UUID | None = None
        self._next = float("-inf")
        self._reporting: asyncio.Task[None] | None = None
        self._late: tuple[float, str] | None = None  # The newest report during the interval
        self._timer: asyncio.TimerHandle | None = None
        self._has_failed = False  # Whether an error of an update was logged

    def report(self, percent: float, description: str) -> None:
        """Starts to update the bar; during an update and for a few seconds after it, the newest report waits."""
        if self._clock() < self._next or self._reporting is not None:
            self._late = (percent, description)
            return
        if self._timer is not None:
            self._timer.cancel()
        self._late = self._timer = None
        self._reporting = asyncio.ensure_future(self._show(min(max(percent, 0.0), 100.0), description))
        self._reporting.add_done_callback(self._end_report)

    def _end_report(self, report: asyncio.Task[None]) -> None:
        error = None if report.cancelled() else report.exception()
        # A process that ends has closed its clients.
        if error is not None and not self._has_failed and not is_exiting():
            self._has_failed = True
            _logger.warning("The progress bar could not be updated; the run continues.", exc_info=error)
        self._next = self._clock() + self._every
        self._reporting = None  # tasks and timers keep their context, which contains the flow run
        if self._every < float("inf"):
            self._timer = asyncio.get_running_loop().call_later(self._every, self._report_late)

    def _report_late(self) -> None:
        self._timer = None
        if self._late is not None:
            self._next = float("-inf")
            self.report(*self._late)

    async def finish(self, percent: float, description: str) -> None:
        """Sets an existing bar to its final value, regardless of the minimum interval; later reports are ignored."""
        self._next = self._every = float("inf")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._reporting is not None:
            await asyncio.wait([self._reporting])  # its error or cancellation must not stop the final update
        if self._id is not None:
            await self._show(percent, description)

    async def _show(self, percent: float, description: str) -> None:
        if self._id is None:
            self._id = await _create(self._page, "progress", "progress", percent, description)
        else:
            await _update(self._id, percent, description)


async def end_progress(percent: float, description: str, *, page: Page) -> None:
    """Sets the newest progress bar of a run to its final value, in place of the run's process, which has ended."""
    newest = await _newest(page, "progress")
    if newest is not None:
        await _update(newest, percent, description)


async def _create(page: Page | None, what: str, kind: str, data: str | float, description: str) -> UUID | None:
    page = page or Page.current()
    if page is None:
        return None
    if page.replaces_before is not None and (earlier := await _newest(page, what, before=page.replaces_before)):
        await _update(earlier, data, description)
        return earlier
    artifact = ArtifactCreate(
        key=page.key(what), type=kind, data=data, description=description, flow_run_id=page.flow_run_id
    )
    created = await _safely(lambda client: client.create_artifact(artifact))
    return created.id if created is not None else None


async def _update(artifact: UUID, data: str | float, description: str) -> None:
    update = ArtifactUpdate(data=data, description=description)
    await _safely(lambda client: client.update_artifact(artifact, update))


async def _newest(page: Page, what: str, *, before: datetime | None = None) -> UUID | None:
    """Returns the id of a run's newest artifact with a key, or of the newest that was created before a time."""
    wanted = ArtifactFilter(
        key=ArtifactFilterKey(any_=[page.key(what)]), flow_run_id=ArtifactFilterFlowRunId(any_=[page.flow_run_id])
    )
    newest = ArtifactSort.CREATED_DESC
    found = await _safely(lambda client: client.read_artifacts(artifact_filter=wanted, sort=newest))
    earlier = (one for one in found or () if before is None or (one.created is not None and one.created < before))
    return next((one.id for one in earlier), None)


async def _safely(request: Callable[[PrefectClient], Awaitable[_T]]) -> _T | None:
    try:
        # Prefect's client would try for a minute.
        async with asyncio.timeout(_PATIENCE):
            return await ask(request)
    except (*FAILURES, OSError, ConfigError, ObjectNotFound) as error:  # a person may have deleted the artifact
        _logger.warning(
            "The dashboard could not be updated (%s); the run continues.", str(error) or type(error).__name__
        )
        return None

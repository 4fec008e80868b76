"""What Prefect's dashboard shows of a run: a table of its steps, a contact sheet, one progress bar.

What cannot be shown is logged and never raised: a paid job must not fail for its picture.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
from prefect.artifacts import Artifact, ImageArtifact, ProgressArtifact, TableArtifact, aupdate_progress_artifact
from prefect.client.orchestration import PrefectClient
from prefect.context import FlowRunContext

from rh_prefect.connection import connect
from rh_prefect.errors import ConfigError, InputError

_logger = logging.getLogger("rh_prefect.artifacts")
_MAX_IMAGE = 100_000
_PATIENCE = 15.0


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the table of steps.

    Attributes:
        model: The model's name, or what else was done.
        state: How it ended, as in "succeeded", "reused", "failed".
        queued_seconds: How long it waited at RunningHub.
        run_seconds: How long it ran.
        cost: What it cost.
        currency: Of the cost.
        output: Where its output is.
    """

    model: str
    state: str
    queued_seconds: float | None = None
    run_seconds: float | None = None
    cost: Decimal | None = None
    currency: str | None = None
    output: str | None = None

    def row(self) -> dict[str, str]:
        """The step as the dashboard's table takes it."""
        return {
            "model": self.model,
            "state": self.state,
            "queued (s)": _seconds(self.queued_seconds),
            "run (s)": _seconds(self.run_seconds),
            "cost": "" if self.cost is None else f"{self.cost.normalize():f} {self.currency or ''}".strip(),
            "output": self.output or "",
        }


async def steps_table(steps: Iterable[Step]) -> UUID | None:
    """Shows what each step of the run took and cost.

    Args:
        steps: The rows, in order.

    Returns:
        The artifact's id; None outside flows, or when it could not be shown.
    """
    key = _key("steps")
    if key is None:
        return None
    rows = [step.row() for step in steps]
    return await _create(TableArtifact(key=key, table=rows, description=f"{len(rows)} steps, {_total(rows)}."))


async def contact_sheet(jpeg: bytes, uri: str) -> UUID | None:
    """Shows a small picture of what the run has made.

    Args:
        jpeg: The picture; it is kept in Prefect's database, so some 30 to 60 kB do.
        uri: Where the full one is.

    Returns:
        The artifact's id; None outside flows, or when it could not be shown.

    Raises:
        InputError: It is larger than 100 kB.
    """
    if len(jpeg) > _MAX_IMAGE:
        raise InputError(
            f"The contact sheet for the dashboard has {len(jpeg)} bytes; pass a JPEG of at most {_MAX_IMAGE}."
        )
    key = _key("sheet")
    if key is None:
        return None
    # Inline: the browser that looks at it reaches neither a local folder nor a private bucket.
    image = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
    return await _create(ImageArtifact(key=key, image_url=image, description=f"Full size: `{uri}`"))


class Progress:
    """One progress bar of a run: created at the first report, then updated at most every few seconds."""

    def __init__(self, *, every: float = 3.0, clock: Callable[[], float] = time.monotonic) -> None:
        """Prepares the bar; it appears with the first report.

        Args:
            every: Seconds between two updates.
            clock: Monotonic seconds.
        """
        self._every = every
        self._clock = clock
        self._lock = asyncio.Lock()
        self._id: UUID | None = None
        self._next = float("-inf")

    async def report(self, percent: float, *, description: str | None = None) -> None:
        """Moves the bar, unless it was moved a moment ago.

        Args:
            percent: From 0 to 100.
            description: A line above the bar.
        """
        async with self._lock:
            if self._clock() >= self._next:
                await self._show(min(max(percent, 0.0), 100.0), description)
                self._next = self._clock() + self._every

    async def finish(self, *, description: str | None = None) -> None:
        """Sets the bar to 100 %, however short ago it was moved."""
        async with self._lock:
            await self._show(100.0, description)

    async def _show(self, percent: float, description: str | None) -> None:
        if self._id is not None:
            bar = self._id
            await _safely(
                lambda client: aupdate_progress_artifact(bar, percent, description=description, client=client)
            )
        elif (key := _key("progress")) is not None:
            self._id = await _create(ProgressArtifact(key=key, progress=percent, description=description))


def _key(what: str) -> str | None:
    """A key for each flow run: artifacts of one key are versions of one thing, and two runs are two things."""
    context = FlowRunContext.get()
    if context is None or context.flow is None or context.flow_run is None:
        return None
    flow = re.sub(r"[^a-z0-9]+", "-", context.flow.name.lower()).strip("-") or "flow"
    # The end of the id: its start may be a time stamp that runs started together share.
    return f"{flow}-{what}-{context.flow_run.id.hex[-12:]}"


async def _create(artifact: Artifact) -> UUID | None:
    created = await _safely(lambda client: artifact.acreate(client=client))
    return created.id if created is not None else None


async def _safely(request: Callable[[PrefectClient], Awaitable[Any]]) -> Any:  # whatever Prefect's call returns
    try:
        # Prefect's client would try for a minute.
        async with asyncio.timeout(_PATIENCE):
            connection = await connect()
            async with connection.gate:
                return await request(connection.client)
    except (httpx.HTTPError, TimeoutError, ConfigError) as error:
        _logger.warning("The dashboard could not be updated (%s); the run goes on.", error or type(error).__name__)
        return None


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _total(rows: list[dict[str, str]]) -> str:
    totals: dict[str, Decimal] = {}
    for amount, _, currency in (row["cost"].partition(" ") for row in rows if row["cost"]):
        totals[currency] = totals.get(currency, Decimal(0)) + Decimal(amount)
    return (
        ", ".join(f"{total.normalize():f} {currency}".strip() for currency, total in totals.items()) or "no cost known"
    )

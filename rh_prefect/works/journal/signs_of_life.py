"""Writes once a minute that a flow run is alive, while it waits for works that other runs may cancel."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rh_prefect.errors import RunningHubError
from rh_prefect.works.journal.works_journal import WorksJournal

EVERY = 60.0
"""Seconds between two signs of life; the first one is the record of the waiter."""

_log = logging.getLogger("rh_prefect")


@dataclass(slots=True)
class _Writer:
    """The task that writes for one flow run and one place of records, and how many works need it."""

    task: asyncio.Task[None]
    users: int = 0


_writers: dict[tuple[str, str], _Writer] = {}
# The tasks are the parent's, which a forked child does not have.
os.register_at_fork(after_in_child=_writers.clear)


@contextmanager
def signs_of_life(works: WorksJournal, flow_run: str, *, every: float = EVERY) -> Iterator[None]:
    """Writes signs of life during a `with` block, one file for all works of a run in one place.

    It runs on the package's loop thread, so that a flow that computes for long is not silent.
    """
    name = (flow_run, repr(works))
    writer = _writers.get(name)
    if writer is None:
        writer = _writers[name] = _Writer(asyncio.ensure_future(_write(works, flow_run, every)))
    writer.users += 1
    try:
        yield
    finally:
        writer.users -= 1
        if not writer.users:
            _writers.pop(name, None)
            writer.task.cancel()


async def _write(works: WorksJournal, flow_run: str, every: float) -> None:
    while True:
        await asyncio.sleep(every)
        try:
            await works.sign_of_life(flow_run)
        except RunningHubError as error:
            _log.info("flow run %s: its sign of life was not written: %s", flow_run, error)

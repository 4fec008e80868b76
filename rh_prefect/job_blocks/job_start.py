"""Starts a paid job and comes back as soon as its ticket is recorded; from then on a crash costs nothing."""

from __future__ import annotations

import asyncio
from typing import Any, Final, NamedTuple

from rh_prefect.blocks.lookup import load_engine, load_storage
from rh_prefect.errors import JournalError
from rh_prefect.flow_runs.job_observer import run_observer
from rh_prefect.flow_runs.scope import current_caller
from rh_prefect.job_blocks.job_handle import Handle, background
from rh_prefect.job_blocks.tracked_scope import TrackedScope
from rh_prefect.jobs.events import JobEvent, JobEventState, Observer
from rh_prefect.jobs.journal.call_path import Place
from rh_prefect.jobs.journal.job_records import JobRecords
from rh_prefect.jobs.options import Asked, Options
from rh_prefect.jobs.outputs.result import Result
from rh_prefect.settings import get_settings
from rh_prefect.tasks.generate import scope_for

_PAID: Final[frozenset[JobEventState]] = frozenset(
    {"submitted", "adopted", "running", "collecting", "succeeded", "reused"}
)
"""What is told only of a job whose task is known."""

_FIRST_LOOK, _LONGEST_GAP = 0.2, 10.0
"""Seconds between two looks for the ticket of a job that another call has begun."""


class _Ticket(NamedTuple):
    job: str
    task_id: str


class _Ear:
    """Hears of the ticket, and tells the run's own observer everything."""

    def __init__(self, inner: Observer) -> None:
        self._inner = inner
        self.ticket: asyncio.Future[_Ticket] = asyncio.get_running_loop().create_future()

    def notify(self, event: JobEvent) -> None:
        self._inner.notify(event)
        if event.task_id is not None and event.state in _PAID and not self.ticket.done():
            self.ticket.set_result(_Ticket(event.job, event.task_id))


async def start(asked: Asked, options: Options, *, scope: str | None, place: Place) -> Handle:
    """Starts a job in the scope of the caller, as `rh_prefect.tasks.generate.run_job` does; runs on the loop thread.

    Args:
        asked: What is asked for.
        options: How to run it.
        scope: Outside of flows: the name under which the job is remembered.
        place: The place of the call in its run.

    Returns:
        The job, which is paid for and goes on.

    Raises:
        RunningHubError: It could not be submitted; or it is known to have failed in this attempt of the run.
    """
    settings = get_settings()
    desk = await load_engine(options.credentials)
    store = await load_storage(options.storage)
    here = await scope_for(scope, options.key, journal_url=settings.journal_url)
    caller = await current_caller(place)
    tracked = TrackedScope.of(here, key=options.key)
    ear = _Ear(run_observer())
    work = background(desk.run(asked, scope=tracked, store=store, caller=caller, options=options, observer=ear))
    ticket = await _until_paid(work, ear, tracked)
    return Handle(
        task_id=ticket.task_id,
        job=ticket.job,
        scope=tracked,
        accounts=desk.pool.accounts,
        observer=ear,
        work=lambda: work,
    )


async def _until_paid(work: asyncio.Task[Result], ear: _Ear, place: TrackedScope) -> _Ticket:
    look = background(_look(place))
    first: set[asyncio.Future[Any]] = {work, ear.ticket, look}
    try:
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        # What is between claim and answer ends in order all the same, and the next run adopts it.
        work.cancel()
        raise
    finally:
        look.cancel()
    if ear.ticket.done():
        return ear.ticket.result()
    if look.done() and not work.done():
        return look.result()
    result = await work
    return _Ticket(result.job, result.task_id)


async def _look(place: TrackedScope) -> _Ticket:
    """Finds the ticket in the journal where another call has begun the job: it is that call which hears of it.

    A task that is tried again meets its own job so, still going on in the background.
    """
    gap = _FIRST_LOOK
    while True:
        await asyncio.sleep(gap)
        gap = min(gap * 1.5, _LONGEST_GAP)
        if place.was_asked_for and place.key is not None and (task_id := await _running(place, place.key)):
            return _Ticket(f"{place.journal.scope}/{place.key}", task_id)


async def _running(place: TrackedScope, key: str) -> str | None:
    try:
        last = (await JobRecords(place.journal, key).view()).last
    except JournalError:
        return None
    # What has ended may be about to be paid for again; the work itself says so soon.
    return last.task_id if last is not None and last.state == "ticket" else None

"""Monitors suspended runs from another process, and resumes a run when its tasks have ended.

Before a run suspends, it records its running tasks as `suspend-<n>` in its journal, and then suspends with a pause key
that names this record. So the monitor can recognise such runs and query their tasks. A run is resumed when all these
tasks have ended, or when its time limit has passed. The resumed run finds its jobs in the journal and collects them.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import PREFECT_API_URL

from rh_prefect.blocks.lookup import RECORDED
from rh_prefect.errors import RunningHubError, TaskNotFound
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.recorded_job_collection import queried, record_end, records_of
from rh_prefect.flow_runs.run_queries_and_scopes import find_flow_runs
from rh_prefect.flow_runs.suspend_for_jobs import PAUSE_KEY, SUSPEND, PendingTask, Suspension
from rh_prefect.prefect_api import ask
from rh_prefect.works.accounts.poller import query_repeatedly
from rh_prefect.works.journal.job_records_and_state import Submit
from rh_prefect.works.loop_thread import LOOP, end_task

BY_THE_CLOCK: Final = 60.0
"""Seconds between two checks that query RunningHub; these find ends that no webhook has reported."""

SHORTEST: Final = 1.0
"""Minimum seconds between two checks, however many ends are reported."""

AFTER_AN_END: Final = (1, 2, 4, 8, 16, 30)
"""After a reported end, the runs are checked again after these multiples of the shortest pause, because the run that
waits for the end may be about to suspend.
"""

_log = logging.getLogger("rh_prefect")


@dataclass(frozen=True, slots=True)
class SuspendedRun:
    """A flow run that is suspended until its tasks have ended; `n` is the number of the suspension."""

    flow_run_id: UUID
    name: str
    n: int

    @property
    def record(self) -> str:
        """The key of the run's record of this suspension."""
        return f"{SUSPEND}-{self.n}"


async def wake_suspended() -> list[UUID]:
    """Resumes each suspended run whose tasks have ended or whose time limit has passed; call it on the loop thread.

    RunningHub is queried, so a lost webhook only causes a delay. For each run, the queries stop at the first task that
    is still running. Concurrent and repeated calls resume a run only once.
    """
    return await Resumer().check(asks=True)


async def suspended_runs_with_tasks() -> AsyncIterator[SuspendedRun]:
    """Yields the flow runs that this package has suspended until their tasks have ended."""
    flow_run_filter = FlowRunFilter(
        state=FlowRunFilterState(
            type=FlowRunFilterStateType(any_=[StateType.PAUSED]), name=FlowRunFilterStateName(any_=["Suspended"])
        )
    )
    async for flow_run in find_flow_runs(flow_run_filter, sort=FlowRunSort.ID_DESC):
        state = flow_run.state
        key = state.state_details.pause_key if state is not None else None
        n = (key or "").removeprefix(PAUSE_KEY)
        if key is not None and key != n and n.isdecimal():
            yield SuspendedRun(flow_run.id, flow_run.name, int(n))


@dataclass(slots=True)
class _Watched:
    """A suspension, and its tasks that are not known to have ended."""

    suspension: Suspension  # What the run has recorded
    running: list[PendingTask] = field(default_factory=list)  # Its tasks that may still be running
    has_unknown: bool = False  # Whether RunningHub has repeated that it does not know one of them


class Resumer:
    """Resumes suspended runs, and remembers between checks which tasks have ended; use it only on the loop thread."""

    def __init__(self) -> None:
        self._watched: dict[SuspendedRun, _Watched] = {}

    async def check(self, *, asks: bool) -> list[UUID]:
        """Checks the suspended runs once; without `asks` it reads only journals, and does not query RunningHub."""
        found = [run async for run in suspended_runs_with_tasks()]
        self._watched = {one: known for one, known in self._watched.items() if one in found}
        return [run.flow_run_id for run in found if await self._can_wake(run, asks=asks)]

    async def _can_wake(self, run: SuspendedRun, *, asks: bool) -> bool:
        try:
            why = await self._reason(run, asks=asks)
            return why is not None and await _wake(run, why)
        except RunningHubError as error:
            _log.warning("the suspended run %s cannot be watched; the next check tries again: %s", run.name, error)
        except Exception:  # the other runs are resumed in any case
            _log.exception("the suspended run %s cannot be watched; the next check tries again", run.name)
        return False

    async def _reason(self, run: SuspendedRun, *, asks: bool) -> str | None:
        """Returns the reason to resume a run; None if it stays suspended."""
        watched = self._watched.get(run) or await self._begin(run)
        if watched is None:
            return None
        tasks = len(watched.suspension.tasks)
        # First of all: it must not depend on whether this process can ask RunningHub.
        if datetime.now(UTC) >= watched.suspension.wake_by:
            return f"its time limit has passed, and {len(watched.running)} of its {tasks} tasks may still run"
        while watched.running and await _has_ended(run, watched, watched.running[-1], asks=asks):
            watched.running.pop()
        return None if watched.running else f"all of its {tasks} tasks have ended"

    async def _begin(self, run: SuspendedRun) -> _Watched | None:
        record = await FlowRunJournal(run.flow_run_id).read(run.record)
        if record is None:
            return None
        suspension = Suspension.model_validate(record)
        self._watched[run] = _Watched(suspension, list(suspension.tasks))
        return self._watched[run]


async def _has_ended(run: SuspendedRun, watched: _Watched, task: PendingTask, *, asks: bool) -> bool:
    records = await records_of(task.job, task.n, flow_run=str(run.flow_run_id))
    if await records.read_end(task.n) is not None:
        return True
    if not asks:
        return False
    submit = await records.submission(task.n)
    if submit is None:
        return True  # its record is missing; the run itself reports what is wrong
    try:
        view = await queried(submit, task.task_id)
        await record_end(submit, view, records=records)
        return view.is_terminal  # if a link is missing or invalid, the run itself decides what to do
    except TaskNotFound as error:
        if not await _is_unknown(watched, submit):
            return False
        _log.warning("%s: RunningHub does not know its task, so its run is resumed: %s", task.job, error)
        return True  # the run itself will report it


async def _is_unknown(watched: _Watched, submit: Submit) -> bool:
    """Returns whether RunningHub answers repeatedly that it does not know a task.

    One answer may be wrong, and a run that is resumed early occupies a worker until its last task ends. One confirmed
    task is enough: if the key now belongs to another account, RunningHub knows none of the run's tasks, so the
    queries for the other tasks are not repeated.
    """
    if not watched.has_unknown:
        client = await RECORDED.provider_of(submit.intent)
        with suppress(TaskNotFound):
            await query_repeatedly(client.query, submit.task_id or "")
            return False
    watched.has_unknown = True
    return True


async def _wake(run: SuspendedRun, why: str) -> bool:
    done = await ask(lambda api: api.resume_flow_run(run.flow_run_id))
    # A second resume is refused: another process has resumed it, or it was cancelled.
    is_woken = done.status == SetStateStatus.ACCEPT
    if is_woken:
        _log.info("resumed the suspended run %s: %s", run.name, why)
    return is_woken


class SuspendedRunResumer:
    """The webhook receiver's only monitor of suspended runs; idle if no Prefect API is configured."""

    def __init__(
        self,
        *,
        every: float = BY_THE_CLOCK,
        shortest: float = SHORTEST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._every = every
        self._shortest = shortest
        self._clock = clock
        self._waker = Resumer()
        self._lock = threading.Lock()
        self._is_started = False
        self._end_event = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts the monitor; further calls, from any thread, have no effect."""
        with self._lock:
            if self._is_started or not PREFECT_API_URL.value():
                return
            self._is_started = True
        LOOP.submit(self._begin())

    def notify(self) -> None:
        """Tells the monitor that a task has ended, so that it checks soon; call it on the loop thread."""
        self._end_event.set()

    async def close(self) -> None:
        """Stops the monitor, which can be started again; call it on the loop thread."""
        with self._lock:
            self._is_started = False
        task, self._task = self._task, None
        if task is not None:
            await end_task(task)
        LOOP.forget_closer(self.close)

    async def _begin(self) -> None:
        self._task = asyncio.ensure_future(self._run())
        LOOP.on_close(self.close)

    async def _run(self) -> None:
        due = self._clock()
        soon: list[float] = []
        while True:
            began = self._clock()
            asks = began >= due
            await self._look(asks=asks)
            due = began + self._every if asks else due
            pause = min(soon.pop(0) if soon else self._every, max(0.0, due - self._clock()))
            if await self._hears_within(pause):
                soon = [self._shortest * times for times in AFTER_AN_END]
            await asyncio.sleep(max(0.0, began + self._shortest - self._clock()))
            self._end_event.clear()

    async def _hears_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._end_event.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _look(self, *, asks: bool) -> None:
        try:
            await self._waker.check(asks=asks)
        except Exception as error:  # the Prefect API may be unavailable for a while; the request is repeated
            _log.warning("suspended runs cannot be watched now; the next check tries again: %s", error)

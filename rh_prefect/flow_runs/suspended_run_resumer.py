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
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import SetStateStatus
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


async def wake_suspended() -> list[UUID]:
    """Resumes each suspended run whose tasks have ended or whose time limit has passed; call it on the loop thread.

    RunningHub is queried, so a lost webhook only causes a delay. For each run, the queries stop at the first task that
    is still running. Concurrent and repeated calls resume a run only once.
    """
    return await SuspendedRunResumer().check(asks=True)


async def _suspended_runs() -> AsyncIterator[tuple[FlowRun, str]]:
    """Yields the flow runs that this package has suspended, each with the key of its record of the suspension."""
    async for flow_run in find_flow_runs([StateType.PAUSED], name="Suspended"):
        key = (flow_run.state.state_details.pause_key if flow_run.state is not None else None) or ""
        n = key.removeprefix(PAUSE_KEY)
        if key != n and n.isdecimal():
            yield flow_run, f"{SUSPEND}-{n}"


class _Watched:
    """A suspension of a flow run, and its tasks that are not known to have ended."""

    def __init__(self, flow_run_id: UUID, suspension: Suspension) -> None:
        self._flow_run_id = flow_run_id
        self._suspension = suspension
        self._running = list(suspension.tasks)
        self._has_unknown = False

    async def reason_to_resume(self, *, asks: bool) -> str | None:
        """Returns the reason to resume the run; None if it stays suspended."""
        tasks = len(self._suspension.tasks)
        # First of all: it must not depend on whether this process can ask RunningHub.
        if datetime.now(UTC) >= self._suspension.wake_by:
            return f"its time limit has passed, and {len(self._running)} of its {tasks} tasks may still run"
        while self._running and await self._has_ended(self._running[-1], asks=asks):
            self._running.pop()
        return None if self._running else f"all of its {tasks} tasks have ended"

    async def _has_ended(self, task: PendingTask, *, asks: bool) -> bool:
        records = await records_of(task.job, task.n, flow_run=str(self._flow_run_id))
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
            if not await self._is_unknown(submit):
                return False
            _log.warning("%s: RunningHub does not know its task, so its run is resumed: %s", task.job, error)
            return True  # the run itself will report it

    async def _is_unknown(self, submit: Submit) -> bool:
        """Returns whether RunningHub answers repeatedly that it does not know a task.

        One answer may be wrong, and a run that is resumed early occupies a worker until its last task ends. One
        confirmed task is enough: if the key now belongs to another account, RunningHub knows none of the run's tasks,
        so the queries for the other tasks are not repeated.
        """
        if not self._has_unknown:
            client = await RECORDED.provider_of(submit.intent)
            with suppress(TaskNotFound):
                await query_repeatedly(client.query, submit.task_id or "")
                return False
        self._has_unknown = True
        return True


class SuspendedRunResumer:
    """Resumes suspended runs, and remembers between checks which tasks have ended; the receiver has one.

    The monitor that `start` starts is idle if no Prefect API is configured.
    """

    def __init__(self, *, shortest: float = SHORTEST) -> None:
        self._shortest = shortest
        self._watched: dict[tuple[UUID, str], _Watched] = {}
        self._lock = threading.Lock()
        self._is_started = False
        self._end_event = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def check(self, *, asks: bool) -> list[UUID]:
        """Checks the suspended runs once, on the loop thread; returns those that it has resumed.

        Without `asks` it reads only journals, and does not query RunningHub.
        """
        found = {(run.id, record): run async for run, record in _suspended_runs()}
        self._watched = {one: known for one, known in self._watched.items() if one in found}
        return [run.id for (_, record), run in found.items() if await self._resume_if_due(run, record, asks=asks)]

    async def _resume_if_due(self, run: FlowRun, record: str, *, asks: bool) -> bool:
        try:
            watched = self._watched.get((run.id, record)) or await self._watch(run, record)
            why = None if watched is None else await watched.reason_to_resume(asks=asks)
            return why is not None and await _resume(run, why)
        except RunningHubError as error:
            _log.warning("the suspended run %s cannot be watched; the next check tries again: %s", run.name, error)
        except Exception:  # the other runs are resumed in any case
            _log.exception("the suspended run %s cannot be watched; the next check tries again", run.name)
        return False

    async def _watch(self, run: FlowRun, record: str) -> _Watched | None:
        suspension = await FlowRunJournal(run.id).read_as(record, Suspension)
        if suspension is None:
            return None
        watched = self._watched[run.id, record] = _Watched(run.id, suspension)
        return watched

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
        due = time.monotonic()
        soon: list[float] = []
        while True:
            began = time.monotonic()
            asks = began >= due
            await self._look(asks=asks)
            due = began + BY_THE_CLOCK if asks else due
            pause = min(soon.pop(0) if soon else BY_THE_CLOCK, max(0.0, due - time.monotonic()))
            if await self._hears_within(pause):
                soon = [self._shortest * times for times in AFTER_AN_END]
            await asyncio.sleep(max(0.0, began + self._shortest - time.monotonic()))
            self._end_event.clear()

    async def _hears_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._end_event.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _look(self, *, asks: bool) -> None:
        try:
            await self.check(asks=asks)
        except Exception as error:  # the Prefect API may be unavailable for a while; the request is repeated
            _log.warning("suspended runs cannot be watched now; the next check tries again: %s", error)


async def _resume(run: FlowRun, why: str) -> bool:
    done = await ask(lambda api: api.resume_flow_run(run.id))
    # A second resume is refused: another process has resumed it, or it was cancelled.
    is_resumed = done.status == SetStateStatus.ACCEPT
    if is_resumed:
        _log.info("resumed the suspended run %s: %s", run.name, why)
    return is_resumed

"""Suspends a flow run when all its jobs are submitted.

The run's process ends, and the run is resumed after the jobs have ended. While a job has no task yet, the run waits for
the other jobs as usual, because their ends free slots. When all jobs are submitted, the run records the tasks that are
still running, and then reads the ends once more. So if a task ends meanwhile, either the run notices its end, or the
receiver finds the record of the suspension.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import Pause
from prefect.flow_runs import asuspend_flow_run
from pydantic import BaseModel, ConfigDict

from rh_prefect.errors import InputError, RunningHubError
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.progress_observer import run_logger
from rh_prefect.flow_runs.recorded_job_collection import records_of
from rh_prefect.flow_runs.root_flow_run import PerObject
from rh_prefect.flow_runs.run_queries_and_scopes import read_flow_run
from rh_prefect.prefect_api import FAILURES, PATIENCE
from rh_prefect.prefect_internals import is_retried_in_process, pause_keys
from rh_prefect.settings import get_settings
from rh_prefect.works.accounts.poller import Poller
from rh_prefect.works.job_options import Wait
from rh_prefect.works.journal.job_records_and_state import JobRecords
from rh_prefect.works.journal.record_types import Record
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.result_delivery import Delivered
from rh_prefect.works.work_runner import WorkCall, WorkRunner

UNTIL_IT_FAILS: Final = 18 * 3600
"""Seconds after the latest resume time until Prefect marks the run as failed, if no process resumes suspended runs.
Links to outputs expire after a day, so a retry can still use them.
"""

SUSPEND: Final = "suspend"
"""The prefix of the keys of a run's suspension records."""

PAUSE_KEY: Final = "rh-suspend-"
"""The prefix of this package's pause keys; the number of the suspension record follows."""

T = TypeVar("T")
_log = logging.getLogger("rh_prefect")

SUSPEND_GROUP: ContextVar[SuspendGroup | None] = ContextVar("rh_prefect_suspend_group", default=None)
"""The group to which the caller's paid calls belong; None outside of a group."""


class PendingTask(BaseModel):
    """A task for which a suspended run waits."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    job: str  # The full name of its job
    n: int  # The number of the submission
    task_id: str
    shape: str = ""  # How its answer is read; see `result_key`


class Suspension(Record):
    """The record that a run creates right before it suspends itself."""

    tasks: tuple[PendingTask, ...]  # What it waits for
    wake_by: datetime  # When the run is resumed at the latest


class SuspendGroup:
    """The members that run jobs in one attempt of a flow run, which is suspended only when each waits for a task."""

    def __init__(self, flow_run_id: UUID, *, had: Sequence[Suspension], count: int, longest: float) -> None:
        """`had` are the earlier suspensions of the run, in order; `count` is the number of records of suspensions.

        The run is resumed after `longest` seconds, or earlier if a waiting call has an earlier deadline.
        """
        self._flow_run_id = flow_run_id
        self._journal = FlowRunJournal(flow_run_id)
        self._pollers: dict[str, Poller] = {}  # By task id
        self._slept_for = {task.task_id for one in had for task in one.tasks}
        self._to_request = {task.job: task for task in had[-1].tasks} if had else dict[str, PendingTask]()
        """The tasks for which the run was suspended last, and whose jobs this process has not requested yet."""
        self._has_warned = False
        self._n = count
        self._longest = longest
        self.timeout = int(longest) + UNTIL_IT_FAILS
        """Maximum seconds for which the run stays suspended."""
        self._busy = 0
        self._waiting: list[tuple[PendingTask, float]] = []  # Each with the seconds after which it is resumed
        self._over = asyncio.Event()
        self._deciding: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._pause: Pause | None = None

    @property
    def is_suspended(self) -> bool:
        """Whether the run is being suspended while the group's tasks continue."""
        return self._over.is_set()

    async def expect(self, members: int) -> None:
        """Registers a number of members of the group, before they start."""
        self._busy += members

    async def end(self) -> None:
        """Records that a member of the group has no more jobs."""
        self._busy -= 1
        self._look()

    async def run(self, runner: WorkRunner, asked: WorkCall) -> Delivered | PendingTask:
        """Submits one work and waits for its result; returns the work's task if the run is suspended before that."""
        async with runner.running(asked) as running:
            work = running.work
            self._to_request.pop(work.job, None)
            while (submit := await running.next_running_task(runner.options.deadline)) is not None:
                task = PendingTask(job=work.job, n=submit.n, task_id=submit.task_id or "", shape=asked.shape)
                self._pollers[task.task_id] = work.lease.account.poller
                deadline = runner.options.deadline
                if not await self.wait(task, running.end_of(submit, deadline), deadline=deadline):
                    await work.records.note_waiter(suspended=self.timeout)
                    return task
            done = await running.complete()
        return done  # noqa: RET504 - for mypy, the block may swallow an error

    async def wait(self, task: PendingTask, end: Coroutine[Any, Any, T], *, deadline: float | None = None) -> T | None:
        """Waits for the `end` of a task; returns None if the run is suspended first, for at most `deadline` seconds."""
        ended, over = asyncio.ensure_future(end), asyncio.ensure_future(self._over.wait())
        waiting = (task, self._longest if deadline is None else min(self._longest, deadline))
        self._waiting.append(waiting)
        self._busy -= 1  # When no member is busy, nothing can submit a job, and the run may be suspended
        self._look()
        try:
            await asyncio.wait({ended, over}, return_when=asyncio.FIRST_COMPLETED)
            return await ended if ended.done() else None
        finally:
            self._busy += 1
            self._waiting.remove(waiting)
            ended.cancel()
            over.cancel()

    @property
    def _is_ripe(self) -> bool:
        return not self._busy and bool(self._waiting) and not self.is_suspended

    def _look(self) -> None:
        is_deciding = self._deciding is not None and not self._deciding.done()
        if self._is_ripe and not is_deciding:
            self._deciding = asyncio.ensure_future(self._settle())

    async def _settle(self) -> None:
        decided: list[PendingTask] = []
        # A member that continues meanwhile may submit another job: the decision is repeated when it is submitted.
        while self._is_ripe and decided != self._tasks:
            decided = self._tasks
            try:
                may_suspend = await self.may_suspend(decided)
            except Exception as error:  # waiting in this process always works
                _log.warning("the flow waits for its running tasks in this process instead of suspending: %s", error)
                return
            if may_suspend and self._is_ripe and decided == self._tasks:
                self._over.set()

    @property
    def _tasks(self) -> list[PendingTask]:
        return list(dict.fromkeys(task for task, _ in self._waiting))

    async def may_suspend(self, tasks: Sequence[PendingTask]) -> bool:
        """Records a suspension for tasks; returns False if the run must not be suspended for them."""
        # Resumed before the end, or with nothing new to wait for: it would be suspended for the same tasks repeatedly.
        if all(task.task_id in self._slept_for for task in tasks):
            return False
        await self._drop_finished()
        # Each resume of such a run would pay for new tasks, and suspend it again.
        if self._to_request:
            self._warn_of_new_requests()
            return False
        wake_after = min((seconds for _, seconds in self._waiting), default=self._longest)
        self.timeout = int(wake_after) + UNTIL_IT_FAILS
        wake_by = datetime.now(UTC) + timedelta(seconds=wake_after)
        record = Suspension(tasks=tuple(tasks), wake_by=wake_by).model_dump(mode="json")
        self._n += 1
        while not await self._journal.create(f"{SUSPEND}-{self._n}", record):
            self._n += 1
        for task in tasks:
            if await (await self._records_of(task)).read_end(task.n) is None:
                return True
        for task in tasks:  # all have ended meanwhile, and the notifications of their ends may be lost
            self._pollers[task.task_id].wake(task.task_id)
        return False

    async def _drop_finished(self) -> None:
        """Drops the jobs with a recorded result: a pipeline uses it, and requests the job no more."""
        for job, task in list(self._to_request.items()):
            records = await self._records_of(task)
            if await records.read_result(task.shape) is not None:
                self._to_request.pop(job, None)  # It may have been requested meanwhile

    async def _records_of(self, task: PendingTask) -> JobRecords:
        return await records_of(task.job, task.n, flow_run=str(self._flow_run_id))

    def _warn_of_new_requests(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            run_logger().warning(
                'wait="suspend": the run waits in its process, because it has not requested %d of the job(s) for which '
                "it was suspended last. A request with a time or a random number is a new job, and is paid for, in "
                "each start of the flow. What to do: make this value a parameter of the flow",
                len(self._to_request),
            )

    async def suspend(self) -> None:
        """Suspends the caller's run; returns only if Prefect refuses."""
        async with self._turn:
            if self._pause is not None:  # the run is suspended once; all its calls end with the same signal
                raise self._pause
            try:
                await asuspend_flow_run(timeout=self.timeout, key=f"{PAUSE_KEY}{self._n}")
                why = "according to Prefect, the run was already suspended"
            except Pause as pause:
                self._pause = pause
                raise
            except Exception as error:  # waiting in this process always works
                why = f"{type(error).__name__}: {error}"
        run_logger().warning("the run could not be suspended and waits in its process: %s", why)


_groups: PerObject[list[SuspendGroup]] = PerObject(list)
"""The suspender of each root's context object, once there is one; the object is new in each attempt and resume."""


async def open_suspend_group(wait: Wait) -> SuspendGroup | None:
    """Returns the suspend group of the caller's flow run; None if the run is to wait in its process."""
    if wait not in ("poll", "suspend"):
        raise InputError(f'`wait` cannot be {wait!r}. Nothing was sent. What to do: pass "poll" or "suspend".')
    if wait == "poll":
        return None
    try:
        flow_run = _suspendable()
        groups = _groups[FlowRunContext.get()]
        if not groups:
            groups.append(await _new_group(flow_run.id))  # of concurrent calls, the first one counts
    except (_StaysError, RunningHubError, *FAILURES) as why:  # waiting in this process always works
        run_logger().warning('wait="suspend": the run waits in its process, because %s', why)
        return None
    # Prefect has refused it once, and would refuse it again.
    return None if groups[0].is_suspended else groups[0]


class _StaysError(Exception):
    """Contains the reason why the caller's run cannot be suspended."""


def _suspendable() -> FlowRun:
    """Returns the caller's run; raises an error if it cannot be suspended."""
    flow = FlowRunContext.get()
    if flow is None or flow.flow_run is None:
        raise _StaysError("the call is outside of a flow.")
    if TaskRunContext.get() is not None:
        raise _StaysError("a task cannot suspend its flow. What to do: make the call in the flow itself.")
    if flow.flow_run.parent_task_run_id is not None:
        raise _StaysError("Prefect cannot suspend a child flow. What to do: make the call in the outermost flow.")
    if flow.flow_run.deployment_id is None:
        raise _StaysError("only a run of a deployment can be resumed by a worker. What to do: deploy the flow.")
    if not get_settings().webhook_url:
        raise _StaysError(
            "RH_WEBHOOK_URL is not set, so no receiver would resume the run. What to do: set RH_WEBHOOK_URL; see "
            "docs/webhooks.md."
        )
    return flow.flow_run


async def _new_group(flow_run_id: UUID) -> SuspendGroup:
    # Read again: the run of the context is from before a retry.
    flow_run = await LOOP.call(read_flow_run(flow_run_id, patience=PATIENCE))
    if is_retried_in_process(flow_run):
        # Prefect 3.9 hands such a run to no worker, even when it is resumed: it would stay `Resuming`.
        raise _StaysError("the flow's own `retries` have started this attempt, and no worker would resume it.")
    journal = FlowRunJournal(flow_run_id)
    records = await LOOP.call(journal.job(SUSPEND))
    # Prefect has no key of a suspension that was recorded but did not happen.
    keys = pause_keys(flow_run)
    numbers = sorted(int(name.removeprefix(f"{SUSPEND}-")) for name in records)
    names = [f"{SUSPEND}-{n}" for n in numbers if f"{PAUSE_KEY}{n}" in keys]
    had = [journal.parse(name, Suspension, records[name]) for name in names]
    return SuspendGroup(flow_run_id, had=had, count=len(records), longest=get_settings().suspend_seconds)

"""How a run suspends itself: all of its jobs are submitted, then it gives up its process until they have ended.

What the run waits for is written down first, and the ends are looked for once more after that. So whoever hears of an
end in between finds either a run that has seen it, or the record of one that is about to suspend.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeAlias
from uuid import UUID

from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import MissingContextError, Pause
from prefect.flow_runs import asuspend_flow_run
from prefect.logging import get_run_logger

from rh_prefect.connection import connect
from rh_prefect.errors import InputError
from rh_prefect.flow_runs.call_positions import PerObject
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.queries import journal_of
from rh_prefect.flow_runs.recorded_jobs import bring_home
from rh_prefect.flow_runs.scope import borrowed_scope, current_scope
from rh_prefect.flow_runs.suspended_runs import PAUSE_KEY, SUSPEND, Suspension
from rh_prefect.jobs.journal.job_records import JobRecords, read_job, split_job
from rh_prefect.jobs.loop_thread import LOOP
from rh_prefect.jobs.outputs.result import Result
from rh_prefect.jobs.suspension import Detached, SuspendGroup, Verdict
from rh_prefect.settings import get_settings

Wait: TypeAlias = Literal["poll", "suspend"]
"""How a run waits for its jobs: in its process, or suspended."""

UNTIL_IT_FAILS: Final = 18 * 3600
"""Seconds from the time at which a run should have been woken at the latest until Prefect itself fails it: nobody looks
after suspended runs then, and links to outputs, which die after a day, may still live for whoever retries it."""

_log = logging.getLogger("rh_prefect")
_together: ContextVar[SuspendGroup | None] = ContextVar("rh_prefect_round", default=None)


class RunSuspender(SuspendGroup):
    """All jobs that one attempt of a flow run has under way, for as long as they may be left by suspending the run."""

    def __init__(self, flow_run_id: UUID, *, had: Sequence[Suspension], count: int, wake_after: float) -> None:
        """Starts without a job.

        Args:
            flow_run_id: The flow run.
            had: The suspensions that it has had.
            count: How many were ever written down.
            wake_after: Seconds after which it is to be woken at the latest.
        """
        super().__init__(self._decide_for_run)
        self._journal = FlowRunJournal(flow_run_id)
        self._slept_for = {task.task_id for one in had for task in one.tasks}
        self._n = count
        self._wake_after = wake_after
        self._turn = asyncio.Lock()
        self._pause: Pause | None = None

    async def _decide_for_run(self, tasks: Sequence[Detached]) -> Verdict:
        # Woken before the end, or with nothing new to wait for: it would sleep for the same again and again.
        if all(task.task_id in self._slept_for for task in tasks):
            return "stay"
        wake_by = datetime.now(UTC) + timedelta(seconds=self._wake_after)
        record = Suspension(tasks=tuple(tasks), wake_by=wake_by).model_dump(mode="json")
        self._n += 1
        while not await self._journal.create(f"{SUSPEND}-{self._n}", record):
            self._n += 1
        for task in tasks:
            if not await _is_recorded(task):
                return "leave"
        return "ended"

    async def suspend(self) -> None:
        """Suspends the run that the caller is in; returns only where Prefect refuses."""
        async with self._turn:
            if self._pause is not None:
                raise self._pause
            try:
                timeout = int(self._wake_after) + UNTIL_IT_FAILS
                await asuspend_flow_run(timeout=timeout, key=f"{PAUSE_KEY}{self._n}")
                why = "Prefect says that it was suspended before"
            except Pause as pause:
                self._pause = pause
                raise
            except Exception as error:  # whatever it is: to stay and wait is what always works
                why = f"{type(error).__name__}: {error}"
        get_run_logger().warning("the run could not be suspended and waits in its process: %s", why)


async def _is_recorded(task: Detached) -> bool:
    scope, key = split_job(task.job)
    return await JobRecords(journal_of(scope), key).read_end(task.n) is not None


@dataclass(slots=True, weakref_slot=True)
class _Place:
    round: RunSuspender | None = None


_places: PerObject[_Place] = PerObject(_Place)
"""By the root's context, an object that is new in every attempt and after every resume."""


async def open_suspend_group(wait: Wait, *, deadline: float | None = None) -> RunSuspender | None:
    """Opens the round of the run that the caller is in, where it is to be left by suspending the run.

    Args:
        wait: How to wait.
        deadline: Seconds that the caller would wait for each task.

    Returns:
        The round; all concurrent calls of a run share it. None where the run waits in its process: it is to, or it
        cannot be suspended, or nobody would wake it, which is said in its log.

    Raises:
        InputError: `wait` has no meaning.
    """
    if wait not in ("poll", "suspend"):
        raise InputError(f'wait must be "poll" or "suspend", not {wait!r}. Nothing was sent.')
    if wait == "poll":
        return None
    try:
        flow_run = _suspendable()
        place = _places[FlowRunContext.get()]
        if place.round is None:
            made = await _new_round(flow_run.id, deadline)
            place.round = place.round or made
    except _StaysError as why:
        _logger().warning('wait="suspend": the run waits in its process, since %s', why)
        return None
    # Prefect refused it once: it is not asked again and again.
    return None if place.round.is_left else place.round


class _StaysError(Exception):
    """Why the caller's run cannot be suspended, or should not be."""


def _suspendable() -> FlowRun:
    """The caller's run, as far as can be seen here."""
    flow = FlowRunContext.get()
    if flow is None or flow.flow_run is None:
        raise _StaysError("there is no run: it was called outside of a flow.")
    if TaskRunContext.get() is not None:
        raise _StaysError("a task cannot suspend its flow. What to do: call it in the flow itself.")
    if flow.flow_run.parent_task_run_id is not None:
        raise _StaysError("Prefect suspends no child flow. What to do: call it in the outermost flow.")
    if flow.flow_run.deployment_id is None:
        raise _StaysError("only a run of a deployment can be taken up again by a worker.")
    if not get_settings().webhook_url:
        raise _StaysError(
            "RH_WEBHOOK_URL is not set, so that nobody would wake it. What to do: see the page on webhooks."
        )
    return flow.flow_run


def _logger() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    try:
        return get_run_logger()
    except MissingContextError:
        return _log


async def _new_round(flow_run_id: UUID, deadline: float | None) -> RunSuspender:
    # Anew: what the context has is from before a retry.
    policy = (await LOOP.call(_read(flow_run_id))).empirical_policy
    if policy.retry_type == "in_process":
        # Prefect 3.9 hands such a run to no worker, also when it is resumed: it would stay `Resuming` for ever.
        raise _StaysError("it is being retried by the flow's own `retries`, and no worker would take it up again.")
    records = await LOOP.call(FlowRunJournal(flow_run_id).job(SUSPEND))
    # Of a suspension that was written down and did not come about, Prefect has no key.
    keys = policy.pause_keys or set()
    had = [Suspension.model_validate(records[name]) for name in records if _pause_key(name) in keys]
    longest = get_settings().suspend_seconds
    wake_after = longest if deadline is None else min(longest, deadline)
    return RunSuspender(flow_run_id, had=had, count=len(records), wake_after=wake_after)


async def _read(flow_run_id: UUID) -> FlowRun:
    connection = await connect()
    async with connection.gate:
        return await connection.client.read_flow_run(flow_run_id)


def _pause_key(record: str) -> str:
    return f"{PAUSE_KEY}{record.removeprefix(f'{SUSPEND}-')}"


@contextmanager
def in_suspend_group(together: SuspendGroup | None) -> Iterator[None]:
    """Has every paid call of a `with` block be one of a round.

    Args:
        together: The round; None for none.
    """
    token = _together.set(together)
    try:
        yield
    finally:
        _together.reset(token)


def current_suspend_group() -> SuspendGroup | None:
    """The round that a paid call is one of."""
    return _together.get()


@asynccontextmanager
async def party(together: SuspendGroup | None) -> AsyncIterator[None]:
    """Runs one of a round's parties, which it was told to expect.

    Args:
        together: The round; None for none.
    """
    try:
        yield
    finally:
        if together is not None:
            await LOOP.call(together.end())


async def wait_for(left: Detached) -> Result:
    """Waits for a job that was left, in a run that could not be suspended after all.

    Args:
        left: The job.

    Raises:
        RunningHubError: As for any paid call.
    """
    scope = borrowed_scope() or current_scope()

    async def home() -> Result | None:
        _, key = split_job(left.job)
        return await bring_home(await read_job(scope.journal, key), scope) if scope is not None else None

    result = await LOOP.call(home())
    if result is None:
        raise AssertionError("a job with a ticket ends with a result or an error")
    return result

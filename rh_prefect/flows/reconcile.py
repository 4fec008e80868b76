"""The flow `reconcile`: cancels leftover tasks of cancelled runs and collects paid outputs of failed runs."""

from __future__ import annotations

import logging
from typing import Annotated, Any
from uuid import UUID

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed
from pydantic import Field

from rh_prefect import artifacts
from rh_prefect.flow_runs.crashed_run_restart import revive_stopped
from rh_prefect.flow_runs.flow import run_name
from rh_prefect.flow_runs.leftover_jobs import Finding, Reconciled, reconcile_runs
from rh_prefect.flow_runs.report_artifact import table, wrapped
from rh_prefect.flow_runs.suspended_run_resumer import wake_suspended
from rh_prefect.works.loop_thread import LOOP

_STUCK = {
    "NOT cancelled": "could not be cancelled and may continue and be charged",
    "NOT collected": "may be paid for but could not be downloaded; the table shows why",
}

Hours = Annotated[float, Field(gt=0, le=24 * 365)]


@flow(name="reconcile", flow_run_name=run_name)
async def reconcile(flow_run_id: UUID | None = None, hours: Hours = 24.0) -> State[Any]:
    """Checks flow runs with paid jobs that were cancelled, failed or crashed, and completes their unfinished actions.

    Tasks of cancelled runs that still run at RunningHub are cancelled on the account that paid for them, and results
    of tasks that had succeeded are downloaded. Tasks of failed and crashed runs are only reported, because a resumed
    run waits for them. Suspended runs whose tasks have ended are resumed. Deployed runs without a sign of life
    are marked as crashed, and crashed runs are scheduled again, if the automations for this are installed and have
    missed these runs. The flow can be run at any time and repeatedly.

    Args:
        flow_run_id: Check only this run, even if it ended long ago. Empty for all runs of the last `hours`.
        hours: How far to look back. Links to outputs at RunningHub expire after a day.
    """
    done = await LOOP.call(reconcile_runs(flow_run_id=flow_run_id, hours=hours))
    for finding in done.findings:
        _log(finding)
    if done.findings:
        rows = [one.row() for one in done.findings]
        text = table([*rows[0]], ([wrapped(cell, 40) for cell in row.values()] for row in rows))
        await artifacts.markdown(text, what="report", description=f"{done}.")
    if flow_run_id is None:
        for woken in await LOOP.call(wake_suspended()):
            get_run_logger().info("flow run %s is resumed: its tasks have ended, or its time limit has passed", woken)
        for one in await LOOP.call(revive_stopped(hours=hours)):
            get_run_logger().warning("%s (flow run %s) %s", one.name, one.flow_run_id, one.done)
    return _state(done)


def _log(one: Finding) -> None:
    level = logging.ERROR if one.done.startswith("NOT") else logging.INFO
    what = f"{one.model}, task {one.task_id}" if one.task_id else one.model
    get_run_logger().log(level, "%s: %s: %s%s", one.flow_run, what, one.done, f". {one.note}" if one.note else "")


def _state(done: Reconciled) -> State[Any]:
    """Returns a failed state if a job remains that only a person can handle."""
    sentences = [f"These {what}: {tasks}" for kind, what in _STUCK.items() if (tasks := _tasks(done, kind))]
    return Failed(message=". ".join([str(done), *sentences])) if sentences else Completed(message=str(done))


def _tasks(done: Reconciled, kind: str) -> str:
    return ", ".join(one.task_id or one.job or one.flow_run for one in done.findings if one.done == kind)

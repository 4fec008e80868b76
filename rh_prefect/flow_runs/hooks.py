"""What happens at a flow run's end: its table, what it left behind, and the cancellation of what it submitted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import httpx
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.logging.loggers import flow_run_logger
from prefect.types import SecretDict

from rh_prefect import artifacts
from rh_prefect.blocks.lookup import RECORDED, load_storage
from rh_prefect.blocks.storage import MediaStorage
from rh_prefect.connection import connect
from rh_prefect.errors import RunningHubError
from rh_prefect.flow_runs.cancellation import cancel_run
from rh_prefect.flow_runs.job_observer import RunObserver
from rh_prefect.flow_runs.queries import RecordedScope, scope_of
from rh_prefect.flow_runs.run_status import forget_run_status, run_status_of
from rh_prefect.jobs.admin import orphans
from rh_prefect.jobs.cancel import CancelReport
from rh_prefect.jobs.engine import engine_for
from rh_prefect.jobs.in_flight import REQUESTED_KEYS
from rh_prefect.jobs.journal.job_records import JobView, Submit
from rh_prefect.jobs.journal.records import Intent
from rh_prefect.jobs.journal.scope import Scope
from rh_prefect.jobs.loop_thread import LOOP
from rh_prefect.jobs.outputs import manifest as manifests
from rh_prefect.jobs.outputs.result import Result
from rh_prefect.media.store import MediaStore
from rh_prefect.settings import get_settings

_DEPLOYMENTS_NAMED = 50
_log = logging.getLogger("rh_prefect")


async def cancel_remote_jobs(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001
    """Cancels at RunningHub what a cancelled flow run has submitted; attach it with `on_cancellation`.

    Prefect calls it in another process, after the flow's own has gone, with its arguments by name.

    Args:
        flow: The flow.
        flow_run: The cancelled flow run.
        state: Its state.
    """
    report = await LOOP.call(cancel_run(scope_of(flow_run, flow.name), by="the cancellation hook"))
    log = flow_run_logger(flow_run, flow)
    log.info("cancelled %d task(s) at RunningHub", len(report.cancelled))
    for job, why in report.failed.items():
        log.error("%s: could not be cancelled and may go on and cost: %s", job, why)
    rows = list(_rows(report))
    if rows:
        described = f"{len(report.cancelled)} task(s) cancelled at RunningHub, {len(report.failed)} not."
        page = artifacts.Page(flow.name, flow_run.id)
        await artifacts.table(rows, what="cancelled", description=described, page=page)


def _rows(report: CancelReport) -> Iterator[dict[str, str]]:
    for job, why in report.failed.items():
        yield {"task or job": job, "what became of it": "NOT cancelled", "why": why}
    for task_id in report.cancelled:
        yield {"task or job": task_id, "what became of it": "cancelled", "why": ""}
    for task_id in report.finished:
        yield {"task or job": task_id, "what became of it": "had ended before", "why": ""}


async def store_of(intent: Intent) -> MediaStore:
    """The place that a job's files belong to: the one of its record, wherever `RH_OUT` points by now.

    Args:
        intent: The job's record.

    Raises:
        ConfigError: Its block is gone.
    """
    if intent.storage is not None or not intent.store:
        return await load_storage(intent.storage)
    return MediaStorage(url=intent.store, options=SecretDict(get_settings().out_options)).get_store()


async def bring_home(view: JobView, scope: Scope) -> Result | None:
    """Collects a job that was paid for, without submitting anything; runs on the loop thread.

    Args:
        view: The job.
        scope: The run that it belongs to.

    Returns:
        The result; None where nothing was paid.
    """
    if view.last is None:
        return None
    intent = view.last.intent
    store = await store_of(intent)
    known = await _at_home(view.last, store)
    if known is not None:
        return known
    engine = engine_for([await RECORDED.for_intent(intent)], settings=get_settings(), find=RECORDED.find)
    return await engine.bring_home(intent, view.key, scope=scope, store=store, observer=RunObserver(_log, None))


async def home_of(submit: Submit) -> Result | None:
    """What an earlier run has brought home already of a task, for which nobody need be asked.

    Args:
        submit: The submit that made the task.

    Raises:
        RunningHubError: Its place cannot be looked at.
    """
    return await _at_home(submit, await store_of(submit.intent))


async def _at_home(submit: Submit, store: MediaStore) -> Result | None:
    name = manifests.manifest_name(submit.intent.base, submit.task_id or "")
    known = await asyncio.to_thread(manifests.read, store, name)
    if known is None or not await asyncio.to_thread(manifests.is_done, store, known):
        return None
    return known.result(store)


async def finish(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Leaves the table of steps, and brings home what was paid for and not asked for this time.

    Args:
        flow: The flow.
        flow_run: Its finished flow run.
        state: Its state.
    """
    board = run_status_of(str(flow_run.id), flow=flow.name)
    if board.rows:
        await artifacts.steps_table(board.steps(), page=board.page)
        await LOOP.call(board.progress.finish(description=f"{board.ended} of {len(board.rows)} jobs done"))
    if state.is_completed() and str(flow_run.id) in REQUESTED_KEYS:
        await LOOP.call(_collect_orphans(scope_of(flow_run, flow.name), flow_run_logger(flow_run, flow)))
    if flow_run.run_count > 1:
        await LOOP.call(_name_deployments(flow_run, flow_run_logger(flow_run, flow)))
    # A process that runs many flows remembers nothing of those that have ended.
    REQUESTED_KEYS.pop(str(flow_run.id), None)
    forget_run_status(str(flow_run.id))


async def _name_deployments(flow_run: FlowRun, log: logging.LoggerAdapter[logging.Logger]) -> None:
    """Says which runs of deployments a resumed run has started: each pays for its own jobs, in every attempt again."""
    connection = await connect()
    started = FlowRunFilter(
        parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[flow_run.id]),
        deployment_id=FlowRunFilterDeploymentId(is_null_=False),
    )
    try:
        async with connection.gate:
            runs = await connection.client.read_flow_runs(flow_run_filter=started, limit=_DEPLOYMENTS_NAMED)
    except httpx.HTTPError:
        return  # it is said for people; nothing depends on it
    if runs:
        log.warning(
            "this run was resumed, and its attempts have started %d run(s) of deployments, which pay for jobs of their "
            "own: %s. What to do: give run_deployment an idempotency_key, and a resume starts none of them again",
            len(runs),
            ", ".join(f"{one.name} ({one.id})" for one in runs),
        )


async def _collect_orphans(scope: RecordedScope, log: logging.LoggerAdapter[logging.Logger]) -> None:
    for view in await orphans(scope.journal, REQUESTED_KEYS[scope.journal.scope]):
        job = f"{scope.journal.scope}/{view.key}"
        try:
            result = await bring_home(view, scope)
        except RunningHubError as error:
            log.warning("%s: paid for in an earlier attempt and not asked for now; not collected: %s", job, error)
        else:
            if result is not None:
                log.warning("%s: paid for in an earlier attempt and not asked for now: %s", job, result.manifest)

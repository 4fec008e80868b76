"""`flow`: Prefect's own `@flow`, with hooks that cancel, collect and report the paid jobs of its runs."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final, TypeVar

from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow, FlowStateHook
from prefect.logging.loggers import flow_run_logger
from prefect.runtime import flow_run
from pydantic import BaseModel

from rh_prefect import artifacts
from rh_prefect.display_names import beginning_of_prompt, shortened, with_prompt
from rh_prefect.errors import RunningHubError
from rh_prefect.flow_runs.cancellation import cancel_run
from rh_prefect.flow_runs.job_progress import forget_run_progress, run_progress_of
from rh_prefect.flow_runs.prefect_internals import FlowDecorator, FlowEvent, add_hook
from rh_prefect.flow_runs.queries import RecordedScope, read_flow_run, scope_of
from rh_prefect.flow_runs.recorded_job_collection import collect_result, collected_result
from rh_prefect.media.input_files import shown
from rh_prefect.prefect_api import FAILURES, PATIENCE, ask, patient
from rh_prefect.works.journal.costs import Costs, charge_of
from rh_prefect.works.journal.job_records import JobView, Submit, jobs_of
from rh_prefect.works.journal.repeated_calls import REQUESTED_KEYS
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.manual_repair import orphans
from rh_prefect.works.run_cancellation import CancelReport
from rh_prefect.works.run_ledger import WorksLedger

F = TypeVar("F", bound="Flow[..., Any]")


def flow_with(hooks: Mapping[FlowEvent, FlowStateHook[..., Any]]) -> FlowDecorator:
    """Makes a decorator that is used and typed like `prefect.flow` and attaches hooks to each flow that it makes.

    The user's hooks come first and stay. `some_flow.with_options(on_cancellation=[…])` replaces all hooks of that
    event, as it always does in Prefect; name ours in that list too.

    Args:
        hooks: What to call at which event. Name the parameters `flow`, `flow_run` and `state`: a worker calls a hook
            by keyword and in a separate process, the flow's own process by position.
    """
    return _HookedDecorator(dict(hooks))


class _HookedDecorator(FlowDecorator):
    def __init__(self, hooks: dict[FlowEvent, FlowStateHook[..., Any]]) -> None:
        self._hooks = hooks

    # A type checker sees Prefect's own overloads.
    if not TYPE_CHECKING:

        def __call__(self, fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
            if fn is None:
                return partial(self, **options)
            new_flow = super().__call__(fn, **options)
            for event, hook in self._hooks.items():
                add_hook(new_flow, event, hook)
            return new_flow


_SUBJECTS = (
    *("prompt", "idea", "rows", "products", "model"),
    *("video", "videos", "image", "photo", "pictures", "folder", "text"),
)
"""The parameters by which a run is named, the first that it has."""


def run_name() -> str:
    """Names a flow run by its flow, its subject and its time, as in `film: A lighthouse at dawn, 2026-11-26 16:04`.

    Give it to a flow as `flow_run_name`.
    """
    parameters = flow_run.parameters
    return run_name_with(next((parameters[name] for name in _SUBJECTS if parameters.get(name)), ""))


def run_name_with(subject: object) -> str:
    """Names a flow run like `run_name`, by a subject that is not one of its parameters."""
    subject = ", ".join(filter(None, map(_named, subject))) if isinstance(subject, list) else _named(subject)
    began = flow_run.scheduled_start_time
    head = f"{flow_run.flow_name}: {shortened(subject, 50)}" if subject else flow_run.flow_name
    return f"{head}, {began:%Y-%m-%d %H:%M}" if began else head


def _named(value: object) -> str:
    """Returns a parameter as part of a name: of a row, its first value; of a path or a link, its last part unsigned."""
    if isinstance(value, BaseModel):  # a file, or the parameters of a model
        value = next((getattr(value, name) for name in ("uri", "prompt", "model") if hasattr(value, name)), value)
    if isinstance(value, Mapping):
        value = next(iter(value.values()), "")
    text = "" if value is None else str(value)
    is_file = text.startswith(("/", "./", "../")) or "://" in text.partition(" ")[0]
    return PurePosixPath(shown(text)).name if is_file else text


_DEPLOYMENTS_NAMED = 50
_log = logging.getLogger("rh_prefect")


async def cancel_remote_jobs(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001
    """Cancels a cancelled flow run's tasks at RunningHub; attach it with `on_cancellation`.

    Prefect calls it in another process, after the flow's own has gone, with its arguments by name.
    """
    with patient():
        await _cancel_remote_jobs(flow, flow_run)


async def _cancel_remote_jobs(flow: Flow[..., Any], flow_run: FlowRun) -> None:
    # What Prefect hands over is as old as the beginning of the cancellation. But a run that was resumed since has a new
    # attempt, which was not cancelled.
    newest = await LOOP.call(read_flow_run(flow_run.id, patience=PATIENCE))
    if newest.state is not None and (newest.state.is_cancelling() or newest.state.is_cancelled()):
        flow_run = newest
    if not flow_run.run_count:
        return  # it has never run, and must not forbid the first attempt of a later Retry
    scope = scope_of(flow_run, flow.name)
    report = await LOOP.call(cancel_run(scope, by="the cancellation hook"))
    views = await LOOP.call(_recorded_jobs(scope))
    # Most often the run's own process was faster, and has recorded what it cancelled.
    recorded = (submit.task_id for view in views for submit in view.submits if _status(submit) == "CANCELLED")
    report = replace(report, cancelled=list(dict.fromkeys([*report.cancelled, *filter(None, recorded)])))
    log = flow_run_logger(flow_run, flow)
    log.info("cancelled %d task(s) at RunningHub", len(report.cancelled))
    for job, why in report.failed.items():
        log.error("%s: could not be cancelled and may continue and be charged: %s", job, why)
    page = _page(flow, flow_run)
    if views:
        steps = await LOOP.call(_recorded_steps(views))
        await artifacts.steps_table(steps, page=page)
        await artifacts.end_progress(*_progress_of(views), page=page)
    rows = list(_rows(report))
    if rows:
        described = f"{len(report.cancelled)} task(s) cancelled at RunningHub, {len(report.failed)} not."
        await artifacts.table(rows, what="cancelled", description=described, page=page)


async def _recorded_jobs(scope: RecordedScope) -> list[JobView]:
    """Returns the jobs of a cancelled run from its records, since its process has ended."""
    found = [view async for view in jobs_of(scope.journal)]
    for works in await scope.works():
        found += await WorksLedger(scope, works).jobs()
    return [view for view in found if view.submits]


def _page(flow: Flow[..., Any], flow_run: FlowRun) -> artifacts.Page:
    """The page of a flow run whose attempt has ended; a hook is in none."""
    now = datetime.now(UTC) if flow_run.run_count > 1 else None
    return artifacts.Page.of(flow, flow_run.id, replaces_before=now)


def _status(submit: Submit) -> str:
    return submit.end.status if submit.end else ""


def _progress_of(views: Sequence[JobView]) -> tuple[float, str]:
    """Returns the percentage of jobs with a result, and the text above the progress bar."""
    counts = Counter(_status(view.submits[-1]) for view in views)
    done, rest = counts["SUCCESS"], len(views) - counts.total() + counts[""]
    parts = [f"{done} of {len(views)} jobs done", f"{counts['CANCELLED']} cancelled"]
    parts += [f"{number} {what}" for number, what in ((counts["FAILED"], "failed"), (rest, "not finished")) if number]
    return 100.0 * done / len(views), f"The run was cancelled: {', '.join(parts)}, cost {_cost_of(*views)}"


def _cost_of(*views: JobView) -> Costs:
    charges = (charge_of(submit) for view in views for submit in view.submits)
    return Costs.total(charge.costs for charge in charges if charge is not None)


async def _recorded_steps(views: Sequence[JobView]) -> list[artifacts.Step]:
    return list(await asyncio.gather(*map(_recorded_step, views)))


async def _recorded_step(view: JobView) -> artifacts.Step:
    last = view.submits[-1]
    intent, prompt = last.intent, beginning_of_prompt(last.intent.payload)
    return artifacts.Step(
        model=f"{intent.label} · {intent.model}" if intent.label else with_prompt(intent.model, prompt),
        state=last.end.status.lower() if last.end else last.state,
        costs=_cost_of(view),
        output=await _output_of(view),
    )


async def _output_of(view: JobView) -> str | None:
    """Returns where the files of a job's last task are, or else the task."""
    submit = view.submits[-1]
    if _status(submit) == "SUCCESS":
        with suppress(RunningHubError):  # a storage that cannot be read now hides nothing else
            if (result := await collected_result(view)) is not None:
                return ", ".join(media.uri for media in result.outputs) or result.record
    return f"task {submit.task_id}" if submit.task_id else None


def _rows(report: CancelReport) -> Iterator[dict[str, str]]:
    for job, why in report.failed.items():
        yield {"task or job": job, "what became of it": "NOT cancelled", "why": why}
    for task_id in report.cancelled:
        yield {"task or job": task_id, "what became of it": "cancelled", "why": ""}
    for task_id in report.finished:
        yield {"task or job": task_id, "what became of it": "had ended before", "why": ""}
    for task_id in report.continued:
        yield {"task or job": task_id, "what became of it": "continues", "why": "another run waits for it"}


async def finish(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Writes the table of steps, and downloads paid results that this run did not use."""
    status = run_progress_of(_page(flow, flow_run))
    if status.rows:
        await LOOP.call(status.progress.finish(status.percent_done, description=status.summary))
        if not status.is_reported:
            await artifacts.steps_table(status.steps(), page=status.page)
            if files := status.files():
                await artifacts.results(files, cost=status.cost, page=status.page)
            flow_run_logger(flow_run, flow).info("%s", status.summary)
    if state.is_completed() and str(flow_run.id) in REQUESTED_KEYS:
        await LOOP.call(_collect_orphans(scope_of(flow_run, flow.name), flow_run_logger(flow_run, flow)))
    if flow_run.run_count > 1:
        await LOOP.call(_name_deployments(flow_run, flow_run_logger(flow_run, flow)))
    # A process that runs many flows keeps no data of those that have ended.
    REQUESTED_KEYS.pop(str(flow_run.id), None)
    forget_run_progress(str(flow_run.id))


async def _name_deployments(flow_run: FlowRun, log: logging.LoggerAdapter[logging.Logger]) -> None:
    """Logs the deployment runs that a resumed run has started: each pays for its own jobs, again in every attempt."""
    started = FlowRunFilter(
        parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[flow_run.id]),
        deployment_id=FlowRunFilterDeploymentId(is_null_=False),
    )
    try:
        runs = await ask(lambda api: api.read_flow_runs(flow_run_filter=started, limit=_DEPLOYMENTS_NAMED))
    except FAILURES:
        return  # the message is only for users
    if runs:
        log.warning(
            "this run was resumed, and its attempts have started %d run(s) of deployments, which pay for "
            "their own jobs: %s. What to do: pass an idempotency_key to run_deployment, so that a resume "
            "does not start them again",
            len(runs),
            ", ".join(f"{one.name} ({one.id})" for one in runs),
        )


async def _collect_orphans(scope: RecordedScope, log: logging.LoggerAdapter[logging.Logger]) -> None:
    for view in await orphans(scope.journal, REQUESTED_KEYS[scope.journal.scope], attempt=scope.attempt):
        job = f"{scope.journal.scope}/{view.key}"
        try:
            result = await collect_result(view, scope)
        except RunningHubError as error:
            log.warning(
                "%s: paid for in an earlier attempt and not requested in this attempt; not collected: %s", job, error
            )
        else:
            if result is not None:
                log.warning(
                    "%s: paid for in an earlier attempt and not requested in this attempt: %s", job, result.record
                )


_HOOKS: Final[Mapping[FlowEvent, FlowStateHook[..., Any]]] = {
    "cancellation": cancel_remote_jobs,
    "completion": finish,
    "failure": finish,
}


def add_hooks(to: F) -> F:
    """Adds the hooks of the package's flows to a flow, and returns it."""
    for event, hook in _HOOKS.items():
        add_hook(to, event, hook)
    return to


flow = flow_with(_HOOKS)
"""Used and typed like `prefect.flow`.

A flow that it makes cancels its jobs at RunningHub when it is cancelled, leaves a table of its steps in the dashboard,
and downloads what an earlier attempt paid for and this one did not request.
"""

"""`flow`: Prefect's `@flow` with hooks that cancel, collect and report the paid jobs of its runs."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import UTC, date, datetime
from enum import Enum
from functools import cache, partial, update_wrapper
from inspect import iscoroutine, unwrap
from pathlib import PurePath, PurePosixPath
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, TypeGuard, TypeVar, cast
from uuid import UUID

from coolname.data import config as coolname_words
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext, TaskRunContext
from prefect.flows import Flow, FlowStateHook
from prefect.futures import PrefectFuture
from prefect.logging.loggers import flow_run_logger
from prefect.results import ResultStore
from prefect.runtime import flow_run
from prefect.states import Completed, exception_to_failed_state
from prefect.utilities.asyncutils import run_coro_as_sync
from pydantic import AnyUrl, BaseModel

from rh_prefect import artifacts
from rh_prefect.blocks.lookup import load_storage
from rh_prefect.display_texts import shortened
from rh_prefect.errors import JobsFailed, RunningHubError, jobs_failed
from rh_prefect.flow_runs.cancellation import cancel_run
from rh_prefect.flow_runs.progress_observer import (
    RunProgress,
    forget_run_progress,
    known_run_progress,
    run_logger,
    run_progress_of,
)
from rh_prefect.flow_runs.recorded_job_collection import collect_result, end_of_cancelled, recorded_progress
from rh_prefect.flow_runs.report_artifact import MOST_ROWS, Report
from rh_prefect.flow_runs.run_queries_and_scopes import FlowScope, read_flow_run, run_folder, scope_of
from rh_prefect.media.input_files import shown
from rh_prefect.pipelines.run.csv_report import report_name, write_table
from rh_prefect.prefect_api import FAILURES, PATIENCE, ask, patient
from rh_prefect.prefect_internals import FlowDecorator, is_continued, pause_keys
from rh_prefect.works.journal.job_records_and_state import JobView
from rh_prefect.works.journal.scope import REQUESTED_KEYS
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.manual_repair import orphans

F = TypeVar("F", bound="Flow[..., Any]")


class _HookedDecorator(FlowDecorator):
    # A type checker sees Prefect's own overloads.
    if not TYPE_CHECKING:

        def __call__(self, fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
            if fn is None:
                return partial(self, **options)
            new_flow = add_hooks(super().__call__(fn, **{"flow_run_name": run_name, **options}))
            if isinstance(new_flow.fn, FunctionType) and not new_flow.isgenerator:
                # Only here, because Prefect has read the file and the signature of the user's own function by now.
                new_flow.fn = _with_message(new_flow.fn, is_async=new_flow.isasync)
            return new_flow


def _with_message(function: FunctionType, *, is_async: bool) -> Callable[..., Any]:
    """Returns a flow's function whose final state has a message about results and cost, or about the failure."""
    # Bound here, because the wrapper below has the globals of the user's function.
    completed, failed, wait_for, is_call = _completed, _failed, run_coro_as_sync, iscoroutine

    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return completed(function, function(*args, **kwargs))
        except Exception as error:
            return wait_for(failed(function, error))

    async def arun(*args: Any, **kwargs: Any) -> Any:
        try:
            result = await function(*args, **kwargs)
            # Prefect would await a call that is returned after the flow run, which would not record the job.
            return completed(function, await result if is_call(result) else result)
        except Exception as error:
            return await failed(function, error)

    made = cast("FunctionType", arun if is_async else run)
    # Prefect resolves the names in annotations with the globals of the function, so the wrapper has the same globals.
    return update_wrapper(FunctionType(made.__code__, function.__globals__, closure=made.__closure__), function)


def _failed(function: FunctionType, error: Exception) -> Coroutine[Any, Any, State[Any]]:
    """Returns the failed state of a flow run, from which Prefect raises the error to the caller."""
    if type(error) is ExceptionGroup:  # of a `TaskGroup`
        first, *others = error.exceptions
        shown = jobs_failed(error.exceptions, total=len(others) + 1, what="tasks") if others else first
        shown.__cause__ = error
        error = shown
    context = _run_of(function)
    # Prefect itself handles the timeout of a flow.
    if context is None or isinstance(error, TimeoutError):
        raise error
    run_logger().exception("Encountered exception during execution: %r", error)
    return _failed_state(error, context.result_store)


async def _failed_state(error: Exception, results: ResultStore) -> State[Any]:
    state = await exception_to_failed_state(error, result_store=results, write_result=True)
    state.message = (
        str(error) if isinstance(error, RunningHubError | JobsFailed) else f"{type(error).__name__}: {error}"
    )
    return state


def _run_of(function: FunctionType) -> FlowRunContext | None:
    """Returns the context of the function's own flow run; None if another flow or a task calls the function."""
    context = FlowRunContext.get()
    if context is None or context.flow is None or TaskRunContext.get() is not None:
        return None
    return context if unwrap(context.flow.fn) is unwrap(function) else None


def _is_list(value: object) -> TypeGuard[Iterable[object]]:
    return isinstance(value, list | tuple | set)


def _completed(function: FunctionType, result: Any) -> Any:
    """Returns a completed state with the result and a summary of the run; without jobs, returns the result itself."""
    context = _run_of(function)
    run = context.flow_run if context is not None else None
    status = known_run_progress(str(run.id)) if run is not None else None
    # If a flow returns states or futures, Prefect itself derives the state of the flow run from them.
    parts = [result, *(result.values() if isinstance(result, Mapping) else result if _is_list(result) else ())]
    if status is None or not status.rows or any(isinstance(one, State | PrefectFuture) for one in parts):
        return result
    return Completed(message=f"{status.summary}.", data=result)


_SUBJECTS = (
    *("prompt", "idea", "rows", "products", "model", "month"),
    *("video", "videos", "image", "photo", "pictures", "folder", "text", "title", "topic", "subject"),
)
"""The parameters that can name a run; the first one with a value is used."""
_SUBJECT_TYPES: Final = (str, int, float, date, PurePath, AnyUrl, Enum, UUID, list, tuple, Mapping, BaseModel)


def run_name() -> str:
    """Returns a name for a flow run, as in `film: A lighthouse at dawn, 2026-11-26 16:04`.

    Pass this function to a flow as `flow_run_name`.
    """
    parameters = flow_run.parameters
    # Other values may have no truth value, such as a table or the pixels of a picture.
    given = (parameters[name] for name in _SUBJECTS if isinstance(parameters.get(name), _SUBJECT_TYPES))
    return run_name_with(next(filter(None, given), ""))


def run_name_with(subject: object) -> str:
    """Returns a run's name in the form of `run_name`, with a subject that is not one of the parameters."""
    name = str(flow_run.name or "")
    if name and set(name.split("-")) - _generated_words() and not _NAME_OF_THE_FORM.fullmatch(name):
        return name  # a person gave it, or an earlier attempt
    subject = ", ".join(filter(None, map(_named, subject))) if isinstance(subject, list | tuple) else _named(subject)
    began = flow_run.scheduled_start_time
    head = f"{flow_run.flow_name}: {shortened(subject, 50)}" if subject else flow_run.flow_name
    return f"{head}, {began:%Y-%m-%d %H:%M}" if began else head


_GREEK = (
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|omicron|pi|rho|sigma|tau|upsilon|phi|chi|"
    "psi|omega"
)
_NAME_OF_THE_FORM = re.compile(rf"(?:{_GREEK})[0-9]+(?:-[a-z]+)+")
"""Matches a run name that the dashboard's form has generated: a Greek letter, a number and the name of a star. One
generated name in nine has no number and does not match, because a person could have written it.
"""


@cache
def _generated_words() -> frozenset[str]:
    """Returns the words from which Prefect generates the names of runs."""
    rules: Iterable[Any] = coolname_words.values()
    return frozenset(
        word
        for rule in rules
        for part in (*rule.get("words", ()), *rule.get("phrases", ()))
        for word in (part.split() if isinstance(part, str) else part)
    )


def _named(value: object) -> str:
    """Returns a parameter's value as a part of a run's name: a row's first value, or a path's or link's last part."""
    if isinstance(value, BaseModel):  # a file, or the parameters of a model
        value = next((getattr(value, name) for name in ("uri", "prompt", "model") if hasattr(value, name)), value)
    if isinstance(value, Mapping):
        value = next(iter(value.values()), "")
    if isinstance(value, Enum):
        value = value.value
    text = "" if value is None else str(value)
    is_file = text.startswith(("/", "./", "../")) or "://" in text.partition(" ")[0]
    return PurePosixPath(shown(text)).name if is_file else text


_DEPLOYMENTS_NAMED = 50
_log = logging.getLogger("rh_prefect")


async def cancel_remote_jobs(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001
    """Cancels a cancelled flow run's tasks at RunningHub; attach it with `on_cancellation`.

    Prefect calls this hook in another process, after the flow's process has ended, and passes the arguments by name.
    """
    with patient():
        await _cancel_remote_jobs(flow, flow_run)


async def _cancel_remote_jobs(flow: Flow[..., Any], flow_run: FlowRun) -> None:
    if flow_run.parent_task_run_id is not None and flow_run.deployment_id is None:
        return  # the jobs of a child flow belong to the root, whose hook reports them
    # Prefect passes the run as it was when the cancellation began. If a person has resumed the run since then, its new
    # attempt was not cancelled.
    newest = await LOOP.call(read_flow_run(flow_run.id, patience=PATIENCE))
    if newest.state is not None and (newest.state.is_cancelling() or newest.state.is_cancelled()):
        flow_run = newest
    if not flow_run.run_count:
        return  # it has never run, and must not forbid the first attempt of a later Retry
    scope = scope_of(flow_run, flow.name)
    report, log = await LOOP.call(cancel_run(scope, by="the cancellation hook")), flow_run_logger(flow_run, flow)
    for job, why in report.failed.items():  # first: a damaged record is an error in what follows
        log.error("%s: could not be cancelled and may continue and be charged: %s", job, why)
    status = await LOOP.call(recorded_progress(scope, report))
    # Most often the run's own process was faster, and has recorded what it cancelled.
    cancelled = {*report.cancelled, *(one.task_id for one in status.rows.values() if one.state == "cancelled")}
    log.info("cancelled %d task(s) at RunningHub", len(cancelled))
    # The run's own process may have shown a report as well.
    page, head = artifacts.Page.of(flow, flow_run.id, replaces_before=datetime.now(UTC)), end_of_cancelled(status)
    await artifacts.end_progress(status.percent_done, head, page=page)
    await Report(head, status.steps(), status.store, status.outputs).show(page=page)


async def finish(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Shows the run's report, and downloads results of earlier starts that the last start did not request."""
    try:
        await _show_end(flow, flow_run, state)
    finally:  # After the report, because a task of an earlier attempt may still run
        if state.is_completed() and str(flow_run.id) in REQUESTED_KEYS:
            await LOOP.call(_collect_orphans(flow_run, scope_of(flow_run, flow.name), flow_run_logger(flow_run, flow)))
        # A process that runs many flows keeps no data of those that have ended.
        REQUESTED_KEYS.pop(str(flow_run.id), None)
        forget_run_progress(str(flow_run.id))


async def _show_end(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    now = datetime.now(UTC) if is_continued(flow_run) else None
    status = run_progress_of(artifacts.Page.of(flow, flow_run.id, replaces_before=now))
    if status.rows:
        await LOOP.call(status.progress.finish(status.percent_done, status.end))
        if not status.ends:
            flow_run_logger(flow_run, flow).info("%s", status.summary)
    is_failed_root = not state.is_completed() and flow_run.parent_task_run_id is None
    if not status.ends and (status.rows or is_failed_root):
        await _show_report(status, state, run_folder(flow_run))
    if is_continued(flow_run):
        await LOOP.call(_name_deployments(flow_run, flow_run_logger(flow_run, flow)))


async def _show_report(status: RunProgress, state: State[Any], name: str) -> None:
    steps, head, file = status.steps(), status.summary if status.rows else "nothing was submitted", ""
    if not state.is_completed():
        cause = re.sub(r"[0-9a-f-]{36}/[0-9a-f]{40}: ", "", state.message or "").strip().rstrip(".")
        head = f"{cause}. {head[0].upper()}{head[1:]}" if cause else head
    try:
        store = status.store or await load_storage(None)
        if len(steps) > MOST_ROWS:
            file = await write_table(store, report_name(name), steps)
    except RunningHubError as error:
        store = None
        _log.warning("The report of the run has no links: %s", error.message)
    await Report(f"{head}.", steps, store, status.outputs, file).show(page=status.page)


async def _name_deployments(flow_run: FlowRun, log: logging.LoggerAdapter[logging.Logger]) -> None:
    """Logs the deployment runs that the attempts of a resumed run have started; each of them pays for its own jobs."""
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
            "their own jobs: %s. What to do: pass `idempotency_key` to `run_deployment`, so that a resume "
            "does not start them again",
            len(runs),
            ", ".join(f"{one.name} ({one.id})" for one in runs),
        )


async def _collect_orphans(flow_run: FlowRun, scope: FlowScope, log: logging.LoggerAdapter[logging.Logger]) -> None:
    requested, views = REQUESTED_KEYS.get(scope.journal.scope, set()), list[JobView]()
    try:
        since = await _last_start(flow_run.id) if pause_keys(flow_run) else None
        async for view in orphans(scope.journal, requested, attempt=scope.attempt, since=since):
            views.append(view)
    except (RunningHubError, *FAILURES) as error:
        log.warning("not all results of earlier attempts could be looked for: %s", error)
    for view in views:
        job = f"{scope.journal.scope}/{view.key}"
        try:
            result = await collect_result(view, scope)
            outcome = result and f"Its result: {result.record}"
        except (RunningHubError, OSError) as error:
            outcome = f"Its result could not be downloaded: {error}"
        if outcome:
            what = "was paid for by an earlier start of this run, but the last start did not request it"
            log.warning("%s %s. %s", job, what, outcome)


async def _last_start(flow_run_id: UUID) -> datetime:
    """Returns when a run was last scheduled or pending; a pause in its process has neither state.

    The time is by the clock of Prefect's server. If the worker's clock is behind it by more than the time between the
    start and the first submission, jobs of this start count as older: they are named and downloaded once more.
    """
    states = await ask(lambda api: api.read_flow_run_states(flow_run_id))
    return max(state.timestamp for state in states if state.is_scheduled() or state.is_pending())


# A worker calls a hook by keyword and in a separate process, the flow's own process by position.
_HOOKS: Final[Mapping[str, FlowStateHook[..., Any]]] = {
    "on_cancellation_hooks": cancel_remote_jobs,
    "on_completion_hooks": finish,
    "on_failure_hooks": finish,
}


def add_hooks(to: F) -> F:
    """Adds this package's hooks to a flow, after the flow's own hooks, and returns the flow."""
    for event, hook in _HOOKS.items():
        hooks = getattr(to, event)
        if hook not in hooks:
            # A new list: Prefect keeps the list that the user gave, perhaps to several flows.
            setattr(to, event, [*hooks, hook])
    return to


flow = _HookedDecorator()
"""Used and typed like `prefect.flow`.

If a run of such a flow is cancelled, its jobs are cancelled at RunningHub. Each run shows a report in the dashboard,
and downloads results that an earlier start of the run paid for and the last start did not request.
`some_flow.with_options(on_cancellation=[…])` replaces all hooks for that event, as in Prefect; include this package's
hook in the new list.
"""

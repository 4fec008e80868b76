"""Cancels, at RunningHub, the remaining tasks of cancelled flow runs, and collects the paid outputs of failed runs.

If a run was cancelled while it was suspended, or while its worker was dead, no process calls its cancellation hook.
Tasks of crashed and failed runs are not cancelled, because a resumed run waits for these tasks.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

from prefect.client.schemas.objects import FlowRun

from rh_prefect.errors import JobFailed, OutputsExpired, RunningHubError, TransportError
from rh_prefect.flow_runs.cancellation import cancel_run
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.recorded_job_collection import collect_result, collected_result, queried
from rh_prefect.flow_runs.run_queries_and_scopes import (
    FlowScope,
    ended_runs,
    paid_jobs,
    read_flow_run,
    recorded_scope,
)
from rh_prefect.prefect_api import FAILURES, failure_of
from rh_prefect.works.events import summary_of
from rh_prefect.works.journal.job_records_and_state import JobView, Submit
from rh_prefect.works.journal.journal import UnreadableRecord
from rh_prefect.works.journal.record_types import Record
from rh_prefect.works.journal.scope import Scope
from rh_prefect.works.run_cancellation import CancelReport
from rh_prefect.works.run_ledger import Notes

Done = Literal[
    "cancelled", "collected", "failed", "still runs", "no answer", "NOT cancelled", "NOT collected", "unknown"
]
"""The action for a job, or the reason why a person has to act."""

_OPEN: Final[frozenset[Done]] = frozenset({"still runs", "no answer", "NOT cancelled", "NOT collected", "unknown"})
_AT_A_TIME: Final = 4
"""Number of jobs of one run that are handled concurrently."""

_Judged = tuple[Done, str] | None


@dataclass(frozen=True, slots=True)
class Finding:
    """One job that was handled, or that still needs an action."""

    flow_run_id: UUID  # The flow run that was checked
    flow_run: str  # Its name
    state: str
    job: str  # The job's full name; empty if the whole run could not be checked
    model: str  # The model, after the caller's name for the output if there is one
    task_id: str | None  # RunningHub's task id, if one is known
    done: Done  # What was done
    note: str = ""  # Where the outputs are now, or what the problem is and what can be done

    @property
    def is_open(self) -> bool:
        """Whether something remains to be done; if so, the run is checked again."""
        return self.done in _OPEN

    def row(self) -> dict[str, str]:
        """Returns the finding as one row of the report's table: the cells by column name."""
        return {
            "flow run": f"{self.flow_run} ({self.state})",
            "job": self.model,
            "task": self.task_id or "",
            "found": self.done,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class Reconciled:
    """The result of a check of flow runs; `runs` is the number of runs whose jobs were checked."""

    runs: int
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        kinds = [one.done for one in self.findings]
        counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        return f"{self.runs} flow run(s) reconciled, {counted or 'no open jobs'}"


async def reconcile_runs(*, flow_run_id: UUID | None = None, hours: float = 24.0) -> Reconciled:
    """Checks one flow run, or all recently ended flow runs, and completes their unfinished actions.

    Call it on the loop thread. An error in one run does not stop the checks of others. Repeated calls do no harm.
    """
    runs, findings = 0, list[Finding]()
    for flow_run in await ended_runs(hours=hours) if flow_run_id is None else [await read_flow_run(flow_run_id)]:
        of_run = await _look_after(flow_run)
        if of_run is not None:
            runs += 1
            findings += of_run
    return Reconciled(runs, tuple(findings))


def _mark(flow_run: FlowRun) -> str:
    """Returns the key of the record that marks an attempt as needing no further action; later checks skip it."""
    return f"reconciled-{max(flow_run.run_count, 1)}"


async def _look_after(flow_run: FlowRun) -> list[Finding] | None:
    """Checks one run; returns None if it has no paid jobs, or needs no further action."""
    found, is_cancelled, has_jobs = list[Finding](), _is_cancelled(flow_run), False
    try:
        journal = FlowRunJournal(flow_run.id)
        if not await paid_jobs(journal) or await journal.read(_mark(flow_run)) is not None:
            return None
        has_jobs = True
        flow_run = await read_flow_run(flow_run.id)  # a person may have retried it since it was listed
        state = flow_run.state
        if state is None or not (state.is_final() or state.is_cancelling()):
            return []
        is_cancelled = _is_cancelled(flow_run)
        scope = await recorded_scope(flow_run)
        report = await cancel_run(scope, by="reconcile") if is_cancelled else None
        found += await _of_jobs(flow_run, scope, report)
        found += await _of_works(flow_run, scope, report)
        if state.is_final() and not any(one.is_open for one in found):
            await journal.create(_mark(flow_run), Record().model_dump(mode="json"))
    except (RunningHubError, *FAILURES) as error:
        message = error.message if isinstance(error, RunningHubError) else f"the Prefect API: {failure_of(error)[0]}"
        note = message if has_jobs else f"The records of the run could not be read; it may have no paid job. {message}"
        return [*found, _finding(flow_run, ("NOT cancelled" if is_cancelled else "NOT collected", note))]
    return found


def _is_cancelled(flow_run: FlowRun) -> bool:
    return flow_run.state is not None and (flow_run.state.is_cancelled() or flow_run.state.is_cancelling())


async def _of_jobs(flow_run: FlowRun, scope: FlowScope, report: CancelReport | None) -> list[Finding]:
    """Handles the jobs of a run; `report` is the report of its cancellation, if it was cancelled."""
    gate = asyncio.Semaphore(_AT_A_TIME)

    async def check(view: JobView, submit: Submit) -> Finding | None:
        job = f"{scope.journal.scope}/{view.key}"
        async with gate:
            try:
                judged = _by_report(report, job, submit) if report else None
                judged = judged or await _collected(view, submit, scope, job, is_kept=report is None)
            except TransportError as error:
                judged = "no answer", f"{error.message} The next run of `reconcile` tries again."
            except RunningHubError as error:
                judged = "NOT collected", error.message
        return None if judged is None else _finding(flow_run, judged, job, submit)

    views, damaged = list[JobView](), list[Finding]()
    try:
        async for view in scope.jobs():
            views.append(view)
    except UnreadableRecord as error:
        damaged.append(_damaged(flow_run, scope, error, report))
    found = await asyncio.gather(*(check(view, view.last) for view in views if view.last is not None))
    return [one for one in found if one is not None] + damaged


async def _of_works(flow_run: FlowRun, scope: FlowScope, report: CancelReport | None) -> list[Finding]:
    """Handles the works of a pipeline run, whose next run waits for running tasks and collects those that have ended.

    `report` is the report of its cancellation, if it was cancelled.
    """
    notes, found = await Notes.of(scope), list[Finding]()
    if notes.claims <= notes.settled.keys():  # the storage of a run without open works may no longer exist
        return found
    works = await scope.works()
    try:
        async for view in notes.open_jobs():
            submit, job = view.last, f"{scope.journal.scope}/{view.key}"
            if submit is None:
                continue
            judged = _unknown(job) if submit.state in ("open", "unknown") else None
            if judged is None and report is not None:
                judged = _by_report(report, f"{works.scope if works else ''}/{view.key}", submit)
            if judged is not None:
                found.append(_finding(flow_run, judged, job, submit))
    except UnreadableRecord as error:
        found.append(_damaged(flow_run, scope, error, report))
    return found


def _damaged(flow_run: FlowRun, scope: Scope, error: UnreadableRecord, report: CancelReport | None) -> Finding:
    what: Done = "NOT collected" if report is None else "NOT cancelled"
    return _finding(flow_run, (what, error.message), f"{scope.journal.scope}/{error.job_key}")


def _finding(flow_run: FlowRun, judged: tuple[Done, str], job: str = "", submit: Submit | None = None) -> Finding:
    model = submit.intent.model if submit is not None else ""
    if submit is not None and submit.intent.label:
        model = f"{submit.intent.label} · {model}"
    state = flow_run.state.name if flow_run.state else None
    task_id = submit.task_id if submit is not None else None
    return Finding(flow_run.id, flow_run.name, state or "", job, model, task_id, *judged)


def _by_report(report: CancelReport, job: str, submit: Submit) -> _Judged:
    why = report.failed.get(job)
    if why is not None:
        if submit.state in ("open", "unknown"):
            return _unknown(job)
        # Another process may have recorded the end since.
        return ("NOT cancelled" if submit.state == "ticket" else "unknown"), why
    return ("cancelled", "") if submit.task_id in report.cancelled else None


async def _collected(view: JobView, submit: Submit, scope: Scope, job: str, *, is_kept: bool) -> _Judged:
    """Downloads an ended task's results before the links expire; with `is_kept`, reports a task that may still run."""
    if submit.state == "ended":
        return await _bring(view, submit, scope)
    if not is_kept or submit.state not in ("open", "unknown", "ticket"):
        return None
    if submit.state != "ticket":
        return _unknown(job)
    if not (await queried(submit, submit.task_id or "")).is_terminal:
        return "still runs", f"Retry the flow run, or run rh-prefect jobs cancel {scope.journal.scope}"
    return await _bring(view, submit, scope)


def _unknown(job: str) -> tuple[Done, str]:
    how = (
        f"If the task is there, run rh-prefect jobs adopt {job} TASK_ID; if not, run rh-prefect jobs mark-refused {job}"
    )
    return "unknown", f"Look for the task in RunningHub's call log. {how}."


async def _bring(view: JobView, submit: Submit, scope: Scope) -> _Judged:
    """Collects one job's outputs; returns None if they were collected before, or if the task did not succeed."""
    if submit.end is not None and submit.end.status != "SUCCESS":
        return None
    try:
        if await collected_result(view) is not None:
            return None
        result = await collect_result(view, scope)
    except (JobFailed, OutputsExpired) as error:
        return "failed", error.message
    if result is None:
        return None
    if result.damaged:
        return "NOT collected", summary_of(result)
    return "collected", ", ".join(media.uri for media in result.outputs) or result.record

"""Writes the report of a pipeline run as CSV, shows it, and returns how the run ended."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

from rh_prefect.errors import BudgetExceeded, JobError, JournalError, RunningHubError, StoreError
from rh_prefect.media.store import MediaStore, link_to
from rh_prefect.pipelines.evaluation import results
from rh_prefect.pipelines.plan.planned_steps import PlannedStep
from rh_prefect.pipelines.plan.step_drafts import files_in
from rh_prefect.pipelines.planning_values import ABSENT, File, Items, Maybe, StepOutput, Unknown
from rh_prefect.pipelines.run.result import PipelineResult, RunEnd, StepReport, StepState, summary
from rh_prefect.pipelines.run.run_gallery import prompt_of, write_run_gallery
from rh_prefect.pipelines.run.run_services import Outcome
from rh_prefect.pipelines.run.step_scheduler import StepScheduler
from rh_prefect.pipelines.run.store_outages import while_store_is_away
from rh_prefect.table_files import csv_text
from rh_prefect.works.journal.costs_and_budget import Costs
from rh_prefect.works.loop_thread import LOOP

REPORTS = "runs"
_SUBJECT_SHOWN = 80
"""Maximum number of characters of a prompt in the report."""

_log = logging.getLogger("rh_prefect")


def report_name(run: str) -> str:
    """Returns the name of a run's report in the storage."""
    return f"{REPORTS}/{run}/report.csv"


async def report(run: StepScheduler, *, name: str, require_new: bool) -> RunEnd:
    """Writes and shows the report of an ended run, and returns how the run ended; `name` is part of the file names."""
    away = await _store_error(run.count_costs) or await _store_error(run.find_saved)
    # In a thread, like all that takes long for many rows: the event loop is not blocked.
    steps, other_costs = await asyncio.to_thread(_steps, run)
    rows = (*steps, *_others(other_costs))
    uri = report_name(name)
    away = away or await _store_error(lambda: LOOP.call(write_table(run.services.store, uri, rows)))
    uri = "" if away is not None else run.services.store.uri(uri)
    gallery = await asyncio.to_thread(write_run_gallery, run, steps, name=name) if uri else ""
    result = _result(run, steps, other_costs, report=uri, gallery=gallery)
    # Those of the selected items, even if only other steps are selected: the run waits for these reviews.
    has_item = run.selection.has_item
    reviews = [one for one in run.plan.instances if one.waits_for_choice and has_item(one)] if uri else []
    end = _end(run, result, [one.address for one in reviews], require_new=require_new)
    if away is not None:
        end = _without_report(end, away)
    await run.services.pages.show_end(end, rows, reviews, store=run.services.store)
    if reviews:
        run.tell("review", reviews=[one.address for one in reviews])
    if end.name == "Over budget":
        run.tell("over_budget", reason=end.message)
    states = Counter(one.state for one in steps)
    link = await asyncio.to_thread(link_to, uri, run.services.store) if uri else ""
    run.tell("done", state=end.name, new=result.new, cost=str(result.costs), report=uri, link=link, steps=dict(states))
    return end


async def report_of_interrupted(run: StepScheduler, name: str) -> None:
    """Writes the report of an interrupted run, for example after Ctrl-C; some steps may still be in progress.

    A failure is only logged, because the caller gives the reason of the interruption. A report without the costs of
    earlier attempts would replace theirs, so none is written then; nor is one without steps, while all are planned.
    """
    run.is_interrupted = True
    with suppress(RunningHubError):  # what ended meanwhile is then shown as unfinished
        await run.look_again()
    try:
        await run.count_costs()
        if run.plan.planner is None:
            return
        steps, other_costs = _steps(run)
        await LOOP.call(write_table(run.services.store, report_name(name), (*steps, *_others(other_costs))))
        await asyncio.to_thread(write_run_gallery, run, steps, name=name)
    except RunningHubError as error:
        _log.warning("The report of this run could not be written: %s", error)


def summary_of_interrupted(run: StepScheduler) -> str:
    """Returns the number of steps in each state, and the amount paid, after `report_of_interrupted`."""
    return summary(_result(run, *(_steps(run) if run.plan.planner is not None else ((), Costs()))))


def _result(
    run: StepScheduler, steps: Sequence[StepReport], other_costs: Costs, *, report: str = "", gallery: str = ""
) -> PipelineResult:
    outcome = run.outcome
    open_submissions, open_costs = run.services.budget.spending.open_costs()
    return PipelineResult(
        pipeline=run.plan.pipeline,
        outputs={name: _output(value, outcome) for name, value in run.plan.outputs.items()} or _last_results(run),
        steps=tuple(steps),
        costs=Costs.total(outcome.costs.values()),
        other_costs=other_costs,
        open_submissions=open_submissions,
        open_costs=open_costs,
        new=sum(one.state == "made" for one in steps),
        report=report,
        gallery=gallery,
        takes=dict(run.plan.new_takes),
    )


async def _store_error(make: Callable[[], Awaitable[Any]]) -> RunningHubError | None:
    """Runs a part of the report; returns the error if the storage or the records do not respond."""
    try:
        await while_store_is_away(make)
    except (StoreError, JournalError) as error:
        return error
    return None


def _without_report(end: RunEnd, error: RunningHubError) -> RunEnd:
    """Returns the end of a run whose report could not be written: its results, its cost and the reason."""
    head = end.message if end.is_failed else summary(end.result)
    message = (
        f"{head} The report could not be written: {error} What to do: run again (this writes the report and pays for "
        "no result twice)."
    )
    return replace(end, name=end.name if end.is_failed else "Failed", message=message, is_failed=True)


def _end(run: StepScheduler, result: PipelineResult, waiting: list[str], *, require_new: bool) -> RunEnd:
    errors = run.outcome.errors
    if errors:
        is_money = all(isinstance(error, BudgetExceeded) for error in errors.values())
        first, error = next(iter(errors.items()))
        further = "1 further step" if len(errors) == 2 else f"{len(errors) - 1} further steps"
        more = f" ({further} failed)" if len(errors) > 1 else ""
        detail = str(error).removeprefix(f"{first}: ").rstrip(".")
        message = f"{first}: {detail}{more}. {summary(result)}"
        return RunEnd("Over budget" if is_money else "Failed", message, result, is_failed=True)
    if waiting:
        which, where = ", ".join([*waiting[:5], *(["…"] if len(waiting) > 5 else [])]), run.services.pages.choosing
        return RunEnd("Waiting for review", f"Choose a candidate for {which}: {where}. {summary(result)}", result)
    # The costs of the result are those of the flow run, which may have run other pipelines.
    if result.new == 0 and not any(one.cost for one in result.steps):
        again = ', or run with new: ["*"] (--new on the command line)' if result.has_reused else ""
        why = f"the results exist already{run.dated()}" if result.has_reused else "there was nothing to make"
        paid = "nothing was paid for its steps" if result.other_costs else "nothing was paid"
        message = f"Nothing was made and {paid}: {why}. For other results, change a parameter{again}. {summary(result)}"
        return RunEnd("Nothing new", message, result, is_failed=require_new)
    return RunEnd("Completed", summary(result), result)


def _steps(run: StepScheduler) -> tuple[Sequence[StepReport], Costs]:
    """Returns the row of each step, and the cost of steps outside of the plan."""
    by_step, other_costs = run.costs_by_step()
    return tuple(_step(one, run, by_step.get(one.address)) for one in run.plan.instances), other_costs


def _others(costs: Costs) -> Sequence[StepReport]:
    """Returns a row for the cost of steps outside of the plan, so that the rows add up to the run's cost."""
    reason = "paid by an earlier attempt with another file or table, or by another pipeline of the flow run"
    return [StepReport(step="", model="", state="not in the plan", cost=str(costs), reason=reason)] if costs else []


def _step(one: PlannedStep, run: StepScheduler, cost: Costs | None) -> StepReport:
    outcome = run.outcome
    state, reason = _state_of(one, run)
    if state == "reused" and cost is not None:
        state = "made"  # by an earlier process of this run
    saved = outcome.saved.get(one.address)
    files = saved or [file for work in one.works if work.known is not None for file in work.known.outputs]
    error = outcome.errors.get(one.address)
    known = [work.known.task_id for work in one.works if work.known is not None and work.known.state != "+"]
    results = (work.known for work in one.works if work.known is not None) if state == "made" else ()
    ran = [result.run_seconds for result in results if result.run_seconds is not None]
    failed = error.task_id if isinstance(error, JobError) else None
    return StepReport(
        step=one.address,
        model=one.model,
        state=state,
        cost=str(cost) if cost is not None else "",
        files=tuple(file.uri for file in files),
        reason=reason,
        number=one.numbers[0] if one.numbers else 0,
        row=one.row,
        subject=_subject(one),
        error="" if error is None else type(error).__name__,
        seconds=round(sum(ran), 3) if ran else None,
        tasks=tuple(dict.fromkeys(filter(None, (*known, failed)))),
        jobs=tuple(f"{run.services.works.scope}/{work.key}" for work in one.works if work.is_settled and one.is_paid),
        recipe=next((work.key for work in one.works if work.is_settled and not one.is_paid), ""),
    )


def _subject(one: PlannedStep) -> str:
    """Returns words by which people recognise a step: the beginning of its prompt, or its first file's name."""
    files = (file for value in one.values.values() for file in files_in(value) if file.media is not None)
    name = next((file.media.name for file in files if file.media is not None), "")
    # A result that is named by its content tells a person nothing.
    return prompt_of(one, _SUBJECT_SHOWN) or re.sub("^[0-9a-f]{32,}.*", "", name)


def _state_of(one: PlannedStep, run: StepScheduler) -> tuple[StepState, str]:
    error = run.outcome.errors.get(one.address)
    if error is not None:
        return "failed", str(error)
    if one.blocked_by in run.outcome.errors:
        return "not run", f"needs {one.blocked_by}, which failed"
    if one.state == "x":
        return "absent", one.note or "its condition is false"
    if one.state == "r":
        if not run.selection.has_item(one):
            return "not run", "its item was not selected"
        if one.model != "review":
            return "waits for review", ""
        return ("waits for review", one.note) if one.waits_for_choice else ("not run", "")
    if run.is_interrupted and one.state != "=" and one.is_needed:
        return "unfinished", "the run was interrupted or is suspended; paid tasks continue at RunningHub"
    if one.works and all(work.known is not None and work.known.state == "=" for work in one.works):
        return ("made" if one.address in run.outcome.new_steps else "reused"), ""
    if one.model == "review":
        return "reused", ""
    if not one.is_needed:
        return "not needed", ""
    if run.stopped_by:
        return "not run", f"the run stopped because {run.stopped_by} failed (on_error: fail)"
    return "not run", "was not selected, or needs a result that was not made"


def _output(value: Any, outcome: Outcome) -> Any:
    """Converts an output to a plain value: files as `Media`, under the names given in `save_as`."""
    match value:
        case StepOutput() | Maybe():
            return _output(value.value, outcome)
        case File():
            return value.media and (outcome.saved_as(value.media, value.review, value.maker) or value.media)
        case Unknown():
            return value.sent
        case Items():
            return [_output(one, outcome) for one in results(value)]
        case dict():
            # Names that begin with NUL are this package's own, such as the place of a table's row.
            return {name: _output(one, outcome) for name, one in value.items() if not name.startswith("\0")}
        case list() | tuple():
            return [_output(one, outcome) for one in value]
    return None if value is ABSENT else value


def _last_results(run: StepScheduler) -> dict[str, Any]:
    """Returns the files that no other step uses, by step; for a step of a fan-out, a list."""
    used = {id(need) for one in run.plan.instances for need in one.needs}
    found: dict[str, Any] = {}
    for one in run.plan.instances:
        known = [work.known for work in one.works if work.known is not None and work.known.state == "="]
        made = [file for each in known if (file := each.output(one.file_kind)) is not None]
        files = run.outcome.saved.get(one.address) or made
        if id(one) in used or not files:
            continue
        found[one.path] = [*found.get(one.path, ()), *files] if one.item or len(files) > 1 else files[0]
    return found


async def write_table(store: MediaStore, name: str, steps: Sequence[StepReport]) -> str:
    """Writes all steps of a run as CSV; returns the URI of the file."""
    names = tuple(one.name for one in fields(StepReport))
    rows = ({name: _cell(getattr(one, name)) for name in names} for one in steps)
    table = csv_text(names, rows)
    return await asyncio.to_thread(store.write_bytes, name, table.encode())


def _cell(value: object) -> object:
    return " ".join(value) if isinstance(value, tuple) else value

"""The result of a pipeline run: the state of each step, the report as CSV, and the final state of the run."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import BaseModel, ConfigDict

from rh_prefect.artifacts import Page
from rh_prefect.errors import BudgetExceeded, JournalError, PipelineIncomplete, RunningHubError, StoreError
from rh_prefect.flow_runs.flow_scope import FlowScope
from rh_prefect.flow_runs.job_progress import mark_reported
from rh_prefect.flows.pipeline_pages import (
    StepReport,
    StepState,
    counted,
    show_candidates,
    show_results,
    show_steps,
    waiting_reviews,
)
from rh_prefect.flows.pipeline_parameters import RunOptions
from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.evaluation import results
from rh_prefect.pipelines.plan.planned_steps import Instance
from rh_prefect.pipelines.planning_values import ABSENT, File, Items, StepOutput, Unknown
from rh_prefect.pipelines.run.pipeline_run import PipelineRun
from rh_prefect.pipelines.run.store_outages import while_store_is_away
from rh_prefect.table_files import csv_text
from rh_prefect.works.journal.costs import Costs
from rh_prefect.works.loop_thread import LOOP

NOTHING_NEW = "Nothing new"
OVER_BUDGET = "Over budget"
WAITING = "Waiting for review"
REPORTS = "runs"


class PipelineResult(BaseModel):
    """What a pipeline run returns.

    Attributes:
        pipeline: The pipeline's name.
        outputs: The file's outputs, by name: files, texts and numbers, or lists of them. Of a file without outputs: the
            files that no other step uses, by the step that made them.
        steps: Every step of every item.
        costs: What this run paid.
        other_costs: The part of `costs` for steps that are not in the plan; see `PipelineRun.costs_by_step`.
        open_submissions: How many submissions of this run have no known end, as of a lost response; not in `costs`.
        open_costs: What they may cost, by their prices.
        new: How many steps have a result that this run made.
        report: Where the report is, as CSV.
        takes: The take that the run chose for each step that was to be made again, by address.
    """

    model_config = ConfigDict(frozen=True)

    pipeline: str
    outputs: dict[str, Any]
    steps: tuple[StepReport, ...]
    costs: Costs
    other_costs: Costs = Costs()
    open_submissions: int = 0
    open_costs: Costs = Costs()
    new: int
    report: str = ""
    takes: dict[str, int] = {}

    def __getitem__(self, name: str) -> Any:
        """An output by its name."""
        return self.outputs[name]


async def report(run: PipelineRun, options: RunOptions, scope: FlowScope) -> State[Any]:
    """Writes and shows the report of a run that has ended.

    Args:
        run: The run.
        options: Its options.
        scope: Its flow run.

    Returns:
        The final state: failed, waiting for review, nothing new, or completed; its data is the result.
    """
    away = await _store_error(run.count_costs) or await _store_error(run.find_saved)
    by_step, other_costs = run.costs_by_step()
    steps = tuple(_steps(run, by_step))
    rows = (*steps, *_others(other_costs))
    outcome = run.outcome
    costs = Costs.total(outcome.costs.values())
    uri = f"{REPORTS}/{scope.run}/report.csv"
    away = away or await _store_error(lambda: LOOP.call(_write_report(run.store, uri, rows)))
    uri = "" if away is not None else run.store.uri(uri)
    saved = outcome.named
    result = PipelineResult(
        pipeline=run.plan.pipeline,
        outputs={name: _output(value, saved) for name, value in run.plan.outputs.items()} or _last_results(run),
        steps=steps,
        costs=costs,
        other_costs=other_costs,
        open_submissions=outcome.open_submissions,
        open_costs=outcome.open_costs,
        new=sum(one.state == "made" for one in steps),
        report=uri,
        takes=dict(run.plan.new_takes),
    )
    head = summary(result)
    if result.outputs and uri:
        await show_results(result.outputs, head=head, report=uri, edits=run.edits, store=run.store)
    if uri:
        await show_steps(rows, head=head, report=uri, store=run.store)
    mark_reported()
    reviews = waiting_reviews(run.plan.instances) if uri else []
    if reviews:
        await show_candidates(reviews, run.edits, run.store)
        run.tell("review", reviews=[one.address for one in reviews])
    state = _state(run, options, result, [one.address for one in reviews])
    if away is not None:
        state = _without_report(state, result, away)
    if state.name == OVER_BUDGET:
        run.tell("over_budget", reason=state.message or "")
    states = Counter(one.state for one in steps)
    run.tell("done", state=state.name or "", new=result.new, cost=str(costs), report=uri, steps=dict(states))
    return state


async def _store_error(make: Callable[[], Awaitable[Any]]) -> RunningHubError | None:
    """Does a part of the report; returns the error of a storage or of records that do not respond."""
    try:
        await while_store_is_away(make)
    except (StoreError, JournalError) as error:
        return error
    return None


def _without_report(state: State[Any], result: PipelineResult, error: RunningHubError) -> State[Any]:
    """Returns the state of a run whose report could not be written: what it made and paid, and why."""
    head = state.message if state.is_failed() else summary(result)
    message = (
        f"{head} The report could not be written: {error} What to do: run again, which pays for no result twice and "
        "writes it."
    )
    return Failed(
        name=state.name if state.is_failed() else "Failed",
        message=message,
        data=PipelineIncomplete(message, result=result),
    )


def _state(run: PipelineRun, options: RunOptions, result: PipelineResult, waiting: list[str]) -> State[Any]:
    errors = run.outcome.errors
    if errors:
        is_money = all(isinstance(error, BudgetExceeded) for error in errors.values())
        first, error = next(iter(errors.items()))
        further = "1 further step" if len(errors) == 2 else f"{len(errors) - 1} further steps"
        more = f" ({further} failed)" if len(errors) > 1 else ""
        detail = str(error).removeprefix(f"{first}: ").rstrip(".")
        message = f"{first}: {detail}{more}. {summary(result)}"
        incomplete = PipelineIncomplete(message, result=result)
        return Failed(name=OVER_BUDGET if is_money else "Failed", message=message, data=incomplete)
    if waiting:
        detail = f"{', '.join(waiting[:5])}{', …' if len(waiting) > 5 else ''}"
        where = f"the artifact {Page.current_key('review')}"
        message = f"Choose at {detail}: {where} shows the candidates and says how. {summary(result)}"
        return Completed(name=WAITING, message=message, data=result)
    if result.new == 0 and not result.costs:
        message = (
            f"Nothing was made and nothing was paid: the results exist already{run.dated()}. What to do: change a "
            f'parameter; or for other results run with new: ["*"], on the command line with --new. {summary(result)}'
        )
        if options.require_new:
            return Failed(name=NOTHING_NEW, message=message, data=PipelineIncomplete(message, result=result))
        return Completed(name=NOTHING_NEW, message=message, data=result)
    return Completed(message=summary(result), data=result)


def summary(result: PipelineResult) -> str:
    """Returns one line: the number of steps in each state, and the amount that the run paid.

    Args:
        result: The run's result.
    """
    others = f", of which {result.other_costs} for steps that are not in its plan" if result.other_costs else ""
    still_open = ""
    if number := result.open_submissions:
        which = "1 submission has" if number == 1 else f"{number} submissions have"
        amounts, is_exact = Costs(result.open_costs.amounts), not result.open_costs.unknown
        price = f"{amounts} {'more' if is_exact else 'or more'}" if amounts else "an unknown amount"
        still_open = f"; {which} no known end and may cost {price}"
    return f"Steps: {counted(one.state for one in result.steps)}; paid {result.costs}{others}{still_open}."


def _steps(run: PipelineRun, costs: Mapping[str, Costs]) -> Sequence[StepReport]:
    blocked = run.blocked()
    return [_step(one, run, blocked, costs.get(one.address)) for one in run.plan.instances]


def _others(costs: Costs) -> Sequence[StepReport]:
    """Returns a row for what was paid for steps that are not in the plan, so that the rows add up to the run's cost."""
    reason = "paid by an earlier attempt with another file or table, or by another pipeline of the flow run"
    return [StepReport(step="", model="", state="not in the plan", cost=str(costs), reason=reason)] if costs else []


def _step(one: Instance, run: PipelineRun, blocked: Mapping[str, str], cost: Costs | None) -> StepReport:
    outcome = run.outcome
    state, reason = _state_of(one, run, blocked)
    if state == "reused" and cost is not None:
        state = "made"  # by an earlier process of this run
    saved = outcome.saved.get(one.address)
    files = saved or [file for work in one.works if work.known is not None for file in work.known.outputs]
    return StepReport(
        step=one.address,
        model=one.model,
        state=state,
        cost=str(cost) if cost is not None else "",
        files=tuple(file.uri for file in files),
        reason=reason,
    )


def _state_of(one: Instance, run: PipelineRun, blocked: Mapping[str, str]) -> tuple[StepState, str]:
    error = run.outcome.errors.get(one.address)
    if error is not None:
        return "failed", str(error)
    if one.address in blocked:
        return "not run", f"needs {blocked[one.address]}, which failed"
    if one.state == "x":
        return "absent", one.note or "its condition does not hold"
    if one.model == "review" and one.state == "r":
        is_shown = all(need.state == "=" for need in (*one.needs, *one.waits_for))
        return ("waits for review", one.note) if is_shown else ("not run", "")
    if one.state == "r":
        return "waits for review", ""
    if one.works and all(work.known is not None and work.known.state == "=" for work in one.works):
        return ("made" if one.address in run.outcome.new_steps else "reused"), ""
    if one.model == "review":
        return "reused", ""
    if not one.is_needed:
        return "not needed", ""
    stopped_by = run.stopped_by()
    reason = f"{stopped_by} failed, and its on_error is fail" if stopped_by else ""
    return "not run", reason or "was not selected, or needs a result that was not made"


def _output(value: Any, saved: Mapping[str, Media]) -> Any:
    """Converts an output to a plain value: files as `Media`, under the name that `save_as` gave them."""
    match value:
        case StepOutput():
            return _output(value.value, saved)
        case File():
            return value.media and saved.get(value.media.sha256, value.media)
        case Unknown():
            return value.sent
        case Items():
            return [_output(one, saved) for one in results(value)]
        case dict():
            # Names that begin with NUL are this package's own, such as the place of a table's row.
            return {name: _output(one, saved) for name, one in value.items() if not name.startswith("\0")}
        case list() | tuple():
            return [_output(one, saved) for one in value]
    return None if value is ABSENT else value


def _last_results(run: PipelineRun) -> dict[str, Any]:
    """Returns the files that no other step uses, by the step that made them; of a fan-out's step a list."""
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


async def _write_report(store: MediaStore, name: str, steps: Sequence[StepReport]) -> str:
    rows = ({**one.model_dump(), "files": " ".join(one.files)} for one in steps)
    table = csv_text(tuple(StepReport.model_fields), rows)
    return await asyncio.to_thread(store.write_bytes, name, table.encode())

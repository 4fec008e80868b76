"""`run_pipeline`: one run of a pipeline, from its parameters to its report."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from rh_prefect.errors import RunningHubError, StoreError
from rh_prefect.media.file_name_templates import safe
from rh_prefect.media.input_access_policy import allow_below
from rh_prefect.pipelines.file_model import Param
from rh_prefect.pipelines.garbage_collection import FREEZER
from rh_prefect.pipelines.input_reader import Inputs, input_roots
from rh_prefect.pipelines.last_run import since
from rh_prefect.pipelines.parsed_document import PipelineError
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan.planned_steps import Selection
from rh_prefect.pipelines.plan.reviewed_plan import ReviewedPlan
from rh_prefect.pipelines.plan.take_chooser import EqualRequests
from rh_prefect.pipelines.run.csv_report import report, report_of_interrupted, summary_of_interrupted
from rh_prefect.pipelines.run.interfaces import Surroundings
from rh_prefect.pipelines.run.options import RunOptions
from rh_prefect.pipelines.run.result import RunEnd
from rh_prefect.pipelines.run.run_budget import run_limit, shortage
from rh_prefect.pipelines.run.run_services import RunServices
from rh_prefect.pipelines.run.step_scheduler import StepScheduler
from rh_prefect.works.journal.works_journal import signs_of_life
from rh_prefect.works.loop_thread import LOOP

_SETTLE = 5.0
"""Seconds for which the report of an interrupted run waits for submissions in flight."""

_SAME_REPORT = frozenset({"budget", "require_new", "credentials", "wait"})
"""Options that do not change what is made: a run that continues with another budget replaces its report."""

_log = logging.getLogger("rh_prefect")


async def run_pipeline(
    pipeline: Pipeline,
    params: Mapping[str, Any],
    options: RunOptions,
    around: Surroundings,
    *,
    reviewed: ReviewedPlan | None = None,
) -> RunEnd:
    """Runs a pipeline, and returns how the run ended; raises `PipelineError` for a problem in the first plan."""
    pipeline = pipeline.with_reuse(options.reuse) if options.reuse is not None else pipeline
    selection = Selection(frozenset(options.only or ()), frozenset(options.items or ()), options.sample)
    selection = selection if reviewed is None else reviewed.selected(selection)
    arguments = {name: value for name, value in params.items() if value is not None}
    run = await _prepare(pipeline, arguments, options, selection, around, reviewed)
    chosen = {name: value for name, value in asdict(options).items() if name not in _SAME_REPORT}
    name = _report_name(around, [pipeline.name, arguments, chosen, selection.as_json()])
    is_complete = False
    async with _alive(around):
        try:
            with FREEZER.survivors_frozen():
                end = await _make(run, options, around, name, pipeline.file.params)
            # The message of a run without a report advises another run, which must not make everything again.
            is_complete = run.is_complete and bool(end.result.report)
            return end
        except BaseException as error:  # as by Ctrl-C or a suspension; what was made is useful to the user
            if isinstance(error, RunningHubError) and not run.outcome.begun:
                raise
            # The task of a submission in flight is not known yet, and it may be paid for.
            await asyncio.shield(LOOP.call(LOOP.settle(_SETTLE)))
            await asyncio.shield(report_of_interrupted(run, name))
            if isinstance(error, RunningHubError):
                note = f"{summary_of_interrupted(run)} The next run pays for no result twice, unless it has `new`."
                raise error.with_note(note) from error
            raise
        finally:
            run.services.budget.leave()
            await run.leave(is_complete=is_complete)


@asynccontextmanager
async def _alive(around: Surroundings) -> AsyncIterator[None]:
    """Writes the run's signs of life during a block, even while the run waits for no task."""

    async def sign() -> None:
        with signs_of_life(around.works, around.scope.journal.scope):
            await asyncio.Event().wait()

    signing = LOOP.submit(sign())
    try:
        yield
    finally:
        signing.cancel()


def _report_name(around: Surroundings, given: Sequence[Any]) -> str:
    """Returns the name of the run for the file names of its report, from its pipeline's name and its other arguments.

    Each pipeline of a flow has a separate name, and each run with other arguments.
    """
    if not around.is_part:
        return around.scope.run
    text = json.dumps(given, sort_keys=True, default=str)
    return f"{around.scope.run}-{hashlib.sha256(text.encode()).hexdigest()[:8]}-{safe(given[0])}"


async def _make(
    run: StepScheduler, options: RunOptions, around: Surroundings, name: str, declared: Mapping[str, Param]
) -> RunEnd:
    plan = await run.make_plan()
    if plan.problems:
        raise PipelineError(list(plan.problems))
    plan.refuse_unknown(run.selection, new=options.new or ())
    reviewed = run.services.reviewed
    if reviewed is not None:
        reviewed.refuse_changes(plan, declared)
    budget = run.services.budget
    is_paying, in_progress = bool(run.price.most or run.price.is_open), budget.in_progress(plan)
    currency = await LOOP.call(around.accounts.pool.currency()) if is_paying or in_progress else None
    in_progress = in_progress if currency in (None, plan.currency) else Decimal(0)
    earlier = await run.earlier_costs()
    # Nothing is awaited from here on, so that another pipeline of the flow run counts this one.
    counted = budget.spending.all_counted
    limit = run_limit(
        plan,
        run.price,
        budget=options.budget,
        counted=counted,
        others=budget.others,
        in_progress=in_progress,
        reviewed=reviewed,
        currency=currency if is_paying else None,  # a run that only waits needs no budget in another currency
        attempt=around.scope.attempt,
        earlier=earlier,
    )
    most = run.price.most + in_progress
    budget.begin(most if limit is None else min(most, max(limit - counted, Decimal(0))))
    has_budget = options.budget is not None or plan.budget is not None or reviewed is not None
    run.services.limit(limit, is_planned=not has_budget)
    left = None if limit is None or currency not in (None, plan.currency) else limit - counted
    if note := shortage(plan, run.price, left=left):
        plan.notes = [*plan.notes, note]
        _log.warning("%s: %s", plan.pipeline, note)
    if last := await run.services.last_runs.read(plan.pipeline, around.deployment):
        since(plan, last, declared)
    await around.pages.show_plan(plan)
    price = plan.price
    prices = {"least": str(price.least), "expected": str(price.expected), "most": str(price.most)}
    run.tell("planned", states=dict(plan.counts), price=prices, currency=plan.currency)
    await run.make_all()
    await _keep_plan(run, around)
    return await report(run, name=name, require_new=options.require_new)


async def _keep_plan(run: StepScheduler, around: Surroundings) -> None:
    """Stores the plan for comparison with the next plan; a failure is only logged."""
    scope = around.scope.journal.scope
    try:
        await asyncio.to_thread(run.services.last_runs.write, run.plan, run=scope, deployment=around.deployment)
    except StoreError as error:
        _log.warning("The plan of this run could not be saved, so no later plan can be compared with it: %s", error)


async def _prepare(
    pipeline: Pipeline,
    params: Mapping[str, Any],
    options: RunOptions,
    selection: Selection,
    around: Surroundings,
    reviewed: ReviewedPlan | None,
) -> StepScheduler:
    allow_below(*input_roots(pipeline.file.params, params))
    services = RunServices(around, pipeline.name, reviewed)
    await LOOP.call(services.budget.spending.complete())
    return StepScheduler(
        pipeline,
        services,
        selection,
        params=params,
        site=around.accounts.pool.site,
        decided=pipeline.decided(options.takes or {}, options.choices or {}),
        new=options.new or (),
        run_id=around.scope.run.rpartition("-")[2],
        date=around.date,
        saved_graphs=await services.last_runs.graphs(pipeline, around.accounts.pool, around.deployment),
        inputs=around.inputs or Inputs(own=around.store.url),
        equal=EqualRequests(),
    )

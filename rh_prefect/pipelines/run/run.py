"""`run_pipeline`: one run of a pipeline, from its parameters to its report, in any surroundings."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from rh_prefect.errors import RunningHubError, StoreError
from rh_prefect.media.input_access_policy import allow_below
from rh_prefect.pipelines.document import PipelineError
from rh_prefect.pipelines.input_reader import Inputs, input_roots
from rh_prefect.pipelines.known_works import StoredWorks, cache_of
from rh_prefect.pipelines.last_run import LastRun, open_last_runs, since
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.plan.planned_steps import Selection
from rh_prefect.pipelines.plan.reviewed_plan import ReviewedPlan
from rh_prefect.pipelines.plan.take_choice import EqualRequests
from rh_prefect.pipelines.rounds import Rounds
from rh_prefect.pipelines.run.options import RunOptions
from rh_prefect.pipelines.run.pipeline_run import PipelineRun
from rh_prefect.pipelines.run.ports import Ports
from rh_prefect.pipelines.run.report import report, report_of_interrupted
from rh_prefect.pipelines.run.result import RunEnd
from rh_prefect.pipelines.run.run_budget import RunBudget, run_limit
from rh_prefect.pipelines.run.tools import Tools
from rh_prefect.pipelines.save_as import SavedNames
from rh_prefect.pipelines.site_graphs import SavedGraphs, read_saved_graphs, with_used_graphs
from rh_prefect.pipelines.stored_edits import open_edits
from rh_prefect.settings import get_settings
from rh_prefect.works.journal.signs_of_life import signs_of_life
from rh_prefect.works.journal.works_journal import records_url
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.options import Options
from rh_prefect.works.run_ledger import spending_of
from rh_prefect.works.work_runner import WorkRunner

_SETTLE = 5.0
"""Seconds that the report of an interrupted run waits for submissions in flight."""

_log = logging.getLogger("rh_prefect")


async def run_pipeline(
    pipeline: Pipeline,
    params: Mapping[str, Any],
    options: RunOptions,
    ports: Ports,
    *,
    reviewed: ReviewedPlan | None = None,
) -> RunEnd:
    """Runs a pipeline."""
    selection = Selection(frozenset(options.only or ()), frozenset(options.items or ()), options.sample)
    selection = selection if reviewed is None else reviewed.selected(selection)
    arguments = {name: value for name, value in params.items() if value is not None}
    await ports.engine.open(options.wait)
    run = await _prepare(pipeline, arguments, options, selection, ports, reviewed)
    is_complete = False
    async with _alive(ports):
        try:
            end = await _make(run, pipeline, options, ports, reviewed)
            is_complete = run.is_complete
            return end
        except RunningHubError:
            raise
        except BaseException:  # as by Ctrl-C or a suspension; what was made is useful to the user
            # The task of a submission in flight is not known yet, and it may be paid for.
            await asyncio.shield(LOOP.call(LOOP.settle(_SETTLE)))
            await asyncio.shield(report_of_interrupted(run, ports.scope.run))
            raise
        finally:
            await run.leave(is_complete=is_complete)


@asynccontextmanager
async def _alive(ports: Ports) -> AsyncIterator[None]:
    """Has the run give signs of life for the duration of a block, also while it waits for no task."""

    async def sign() -> None:
        with signs_of_life(ports.works, ports.scope.journal.scope):
            await asyncio.Event().wait()

    signing = LOOP.submit(sign())
    try:
        yield
    finally:
        signing.cancel()


async def _make(
    run: PipelineRun, pipeline: Pipeline, options: RunOptions, ports: Ports, reviewed: ReviewedPlan | None
) -> RunEnd:
    plan = await run.make_plan()
    if plan.problems:
        raise PipelineError(list(plan.problems))
    plan.refuse_unknown(run.selection, new=options.new or ())
    if reviewed is not None:
        reviewed.refuse_changes(plan, pipeline.file.params)
    price = run.price
    limit = run_limit(
        plan,
        price,
        budget=options.budget,
        counted=run.counted,
        reviewed=reviewed,
        currency=await run.currency() if price.most or price.is_open else None,
        attempt=ports.scope.attempt,
        earlier=await run.earlier_costs(),
    )
    run.limit(limit)
    await ports.pages.show_plan(await _compared(run, pipeline, ports))
    prices = {"least": str(plan.price.least), "expected": str(plan.price.expected), "most": str(plan.price.most)}
    run.tell("planned", states=dict(plan.counts), price=prices, currency=plan.currency)
    await run.make_all()
    await _keep_plan(run, ports)
    return await report(run, options, ports.pages, name=ports.scope.run)


async def _compared(run: PipelineRun, pipeline: Pipeline, ports: Ports) -> Plan:
    """Returns the plan with the changes since the last run."""
    last = await run.last_runs.read(run.plan.pipeline, ports.deployment)
    if last is not None:
        since(run.plan, last, pipeline.file.params)
    return run.plan


async def _keep_plan(run: PipelineRun, ports: Ports) -> None:
    """Stores the plan for comparison with the next one; without it, the next plan is compared with an earlier run."""
    last = LastRun(run=ports.scope.journal.scope, deployment=ports.deployment, plan=run.plan.as_json())
    try:
        await run.last_runs.write(run.plan.pipeline, last)
    except StoreError as error:
        _log.warning("The plan of this run is not kept for a comparison with the next one: %s", error)


async def _prepare(
    pipeline: Pipeline,
    params: Mapping[str, Any],
    options: RunOptions,
    selection: Selection,
    ports: Ports,
    reviewed: ReviewedPlan | None,
) -> PipelineRun:
    settings, store, works, scope = get_settings(), ports.store, ports.works, ports.scope
    edits = open_edits(store, settings)
    allow_below(*input_roots(pipeline.file.params, params))
    url = records_url(store, settings)
    spending = spending_of(scope)
    await LOOP.call(spending.complete())

    async def is_silent(run: str, key: str) -> bool:
        return await works.is_silent(run, [await works.rounds.time_of(key)], reader=scope.journal.scope)

    rounds = Rounds(
        works.rounds,
        deployment=ports.deployment,
        run=scope.journal,
        is_scheduled=ports.is_scheduled,
        has_ended=ports.has_ended,
        is_silent=is_silent,
    )
    tools = Tools(
        engine=ports.engine,
        pages=ports.pages,
        runner=WorkRunner(
            ports.accounts,
            scope,
            store,
            works,
            Options(credentials=ports.credentials, reuse=ports.reuse),
            observer=ports.observer,
            pipeline=pipeline.name,
            has_ended=ports.has_ended,
        ),
        edits=edits,
        names=SavedNames(url, store, options=store.options_for(url), pipeline=pipeline.name),
        known=StoredWorks(works, edits, store, rounds=rounds, cache=cache_of(works, settings), run=scope.journal),
        rounds=rounds,
        store=store,
        last_runs=open_last_runs(store, settings),
        budget=RunBudget(spending, works.scope),
        reviewed=reviewed,
    )
    saved: SavedGraphs = await LOOP.call(read_saved_graphs(pipeline.checked, ports.accounts.pool))
    last = await tools.last_runs.read(pipeline.name, ports.deployment) if saved else None
    if last is not None:
        saved = with_used_graphs(saved, last.plan)
    return PipelineRun(
        pipeline,
        tools,
        selection,
        params=params,
        site=ports.accounts.pool.site,
        decided=pipeline.decided(options.takes or {}, options.choices or {}),
        new=options.new or (),
        run_id=scope.run.rpartition("-")[2],
        date=ports.date,
        saved_graphs=saved,
        inputs=ports.inputs or Inputs(own=store.url),
        equal=EqualRequests(),
    )

"""Builds the flow of a pipeline with the parameters of its file; a run plans, runs the missing steps and reports."""

from __future__ import annotations

import re
from collections.abc import Coroutine, Mapping
from datetime import UTC
from typing import TYPE_CHECKING, Any, Self

from prefect import Flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import deployment
from prefect.states import Failed

from rh_prefect.artifacts import mark_pipeline
from rh_prefect.blocks.lookup import load_engine, load_storage
from rh_prefect.errors import InputError, RunningHubError, StoreError
from rh_prefect.flow_runs.flow import add_hooks, run_name
from rh_prefect.flow_runs.flow_scope import FlowScope, current_scope
from rh_prefect.flow_runs.job_progress import run_observer
from rh_prefect.flow_runs.prefect_internals import flow_contexts
from rh_prefect.flow_runs.queries import has_ended
from rh_prefect.flows.pipeline_engine import PrefectEngine
from rh_prefect.flows.pipeline_events import PrefectPages, tag
from rh_prefect.flows.pipeline_pages import show_plan
from rh_prefect.flows.pipeline_parameters import OPTIONS, RunOptions, docstring_of, signature_of
from rh_prefect.flows.pipeline_report import PipelineResult, report
from rh_prefect.json_checks import flaw_of
from rh_prefect.media.input_access_policy import allow_below
from rh_prefect.pipelines import pipeline as files
from rh_prefect.pipelines.document import PipelineError
from rh_prefect.pipelines.input_reader import Inputs, input_roots
from rh_prefect.pipelines.known_works import StoredWorks, cache_of, open_records
from rh_prefect.pipelines.last_run import LastRun, open_last_runs, since
from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.plan.planned_steps import Selection
from rh_prefect.pipelines.plan.reviewed_plan import ReviewedPlan
from rh_prefect.pipelines.plan.take_choice import EqualRequests
from rh_prefect.pipelines.rounds import COMMAND_LINE, Rounds
from rh_prefect.pipelines.run.pipeline_run import PipelineRun
from rh_prefect.pipelines.run.run_budget import RunBudget, run_limit
from rh_prefect.pipelines.run.tools import Tools
from rh_prefect.pipelines.save_as import SavedNames
from rh_prefect.pipelines.site_graphs import SavedGraphs, ids_in, read_saved_graphs, with_used_graphs
from rh_prefect.pipelines.stored_edits import open_edits
from rh_prefect.settings import get_settings
from rh_prefect.works.journal.works_journal import open_works, records_url
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.options import Options
from rh_prefect.works.run_ledger import RecordsPlace, note_place, spending_of
from rh_prefect.works.work import JobCall
from rh_prefect.works.work_runner import WorkRunner

PipelineFlow = Flow[..., Coroutine[Any, Any, Any]]


class Pipeline(files.Pipeline):
    """A pipeline that was read and checked, and can be run.

    film = Pipeline.from_file("film.yaml")
    done = await film.run(idea="a lighthouse at dawn", budget=25)
    print(done["film"].uri, done.costs)
    """

    def flow(self, reviewed: ReviewedPlan | None = None) -> PipelineFlow:
        """Makes the pipeline's flow, for `.serve()` and `.deploy()`.

        Args:
            reviewed: A plan that was reviewed; runs of the flow pay for nothing else.
        """
        return pipeline_flow(self, reviewed=reviewed)

    async def plan(self, params: Mapping[str, Any] | None = None, /, **more: Any) -> Plan:
        """Returns what a run would do and pay, as `rh-prefect plan` shows it: results that exist cost nothing.

        Args:
            params: The parameters' values. If it is given, `more` has only options: a file may have a parameter with
                the name of an option, such as `date`.
            **more: Parameters by name, and the options of `rh_prefect.pipelines.pipeline.Pipeline.plan`, such as
                `known`: the results that exist, by default those in the file's storage; `NoWorks()` for none.

        Raises:
            ConfigError: The storage cannot be used.
            StoreError: The records cannot be read.
        """
        if params is None:
            params = {name: more.pop(name) for name in self.file.params if name in more}
        if more.get("known") is not None:
            return await super().plan(params, **more)
        known, notes = open_records(await load_storage(self.file.storage), get_settings()), list[str]()
        if next(ids_in(self.checked), None) is not None:
            try:
                engine = await load_engine(self.file.credentials)
                more = {"saved_graphs": await LOOP.call(read_saved_graphs(self.checked, engine.pool)), **more}
            except RunningHubError as error:
                notes.append(f"The graphs of workflows and apps were not read: {error.message}")
        plan = await super().plan(params, **{**more, "known": known})
        plan.notes = [*plan.notes, *notes]
        return plan

    async def run(
        self, params: Mapping[str, Any] | None = None, /, *, reviewed: ReviewedPlan | None = None, **more: Any
    ) -> PipelineResult:
        """Runs the pipeline: as a part of the flow that the caller is in, else as a separate flow run.

        Args:
            params: The parameters' values; those whose names are not Python names go here, too.
            reviewed: A plan that was reviewed; the run pays for nothing else.
            **more: Parameters and options by name; see `RunOptions`.

        Raises:
            PipelineError: Something is wrong with the file or the parameters; nothing was paid.
            PlanChanged: The run would not be what the reviewed plan says; nothing was paid.
            PipelineIncomplete: Not all was made; its result says what became of each step.
            RunningHubError: The account, the storage or the budget cannot be used.
        """
        result: PipelineResult = await pipeline_flow(self, reviewed=reviewed)(**{**(params or {}), **more})
        return result


def pipeline_flow(
    pipeline: files.Pipeline, *, module: str = "", name: str = "", reviewed: ReviewedPlan | None = None
) -> PipelineFlow:
    """Makes the flow of a pipeline.

    Args:
        pipeline: The pipeline. Its parameters become the flow's.
        module: The module that a deployment imports it from.
        name: Its name there.
        reviewed: A plan that was reviewed; runs of the flow pay for nothing else.
    """

    async def run(**arguments: Any) -> Any:
        options = RunOptions(**{name: arguments.pop(name) for name in OPTIONS if name in arguments})
        try:
            return await run_pipeline(pipeline, arguments, options, reviewed)
        except RunningHubError as error:
            # Returned and not raised: the state has the cause as text, and the log has no traceback of this package.
            return Failed(message=str(error), data=error)

    run.__module__ = module or __name__
    run.__name__ = run.__qualname__ = name or re.sub(r"\W", "_", pipeline.name)
    run.__doc__ = docstring_of(pipeline)
    run.__signature__ = signature_of(pipeline)  # type: ignore[attr-defined]  # how `inspect` lets a function say its own
    mark_pipeline(run)
    # The outputs are in the store; Prefect keeps no second copy of the result.
    return add_hooks(_PipelineFlow(run, name=pipeline.name, flow_run_name=run_name, persist_result=False))


class _PipelineFlow(Flow[..., Coroutine[Any, Any, Any]]):
    """A flow that refuses parameters which Prefect's API cannot take, before a flow run is created with them."""

    # A type checker sees Prefect's own overloads.
    if not TYPE_CHECKING:

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """Runs the flow; see `prefect.Flow`."""
            for name, value in kwargs.items():
                if isinstance(value, str | list | dict) and (flaw := flaw_of(value)):
                    raise InputError(f"The parameter {name} {flaw}. Nothing was sent. What to do: correct it.")
            return super().__call__(*args, **kwargs)

        def with_options(self, **options: Any) -> Self:
            """Returns the same flow with other options; see `prefect.Flow.with_options`."""
            copy = super().with_options(**options)
            copy.__class__ = type(self)
            return copy


async def run_pipeline(
    pipeline: files.Pipeline, params: Mapping[str, Any], options: RunOptions, reviewed: ReviewedPlan | None = None
) -> State[Any]:
    """Runs a pipeline in the flow run that the caller is in.

    Args:
        pipeline: The pipeline.
        params: Its parameters; one that is None is left out.
        options: How it is run.
        reviewed: A plan that was reviewed; the run pays for nothing else.

    Returns:
        A state whose data is a `PipelineResult`; a failed one holds a `PipelineIncomplete`.

    Raises:
        PipelineError: Something is wrong with the file or the parameters; nothing was paid.
        PlanChanged: The run would not be what the reviewed plan says; nothing was paid.
        InputError: A selected step or item, or one in `new`, does not exist; nothing was paid.
        BudgetExceeded: The budget is below what the run costs at least; nothing was paid.
        RunningHubError: The account or the storage cannot be used.
    """
    scope = current_scope()
    if scope is None:
        raise InputError("A pipeline runs in a flow. What to do: use Pipeline.run(...) or Pipeline.flow().")
    selection = Selection(frozenset(options.only or ()), frozenset(options.items or ()), options.sample)
    selection = selection if reviewed is None else reviewed.selected(selection)
    arguments = {name: value for name, value in params.items() if value is not None}
    engine = PrefectEngine()
    run = await _prepare(pipeline, arguments, options, selection, scope, reviewed, engine)
    is_complete = False
    try:
        state = await _make(run, pipeline, options, scope, reviewed, engine)
        is_complete = run.is_complete
        return state
    finally:
        await run.leave(is_complete=is_complete)


async def _make(
    run: PipelineRun,
    pipeline: files.Pipeline,
    options: RunOptions,
    scope: FlowScope,
    reviewed: ReviewedPlan | None,
    engine: PrefectEngine,
) -> State[Any]:
    plan = await run.make_plan()
    _refuse(plan)
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
        attempt=scope.attempt,
        earlier=await run.earlier_costs(),
    )
    run.limit(limit)
    await show_plan(await _compared(run, pipeline))
    await tag(plan.pipeline)
    prices = {"least": str(plan.price.least), "expected": str(plan.price.expected), "most": str(plan.price.most)}
    run.tell("planned", states=dict(plan.counts), price=prices, currency=plan.currency)
    await engine.open(options.wait)
    await run.make_all()
    await _keep_plan(run, scope)
    return await report(run, options, scope)


async def _compared(run: PipelineRun, pipeline: files.Pipeline) -> Plan:
    """Returns the plan with the changes since the last run."""
    last = await run.last_runs.read(run.plan.pipeline, _deployment())
    if last is not None:
        since(run.plan, last, pipeline.file.params)
    return run.plan


async def _keep_plan(run: PipelineRun, scope: FlowScope) -> None:
    """Stores the plan for comparison with the next one; without it, the next plan is compared with an earlier run."""
    last = LastRun(run=scope.journal.scope, deployment=_deployment(), plan=run.plan.as_json())
    try:
        await run.last_runs.write(run.plan.pipeline, last)
    except StoreError as error:
        get_run_logger().warning("The plan of this run is not kept for a comparison with the next one: %s", error)


def _deployment() -> str:
    return (deployment.name if deployment.id else None) or COMMAND_LINE


async def _prepare(
    pipeline: files.Pipeline,
    params: Mapping[str, Any],
    options: RunOptions,
    selection: Selection,
    scope: FlowScope,
    reviewed: ReviewedPlan | None,
    step_engine: PrefectEngine,
) -> PipelineRun:
    settings = get_settings()
    credentials = pipeline.file.credentials if options.credentials is None else options.credentials or None
    storage = pipeline.file.storage if options.storage is None else options.storage or None
    engine = await load_engine(credentials)
    store = await load_storage(storage)
    # Without the notes of earlier attempts, their costs would not count in the budget.
    await LOOP.call(engine.open(scope, store))
    works = await LOOP.call(open_works(store, settings))
    place = RecordsPlace(url=works.url, storage=storage)
    await LOOP.call(note_place(scope.journal, place, pipeline.name, attempt=scope.attempt))
    edits = open_edits(store, settings)
    allow_below(*input_roots(pipeline.file.params, params))
    url = records_url(store, settings)
    spending = spending_of(scope)
    await LOOP.call(spending.complete())
    rounds = Rounds(
        works.rounds,
        deployment=_deployment(),
        run=scope.journal,
        is_scheduled=_is_scheduled(),
        has_ended=has_ended,
    )
    tools = Tools(
        engine=step_engine,
        pages=PrefectPages(),
        runner=WorkRunner(engine, works, pipeline=pipeline.name, has_ended=has_ended),
        edits=edits,
        names=SavedNames(url, store, options=store.options_for(url), pipeline=pipeline.name),
        known=StoredWorks(works, edits, store, rounds=rounds, cache=cache_of(works, settings), run=scope.journal),
        rounds=rounds,
        store=store,
        last_runs=open_last_runs(store, settings),
        call=JobCall(scope, store, options=Options(credentials=credentials), observer=run_observer()),
        budget=RunBudget(spending, works.scope),
        reviewed=reviewed,
    )
    saved: SavedGraphs = await LOOP.call(read_saved_graphs(pipeline.checked, engine.pool))
    last = await tools.last_runs.read(pipeline.name, _deployment()) if saved else None
    if last is not None:
        saved = with_used_graphs(saved, last.plan)
    return PipelineRun(
        pipeline,
        tools,
        selection,
        params=params,
        site=engine.pool.site,
        decided=pipeline.decided(options.takes or {}, options.choices or {}),
        new=options.new or (),
        run_id=scope.run.rpartition("-")[2],
        date=_scheduled_date(),
        saved_graphs=saved,
        inputs=Inputs(),
        equal=EqualRequests(),
    )


def _scheduled_date() -> str | None:
    """Returns the scheduled date of the root flow run in UTC; a late, retried or resumed run keeps its date."""
    flow_run = flow_contexts()[-1].flow_run
    began = flow_run.expected_start_time if flow_run is not None else None
    return began.astimezone(UTC).date().isoformat() if began is not None else None


def _is_scheduled() -> bool:
    """Returns whether a schedule has started the root flow run."""
    flow_run = flow_contexts()[-1].flow_run
    return flow_run is not None and flow_run.auto_scheduled


def _refuse(plan: Plan) -> None:
    if plan.problems:
        raise PipelineError(list(plan.problems))

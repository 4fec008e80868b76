"""The flow of a pipeline: its parameters are those of the file; a run plans, makes what is missing and reports."""

from __future__ import annotations

import asyncio
import csv
import inspect
import io
import re
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

from prefect import Flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import deployment
from prefect.states import Completed, Failed
from pydantic import BaseModel, ConfigDict, Field

from rh_prefect.artifacts import Page
from rh_prefect.blocks.lookup import load_engine, load_storage
from rh_prefect.errors import BudgetExceeded, InputError, PipelineIncomplete, RunningHubError, StoreError
from rh_prefect.flow_runs.flow import flow, run_name
from rh_prefect.flow_runs.run_status import mark_reported, run_observer
from rh_prefect.flow_runs.scope import FlowScope, current_scope
from rh_prefect.flows.pipeline_events import tag
from rh_prefect.flows.pipeline_pages import StepReport, StepState, counted, show_plan, show_results, show_steps
from rh_prefect.flows.pipeline_run import PipelineRun, Selection, Tools
from rh_prefect.flows.review import show_candidates, waiting_reviews
from rh_prefect.flows.run_budget import RunBudget
from rh_prefect.jobs.context import JobCall
from rh_prefect.jobs.journal.budget import spend_tracker_of
from rh_prefect.jobs.journal.costs import Costs
from rh_prefect.jobs.loop_thread import LOOP
from rh_prefect.jobs.options import Options
from rh_prefect.media.input_access import allow_below
from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines import pipeline as files
from rh_prefect.pipelines.check import secret_in
from rh_prefect.pipelines.document import PipelineError
from rh_prefect.pipelines.edit_results import open_edits
from rh_prefect.pipelines.inputs import input_roots
from rh_prefect.pipelines.language import Param
from rh_prefect.pipelines.last_run import COMMAND_LINE, LastRun, open_last_runs, since
from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.plan.planned_steps import Instance
from rh_prefect.pipelines.plan.reviewed import ReviewedPlan
from rh_prefect.pipelines.saved_graphs import read_saved_graphs
from rh_prefect.pipelines.saved_names import SavedNames
from rh_prefect.pipelines.stored_works import StoredWorks
from rh_prefect.pipelines.values import ABSENT, File, Items, Made, Unknown, results
from rh_prefect.pipelines.works_ledger import RecordsPlace, WorksLedger, note_place
from rh_prefect.pipelines.works_records import open_works
from rh_prefect.pipelines.works_run import WorkRunner
from rh_prefect.settings import get_settings

NOTHING_NEW = "Nothing new"
OVER_BUDGET = "Over budget"
WAITING = "Waiting for review"

PipelineFlow = Flow[..., Coroutine[Any, Any, Any]]


class PipelineResult(BaseModel):
    """What a pipeline run returns.

    Attributes:
        pipeline: The pipeline's name.
        outputs: The file's outputs, by name: files, texts and numbers, or lists of them.
        steps: Every step of every item.
        costs: What this run paid.
        new: How many steps have a result that this run made.
        report: Where the report is, as CSV.
        takes: The take that the run chose for each step that was to be made again, by address.
    """

    model_config = ConfigDict(frozen=True)

    pipeline: str
    outputs: dict[str, Any]
    steps: tuple[StepReport, ...]
    costs: Costs
    new: int
    report: str = ""
    takes: dict[str, int] = {}

    def __getitem__(self, name: str) -> Any:
        """An output by its name."""
        return self.outputs[name]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of a pipeline run: parameters of every pipeline's flow, in addition to those of its file.

    Attributes:
        budget: What the run may cost, in the account's currency; empty for the file's budget.
        takes: The take of a step, or of one item's step, by its address, as in `{"each[A-17].picture": 2}`.
        choices: What was chosen at reviews; copy it from the artifact of the run that waits for a review.
        new: Steps to make and pay for again, as in `["each.picture"]`; `["*"]` for all paid steps.
        only: Steps to make, as in `["each.clip"]`; empty for all.
        items: Ids of items to make, as in `["A-17"]`; empty for all.
        sample: Make only the first items of each fan-out; 0 for all.
        require_new: Fail if there is nothing new to make.
        credentials: Name of a RunningHubCredentials or RunningHubPool block; empty for the file's, or RH_API_KEY.
        storage: Name of a MediaStorage block; empty for the file's, or RH_STORAGE_URL.
    """

    budget: Annotated[float, Field(ge=0)] | None = None
    takes: dict[str, Annotated[int, Field(ge=1)]] | None = None
    choices: dict[str, dict[str, Any]] | None = None
    new: list[str] | None = None
    only: list[str] | None = None
    items: list[str] | None = None
    sample: Annotated[int, Field(ge=0)] = 0
    require_new: bool = False
    credentials: str | None = None
    storage: str | None = None


OPTIONS = tuple(RunOptions.__dataclass_fields__)


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

    async def run(
        self, params: Mapping[str, Any] | None = None, /, *, reviewed: ReviewedPlan | None = None, **more: Any
    ) -> PipelineResult:
        """Runs the pipeline: as a part of the flow that the caller is in, else as a flow run of its own.

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
    taken = sorted(set(pipeline.file.params) & set(OPTIONS))
    if taken:
        raise InputError(
            f"{pipeline.name}: the parameter {taken[0]} has the name of an option that every pipeline has. What to do: "
            f"rename it. The options are {', '.join(OPTIONS)}."
        )

    async def run(**given: Any) -> Any:
        options = RunOptions(**{name: given.pop(name) for name in OPTIONS if name in given})
        try:
            return await run_pipeline(pipeline, given, options, reviewed)
        except RunningHubError as error:
            # Returned and not raised: the state says the cause in words, and the log has no traceback of this package.
            return Failed(message=str(error), data=error)

    run.__module__ = module or __name__
    run.__name__ = run.__qualname__ = name or re.sub(r"\W", "_", pipeline.name)
    run.__doc__ = _docstring(pipeline)
    run.__signature__ = _signature(pipeline)  # type: ignore[attr-defined]  # how `inspect` lets a function say its own
    # What is made lies in the store; Prefect keeps no second copy of the result.
    return flow(name=pipeline.name, flow_run_name=run_name, persist_result=False)(run)


def _signature(pipeline: files.Pipeline) -> inspect.Signature:
    keyword = inspect.Parameter.KEYWORD_ONLY
    own = [
        inspect.Parameter(name, keyword, default=_default(param), annotation=_annotation(param))
        for name, param in pipeline.file.params.items()
    ]
    hints = inspect.get_annotations(RunOptions, eval_str=True)
    common = [
        inspect.Parameter(name, keyword, default=RunOptions.__dataclass_fields__[name].default, annotation=hints[name])
        for name in OPTIONS
    ]
    return inspect.Signature([*own, *common])


def _default(param: Param) -> Any:
    if param.default is not None:
        return param.default
    return None if param.optional else inspect.Parameter.empty


def _annotation(param: Param) -> Any:
    kind = _kind(param)
    return kind | None if param.optional else kind


def _kind(param: Param) -> Any:
    match param.kind:
        case "enum":
            return Literal.__getitem__(param.options)
        case "integer" | "number":
            number = int if param.kind == "integer" else float
            return Annotated[number, Field(ge=param.min, le=param.max)]
        case "boolean":
            return bool
        case "table":
            return str | list[dict[str, Any]]
        case "string":
            shortest, longest = (None if one is None else int(one) for one in (param.min, param.max))
            return Annotated[str, Field(min_length=shortest, max_length=longest)]
    return str


def _docstring(pipeline: files.Pipeline) -> str:
    own = {name: param.description or _described(param) for name, param in pipeline.file.params.items()}
    text = inspect.getdoc(RunOptions) or ""
    common = text.partition("Attributes:\n")[2].splitlines()
    lines = [f"    {name}: {words}" for name, words in own.items()]
    return "\n".join([pipeline.file.description or f"Runs {pipeline.name}.", "", "Args:", *lines, *common])


def _described(param: Param) -> str:
    match param.kind:
        case "table":
            columns = ", ".join(
                f"{name} (optional)" if one.optional else name for name, one in (param.columns or {}).items()
            )
            return f"A CSV, TSV, JSON lines or Parquet file, or the rows. Columns: {columns}"
        case "files":
            return f"A folder, a prefix or a pattern such as photos/*.jpg; it holds files of kind {param.of or 'file'}"
        case "enum":
            return "One of the options"
        case "image" | "video" | "audio" | "model3d" | "file":
            return f"A path, URI or link of a file of kind {param.kind}"
    return {"boolean": "Yes or no", "integer": "A whole number", "number": "A number"}.get(param.kind, "A text")


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
        BudgetExceeded: The budget is below what the run costs at least; nothing was paid.
        RunningHubError: The account or the storage cannot be used.
    """
    scope = current_scope()
    if scope is None:
        raise InputError("A pipeline runs in a flow. What to do: use Pipeline.run(...) or Pipeline.flow().")
    given = {name: value for name, value in params.items() if value is not None}
    run = await _prepare(pipeline, given, options, scope, reviewed)
    plan = await run.make_plan()
    _refuse(plan)
    if reviewed is not None:
        reviewed.refuse_changes(plan, pipeline.file.params)
    run.limit(_budget(plan, options, reviewed))
    await show_plan(await _compared(run, pipeline))
    await tag(plan.pipeline)
    price = {"least": str(plan.price.least), "expected": str(plan.price.expected), "most": str(plan.price.most)}
    run.tell("planned", states=dict(plan.counts), price=price, currency=plan.currency)
    await run.make_all()
    await _keep_plan(run, scope)
    return await _report(run, options, scope)


async def _compared(run: PipelineRun, pipeline: files.Pipeline) -> Plan:
    """The plan with what changed since the last run."""
    last = await run.last_runs.read(run.plan.pipeline, _deployment())
    if last is not None:
        since(run.plan, last, pipeline.file.params)
    return run.plan


async def _keep_plan(run: PipelineRun, scope: FlowScope) -> None:
    """Keeps the plan for the next one to compare with; without it, the next plan compares with an earlier run."""
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
    scope: FlowScope,
    reviewed: ReviewedPlan | None,
) -> PipelineRun:
    settings = get_settings()
    _refuse_secrets(options)
    credentials = pipeline.file.credentials if options.credentials is None else options.credentials or None
    storage = pipeline.file.storage if options.storage is None else options.storage or None
    engine = await load_engine(credentials)
    store = await load_storage(storage)
    works = await LOOP.call(open_works(store, settings))
    place = RecordsPlace(url=works.url, storage=storage)
    await LOOP.call(note_place(scope.journal, place))
    edits = open_edits(store, settings)
    allow_below(*input_roots(pipeline.file.params, params))
    url = (settings.records or store.url).rstrip("/")
    spending = spend_tracker_of(WorksLedger(scope, works))
    await LOOP.call(spending.complete())
    tools = Tools(
        runner=WorkRunner(engine, works, settings=settings, pipeline=pipeline.name),
        edits=edits,
        names=SavedNames(url, store, options=store.options_for(url)),
        known=StoredWorks(works, edits, store, run=scope.journal),
        store=store,
        last_runs=open_last_runs(store, settings),
        call=JobCall(scope, store, options=Options(credentials=credentials), observer=run_observer()),
        budget=RunBudget(spending),
        reviewed=reviewed,
    )
    selection = Selection(frozenset(options.only or ()), frozenset(options.items or ()), options.sample)
    saved = await LOOP.call(read_saved_graphs(pipeline.checked, engine.pool.members[0].client))
    return PipelineRun(
        pipeline,
        tools,
        selection,
        params=params,
        site=engine.pool.site,
        takes=options.takes,
        choices=options.choices,
        new=options.new or (),
        run_id=scope.run.rpartition("-")[2],
        saved_graphs=saved,
    )


def _refuse_secrets(options: RunOptions) -> None:
    """Refuses a key where a block's name belongs, before it is looked for and named in messages."""
    for option, value in (("credentials", options.credentials), ("storage", options.storage)):
        if what := secret_in(value or ""):
            raise InputError(
                f"{option} takes the name of a block, and what was given looks like {what}. Nothing was sent. What to "
                "do: save it in a block and give the block's name; Prefect keeps the parameters of runs, so replace it."
            )


def _refuse(plan: Plan) -> None:
    if plan.problems:
        raise PipelineError(list(plan.problems))


def _budget(plan: Plan, options: RunOptions, reviewed: ReviewedPlan | None) -> Decimal:
    """The limit of this run: the option, else the file's, else the plan's highest price; at most a reviewed plan's."""
    written = options.budget if options.budget is not None else plan.budget.amount if plan.budget is not None else None
    price, most = plan.price, get_settings().max_budget
    if written is None and price.is_open:
        raise BudgetExceeded(
            f"{plan.pipeline}: the price of a step is not known, or assumed, so the run needs a budget. Nothing was "
            "paid. What to do: write `budget` into the file, or give one."
        )
    limit = price.most if written is None else Decimal(str(written))
    if reviewed is not None and not price.is_open:
        limit = min(limit, reviewed.most)
    if most is not None and most < limit:
        limit = most
    whole_items = plan.budget is not None and plan.budget.whole_items
    if price.least > limit and not whole_items:
        raise BudgetExceeded(
            f"{plan.pipeline}: the run costs at least {price.least} {plan.currency}, and its budget is "
            f"{limit}. Nothing was paid. What to do: raise the budget, or run only a part with `only`, "
            "`items` or `sample`."
        )
    return limit


async def _report(run: PipelineRun, options: RunOptions, scope: FlowScope) -> State[Any]:
    await run.count_costs()
    steps = tuple(_steps(run))
    outcome = run.outcome
    costs = Costs.total(outcome.costs.values())
    uri = await LOOP.call(_write_report(run.store, scope, steps))
    saved = {file.sha256: file for files in outcome.saved.values() for file in files}
    result = PipelineResult(
        pipeline=run.plan.pipeline,
        outputs={name: _output(value, saved) for name, value in run.plan.outputs.items()},
        steps=steps,
        costs=costs,
        new=sum(one.state == "made" for one in steps),
        report=uri,
        takes=dict(run.plan.new_takes),
    )
    head = summary(result)
    if result.new:
        await show_results(result.outputs, head=head, report=uri, edits=run.edits, store=run.store)
    await show_steps(steps, head=head, report=uri, store=run.store)
    mark_reported()
    reviews = waiting_reviews(run.plan.instances)
    if reviews:
        await show_candidates(reviews, run.edits, run.store)
        run.tell("review", reviews=[one.address for one in reviews])
    state = _state(run, options, result, [one.address for one in reviews])
    if state.name == OVER_BUDGET:
        run.tell("over_budget", reason=state.message or "")
    states = Counter(one.state for one in steps)
    run.tell("done", state=state.name or "", new=result.new, cost=str(costs), report=uri, steps=dict(states))
    return state


def _state(run: PipelineRun, options: RunOptions, result: PipelineResult, waiting: list[str]) -> State[Any]:
    errors = run.outcome.errors
    if errors:
        is_money = all(isinstance(error, BudgetExceeded) for error in errors.values())
        first, error = next(iter(errors.items()))
        more = f" ({len(errors) - 1} further steps failed)" if len(errors) > 1 else ""
        said = str(error).removeprefix(f"{first}: ").rstrip(".")
        message = f"{first}: {said}{more}. {summary(result)}"
        incomplete = PipelineIncomplete(message, result=result)
        return Failed(name=OVER_BUDGET if is_money else "Failed", message=message, data=incomplete)
    if waiting:
        said = f"{', '.join(waiting[:5])}{', …' if len(waiting) > 5 else ''}"
        where = f"the artifact {Page.current_key('review')}"
        message = f"Choose at {said}: {where} shows the candidates and says how. {summary(result)}"
        return Completed(name=WAITING, message=message, data=result)
    if result.new == 0:
        message = (
            f"Nothing was made and nothing was paid: the results exist already{run.dated()}. What to do: change a "
            f'parameter; or for other results run with new: ["*"], on the command line with --new. {summary(result)}'
        )
        if options.require_new:
            return Failed(name=NOTHING_NEW, message=message, data=PipelineIncomplete(message, result=result))
        return Completed(name=NOTHING_NEW, message=message, data=result)
    return Completed(message=summary(result), data=result)


def summary(result: PipelineResult) -> str:
    """One line: how many steps are in which state, and what the run paid.

    Args:
        result: The run's result.
    """
    return f"Steps: {counted(one.state for one in result.steps)}; paid {result.costs}."


def _steps(run: PipelineRun) -> Sequence[StepReport]:
    blocked, costs = run.blocked(), run.costs_by_step()
    return [_step(one, run, blocked, costs.get(one.address)) for one in run.plan.instances]


def _step(one: Instance, run: PipelineRun, blocked: Mapping[str, str], cost: Costs | None) -> StepReport:
    outcome = run.outcome
    state, reason = _state_of(one, run, blocked)
    if state == "reused" and cost is not None:
        state = "made"  # by an earlier process of this run
    saved = outcome.saved.get(one.address)
    files = (
        saved
        if saved is not None
        else [file for work in one.works if work.known is not None for file in work.known.outputs]
    )
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
        return ("waits for review", "") if all(need.state == "=" for need in one.needs) else ("not run", "")
    if one.state == "r":
        return "waits for review", ""
    if one.works and all(work.known is not None and work.known.state == "=" for work in one.works):
        return ("made" if one.address in run.outcome.made else "reused"), ""
    if one.model == "review":
        return "reused", ""
    if not one.is_needed:
        return "not needed", ""
    stopped_by = run.stopped_by()
    reason = f"{stopped_by} failed, and its on_error is fail" if stopped_by else ""
    return "not run", reason or "was not selected, or needs a result that was not made"


def _output(value: Any, saved: Mapping[str, Media]) -> Any:
    """An output as a plain value: files as `Media`, under the name that `save_as` gave them."""
    match value:
        case Made():
            return _output(value.value, saved)
        case File():
            return value.media and saved.get(value.media.sha256, value.media)
        case Unknown():
            return value.sent
        case Items():
            return [_output(one, saved) for one in results(value)]
        case dict():
            return {name: _output(one, saved) for name, one in value.items()}
        case list() | tuple():
            return [_output(one, saved) for one in value]
    return None if value is ABSENT else value


async def _write_report(store: MediaStore, scope: FlowScope, steps: Sequence[StepReport]) -> str:
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(("step", "model", "state", "cost", "files", "reason"))
    for one in steps:
        rows.writerow((one.step, one.model, one.state, one.cost, " ".join(one.files), one.reason))
    name = f"runs/{scope.run}/report.csv"
    return await asyncio.to_thread(store.write_bytes, name, text.getvalue().encode())

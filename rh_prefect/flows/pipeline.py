"""Builds the flow of a pipeline, with the parameters in its file; a run plans, runs missing steps and reports."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from datetime import UTC
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from prefect import Flow
from prefect.client.schemas.objects import State
from prefect.runtime import deployment
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed, Failed
from pydantic import Field, TypeAdapter, WithJsonSchema

from rh_prefect.artifacts import mark_pipeline
from rh_prefect.blocks.lookup import load_pool_context, load_storage
from rh_prefect.errors import InputError, RunningHubError
from rh_prefect.flow_runs.flow import add_hooks, run_name
from rh_prefect.flow_runs.prefect_internals import flow_contexts
from rh_prefect.flow_runs.progress_observer import run_observer
from rh_prefect.flow_runs.root_flow_run import current_scope
from rh_prefect.flow_runs.run_queries_and_scopes import FlowScope, has_ended
from rh_prefect.flows.local_pipeline import open_places, run_locally
from rh_prefect.flows.prefect_engine import PrefectEngine
from rh_prefect.flows.prefect_run_display import PrefectPages
from rh_prefect.json_snapshot import flaw_of
from rh_prefect.pipelines import pipeline as files
from rh_prefect.pipelines.file_model import RUN_OPTIONS, Param
from rh_prefect.pipelines.known_works import open_records
from rh_prefect.pipelines.parameter_descriptions import call_prices, description_of
from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.plan.reviewed_plan import ReviewedPlan
from rh_prefect.pipelines.rounds_across_runs import COMMAND_LINE
from rh_prefect.pipelines.run.interfaces import Pages, Surroundings
from rh_prefect.pipelines.run.options import RunOptions
from rh_prefect.pipelines.run.result import PipelineResult
from rh_prefect.pipelines.run.run_pipeline import run_pipeline
from rh_prefect.pipelines.site_graphs import ids_in, read_saved_graphs
from rh_prefect.settings import get_settings
from rh_prefect.works.job_options import Reuse
from rh_prefect.works.journal.works_journal import open_works
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.run_ledger import RecordsLocation, note_location

PipelineFlow = Flow[..., Coroutine[Any, Any, Any]]


class Pipeline(files.Pipeline):
    """A pipeline that was read and checked.

    film = Pipeline.from_file("film.yaml")
    done = await film.run(prompt="a lighthouse at dawn", budget=25)
    print(done["film"].uri, done.costs)
    """

    def flow(self, reviewed: ReviewedPlan | None = None) -> PipelineFlow:
        """Returns the pipeline's flow, for `.serve()` and `.deploy()`.

        Args:
            reviewed: A plan that was reviewed; runs of the flow pay for nothing that is not in it.
        """
        return pipeline_flow(self, reviewed=reviewed)

    async def plan(self, params: Mapping[str, Any] | None = None, /, **more: Any) -> Plan:
        """Returns the plan of a run, as `rh-prefect plan` shows it. Existing results cost nothing.

        Args:
            params: The parameters' values. If they are given, `more` has only options, because a file may have
                a parameter with the name of an option, such as `date`.
            **more: Parameters by name, and the options of `rh_prefect.pipelines.pipeline.Pipeline.plan`, such as
                `known`: the results that exist, by default the results in the file's storage; `KnownWorks()` for none.

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
                shared = await load_pool_context(self.file.credentials)
                more = {"saved_graphs": await LOOP.call(read_saved_graphs(self.checked, shared.pool)), **more}
            except RunningHubError as error:
                notes.append(f"The graphs of workflows and apps were not read: {error.message}")
        plan = await super().plan(params, **{**more, "known": known})
        plan.notes = [*plan.notes, *notes]
        return plan

    async def run(
        self, params: Mapping[str, Any] | None = None, /, *, reviewed: ReviewedPlan | None = None, **more: Any
    ) -> PipelineResult:
        """Runs the pipeline: in a flow as a child flow run, otherwise as a separate flow run.

        Outside of flows and without `PREFECT_API_URL`, the pipeline runs in this process and needs no server.

        Args:
            params: The parameters' values, for names that are not valid in Python.
            reviewed: A plan that was reviewed; the run pays for nothing that is not in it.
            **more: Parameters and options by name; see `RunOptions`.

        Raises:
            PipelineError: The file or a parameter is not valid; nothing was paid.
            PlanChanged: The run would differ from the reviewed plan; nothing was paid.
            PipelineIncomplete: Some steps were not made; the error's `result` has the state of each step.
            RunningHubError: The account, the storage or the budget cannot be used.
        """
        result: PipelineResult = await pipeline_flow(self, reviewed=reviewed)(**{**(params or {}), **more})
        return result


def pipeline_flow(
    pipeline: files.Pipeline,
    *,
    module: str = "",
    name: str = "",
    reviewed: ReviewedPlan | None = None,
    reuse: Reuse | None = None,
) -> PipelineFlow:
    """Returns the flow of a pipeline.

    Args:
        pipeline: The pipeline. Its parameters become the flow's.
        module: The module from which a deployment imports the flow.
        name: The flow's name in this module.
        reviewed: A plan that was reviewed; runs of the flow pay for nothing that is not in it.
        reuse: The default of the option `reuse`; None for the value in the file.
    """

    async def run(**arguments: Any) -> Any:
        options = RunOptions(**{name: arguments.pop(name) for name in RUN_OPTIONS if name in arguments})
        try:
            return await run_in_flow(pipeline, arguments, options, reviewed)
        except RunningHubError as error:
            # Returned and not raised: the state has the cause as text, and the log has no traceback of this package.
            return Failed(message=str(error), data=error)

    async def here(**arguments: Any) -> PipelineResult:
        return await local_result(pipeline, {"reuse": reuse, **arguments}, reviewed)

    run.__doc__ = _docstring_of(pipeline)
    run.__signature__ = _signature_of(pipeline, reuse)  # type: ignore[attr-defined]  # how `inspect` lets a function say its own
    mark_pipeline(run)
    entrypoint = f"{module or __name__}:{name or re.sub(r'[^a-zA-Z0-9_]', '_', pipeline.name)}"
    return local_flow(run, here, name=pipeline.name, entrypoint=entrypoint)


async def local_result(
    pipeline: files.Pipeline,
    values: Mapping[str, Any],
    reviewed: ReviewedPlan | None = None,
    *,
    pages: Pages | None = None,
) -> PipelineResult:
    """Runs a pipeline in this process; see `run_locally`. Raises `PipelineIncomplete` if results are missing."""
    end = await run_locally(pipeline, values, reviewed=reviewed, pages=pages)
    if end.is_failed:
        raise end.error
    return end.result


def local_flow(
    run: Callable[..., Coroutine[Any, Any, Any]],
    local: Callable[..., Coroutine[Any, Any, Any]],
    *,
    name: str,
    entrypoint: str,
) -> PipelineFlow:
    """Creates a flow; outside of flows, if no API is set, a call runs `local` and does not start Prefect's server."""
    run.__module__, _, run.__name__ = entrypoint.partition(":")
    run.__qualname__ = run.__name__
    # The outputs are in the store; Prefect keeps no second copy of the result.
    made = _LocalFlow(run, name=name, flow_run_name=run_name, persist_result=False)
    made.local = local
    return add_hooks(made)


class _LocalFlow(Flow[..., Coroutine[Any, Any, Any]]):
    """A flow that runs without Prefect's engine if a call would start a server; see `rh_prefect.flows.local_pipeline`.

    A parameter that Prefect's API would not accept raises an error before a flow run is created.
    """

    local: Callable[..., Coroutine[Any, Any, Any]]

    # A type checker sees Prefect's own overloads.
    if not TYPE_CHECKING:

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """Runs the flow; see `prefect.Flow`. A call with Prefect's own arguments always makes a flow run."""
            for name, value in kwargs.items():
                if isinstance(value, str | list | dict) and (flaw := flaw_of(value)):
                    raise InputError(f"The parameter {name} {flaw}. Nothing was sent. What to do: correct it.")
            is_plain = not {"return_state", "wait_for"} & kwargs.keys()
            if is_plain and current_scope() is None and not PREFECT_API_URL.value():
                return self.local(*args, **kwargs)
            return super().__call__(*args, **kwargs)

        def with_options(self, **options: Any) -> Self:
            """Returns the same flow with other options; see `prefect.Flow.with_options`."""
            copy = super().with_options(**options)
            copy.__class__, copy.local = type(self), self.local
            return copy


async def run_in_flow(
    pipeline: files.Pipeline,
    params: Mapping[str, Any],
    options: RunOptions,
    reviewed: ReviewedPlan | None = None,
    **more: Any,
) -> State[Any]:
    """Runs a pipeline in the caller's flow run; see `rh_prefect.pipelines.run.run_pipeline.run_pipeline`.

    Args:
        pipeline: The pipeline.
        params: The pipeline's parameters.
        options: The options of the run.
        reviewed: A plan that was reviewed; the run pays for nothing that is not in it.
        **more: Other settings of the run; see `Surroundings`.

    Returns:
        A state whose data is a `PipelineResult`, or, if the run has failed, a `PipelineIncomplete`.
    """
    scope = current_scope()
    if scope is None:
        raise InputError(
            "This function works only inside a flow, but no flow is running. Nothing was sent. What to do: use "
            "`Pipeline.run` or `Pipeline.flow`."
        )
    around = replace(await _surroundings(pipeline, options, scope), **more)
    end = await run_pipeline(pipeline, params, options, around, reviewed=reviewed)
    if end.is_failed:
        return Failed(name=end.name, message=end.message, data=end.error)
    return Completed(name=end.name, message=end.message, data=end.result)


async def _surroundings(pipeline: files.Pipeline, options: RunOptions, scope: FlowScope) -> Surroundings:
    """Returns the surroundings of a pipeline's run in the flow run of a scope, and records where its works are."""
    accounts, store, credentials, storage = await open_places(pipeline, options)
    # Without the notes of earlier attempts, their costs would not count in the budget.
    await LOOP.call(accounts.open(scope, store))
    works = await LOOP.call(open_works(store, get_settings()))
    location = RecordsLocation(url=works.url, storage=storage)
    await LOOP.call(note_location(scope.journal, location))
    return Surroundings(
        accounts=accounts,
        credentials=credentials,
        store=store,
        works=works,
        scope=scope,
        engine=PrefectEngine(),
        pages=PrefectPages(tags=pipeline.file.tags),
        observer=run_observer(store),
        has_ended=has_ended,
        deployment=(deployment.name if deployment.id else None) or COMMAND_LINE,
        is_scheduled=_is_scheduled(),
        date=_scheduled_date(),
        is_part=not isinstance(flow_contexts()[-1].flow, _LocalFlow),
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


# -- parameters --------------------------------------------------------------------------------------------------------


def _signature_of(pipeline: files.Pipeline, reuse: Reuse | None = None) -> inspect.Signature:
    """Returns the signature of a pipeline's flow: keyword-only parameters with types and defaults."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    own = [
        inspect.Parameter(name, keyword, default=_default(param), annotation=_annotation(param))
        for name, param in pipeline.file.params.items()
    ]
    hints = inspect.get_annotations(RunOptions, eval_str=True)
    defaults = {name: RunOptions.__dataclass_fields__[name].default for name in RUN_OPTIONS} | {"reuse": reuse}
    common = [inspect.Parameter(name, keyword, default=defaults[name], annotation=hints[name]) for name in RUN_OPTIONS]
    return inspect.Signature([*own, *common])


def _default(param: Param) -> Any:
    if param.default is not None:
        return param.default
    return None if param.optional else inspect.Parameter.empty


def _annotation(param: Param) -> Any:
    """Returns an annotation whose form schema allows any value, because the pipeline's reader checks values."""
    kind = _kind(param)
    schema = TypeAdapter(kind | None if param.optional else kind).json_schema()
    for one in (schema, *schema.get("anyOf", ())):
        if "const" in one:  # of an enum with one option; Prefect's form has no field for it
            one["enum"] = [one.pop("const")]
    return Annotated[Any, WithJsonSchema(schema)]


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
        case "files":
            return str | list[str]
        case "list":
            shortest, longest = (None if one is None else int(one) for one in (param.min, param.max))
            return Annotated[list[str], Field(min_length=shortest, max_length=longest)]
        case "string":
            shortest, longest = (None if one is None else int(one) for one in (param.min, param.max))
            return Annotated[str, Field(min_length=shortest, max_length=longest)]
    return str


def _docstring_of(pipeline: files.Pipeline) -> str:
    """Returns the docstring of a pipeline's flow, from which Prefect takes the descriptions in its form."""
    priced = [f"{model}: {price}" for model, price in call_prices(pipeline.checked).items()]
    prices = f"One call costs: {'; '.join(priced)}." if priced else ""
    options = [
        re.sub(r"^    (\w+): ", r"    \1: Run option. ", line)
        for line in (inspect.getdoc(RunOptions) or "").partition("Attributes:\n")[2].splitlines()
    ]
    # The form shows no other text than the descriptions of its fields.
    common = [f"{line} {prices}" if line.startswith("    budget: ") else line for line in options]
    lines = [f"    {name}: {description_of(param)}" for name, param in pipeline.file.params.items()]
    head = pipeline.file.description or f"Runs {pipeline.name}."
    return "\n".join([head, *(["", prices] if prices else []), "", "Args:", *lines, *common])

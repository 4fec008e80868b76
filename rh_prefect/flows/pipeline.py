"""Builds the flow of a pipeline, with the parameters in its file; a run plans, runs missing steps and reports."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import Field, TypeAdapter, WithJsonSchema

from rh_prefect.artifacts import mark_pipeline
from rh_prefect.blocks.lookup import load_pool_context, load_storage
from rh_prefect.errors import InputError, RunningHubError
from rh_prefect.flow_runs.root_flow_run import current_scope
from rh_prefect.flows.pipeline_run import PipelineFlow, local_flow, run_here
from rh_prefect.pipelines import pipeline as files
from rh_prefect.pipelines.file_model import RUN_OPTIONS, Param
from rh_prefect.pipelines.input_reader import Inputs
from rh_prefect.pipelines.known_works import open_records
from rh_prefect.pipelines.last_run import open_last_runs
from rh_prefect.pipelines.parameter_descriptions import call_prices, description_of
from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.plan.reviewed_plan import ReviewedPlan
from rh_prefect.pipelines.run.interfaces import Pages
from rh_prefect.pipelines.run.options import RunOptions
from rh_prefect.pipelines.run.result import PipelineResult
from rh_prefect.pipelines.site_graphs import ids_in
from rh_prefect.settings import get_settings
from rh_prefect.works.job_options import Reuse


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
        store, notes = await load_storage(self.file.storage), list[str]()
        if next(ids_in(self.checked), None) is not None:
            try:
                shared = await load_pool_context(self.file.credentials)
                graphs = await open_last_runs(store, get_settings()).graphs(self, shared.pool)
                more = {"saved_graphs": graphs, **more}
            except RunningHubError as error:
                notes.append(f"The graphs of workflows and apps were not read: {error.message}")
        more = {"inputs": Inputs(own=store.url), **more, "known": open_records(store, get_settings())}
        plan = await super().plan(params, **more)
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
        try:
            return await run_in_flow(pipeline, arguments, reviewed)
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
    """Returns the result of a run; see `run_here`. Raises `PipelineIncomplete` if results are missing."""
    end = await run_here(pipeline, values, reviewed=reviewed, pages=pages)
    if end.is_failed:
        raise end.error
    return end.result


async def run_in_flow(
    pipeline: files.Pipeline, values: Mapping[str, Any], reviewed: ReviewedPlan | None = None
) -> State[Any]:
    """Runs a pipeline in the caller's flow run, and returns the flow run's state; see `run_here`.

    The data of the state is a `PipelineResult` or a `PipelineIncomplete`.
    """
    if current_scope() is None:  # `fn` of a flow was called
        raise InputError(
            "This function works only inside a flow, but no flow is running. Nothing was sent. What to do: call the "
            "flow itself, without `.fn`."
        )
    end = await run_here(pipeline, values, reviewed=reviewed)
    if end.is_failed:
        return Failed(name=end.name, message=end.message, data=end.error)
    return Completed(name=end.name, message=end.message, data=end.result)


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

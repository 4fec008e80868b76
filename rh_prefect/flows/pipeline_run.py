"""`run_here`: runs a pipeline in the caller's flow run, or without Prefect's engine and without a server."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from datetime import UTC
from typing import TYPE_CHECKING, Any, Self

from prefect import Flow
from prefect.runtime import deployment
from prefect.settings import PREFECT_API_URL
from pydantic import TypeAdapter, ValidationError

from rh_prefect.blocks.lookup import RECORDED, load_pool_context, load_storage
from rh_prefect.errors import InputError
from rh_prefect.flow_runs.flow import add_hooks, run_name
from rh_prefect.flow_runs.progress_observer import run_observer
from rh_prefect.flow_runs.root_flow_run import current_scope
from rh_prefect.flow_runs.run_queries_and_scopes import has_ended
from rh_prefect.flow_runs.suspend_for_jobs import open_suspend_group
from rh_prefect.flows.prefect_engine import PrefectEngine
from rh_prefect.flows.prefect_run_display import PrefectPages
from rh_prefect.json_snapshot import flaw_of
from rh_prefect.pipelines.file_model import RUN_OPTIONS
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan.reviewed_plan import ReviewedPlan
from rh_prefect.pipelines.rounds_across_runs import COMMAND_LINE
from rh_prefect.pipelines.run.interfaces import Pages, Surroundings
from rh_prefect.pipelines.run.options import RunOptions
from rh_prefect.pipelines.run.result import RunEnd
from rh_prefect.pipelines.run.run_pipeline import run_pipeline
from rh_prefect.prefect_internals import flow_contexts
from rh_prefect.settings import get_settings
from rh_prefect.works.job_options import Wait
from rh_prefect.works.journal.scope import FolderScope, end_run, new_run
from rh_prefect.works.journal.works_journal import open_works
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.pool_services import PoolServices, pool_services
from rh_prefect.works.run_ledger import RecordsLocation, note_location

PipelineFlow = Flow[..., Coroutine[Any, Any, Any]]


async def run_here(
    pipeline: Pipeline,
    values: Mapping[str, Any],
    *,
    reviewed: ReviewedPlan | None = None,
    pages: Pages | None = None,
    **more: Any,
) -> RunEnd:
    """Runs a pipeline in the caller's flow run; outside of flows, in this process, with its records beside the works'.

    Args:
        pipeline: The pipeline.
        values: The pipeline's parameters and the options of the run, as for its flow.
        reviewed: A reviewed plan; the run pays for nothing that is not in it.
        pages: The views that the run updates; by default those of the flow run, and none outside of flows.
        **more: Other settings of the run; see `Surroundings`.

    Raises:
        InputError: An option cannot be used; nothing was paid.
        RunningHubError: See `run_pipeline`.
    """
    params = dict(values)
    options = _options({name: params.pop(name) for name in RUN_OPTIONS if name in params})
    pipeline.refuse_without_name(options.reuse)
    around = replace(await _surroundings(pipeline, options), **more)
    around = around if pages is None else replace(around, pages=pages)
    end = await run_pipeline(pipeline, params, options, around, reviewed=reviewed)
    if isinstance(around.scope, FolderScope):
        await LOOP.call(end_run(around.scope, end.name))
    return end


async def _surroundings(pipeline: Pipeline, options: RunOptions) -> Surroundings:
    """Opens the accounts, the storage and the records of a run; in a flow run, records where its works are."""
    credentials = pipeline.file.credentials if options.credentials is None else options.credentials or None
    storage = pipeline.file.storage if options.storage is None else options.storage or None
    accounts, store, scope = await _accounts(pipeline, credentials), await load_storage(storage), current_scope()
    if scope is None:
        _refuse_suspension(options.wait)
    else:
        # Without the notes of earlier attempts, their costs would not count in the budget.
        await LOOP.call(accounts.open(scope, store))
    works = await LOOP.call(open_works(store, get_settings()))
    around = Surroundings(
        accounts=accounts,
        credentials=credentials,
        store=store,
        works=works,
        scope=scope or new_run(works, pipeline.name),
        observer=run_observer(store),
        has_ended=has_ended,
    )
    if scope is None:
        return around
    await LOOP.call(note_location(scope.journal, RecordsLocation(url=works.url, storage=storage)))
    return await _in_flow_run(around, options.wait, tags=pipeline.file.tags)


async def _accounts(pipeline: Pipeline, credentials: str | None) -> PoolServices:
    """Opens the accounts that pay; opens none if no step is paid, because the process may have no key."""
    if pipeline.needs_account:
        return await load_pool_context(credentials)

    async def without_accounts() -> PoolServices:
        return pool_services([], settings=get_settings(), find=RECORDED.find)

    return await LOOP.call(without_accounts())


async def _in_flow_run(around: Surroundings, wait: Wait, *, tags: Sequence[str]) -> Surroundings:
    """Adds what a run has in a flow run: task runs, artifacts, and the deployment and time of the root flow run."""
    root = flow_contexts()[-1]
    began = root.flow_run and root.flow_run.expected_start_time  # also that of a late, retried or resumed run
    return replace(
        around,
        engine=PrefectEngine(await open_suspend_group(wait)),
        pages=PrefectPages(tags=tags),
        deployment=(deployment.name if deployment.id else None) or COMMAND_LINE,
        is_scheduled=root.flow_run is not None and root.flow_run.auto_scheduled,
        date=began.astimezone(UTC).date().isoformat() if began else around.date,
        is_part=not isinstance(root.flow, _LocalFlow),
    )


def _refuse_suspension(wait: Wait) -> None:
    if wait != "poll":
        raise InputError(
            f"wait={wait!r}: only a run of a deployment can be suspended, but this run has no Prefect server. "
            "Nothing was paid. What to do: set PREFECT_API_URL to the address of a server and run a deployment of "
            "the pipeline; or leave `wait` out, so that the run waits in this process."
        )


def _options(given: Mapping[str, Any]) -> RunOptions:
    try:
        return TypeAdapter(RunOptions).validate_python(dict(given))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise InputError(
            f"These options cannot be used: {wrong}. Nothing was sent. What to do: correct them."
        ) from None


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
    """A flow that runs without Prefect's engine if a call would start a server; see `local_flow`.

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

"""`run_locally`: runs a pipeline in this process, without Prefect's engine and without a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rh_prefect.blocks.lookup import load_pool_context, load_storage
from rh_prefect.errors import InputError
from rh_prefect.flow_runs.progress_observer import run_observer
from rh_prefect.flow_runs.run_queries_and_scopes import has_ended
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.file_model import RUN_OPTIONS
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan.reviewed_plan import ReviewedPlan
from rh_prefect.pipelines.run.interfaces import Pages, Surroundings
from rh_prefect.pipelines.run.options import RunOptions
from rh_prefect.pipelines.run.result import RunEnd
from rh_prefect.pipelines.run.run_pipeline import run_pipeline
from rh_prefect.settings import get_settings
from rh_prefect.works.journal.scope import end_run, new_run
from rh_prefect.works.journal.works_journal import open_works
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.pool_services import PoolServices


async def run_locally(
    pipeline: Pipeline,
    values: Mapping[str, Any],
    *,
    reviewed: ReviewedPlan | None = None,
    pages: Pages | None = None,
    **more: Any,
) -> RunEnd:
    """Runs a pipeline in this process; the records of the run are in a folder next to the records of its works.

    Args:
        pipeline: The pipeline.
        values: The pipeline's parameters and the options of the run, as for its flow.
        reviewed: A reviewed plan; the run pays for nothing that is not in it.
        pages: The views that the run updates; by default none.
        **more: Other settings of the run; see `Surroundings`.

    Raises:
        InputError: An option cannot be used; nothing was paid.
        RunningHubError: See `run_pipeline`.
    """
    params = dict(values)
    options = _options({name: params.pop(name) for name in RUN_OPTIONS if name in params})
    accounts, store, credentials, _ = await open_places(pipeline, options)
    works = await LOOP.call(open_works(store, get_settings()))
    scope = new_run(works, pipeline.name)
    around = Surroundings(
        accounts=accounts,
        credentials=credentials,
        store=store,
        works=works,
        scope=scope,
        pages=pages or Pages(),
        observer=run_observer(store),
        has_ended=has_ended,
        **more,
    )
    end = await run_pipeline(pipeline, params, options, around, reviewed=reviewed)
    await LOOP.call(end_run(scope, end.name))
    return end


async def open_places(
    pipeline: Pipeline, options: RunOptions
) -> tuple[PoolServices, MediaStore, str | None, str | None]:
    """Opens the accounts and the storage of a run, and returns them with the names of their blocks."""
    credentials = pipeline.file.credentials if options.credentials is None else options.credentials or None
    storage = pipeline.file.storage if options.storage is None else options.storage or None
    return await load_pool_context(credentials), await load_storage(storage), credentials, storage


def _options(given: Mapping[str, Any]) -> RunOptions:
    try:
        return TypeAdapter(RunOptions).validate_python(dict(given))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise InputError(
            f"These options cannot be used: {wrong}. Nothing was sent. What to do: correct them."
        ) from None

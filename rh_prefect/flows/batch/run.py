"""Runs batches, in a flow run or in this process: the Python function `batch`, and the flow of the same name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar

from prefect.states import Completed, Failed

from rh_prefect.blocks.lookup import load_pool_context, load_storage
from rh_prefect.errors import BatchIncomplete
from rh_prefect.flow_runs.root_flow_run import current_scope
from rh_prefect.flows.batch.report import BatchReport
from rh_prefect.flows.pipeline_run import local_flow, run_here
from rh_prefect.flows.prefect_run_display import PrefectPages
from rh_prefect.pipelines.batch_pipeline import Batch, BatchFile, BatchOptions, write_batch
from rh_prefect.pipelines.run.interfaces import Pages
from rh_prefect.pipelines.run.result import RunEnd, StepReport
from rh_prefect.works.journal.costs_and_budget import CURRENCY
from rh_prefect.works.loop_thread import LOOP

P = ParamSpec("P")
T = TypeVar("T")


def batch_function(
    declared: Callable[P, Batch], run: Callable[[Batch], Awaitable[T]], summary: str
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Returns an async function that runs a batch; it has the parameters of `Batch` and their descriptions."""

    async def batch(*args: P.args, **kwargs: P.kwargs) -> T:
        return await run(declared(*args, **kwargs))

    both = (inspect.getdoc(one) or "" for one in (Batch, BatchOptions))
    fields = "\n".join(one.partition("Attributes:\n")[2].rstrip() for one in both)
    batch.__doc__ = re.sub(r"\n\n+", "\n\n", f"{summary}\n\nArgs:\n{fields}\n")
    batch.__signature__ = inspect.signature(declared, eval_str=True).replace(  # type: ignore[attr-defined]
        return_annotation=BatchReport
    )
    return batch


@dataclass(frozen=True)
class _BatchPages(PrefectPages):
    """The pages of a batch in Prefect; in the report, the results are named by their rows."""

    file: BatchFile

    async def show_end(self, end: RunEnd, rows: Sequence[StepReport], *more: Any, **store: Any) -> None:
        report = BatchReport.of(end.result, self.file)
        outputs = {row.title: row.result for row in report.rows}
        result = end.result.model_copy(update={"outputs": outputs})
        await super().show_end(replace(end, message=report.message, result=result), rows, *more, **store)


async def run_batch(batch: Batch, pages: Pages | None = None) -> BatchReport:
    """Runs a batch in the caller's flow run; outside of a flow, in this process without Prefect's engine."""
    engine, store = await load_pool_context(batch.credentials), await load_storage(batch.storage)
    # Prices of plans are in CNY: in another currency, the price of a whole row is not known.
    is_foreign = batch.budget is not None and await LOOP.call(engine.pool.currency()) not in (None, CURRENCY)
    file = await write_batch(batch, engine.pool.site, store, whole_items=not is_foreign)
    options: dict[str, Any] = {
        "only": list(batch.only) or None,
        "items": list(batch.items) or None,
        "sample": batch.sample,
        "credentials": batch.credentials or "",
        "storage": batch.storage or "",
        "wait": batch.wait,
    }
    views = pages if current_scope() is None else _BatchPages(file)
    values = {**file.arguments, **options}
    end = await run_here(file.pipeline, values, pages=views, inputs=file.inputs, reuse=batch.reuse)
    return BatchReport.of(end.result, file)


batch = batch_function(
    Batch,
    run_batch,
    """Runs a model, or a short chain of models, on many rows, and returns a report.

It writes a pipeline and runs it, in a flow as a part of its run. A row that fails does not stop the others. Running the
same batch again, in the same flow run or in a new one, makes only what is missing; what failed is paid for again.

    report = await batch("s3://bucket/photos", model="kling-v2.6-pro-image-to-video",
                          values={"prompt": "waves"}, chain=["rhart-video/video-upscaler"], budget=25)

It raises an `InputError` if the rows cannot be read, or with `strict` if one of them is invalid, and another
`RunningHubError` if the batch as a whole cannot be run.""",
)


async def _complete(batch: Batch) -> BatchReport:
    report = await run_batch(batch)
    if not report.is_complete:
        raise BatchIncomplete(report.message, report=report)
    return report


async def _state(batch: Batch) -> Any:
    try:
        report = await _complete(batch)
    except BatchIncomplete as error:
        # Returned and not raised: the state has the cause as text, and the log has no traceback of this package.
        return Failed(message=str(error), data=error)
    # The state's message is what the dashboard's list of runs shows; a caller receives the report.
    return Completed(message=report.message, data=report)


_SUMMARY = """Run a model, or a short chain of models, on many rows, and report every row.

The run fails if a row is not done. Resume it, or start the same batch again: only missing rows are paid for."""

batch_flow = local_flow(
    batch_function(Batch, _state, _SUMMARY),
    batch_function(Batch, _complete, _SUMMARY),
    name="batch",
    entrypoint="rh_prefect.flows:batch",
)

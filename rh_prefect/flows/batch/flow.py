"""The flow `batch` for deployments, schedules and the command line."""

from __future__ import annotations

from typing import Any

from prefect.states import Completed, Failed

from rh_prefect.errors import BatchIncomplete
from rh_prefect.flows.batch.report import BatchReport
from rh_prefect.flows.batch.run import batch_function, run_batch
from rh_prefect.flows.pipeline import local_flow
from rh_prefect.pipelines.batch_pipeline import Batch


async def complete_batch(batch: Batch) -> BatchReport:
    """Runs a batch; raises `BatchIncomplete` if a row is not done."""
    report = await run_batch(batch)
    if not report.is_complete:
        raise BatchIncomplete(report.message, report=report)
    return report


async def _state(batch: Batch) -> Any:
    try:
        report = await complete_batch(batch)
    except BatchIncomplete as error:
        # Returned and not raised: the state has the cause as text, and the log has no traceback of this package.
        return Failed(message=str(error), data=error)
    # The state's message is what the dashboard's list of runs shows; a caller receives the report.
    return Completed(message=report.message, data=report)


_SUMMARY = """Run a model, or a short chain of models, on many rows, and report every row.

The run fails if a row is not done. Resume it, or start the same batch again: only missing rows are paid for."""

batch = local_flow(
    batch_function(Batch, _state, _SUMMARY),
    batch_function(Batch, complete_batch, _SUMMARY),
    name="batch",
    entrypoint="rh_prefect.flows:batch",
)

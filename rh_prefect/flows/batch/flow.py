"""The flow `batch`: a batch that can be deployed, scheduled and run from a form."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from rh_prefect.errors import BatchIncomplete
from rh_prefect.flow_runs.flow import flow, run_name
from rh_prefect.flow_runs.suspension import Wait
from rh_prefect.flows.batch.report import BatchReport
from rh_prefect.flows.batch.run import batch as run_batch
from rh_prefect.flows.steps import Budget
from rh_prefect.jobs.options import Reuse


@flow(name="batch", flow_run_name=run_name)
async def batch(
    rows: str | list[Any],
    model: str,
    chain: list[str | dict[str, Any]] | None = None,
    values: dict[str, Any] | None = None,
    label_column: str | None = None,
    ignore_columns: list[str] | None = None,
    budget: Budget | None = None,
    strict: bool = False,
    max_attempts: Annotated[int, Field(ge=1)] = 3,
    reuse: Reuse = "never",
    wait: Wait = "poll",
    credentials: str | None = None,
    storage: str | None = None,
) -> BatchReport:
    """Runs a model, or a small chain of models, on many rows, and gives a report of every row.

    The run fails where not every item is done; run it again, or run the same batch anew: only what is missing is paid.

    Args:
        rows: A manifest (.csv, .tsv, .jsonl, .parquet), a folder, a glob, or a list of parameters or files.
        model: The model, by any of its names.
        chain: Further models; each takes the output of the one before.
        values: Parameters for every row, by name; "2.name" is the second model's.
        label_column: The column that names outputs.
        ignore_columns: Columns that are no parameters.
        budget: What the batch may cost in all, in the account's currency. Empty for no limit.
        strict: Whether one bad row stops the batch before anything is paid.
        max_attempts: How many tasks one job may pay for until the batch is run again, failed ones included.
        reuse: Whether identical earlier requests are served from the storage, at no cost.
        wait: How to wait: in the process, or suspended until a receiver of webhooks wakes the run.
        credentials: Name of a RunningHubCredentials or RunningHubPool block; empty for the worker's RH_API_KEY.
        storage: Name of a MediaStorage block; empty for the worker's RH_STORAGE_URL.
    """
    report = await run_batch(
        rows,
        model=model,
        chain=chain or (),
        values=values,
        label_column=label_column,
        ignore_columns=ignore_columns or (),
        budget=budget,
        strict=strict,
        max_attempts=max_attempts,
        reuse=reuse,
        wait=wait,
        credentials=credentials,
        storage=storage,
    )
    if not report.is_complete:
        raise BatchIncomplete(
            f"batch {report.batch}: {report}. Each row and its reason: {report.csv_uri}. "
            "What to do: mend what it says and run the same batch again; what is done is not paid for again.",
            report=report,
        )
    return report

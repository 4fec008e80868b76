"""The flow `batch` for deployments, schedules and the command line; it calls `flows.batch.run.batch`."""

from __future__ import annotations

from typing import Annotated, Any

from prefect.states import Completed, Failed
from pydantic import Field

from rh_prefect.errors import BatchIncomplete
from rh_prefect.flow_runs.flow import flow, run_name
from rh_prefect.flows.batch.report import BatchReport
from rh_prefect.flows.batch.run import batch as run_batch
from rh_prefect.works.options import Reuse, Wait


@flow(name="batch", flow_run_name=run_name)
async def batch(
    rows: str | list[Any],
    model: str,
    chain: list[str | dict[str, Any]] | None = None,
    values: dict[str, Any] | None = None,
    label_column: str | None = None,
    ignore_columns: list[str] | None = None,
    budget: Annotated[float, Field(gt=0)] | None = None,
    strict: bool = False,
    attempts: Annotated[int, Field(ge=1)] = 1,
    reuse: Reuse = "never",
    wait: Wait = "poll",
    only: list[str] | None = None,
    items: list[str] | None = None,
    sample: int = 0,
    credentials: str | None = None,
    storage: str | None = None,
) -> BatchReport:
    """Run a model, or a short chain of models, on many rows, and report every row.

    The run fails if a row is not done. Resume it, or start the same batch again: only missing rows are paid for.

    Args:
        rows: A table (.csv, .tsv, .jsonl, .parquet), a folder, a glob, or, in Python, a list of parameters or files.
        model: The model, by any of its names.
        chain: Additional models; each takes the output of the previous model.
        values: Parameters for every row, by name; "2.name" is the second model's.
        label_column: The column with the names of outputs.
        ignore_columns: Columns that are not parameters.
        budget: What the rows may cost together in all runs, in the account's currency. Empty for no limit.
        strict: Whether one invalid row stops the batch before anything is paid.
        attempts: Maximum number of tasks paid for one job in one run, failed ones included; the next run of the
            batch makes failed rows again.
        reuse: `always` takes the results of identical earlier requests from the storage, at no cost.
        wait: `poll` waits in the process; `suspend` suspends the run until the webhook receiver resumes it.
        only: Steps to make, as in `["rows.clip"]`; empty for all.
        items: Rows to make, by their labels or numbers; empty for all.
        sample: Make only the first rows; 0 for all.
        credentials: Name of a RunningHubCredentials or RunningHubPool block; by default RH_API_KEY.
        storage: Name of a MediaStorage block; by default RH_STORAGE_URL.
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
        attempts=attempts,
        reuse=reuse,
        wait=wait,
        only=only or (),
        items=items or (),
        sample=sample,
        credentials=credentials,
        storage=storage,
    )
    if not report.is_complete:
        error = BatchIncomplete(
            f"{report.batch}: {report}. Each row and its reason are listed in {report.csv_uri}. "
            "What to do: correct the rows listed there and run the same batch again; finished rows are "
            "not paid for again.",
            report=report,
        )
        # Returned and not raised: the state has the cause as text, and the log has no traceback of this package.
        return Failed(message=str(error), data=error)  # type: ignore[return-value]
    # The state's message is what the dashboard's list of runs shows; a caller receives the report.
    return Completed(message=str(report), data=report)  # type: ignore[return-value]

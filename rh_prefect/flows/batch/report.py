"""The report of a batch: the state and the result of each row, from the steps of its pipeline's run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from rh_prefect.media.notebook_view import listing
from rh_prefect.pipelines.batch_pipeline import ROWS, BatchFile
from rh_prefect.pipelines.run.result import PipelineResult, StepReport
from rh_prefect.works.journal.costs_and_budget import Costs

RowState = Literal["done", "failed", "unknown", "not started", "cancelled", "unfinished"]
"""The state of a row at the end of a run."""

_OF_ERRORS: dict[str, RowState] = {
    "BudgetExceeded": "not started",
    "SubmissionUnknown": "unknown",
    "JobCancelled": "cancelled",
}


class RowResult(BaseModel):
    """The state of one row of a batch after a run, with its result and its jobs.

    Attributes:
        row: The number of the row, from 1.
        label: The label of the row, or its number.
        subject: The beginning of the row's prompt, or the name of the row's file.
        state: The state of the row.
        reason: Why the row is not done; empty if it is done.
        result: The file or the text of the row's last step; None if the row is not done.
        tasks: The RunningHub task ids of the row's results, and of the task that failed.
        jobs: The names of the row's jobs, for `rh-prefect jobs`.
    """

    model_config = ConfigDict(frozen=True)

    row: int
    label: str = ""
    subject: str = ""
    state: RowState = "unfinished"
    reason: str = ""
    result: Any = None
    tasks: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The number of the row, with the row's label or, without a label, its subject."""
        name = self.subject if self.label in ("", str(self.row)) else self.label
        return f"row {self.row}: {name}" if name else f"row {self.row}"


class BatchReport(BaseModel):
    """The states and results of all rows of a batch, and what this run has paid.

    Attributes:
        batch: The batch's name.
        rows: Every row.
        costs: The total cost of this run.
        csv_uri: The address of the report of all steps, a table.
        gallery: The address of the page of the batch's outputs; empty if there are none, or more than 1,000.
    """

    model_config = ConfigDict(frozen=True)

    batch: str
    rows: tuple[RowResult, ...]
    costs: Costs
    csv_uri: str = ""
    gallery: str = ""

    @classmethod
    def of(cls, result: PipelineResult, made: BatchFile) -> BatchReport:
        """Returns the report of a batch, from the result of its pipeline's run and the file of the pipeline."""
        steps = defaultdict[int, list[StepReport]](list)
        for step in result.steps:
            steps[step.number].append(step)
        results = result.outputs.get("results") or ()
        rows = tuple(
            _row(number, steps[number], made.steps, results[number - 1] if number <= len(results) else None)
            for number in sorted(steps)
        )
        return cls(batch=made.name, rows=rows, costs=result.costs, csv_uri=result.report, gallery=result.gallery)

    def _repr_html_(self) -> str:
        """Shows the results of the rows in a notebook."""
        return listing(f"{self.batch}: {self}", ((row.title, row.result or row.reason) for row in self.rows))

    @property
    def results(self) -> list[Any]:
        """The result of each row: a `Media` or a text; None if the row is not done."""
        return [row.result for row in self.rows]

    @property
    def total(self) -> int:
        """The number of rows."""
        return len(self.rows)

    @property
    def counts(self) -> Counter[str]:
        """The number of rows in each state."""
        return Counter(row.state for row in self.rows)

    @property
    def done(self) -> int:
        """The number of rows whose results are in the storage."""
        return self.counts["done"]

    @property
    def failed(self) -> int:
        """The number of rows that failed, including invalid rows."""
        return self.counts["failed"]

    @property
    def unknown(self) -> int:
        """The number of rows for which it is not known whether a submission was accepted."""
        return self.counts["unknown"]

    @property
    def not_started(self) -> int:
        """The number of rows for which the rest of the budget was too small."""
        return self.counts["not started"]

    @property
    def is_complete(self) -> bool:
        """Whether every row is done."""
        return self.done == self.total

    @property
    def message(self) -> str:
        """The outcome of the batch in one sentence, and what to do."""
        if self.is_complete:
            return f"{self}."
        listed = f"Each row and its reason are listed in {self.csv_uri}" if self.csv_uri else "Its report is missing"
        what = "correct the rows and run the same batch again; finished rows are not paid for again"
        return f"{self}. {listed}. What to do: {what}."

    def __str__(self) -> str:
        """Formats the counts and costs, as in `2 of 4 rows done, 1 failed, 1 not started; 0.08 CNY`."""
        others = [f"{number} {state}" for state, number in self.counts.items() if state != "done"]
        return f"{', '.join([f'{self.done} of {self.total} rows done', *others])}; {self.costs or 'paid nothing'}"


def _row(number: int, steps: Sequence[StepReport], names: Sequence[str], result: Any) -> RowResult:
    by_name = {step.step.rpartition(".")[2]: step for step in steps}
    last, failed = by_name[names[-1]], next((step for step in steps if step.state == "failed"), None)
    is_done = last.state in ("made", "reused")
    state: RowState = "done" if is_done else _OF_ERRORS.get(failed.error, "failed") if failed else "unfinished"
    reason = "" if is_done else failed.reason.removeprefix(f"{failed.step}: ") if failed else last.reason
    if failed is not None and not is_done and len(names) > 1:
        reason = f"step {names.index(failed.step.rpartition('.')[2]) + 1} of {len(names)}: {reason}"
    return RowResult(
        row=number,
        label=last.step.removeprefix(f"{ROWS}[").rpartition("].")[0],
        subject=next((step.subject for step in steps if step.subject), ""),
        state=state,
        reason=reason,
        result=result if is_done else None,
        tasks=tuple(task for step in steps for task in step.tasks),
        jobs=tuple(job for step in steps for job in step.jobs),
    )

"""The report of a batch: the state of each row, as files beside the outputs and as a table in the dashboard."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from rh_prefect import artifacts
from rh_prefect.client.wire.task import TaskStatus
from rh_prefect.errors import RunningHubError
from rh_prefect.flow_runs.queries import first_of_batch
from rh_prefect.flows.batch.attempt_records import FOLDER
from rh_prefect.media.store import MediaStore
from rh_prefect.table_files import csv_text
from rh_prefect.works.events import JobEventState
from rh_prefect.works.journal.budget import SpendTracker
from rh_prefect.works.journal.costs import Costs, charge_of
from rh_prefect.works.journal.job_records import JobState, JobView, Submit, jobs_of
from rh_prefect.works.journal.journal import Journal

_log = logging.getLogger("rh_prefect")

RowState = Literal["done", "failed", "unknown", "not started", "cancelled", "unfinished"]
"""The state of a row at the end of a run; see `STATES`."""

BAD_INPUT = "bad input: "
"""How the reason of a row begins that cannot be run as it is."""


class State(NamedTuple):
    """One state of a job.

    Attributes:
        remote: RunningHub's status of the task; None without a task.
        job: The state that the records give.
        events: The states of the job's events meanwhile.
        row: The state of a batch's row whose job is left so at the end of a run.
        meaning: What it says.
    """

    remote: TaskStatus | None
    job: JobState
    events: tuple[JobEventState, ...]
    row: RowState
    meaning: str


STATES: Final = (
    State(None, "new", ("uploading", "waiting", "moved", "matched"), "unfinished", "nothing is submitted yet"),
    State(None, "new", ("failed",), "not started", "the rest of the budget is too small"),
    State(None, "new", ("failed",), "failed", "the input is invalid"),
    State(None, "open", ("waiting",), "unfinished", "the submission is in progress, or its process has stopped"),
    State(None, "refused", ("failed",), "failed", "RunningHub has rejected the submission"),
    State(None, "unknown", ("unknown",), "unknown", "the response was lost; see `jobs adopt` and `jobs mark-refused`"),
    State(None, "forgotten", ("waiting",), "unfinished", "marked as refused or lost; the next run submits again"),
    State("QUEUED", "ticket", ("submitted", "adopted"), "unfinished", "the task waits at RunningHub"),
    State("RUNNING", "ticket", ("running",), "unfinished", "the task runs"),
    State("SUCCESS", "ended", ("collecting",), "unfinished", "the outputs are downloaded and checked"),
    State("SUCCESS", "ended", ("succeeded", "reused"), "done", "the outputs are in the storage"),
    State("SUCCESS", "ended", ("failed",), "failed", "an output is damaged or has expired"),
    State("FAILED", "ended", ("failed",), "failed", "the task has failed"),
    State("CANCELLED", "ended", ("cancelled",), "cancelled", "the task was cancelled"),
)
"""All states, in the order of a job's life."""


class RowResult(BaseModel):
    """The result of one row.

    Attributes:
        row: Its number in the source, from 1.
        id: The same for the same row in every run of the batch; empty for one that cannot be read.
        label: A name for its output.
        subject: The beginning of its prompt, or the name of its file; empty if it cannot be read.
        state: Its state.
        reason: The reason, unless it is done.
        costs: What its jobs have cost together, failed tasks included.
        price: What its next job would cost, where the budget had too little left for it.
        outputs: The files of its last step.
        record: URI of the stored result of its last step.
        files: A stamp of its input files; a row whose stamp has changed is checked again.
        tasks: RunningHub's task ids, of failed tasks too where it is not done.
        jobs: Its jobs, as `rh-prefect jobs` takes them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    row: int
    id: str = ""
    label: str | None = None
    subject: str = ""
    state: RowState = "unfinished"
    reason: str = ""
    costs: Costs = Field(default_factory=Costs)
    price: Costs = Field(default_factory=Costs)
    outputs: tuple[str, ...] = ()
    record: str = ""
    files: str = ""
    tasks: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()

    def cells(self) -> dict[str, str]:
        """The row as the cells of a table, with only characters that every file and table supports."""
        amounts = sorted(self.costs.amounts.items())
        cells = {
            "row": str(self.row),
            "label": self.label or "",
            "subject": self.subject,
            "state": self.state,
            "reason": self.reason,
            # One for each unit, in one order, as the tasks are one for each task.
            "cost": " ".join(f"{amount.normalize():f}" for _, amount in amounts),
            "currency": " ".join(unit for unit, _ in amounts),
            "unknown": str(self.costs.unknown or ""),
            "output": " ".join(self.outputs),
            "tasks": " ".join(self.tasks),
            "jobs": " ".join(self.jobs),
            "record": self.record,
            "id": self.id,
        }
        return {name: cell.encode("utf-8", "backslashreplace").decode() for name, cell in cells.items()}


class BatchReport(BaseModel):
    """The result of a batch; every row is in its two files.

    Attributes:
        batch: The batch's id.
        total: How many rows it has.
        done: Rows whose outputs are in the store.
        failed: Rows that failed, bad input included.
        unknown: Rows whose submission may or may not have been accepted.
        not_started: Rows for which the rest of the budget was too small.
        cancelled: Rows of a run that was cancelled.
        unfinished: Rows of a run that broke off.
        costs: What the rows have cost by unit, those of earlier runs included.
        budget: The least budget that suffices for the next job of each row that was not started; None where there is
            no such row, or the price of one is not known.
        left_out: Paid jobs of the batch that belong to no row of the report, since the row, or a file of it, was
            changed or removed, or this run has not reached the row; as `rh-prefect jobs` takes them.
        left_out_costs: What they have cost; it is not in `costs`.
        csv_uri: Where the report is as a table.
        json_uri: Where it is as JSON.
    """

    model_config = ConfigDict(frozen=True)

    batch: str
    total: int
    done: int = 0
    failed: int = 0
    unknown: int = 0
    not_started: int = 0
    cancelled: int = 0
    unfinished: int = 0
    costs: Costs = Field(default_factory=Costs)
    budget: Decimal | None = None
    left_out: tuple[str, ...] = ()
    left_out_costs: Costs = Field(default_factory=Costs)
    csv_uri: str = ""
    json_uri: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether every row is done."""
        return self.done == self.total

    def __str__(self) -> str:
        """Reads like `2 of 4 rows done, 1 failed, 1 not started; 0.08 CNY`."""
        others = ("failed", "unknown", "not_started", "cancelled", "unfinished")
        parts = [f"{getattr(self, name)} {name.replace('_', ' ')}" for name in others if getattr(self, name)]
        counts = ", ".join([f"{self.done} of {self.total} rows done", *parts])
        left_out = f"; left out: {len(self.left_out)} job(s) of no row, {self.left_out_costs}" if self.left_out else ""
        return f"{counts}; {self.costs}{left_out}"


def summarise(
    batch: str,
    rows: Sequence[RowResult],
    *,
    store: MediaStore,
    counted: Callable[[str], Decimal],
    left_out: Mapping[str, Costs] | None = None,
) -> BatchReport:
    """Makes the report of a batch from its rows, and from the paid jobs that belong to no row."""
    counts = Counter(row.state.replace(" ", "_") for row in rows)
    return BatchReport(
        batch=batch,
        total=len(rows),
        costs=Costs.total(row.costs for row in rows),
        budget=_budget(Costs.total(row.price for row in rows if row.state == "not started"), counted),
        left_out=tuple(left_out or ()),
        left_out_costs=Costs.total((left_out or {}).values()),
        csv_uri=store.uri(_name(batch, "csv")),
        json_uri=store.uri(_name(batch, "json")),
        **counts,
    )


def _budget(missing: Costs, counted: Callable[[str], Decimal]) -> Decimal | None:
    """Returns the lowest budget that allows these prices in addition to the amount already spent."""
    if missing.unknown or len(missing.amounts) != 1:
        return None
    ((currency, amount),) = missing.amounts.items()
    return counted(currency) + amount


def write(report: BatchReport, rows: Sequence[RowResult], *, store: MediaStore, about: dict[str, Any]) -> None:
    """Writes the two files of a report atomically."""
    table = csv_text(list(RowResult(row=0).cells()), (row.cells() for row in rows))
    store.write_bytes(_name(report.batch, "csv"), table.encode())
    whole = {
        **report.model_dump(mode="json", exclude={"csv_uri", "json_uri"}),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        **about,
        "rows": [row.model_dump(mode="json", exclude_defaults=True) | {"state": row.state} for row in rows],
    }
    store.write_bytes(
        _name(report.batch, "json"),
        json.dumps(whole, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace"),
    )


def earlier(batch: str, *, store: MediaStore) -> dict[str, RowResult]:
    """Reads the rows of the report of an earlier run, by their ids."""
    name = _name(batch, "json")
    if not store.exists(name):
        return {}
    try:
        rows = [RowResult.model_validate(row) for row in json.loads(store.read_bytes(name))["rows"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # The journal has the same data, but is slower to read.
    return {row.id: row for row in rows if row.id}


async def show(report: BatchReport, rows: Sequence[RowResult]) -> None:
    """Shows a report in the dashboard, the rows that are not done first."""
    ordered = sorted(rows, key=lambda row: row.state == "done")
    hidden = ("id", "currency", "unknown", "record")
    cells = (
        {name: cell for name, cell in row.cells().items() if name not in hidden}
        | {"cost": str(row.costs) if row.costs else ""}
        for row in ordered
    )
    await artifacts.table(cells, what="report", description=f"{report}. Full report: `{report.csv_uri}`.")


def _name(batch: str, extension: str) -> str:
    return f"{FOLDER}/{batch}/report.{extension}"


async def recorded_jobs(journal: Journal) -> dict[str, JobView]:
    """Reads the jobs of a journal, by their keys, on the loop thread; none, with a warning, if it cannot be read."""
    try:
        return {view.key: view async for view in jobs_of(journal)}
    except RunningHubError as error:
        _log.warning(
            "The report of this batch may lack costs, and names no paid jobs without a row, because its journal cannot "
            "be read. What to do: run the same batch again, which completes the report. %s",
            error,
        )
        return {}


def filled_in(
    rows: Sequence[RowResult],
    keys: Callable[[str], Sequence[str]],
    *,
    scope: str,
    found: Mapping[str, JobView],
    ledger: SpendTracker,
    known: Mapping[str, int],
) -> list[RowResult]:
    """Fills in the tasks and costs of rows that are not done. Call it on the loop thread.

    An interrupted run has little data of its rows, and two concurrent runs of one batch have half of the data each.
    `keys` returns the keys of a row's jobs by its id, `found` has what is recorded of the jobs of `scope`, and `known`
    the newest submission of each job of which this run knew when its row ended.
    """

    def one(row: RowResult) -> RowResult:
        views = [found[key] for key in keys(row.id) if key in found] if row.id and row.state != "done" else []
        for view in views:
            ledger.take(view)
        return _filled_in(row, views, scope, ledger, known) if views else row

    return [one(row) for row in rows]


def left_out(found: Iterable[JobView], keys_of_rows: Collection[str], *, attempt: int) -> dict[str, Costs]:
    """Returns the paid jobs of a batch, to which `attempt` belongs, that no row has, with their costs, by key.

    `found` may have other jobs of the scope.
    """
    costs: dict[str, Costs] = {}
    for view in found:
        is_own = any(first_of_batch(one.intent.attempt) == first_of_batch(attempt) for one in view.submits)
        charges = [(one, charge_of(one)) for one in view.submits] if is_own and view.key not in keys_of_rows else []
        paid = [charge.costs if one.end else Costs(unknown=1) for one, charge in charges if charge is not None]
        if paid:
            costs[view.key] = Costs.total(paid)
    return dict(sorted(costs.items()))


def _filled_in(
    row: RowResult, views: Sequence[JobView], scope: str, ledger: SpendTracker, known: Mapping[str, int]
) -> RowResult:
    costs = [cost for cost in (ledger.spent_on(view.key) for view in views) if cost is not None]
    tasks = [submit.task_id for view in views for submit in view.submits if submit.task_id]
    more = {
        "costs": Costs.total(costs) if costs else row.costs,
        "tasks": tuple(dict.fromkeys((*row.tasks, *tasks))),
        # Those of later steps, too, which an earlier run has reached.
        "jobs": tuple(dict.fromkeys((*row.jobs, *(f"{scope}/{view.key}" for view in views)))),
    }
    stands = {view.key: view for view in views}.get(row.jobs[-1].rpartition("/")[2]) if row.jobs else views[-1]
    return row.model_copy(update=more | (_how(row, stands, known) if stands is not None else {}))


def _how(row: RowResult, view: JobView, known: Mapping[str, int]) -> dict[str, str]:
    """Returns what the record of a row's last step states more precisely than this run."""
    last = view.last
    if last is None:
        return {}
    if row.state == "not started" and last.end is not None and last.end.status == "FAILED":
        return {
            "state": "failed",
            "reason": f"task {last.task_id} has failed: {last.end.reason}. "
            f"Another attempt was not started: {row.reason}",
        }
    if row.state == "not started" and last.state in ("open", "ticket", "ended"):
        return {
            "state": "unfinished",
            "reason": "another run of this batch submitted it in the meantime; run this batch again to use its result",
        }
    # An unknown submission was resolved since, as its row was unknown because of it; the next run would refuse a row
    # whose input is bad again.
    is_news = row.state == "unknown" or (last.n > known.get(view.key, 0) and BAD_INPUT not in row.reason)
    if row.state in ("failed", "unknown", "cancelled") and _is_under_way(last) and is_news:
        outcome = "" if row.state == "unknown" else f"; before, in this run: {row.reason}"
        return {
            "state": "unfinished",
            "reason": f"another run of this batch submitted task {last.task_id}; run this batch again to use its "
            f"result{outcome}",
        }
    if row.state == "unfinished" and last.state == "ticket" and not row.tasks:
        return {"reason": f"task {last.task_id} is still running at RunningHub; run this batch again to wait for it"}
    return {}


def _is_under_way(submit: Submit) -> bool:
    """Returns whether a submission's task runs or has succeeded."""
    end = submit.end if submit.state == "ended" else None
    return submit.state == "ticket" or (end is not None and end.status == "SUCCESS")

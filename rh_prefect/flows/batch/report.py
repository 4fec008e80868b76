"""The report of a batch: what became of each row, as files beside the outputs and as a table in the dashboard."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rh_prefect import artifacts
from rh_prefect.errors import RunningHubError
from rh_prefect.flows.batch.state import FOLDER
from rh_prefect.jobs.journal.budget import SpendTracker
from rh_prefect.jobs.journal.costs import Costs
from rh_prefect.jobs.journal.job_records import JobView, jobs_of
from rh_prefect.jobs.journal.journal import Journal
from rh_prefect.media.store import MediaStore

ItemState = Literal["done", "failed", "unknown", "not started", "cancelled", "unfinished"]
"""How an item stands at the end.

- `done`: its outputs are in the store.
- `failed`: it failed, its input is bad, or its file is damaged; `why` says so.
- `unknown`: nobody knows whether a submit was accepted; `why` names the two ways out.
- `not started`: the budget had too little left.
- `cancelled`: the run was cancelled.
- `unfinished`: the run broke off before its end; what was paid goes on at RunningHub and is found again.
"""

COLUMNS = ("row", "label", "state", "why", "cost", "currency", "unknown", "output", "tasks", "jobs", "manifest", "id")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that a spreadsheet takes for a formula; see OWASP, CSV injection."""


class Item(BaseModel):
    """One row of the account.

    Attributes:
        row: Its number in the source, from 1.
        id: The same for the same row in every run of the batch; empty for one that cannot be read.
        label: A name for its output.
        state: How it stands.
        why: The reason, unless it is done.
        costs: What its jobs have cost together, failed tasks included.
        price: What its next job would cost, where the budget had too little left for it.
        outputs: The files of its last step.
        manifest: Of its last step.
        files: A mark of its files on this machine; where it is another one they are looked at again.
        tasks: RunningHub's task ids, of failed tasks too where it is not done.
        jobs: Its jobs, as `rh-prefect jobs` takes them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    row: int
    id: str = ""
    label: str | None = None
    state: ItemState = "unfinished"
    why: str = ""
    costs: Costs = Field(default_factory=Costs)
    price: Costs = Field(default_factory=Costs)
    outputs: tuple[str, ...] = ()
    manifest: str = ""
    files: str = ""
    tasks: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()

    def cells(self) -> dict[str, str]:
        """The item as the cells of a table, in characters that every file and table takes."""
        amounts = sorted(self.costs.amounts.items())
        cells = {
            "row": str(self.row),
            "label": self.label or "",
            "state": self.state,
            "why": self.why,
            # One for each unit, in one order, as the tasks are one for each task.
            "cost": " ".join(f"{amount.normalize():f}" for _, amount in amounts),
            "currency": " ".join(unit for unit, _ in amounts),
            "unknown": str(self.costs.unknown or ""),
            "output": " ".join(self.outputs),
            "tasks": " ".join(self.tasks),
            "jobs": " ".join(self.jobs),
            "manifest": self.manifest,
            "id": self.id,
        }
        return {name: cell.encode("utf-8", "backslashreplace").decode() for name, cell in cells.items()}


class BatchReport(BaseModel):
    """What became of a batch; every item is in its two files.

    Attributes:
        batch: The batch's id.
        total: How many items it has.
        done: Items whose outputs are in the store.
        failed: Items that failed, bad input included.
        unknown: Items of which nobody knows whether they were accepted.
        not_started: Items that the budget had too little left for.
        cancelled: Items of a run that was cancelled.
        unfinished: Items of a run that broke off.
        costs: What the items have cost by unit, those of earlier runs included.
        budget: The least budget that suffices for the next job of each item that was not started; None where there is
            no such item, or the price of one is not known.
        csv_uri: Where the account is as a table.
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
    csv_uri: str = ""
    json_uri: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether every item is done."""
        return self.done == self.total

    def __str__(self) -> str:
        """Reads like `2 of 4 items done, 1 failed, 1 not started; 0.08 CNY`."""
        others = ("failed", "unknown", "not_started", "cancelled", "unfinished")
        said = [f"{getattr(self, name)} {name.replace('_', ' ')}" for name in others if getattr(self, name)]
        counts = ", ".join([f"{self.done} of {self.total} items done", *said])
        return f"{counts}; {self.costs}"


def summarise(
    batch: str, items: Sequence[Item], *, store: MediaStore, counted: Callable[[str], Decimal]
) -> BatchReport:
    """Counts and adds up.

    Args:
        batch: The batch's id.
        items: All items.
        store: Where the files of the account go.
        counted: What a budget counts in a currency by now.
    """
    counts = Counter(item.state.replace(" ", "_") for item in items)
    return BatchReport(
        batch=batch,
        total=len(items),
        costs=Costs.total(item.costs for item in items),
        budget=_budget(Costs.total(item.price for item in items if item.state == "not started"), counted),
        csv_uri=store.uri(_name(batch, "csv")),
        json_uri=store.uri(_name(batch, "json")),
        **counts,
    )


def _budget(missing: Costs, counted: Callable[[str], Decimal]) -> Decimal | None:
    """The least budget that suffices for these prices beside what is spent."""
    if missing.unknown or len(missing.amounts) != 1:
        return None
    ((currency, amount),) = missing.amounts.items()
    return counted(currency) + amount


def write(account: BatchReport, items: Sequence[Item], *, store: MediaStore, about: dict[str, Any]) -> None:
    """Writes the two files of an account; each stands whole or not at all.

    Args:
        account: The sums.
        items: All items, in order.
        store: Where to.
        about: What the batch is.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS)
    table.writeheader()
    table.writerows({name: _as_text(cell) for name, cell in item.cells().items()} for item in items)
    store.write_bytes(_name(account.batch, "csv"), text.getvalue().encode())
    whole = {
        **account.model_dump(mode="json", exclude={"csv_uri", "json_uri"}),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        **about,
        "items": [item.model_dump(mode="json", exclude_defaults=True) | {"state": item.state} for item in items],
    }
    store.write_bytes(
        _name(account.batch, "json"),
        json.dumps(whole, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace"),
    )


def _as_text(cell: str) -> str:
    """A cell that a spreadsheet takes for a formula, as the text that it is."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def earlier(batch: str, *, store: MediaStore) -> dict[str, Item]:
    """Reads how an earlier run's account says that items stand, by their ids.

    Args:
        batch: The batch's id.
        store: Where its account lies.
    """
    name = _name(batch, "json")
    if not store.exists(name):
        return {}
    try:
        items = [Item.model_validate(item) for item in json.loads(store.read_bytes(name))["items"]]
    except (ValueError, KeyError, TypeError):
        return {}  # The journal knows it as well, only slower.
    return {item.id: item for item in items if item.id}


async def show(account: BatchReport, items: Sequence[Item]) -> None:
    """Shows an account in the dashboard.

    Args:
        account: The sums.
        items: All items, in order: those that are not done come first.
    """
    rows = sorted(items, key=lambda item: item.state == "done")
    hidden = ("id", "currency", "unknown", "manifest")
    cells = (
        {name: cell for name, cell in item.cells().items() if name not in hidden}
        | {"cost": str(item.costs) if item.costs else ""}
        for item in rows
    )
    await artifacts.table(cells, what="account", description=f"{account}. All of it: `{account.csv_uri}`.")


def _name(batch: str, extension: str) -> str:
    return f"{FOLDER}/{batch}/account.{extension}"


async def filled_in(
    items: Sequence[Item], keys: Callable[[str], Sequence[str]], *, journal: Journal, ledger: SpendTracker
) -> list[Item]:
    """Fills in the tasks and costs of items that are not done; runs on the loop thread.

    A run that breaks off knows little of its rows, and two that do the same batch at once know half of it each.

    Args:
        items: All items.
        keys: Gives the names of a row's jobs, by the row's id, in the order of its steps.
        journal: Where they are recorded.
        ledger: What they have cost.

    Returns:
        All items; as they were where the journal cannot be read.
    """
    if all(item.state == "done" for item in items):
        return list(items)
    wanted = [tuple(keys(item.id)) if item.id and item.state != "done" else () for item in items]
    found: dict[str, JobView] = {}
    missing = {key for some in wanted for key in some}
    try:
        async for view in jobs_of(journal):
            if view.key in missing:
                found[view.key] = view
    except RunningHubError:
        return list(items)
    for view in found.values():
        ledger.take(view)
    views = [[found[key] for key in some if key in found] for some in wanted]
    return [_filled_in(item, some, journal.scope, ledger) if some else item for item, some in zip(items, views)]


def _filled_in(item: Item, views: Sequence[JobView], scope: str, ledger: SpendTracker) -> Item:
    costs = [cost for cost in (ledger.spent_on(view.key) for view in views) if cost is not None]
    tasks = [submit.task_id for view in views for submit in view.submits if submit.task_id]
    more = {
        "costs": Costs.total(costs) if costs else item.costs,
        "tasks": tuple(dict.fromkeys((*item.tasks, *tasks))),
        "jobs": item.jobs or tuple(f"{scope}/{view.key}" for view in views),
    }
    stands = {view.key: view for view in views}.get(item.jobs[-1].rpartition("/")[2]) if item.jobs else views[-1]
    return item.model_copy(update=more | (_how(item, stands) if stands is not None else {}))


def _how(item: Item, view: JobView) -> dict[str, str]:
    """What the record of an item's last step says better than what this run has seen of it."""
    last = view.last
    if last is None:
        return {}
    if item.state == "not started" and last.end is not None and last.end.status == "FAILED":
        return {
            "state": "failed",
            "why": f"task {last.task_id} has failed: {last.end.reason}. Another try was not started: {item.why}",
        }
    if item.state == "not started" and last.state in ("open", "ticket", "ended"):
        return {
            "state": "unfinished",
            "why": "another run of this batch has submitted it meanwhile; run it again to take it over",
        }
    if item.state == "unfinished" and last.state == "ticket" and not item.tasks:
        return {"why": f"task {last.task_id} goes on at RunningHub; run it again to take it over"}
    return {}

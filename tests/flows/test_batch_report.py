"""The report of a batch as a table: its sums, and cells that a spreadsheet would run."""

from __future__ import annotations

import csv
import io
from decimal import Decimal
from pathlib import Path

import pytest

from rh_prefect.flows.batch.report import (
    BatchReport,
    RowResult,
    RowState,
    earlier,
    filled_in,
    recorded_jobs,
    summarise,
    write,
)
from rh_prefect.media.store import MediaStore
from rh_prefect.works.journal.budget import SpendTracker
from rh_prefect.works.journal.costs import COINS, Costs
from rh_prefect.works.journal.journal import FolderJournal
from rh_prefect.works.journal.record_types import Answer, End, Record, Resolution
from tests.support.world.job_records import KEY, TASK, intent, ticket, unknown
from tests.support.world.job_records import write as record
from tests.support.world.memory_journal import MemoryJournal, MemoryPlace

FORMULAS = ['=HYPERLINK("https://x")', "+1+1", "-2", "@SUM(A1)", "\tx", "\r=1"]


def written(folder: Path, *items: RowResult, counted: Decimal = Decimal(0)) -> tuple[BatchReport, list[dict[str, str]]]:
    store = MediaStore(str(folder / "out"))
    report = summarise("b", items, store=store, counted=lambda currency: counted)
    write(report, items, store=store, about={})
    text = Path(report.csv_uri).read_bytes().decode()
    return report, list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("cell", FORMULAS)
def test_a_formula_is_text_in_the_table_and_itself_in_what_the_batch_reads_back(cell: str, tmp_path: Path) -> None:
    """A label or a reason that begins like a formula is not run by a spreadsheet."""
    item = RowResult(row=1, id="one", label=cell, state="failed", reason=cell)
    _, (row,) = written(tmp_path, item)
    assert (row["label"], row["reason"]) == (f"'{cell}", f"'{cell}")
    assert earlier("b", store=MediaStore(str(tmp_path / "out"))) == {"one": item}


@pytest.mark.parametrize("cell", ["a lighthouse", "1-2", "'quoted", " =1", ""])
def test_other_cells_stay_as_they_are(cell: str, tmp_path: Path) -> None:
    _, (row,) = written(tmp_path, RowResult(row=1, label=cell))
    assert row["label"] == cell


def test_each_unit_has_a_sum_and_an_amount_of_its_own(tmp_path: Path) -> None:
    """Coins were shown as the currency of money, and all units were one sum."""
    both = Costs({"CNY": Decimal("0.04"), COINS: Decimal(25)}, unknown=1)
    report, rows = written(
        tmp_path,
        RowResult(row=1, state="done", costs=both),
        RowResult(row=2, state="done", costs=Costs({"USD": Decimal("0.50")})),
        RowResult(row=3, state="done", costs=Costs({"CNY": Decimal("0.06")})),
        RowResult(row=4, state="failed"),
    )
    assert str(report) == "3 of 4 rows done, 1 failed; 0.10 CNY, 0.50 USD, 25 coins, 1 task of unknown cost"
    assert [(row["cost"], row["currency"], row["unknown"]) for row in rows] == [
        ("0.04 25", "CNY coins", "1"),
        ("0.5", "USD", ""),
        ("0.06", "CNY", ""),
        ("", "", ""),
    ]


def test_the_budget_that_suffices_is_what_is_spent_and_the_prices_of_what_was_not_started(tmp_path: Path) -> None:
    """The hint about a larger budget needs a larger number."""
    short = [RowResult(row=n, state="not started", price=Costs.of(Decimal("0.04"), "CNY")) for n in (1, 2)]
    report, _ = written(tmp_path, *short, counted=Decimal("0.08"))
    assert report.budget == Decimal("0.16")
    unpriced = RowResult(row=3, state="not started", price=Costs.of(None, None))
    assert written(tmp_path, *short, unpriced)[0].budget is None
    assert written(tmp_path, RowResult(row=1, state="done"))[0].budget is None


REFUSED = Answer(outcome="refused", code="416", reason="no")
AGAIN = {"intent-1": intent(), "answer-1": REFUSED, "intent-2": intent(), "answer-2": ticket()}
END = End(status="SUCCESS", task_id=TASK)


@pytest.mark.parametrize(
    ("state", "records"),
    [
        ("failed", AGAIN),
        ("failed", {**AGAIN, "end-2": END}),
        ("cancelled", AGAIN),
        ("unknown", {"intent-1": intent(), "answer-1": unknown(), "resolution-1": Resolution(outcome="forgotten")}),
        (
            "unknown",
            {
                "intent-1": intent(),
                "answer-1": unknown(),
                "resolution-1": Resolution(outcome="adopted", task_id=TASK),
            },
        ),
    ],
)
async def test_what_another_run_submitted_in_the_meantime_is_not_as_this_run_saw_it(
    state: RowState, records: dict[str, Record]
) -> None:
    """The run that ended last reported a row as failed that the other one had done."""
    journal = MemoryJournal(MemoryPlace(), "run")
    await record(journal, records)
    row = RowResult(row=1, id="one", state=state, reason="refused: no", jobs=(f"run/{KEY}",))

    found = await recorded_jobs(journal)

    def how(known: int) -> RowResult:
        ledger = SpendTracker(journal)
        (told,) = filled_in([row], lambda _: [KEY], scope="run", found=found, ledger=ledger, known={KEY: known})
        return told

    if state != "unknown":
        assert how(2).state == state, "a task that it knew, which it could not wait for or download"
    other = how(1 if state == "unknown" else 0)
    if any(TASK in str(one) for one in records.values()):
        assert (other.state, other.tasks) == ("unfinished", (TASK,))
        assert f"another run of this batch submitted task {TASK}; run this batch again" in other.reason
        assert (row.reason in other.reason) is (state != "unknown")
    else:
        assert other.state == state


async def test_a_journal_that_cannot_be_read_is_told_and_is_no_reason_to_have_no_report(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Paid jobs without a row were then missing in the report without a word."""
    (tmp_path / "file").touch()
    assert await recorded_jobs(FolderJournal(f"{tmp_path}/file", scope="run")) == {}
    assert "names no paid jobs without a row, because its journal cannot be read" in caplog.text

"""The report of what is not done says what the journal knows of it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import pytest

from rh_prefect.flows.batch.report import RowResult, filled_in, recorded_jobs
from rh_prefect.works.journal.budget import SpendTracker
from rh_prefect.works.journal.costs import Costs
from rh_prefect.works.journal.journal import FolderJournal
from rh_prefect.works.journal.record_types import End, Record
from tests.support.world.job_records import TASK, intent, ticket, write

FIRST, SECOND = "a" * 24, "b" * 24
DONE = End(status="SUCCESS", task_id="1", cost=Decimal("0.04"), currency="CNY")
FAILED = End(status="FAILED", task_id=TASK, reason="out of memory", cost=Decimal("0.04"), currency="CNY")


async def filled(tmp_path: Path, item: RowResult, **records: Mapping[str, Record]) -> RowResult:
    journal = FolderJournal(str(tmp_path / "journal"), scope="run")
    for key, one in {"first": FIRST, "second": SECOND}.items():
        await write(journal, records.get(key, {}), key=one)
    ledger, found = SpendTracker(journal), await recorded_jobs(journal)
    (told,) = filled_in([item], lambda _: [FIRST, SECOND], scope="run", found=found, ledger=ledger, known={})
    return told


async def test_a_run_that_broke_off_names_its_tasks_and_what_they_have_cost(tmp_path: Path) -> None:
    steps = {
        "first": {"intent-1": intent(), "answer-1": ticket("1"), "end-1": DONE},
        "second": {"intent-1": intent(), "answer-1": ticket()},
    }
    found = await filled(tmp_path, RowResult(row=1, id="x", reason="broke off"), **steps)
    assert (found.state, found.tasks, found.costs) == ("unfinished", ("1", TASK), Costs({"CNY": Decimal("0.04")}))
    assert found.jobs == (f"run/{FIRST}", f"run/{SECOND}")
    assert f"task {TASK} is still running" in found.reason


async def test_what_another_run_has_submitted_meanwhile_is_not_called_unpaid(tmp_path: Path) -> None:
    item = RowResult(row=1, id="x", state="not started", reason="the budget", jobs=(f"run/{FIRST}",))
    found = await filled(tmp_path, item, first={"intent-1": intent(), "answer-1": ticket()})
    assert (found.state, found.tasks) == ("unfinished", (TASK,))
    assert "another run of this batch" in found.reason


async def test_what_the_budget_allows_no_other_try_has_failed(tmp_path: Path) -> None:
    item = RowResult(row=1, id="x", state="not started", reason="the budget", jobs=(f"run/{FIRST}",))
    found = await filled(tmp_path, item, first={"intent-1": intent(), "answer-1": ticket(), "end-1": FAILED})
    assert (found.state, found.costs) == ("failed", Costs({"CNY": Decimal("0.04")}))
    assert found.reason == f"task {TASK} has failed: out of memory. Another attempt was not started: the budget"


async def test_a_step_that_was_not_started_after_one_that_is_done_stays_so(tmp_path: Path) -> None:
    item = RowResult(row=1, id="x", state="not started", reason="the budget", jobs=(f"run/{FIRST}", f"run/{SECOND}"))
    found = await filled(tmp_path, item, first={"intent-1": intent(), "answer-1": ticket("1"), "end-1": DONE})
    assert (found.state, found.reason, found.tasks) == ("not started", "the budget", ("1",))


@pytest.mark.parametrize(
    "item", [RowResult(row=1, id="x", state="done"), RowResult(row=1, state="failed", reason="bad input")]
)
async def test_what_is_done_or_was_never_asked_for_stays_as_it_is(tmp_path: Path, item: RowResult) -> None:
    assert await filled(tmp_path, item, first={"intent-1": intent(), "answer-1": ticket()}) == item

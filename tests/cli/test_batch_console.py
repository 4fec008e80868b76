"""What the terminal shows of a batch."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest

from rh_prefect.cli.run_display import BatchConsole
from rh_prefect.flow_runs import job_progress
from rh_prefect.flows.batch import BatchReport
from rh_prefect.flows.batch.executor import Progress
from rh_prefect.flows.batch.report import RowResult
from rh_prefect.works.events import JobEvent
from rh_prefect.works.journal.costs import Costs


def test_what_was_done_earlier_is_told_once_and_bad_rows_are_named_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with BatchConsole(["batch", "rows.csv"]):
        progress = Progress("b", total=5, scope="run")
        done = [RowResult(row=n, state="done", costs=Costs({"CNY": Decimal("0.04")})) for n in (1, 2, 3)]
        progress.start(
            [*done, RowResult(row=4, label="x", state="failed", reason="bad input: 'name' is not a parameter")]
        )
        assert (progress.earlier, progress.failed, progress.queued, progress.remaining_seconds) == (3, 1, 1, None)
    said = capsys.readouterr().out
    assert said.count("earlier") == 1
    assert "batch b: 5 rows, 3 of them done earlier" in said
    assert "row 4 (x): failed: bad input: 'name' is not a parameter" in said


def test_of_many_rows_that_end_the_same_way_the_first_are_told_and_the_others_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with BatchConsole(["batch", "rows.csv"]) as watch:
        progress = Progress("b", total=200, scope="run")
        progress.start([RowResult(row=n, state="failed", reason="bad input: no prompt") for n in range(1, 101)])
        for n in range(101, 200):
            progress.end(RowResult(row=n, state="not started", reason="the budget is spent"))
        progress.end(RowResult(row=200, state="failed", reason="the content check refused it"))
        watch.summary(BatchReport(batch="b", total=200, failed=101, not_started=99))
    said = capsys.readouterr().out
    assert [int(number) for number in re.findall(r"^row (\d+)", said, re.MULTILINE)] == [1, 2, 3, 101, 102, 103, 200]
    assert "\n97 more rows: failed: bad input: no prompt\n" in said
    assert "\n96 more rows: not started: the budget is spent\n" in said


def test_news_of_the_pool_and_names_that_no_terminal_can_print_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    left_out = JobEvent("moved", "run/a", "some/model", message="account half is left out of this run")
    with BatchConsole(["batch", "rows.csv"]):
        for listener in (*job_progress.listeners, *job_progress.listeners):
            listener(left_out)
        Progress("b", total=1, scope="run").end(RowResult(row=1, state="failed", reason="caf\udce9.png"))
    said = capsys.readouterr().out
    assert said.count("account half is left out of this run") == 1
    assert r"caf\udce9.png" in said


SHORT = {"not_started": 1, "budget": "0.1201"}
BUDGET = ["batch", "rows.csv", "--budget", "0.1", "--model", "x"]


@pytest.mark.parametrize(
    ("words", "stands", "way"),
    [
        (BUDGET, SHORT, "larger --budget: rh-prefect batch rows.csv --model x --budget 0.13"),
        (
            ["batch", "rows.csv", "--budget=0.1"],
            {"not_started": 1, "budget": "0.12"},
            "rh-prefect batch rows.csv --budget 0.12",
        ),
        (BUDGET, {"not_started": 1}, "with unknown prices, without --budget: rh-prefect batch rows.csv --model x"),
        (["batch", "rows.csv"], {"failed": 1}, "run what is missing: rh-prefect batch rows.csv"),
    ],
)
def test_the_way_on_is_one_that_leads_on(
    capsys: pytest.CaptureFixture[str], words: list[str], stands: dict[str, Any], way: str
) -> None:
    """The hint repeated the budget that was too small."""
    BatchConsole(words).summary(BatchReport(batch="b", total=1, **stands))
    assert f"{way}\n" in capsys.readouterr().out

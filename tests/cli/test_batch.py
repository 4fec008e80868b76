"""`rh-prefect batch`, as a person types it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from decimal import Decimal
from pathlib import Path

import pytest

from rh_prefect.cli.argument_checks import check_batch, check_call
from rh_prefect.cli.run_display import line_of
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import InputError
from rh_prefect.flows.batch.executor import Progress
from rh_prefect.flows.batch.report import RowResult
from rh_prefect.works.events import JobEvent
from rh_prefect.works.journal.costs import Costs
from tests.support.processes import warm_process
from tests.support.processes.warm_process import RH, WarmProcess
from tests.support.servers.emulator_env import environment
from tests.support.servers.prefect_server import PrefectServer


def test_the_line_counts_what_is_done_running_queued_failed_spent_and_left() -> None:
    progress = Progress("b", total=6, scope="run")
    progress.start([RowResult(row=1, state="done", costs=Costs({"CNY": Decimal("0.04")}))])
    assert line_of(progress) == "done 1 · running 0 · queued 5 · failed 0 · spent 0.04 CNY"
    for job in ("run/a", "run/b", "other/c"):
        progress.take_event(JobEvent("submitted", job, "some/model"))
    progress.take_event(JobEvent("succeeded", "run/a", "some/model"))
    progress.end(RowResult(row=2, state="done", costs=Costs({"CNY": Decimal("0.04")})))
    progress.end(RowResult(row=3, state="failed"))
    progress.began -= 20
    assert line_of(progress).startswith("done 2 · running 1 · queued 2 · failed 1 · spent 0.08 CNY · about 0:3")


def test_rows_that_the_budget_does_not_suffice_for_have_not_failed() -> None:
    """They were counted as failed."""
    progress = Progress("b", total=10, scope="run", budget=Decimal("0.12"))
    progress.end(RowResult(row=1, state="failed"))
    progress.end(RowResult(row=2, state="not started"))
    progress.set_aside = 3
    progress.end(RowResult(row=3, state="unknown"))
    assert line_of(progress).startswith(
        "done 0 · running 0 · queued 4 · failed 1 · not started 4 · unknown 1 · spent 0"
    )


def test_the_time_left_is_that_of_the_rows_that_the_budget_suffices_for() -> None:
    """Of 10,000 rows and a budget for three, it said hours."""
    progress = Progress("b", total=10_000, scope="run", budget=Decimal("0.12"))
    progress.start([])
    progress.began -= 20
    cost = Costs({"CNY": Decimal("0.04")})
    progress.end(RowResult(row=1, state="done", costs=cost))
    assert progress.remaining_seconds == pytest.approx(40, abs=2)
    progress.end(RowResult(row=2, state="done", costs=cost))
    progress.end(RowResult(row=3, state="done", costs=cost))
    for row in range(4, 5000):
        progress.end(RowResult(row=row, state="not started"))
    assert progress.remaining_seconds == 0


def test_two_units_are_shown_apart_in_the_line() -> None:
    """Money and coins are never added."""
    progress = Progress("b", total=3, scope="run")
    progress.end(RowResult(row=1, state="done", costs=Costs({"CNY": Decimal("0.04")})))
    progress.end(RowResult(row=2, state="done", costs=Costs({"coins": Decimal(25)})))
    progress.end(RowResult(row=3, state="failed", costs=Costs(unknown=1)))
    assert "spent 0.04 CNY, 25 coins, 1 task of unknown cost" in line_of(progress)


@pytest.mark.parametrize("out", ["memory://films", "MEMORY://films", "memory://"])
def test_outputs_that_would_be_gone_with_the_command_are_refused(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"--out memory://.*lost when the command ends.*What to do"):
        check_batch(str(tmp_path), ["z-image/turbo"], out=out.lower())
    with pytest.raises(InputError, match="lost when the command ends"):
        check_call("run film", {"prompt": "a lighthouse", "out": out}, needs=("prompt",))
    check_batch(str(tmp_path), ["z-image/turbo"], out="memory")
    monkeypatch.setenv("RH_STORAGE_URL", out)
    with pytest.raises(InputError, match=r"RH_STORAGE_URL=.*lost when the command ends"):
        check_batch(str(tmp_path), ["z-image/turbo"])
    check_batch(str(tmp_path), ["z-image/turbo"], storage="films")
    check_call("run film", {"prompt": "memory://films", "out": "s3://films"}, needs=("prompt",))


def test_a_name_with_brackets_that_is_there_is_no_missing_file(tmp_path: Path) -> None:
    (tmp_path / "photos [2024]").mkdir()
    check_batch(str(tmp_path / "photos [2024]"), ["z-image/turbo"])


@pytest.mark.prefect
def test_it_runs_says_what_is_missing_and_does_it_the_next_time(
    rh: Emulator, prefect_server: PrefectServer, tmp_path: Path
) -> None:
    env = {**os.environ, **prefect_server.env, **environment(rh, tmp_path)}
    rows = tmp_path / "rows.csv"
    rows.write_text("prompt,name\na lighthouse,light\na harbour,port\na gull,bird\n")
    command = [*RH, "batch", str(rows), "--model", "z-image/turbo"]
    command += ["--label-column", "name", "--set", "aspect_ratio=1:1", "--out", str(tmp_path / "batch")]

    def call(*more: str) -> subprocess.CompletedProcess[str]:
        return warm_process.run([*command, *more], env=env)

    first = call("--budget", "0.1")
    assert first.returncode == 1, first.stderr
    assert "2 of 3 rows done, 1 not started; 0.08 CNY" in first.stdout
    assert "budget of 0.10 CNY" in first.stdout
    # The command that it names does the rest.
    assert re.search(r"with a larger --budget: rh-prefect batch .* --budget 0\.12$", first.stdout, re.MULTILINE)
    second = call()
    assert second.returncode == 0, second.stdout + second.stderr
    assert "3 rows, 2 of them done earlier" in second.stdout
    assert len(rh.recorder.paid) == 3
    assert {one.payload["aspectRatio"] for one in rh.recorder.paid} == {"1:1"}
    report = Path(re.findall(r"each row: (.*)", second.stdout)[0])
    assert report.is_relative_to(tmp_path / "batch")
    assert report.read_text().count(",done,") == 3
    twice = call("--set", "aspect_ratio=9:16")
    assert twice.returncode == 1
    assert "aspect_ratio must be one of" in twice.stdout + twice.stderr
    assert len(rh.recorder.paid) == 3
    wrong = call("--set", "nonsense")
    assert (wrong.returncode, "NAME=VALUE" in wrong.stderr, "Traceback" in wrong.stderr) == (1, True, False)


@pytest.mark.prefect
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_or_a_closed_terminal_leaves_an_account_and_the_same_command_goes_on(
    rh: Emulator, prefect_server: PrefectServer, tmp_path: Path, number: signal.Signals
) -> None:
    rh.faults.add(Fault("query", every=1, kind="slow", seconds=1))
    rh.faults.add(Fault("submit", prompt="late", kind="slow", seconds=2))
    env = {**os.environ, **prefect_server.env, **environment(rh, tmp_path)}
    rows = tmp_path / "rows.csv"
    rows.write_text("prompt\na lighthouse\na harbour\nthe answer to this one is late\n")
    command = [*RH, "batch", str(rows), "--model", "z-image/turbo"]
    with WarmProcess(command, env=env) as process:
        assert rh.recorder.wait(lambda recorder: len(recorder.paid) == 3, seconds=600)
        process.send_signal(number)
        said = process.stderr.read()
        assert process.wait(timeout=600) != 0
    assert "rh-prefect batch" in said
    (report,) = (tmp_path / "out").glob("batches/*/report.csv")
    told = report.read_text()
    assert ",unfinished," in told
    assert all(one.task_id in told for one in rh.recorder.paid), f"what was paid for is named: {told}"
    done = warm_process.run(command, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(rh.recorder.paid) == 3

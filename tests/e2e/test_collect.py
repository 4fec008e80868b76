"""`jobs collect` downloads paid results, also if other jobs of the run failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import JobFailed, OutputsExpired
from rh_prefect.flow_runs.rerun import rerun
from tests.e2e import flows, runs

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server")]


@pytest.mark.long
async def test_what_a_cancelled_run_had_left_is_waited_for_and_not_cancelled(
    rh: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    rh.faults.add(Fault("submit", number=1, kind="cut"))
    run = await runs.begin(flows.one)
    lost = await runs.fails(flows.one, run, words="jobs adopt")
    with pytest.raises(SystemExit):
        await runs.command("jobs", "cancel", run)
    task_id = rh.recorder.paid[0].task_id
    await runs.command("jobs", "adopt", lost.job, task_id)
    assert f"jobs cancel {run}" in capsys.readouterr().out
    await runs.command("jobs", "collect", run)
    assert capsys.readouterr().out.startswith(f"{lost.job}: ")
    assert not rh.recorder.cancelled
    assert len(rh.recorder.submissions) == 1


async def test_a_task_that_was_paid_for_after_one_that_failed_is_collected(
    rh: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    rh.faults.add(Fault("submit", kind="fail", code="1504", times=1), Fault("download", kind="expired"))
    run = await runs.begin(flows.one)
    with pytest.raises(OutputsExpired) as expired:
        await rerun(flows.one, run)
    rh.faults.clear()
    capsys.readouterr()
    await runs.command("jobs", "collect", run)
    assert capsys.readouterr().out.startswith(f"{expired.value.job}: ")
    assert len(rh.recorder.paid) == 2


@pytest.mark.long
async def test_what_is_home_is_named_without_asking_the_account_that_paid(
    rh: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = await runs.begin(flows.one)
    result = await rerun(flows.one, run)
    monkeypatch.delenv("RH_API_KEY")
    asked = len(rh.recorder.requests)
    await runs.command("jobs", "collect", run)
    assert capsys.readouterr().out == f"{result.job}: {result.first_output.uri}\n"
    assert len(rh.recorder.requests) == asked


@pytest.mark.long
async def test_failed_jobs_do_not_keep_the_others_from_home(
    rh: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rh.faults.add(Fault("submit", kind="fail", code="805", prompt="bad"))
    run = await runs.begin(flows.many, prompts=["bad 1", "a gull", "bad 2", "a lighthouse", "bad 3", "a harbour"])
    with pytest.raises(JobFailed):
        await rerun(flows.many, run)
    # The files belong where the run has its others, whatever RH_STORAGE_URL says by now.
    monkeypatch.setenv("RH_STORAGE_URL", str(tmp_path / "elsewhere"))
    with pytest.raises(SystemExit) as caught:
        await runs.command("jobs", "collect", run)
    assert caught.value.code == 1
    said = capsys.readouterr().out
    assert said.count(f"NOT collected: {run}/") == said.count("(z-image/turbo): ") == 3
    assert len(list((tmp_path / "out").rglob("*.png"))) == 3
    assert not (tmp_path / "elsewhere").exists()
    assert len(rh.recorder.submissions) == 6

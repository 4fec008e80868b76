"""Jobs that a person settles or collects: each is paid for once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import InputError, JobFailed, OutputsExpired, SubmissionUnknown, TaskNotFound
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.resume_or_rerun import rerun
from rh_prefect.works.journal.job_records_and_state import jobs_of
from tests.e2e import flows

pytestmark = pytest.mark.prefect


async def lost_answer(rh: Emulator) -> tuple[str, SubmissionUnknown]:
    rh.faults.add(Fault("submit", number=1, kind="cut"))
    run = await flows.begin(flows.one)
    return run, await flows.fails(flows.one, run, words=r"(?s)jobs adopt.*jobs mark-refused")


async def pays_once_more(rh: Emulator, run: str) -> None:
    """The next attempt of a run pays for a second task, and the one after it for no third one."""
    result = await rerun(flows.one, run)
    assert [one.task_id for one in rh.recorder.paid][1:] == [result.task_id]
    assert await rerun(flows.one, run) == result
    assert len(rh.recorder.submissions) == 2


async def test_adopt_finishes_the_job_without_paying(rh: Emulator) -> None:
    run, lost = await lost_answer(rh)
    task_id = rh.recorder.paid[0].task_id
    await flows.command("jobs", "adopt", lost.job, task_id)
    result = await rerun(flows.one, run)
    assert (result.task_id, result.job) == (task_id, lost.job)
    assert len(rh.recorder.submissions) == 1


async def test_a_refused_submission_is_paid_once_more(rh: Emulator) -> None:
    run, lost = await lost_answer(rh)
    await flows.command("jobs", "mark-refused", lost.job)
    await pays_once_more(rh, run)


async def test_a_task_that_runninghub_lost_is_marked_and_one_that_it_knows_is_not(rh: Emulator) -> None:
    rh.faults.add(Fault("query", kind="code", code="1004"))
    run = await flows.begin(flows.one)
    with pytest.raises(TaskNotFound, match=f"jobs mark-lost {run}/"):
        await rerun(flows.one, run)
    (view,) = [one async for one in jobs_of(FlowRunJournal(run))]
    job = f"{run}/{view.key}"
    rh.faults.clear()
    with pytest.raises(InputError, match="exists at RunningHub"):
        await flows.command("jobs", "mark-lost", job)
    rh.faults.add(Fault("query", kind="code", code="1004", times=1))
    with pytest.raises(InputError, match="exists at RunningHub"):
        await flows.command("jobs", "mark-lost", job)
    rh.faults.add(Fault("query", kind="code", code="1004"))
    await flows.command("jobs", "mark-lost", job)
    rh.faults.clear()
    await pays_once_more(rh, run)


async def lost_files(rh: Emulator) -> tuple[str, str]:
    """A run and its job, whose task has succeeded and whose files cannot be downloaded."""
    rh.faults.add(Fault("download", kind="expired"))
    run = await flows.begin(flows.one)
    with pytest.raises(OutputsExpired) as gone:
        await rerun(flows.one, run)
    return run, str(gone.value.job)


@pytest.mark.long
async def test_a_job_whose_files_are_gone_is_paid_for_again_once_it_is_marked_as_lost(rh: Emulator) -> None:
    run, job = await lost_files(rh)
    with pytest.raises(OutputsExpired):
        await rerun(flows.one, run)
    assert len(rh.recorder.paid) == 1
    await flows.command("jobs", "mark-lost", job)
    rh.faults.clear()
    await pays_once_more(rh, run)


@pytest.mark.long
async def test_a_job_whose_files_can_still_be_downloaded_is_not_marked_as_lost(rh: Emulator) -> None:
    run, job = await lost_files(rh)
    rh.faults.clear()
    with pytest.raises(InputError, match=r"its files are in the storage.* Nothing was recorded"):
        await flows.command("jobs", "mark-lost", job)
    result = await rerun(flows.one, run)
    assert [one.task_id for one in rh.recorder.paid] == [result.task_id]


@pytest.mark.long
async def test_a_key_of_another_account_marks_no_task_as_lost(rh: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await flows.begin(flows.one)
    rh.faults.add(Fault("query", kind="code", code="1004"))
    with pytest.raises(TaskNotFound):
        await rerun(flows.one, run)
    rh.faults.clear()
    (view,) = [one async for one in jobs_of(FlowRunJournal(run))]
    job, paid_on = f"{run}/{view.key}", re.escape(view.submits[-1].intent.account_words)
    monkeypatch.setenv("RH_API_KEY", rh.keys.add("another account").secret)
    with pytest.raises(TaskNotFound, match=f"on account {paid_on}, and the key that is set now belongs to") as lost:
        await rerun(flows.one, run)
    assert f"mark-lost {job} --same-account" in str(lost.value)
    with pytest.raises(InputError, match=f"paid for on account {paid_on}.*set the key of the account that paid"):
        await flows.command("jobs", "mark-lost", job)
    monkeypatch.setenv("RH_API_KEY", rh.key)
    await rerun(flows.one, run)
    assert len(rh.recorder.paid) == 1


@pytest.mark.long
async def test_what_a_cancelled_run_had_left_is_waited_for_and_not_cancelled(
    rh: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    run, lost = await lost_answer(rh)
    with pytest.raises(SystemExit):
        await flows.command("jobs", "cancel", run)
    task_id = rh.recorder.paid[0].task_id
    await flows.command("jobs", "adopt", lost.job, task_id)
    assert f"jobs cancel {run}" in capsys.readouterr().out
    await flows.command("jobs", "collect", run)
    assert capsys.readouterr().out.startswith(f"{lost.job}: ")
    assert not rh.recorder.cancelled
    assert len(rh.recorder.submissions) == 1


async def test_a_task_that_was_paid_for_after_one_that_failed_is_collected(
    rh: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    rh.faults.add(Fault("submit", kind="fail", code="1504", times=1))
    run, job = await lost_files(rh)
    rh.faults.clear()
    capsys.readouterr()
    await flows.command("jobs", "collect", run)
    assert capsys.readouterr().out.startswith(f"{job}: ")
    assert len(rh.recorder.paid) == 2


@pytest.mark.long
async def test_what_is_home_is_named_without_asking_the_account_that_paid(
    rh: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = await flows.begin(flows.one)
    result = await rerun(flows.one, run)
    monkeypatch.delenv("RH_API_KEY")
    asked = len(rh.recorder.requests)
    await flows.command("jobs", "collect", run)
    assert capsys.readouterr().out == f"{result.job}: {result.first_output.uri}\n"
    assert len(rh.recorder.requests) == asked


@pytest.mark.long
async def test_failed_jobs_do_not_keep_the_others_from_home(
    rh: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rh.faults.add(Fault("submit", kind="fail", code="805", prompt="bad"))
    run = await flows.begin(flows.many, prompts=["bad 1", "a gull", "bad 2", "a lighthouse", "bad 3", "a harbour"])
    with pytest.raises(JobFailed):
        await rerun(flows.many, run)
    # The files belong where the run has its others, whatever RH_STORAGE_URL says by now.
    monkeypatch.setenv("RH_STORAGE_URL", str(tmp_path / "elsewhere"))
    with pytest.raises(SystemExit) as caught:
        await flows.command("jobs", "collect", run)
    assert caught.value.code == 1
    said = capsys.readouterr().out
    assert said.count(f"NOT collected: {run}/") == said.count("(z-image/turbo): ") == 3
    assert len(list((tmp_path / "out").rglob("*.png"))) == 3
    assert not (tmp_path / "elsewhere").exists()
    assert len(rh.recorder.submissions) == 6

"""A reply that is lost after acceptance: one task is paid for, and a person says how it goes on."""

from __future__ import annotations

import re

import pytest

from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import InputError, OutputsExpired, TaskNotFound
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.rerun import rerun
from rh_prefect.works.journal.job_records import jobs_of
from tests.e2e import flows, runs

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server")]


async def test_adopt_finishes_the_job_without_paying(rh: Emulator) -> None:
    rh.faults.add(Fault("submit", number=1, kind="cut"))
    run = await runs.begin(flows.one)
    lost = await runs.fails(flows.one, run, words="jobs adopt")
    task_id = rh.recorder.paid[0].task_id
    await runs.command("jobs", "adopt", lost.job, task_id)
    result = await rerun(flows.one, run)
    assert (result.task_id, result.job) == (task_id, lost.job)
    assert len(rh.recorder.submissions) == 1


async def test_a_refused_submission_is_paid_once_more(rh: Emulator) -> None:
    rh.faults.add(Fault("submit", number=1, kind="cut"))
    run = await runs.begin(flows.one)
    lost = await runs.fails(flows.one, run, words="jobs mark-refused")
    await runs.command("jobs", "mark-refused", lost.job)
    result = await rerun(flows.one, run)
    assert [one.task_id for one in rh.recorder.paid][1:] == [result.task_id]
    assert await rerun(flows.one, run) == result, "and not a third time"
    assert len(rh.recorder.submissions) == 2


async def test_a_task_that_runninghub_lost_is_marked_and_one_that_it_knows_is_not(rh: Emulator) -> None:
    rh.faults.add(Fault("query", kind="code", code="1004"))
    run = await runs.begin(flows.one)
    with pytest.raises(TaskNotFound, match=f"jobs mark-lost {run}/"):
        await rerun(flows.one, run)
    (view,) = [one async for one in jobs_of(FlowRunJournal(run))]
    job = f"{run}/{view.key}"
    rh.faults.clear()
    with pytest.raises(InputError, match="exists at RunningHub"):
        await runs.command("jobs", "mark-lost", job)
    rh.faults.add(Fault("query", kind="code", code="1004", times=1))
    with pytest.raises(InputError, match="exists at RunningHub"):
        await runs.command("jobs", "mark-lost", job)
    rh.faults.add(Fault("query", kind="code", code="1004"))
    await runs.command("jobs", "mark-lost", job)
    rh.faults.clear()
    result = await rerun(flows.one, run)
    assert [one.task_id for one in rh.recorder.paid][1:] == [result.task_id]


async def test_a_job_whose_files_are_gone_is_paid_for_again_once_it_is_marked_as_lost(
    rh: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RH_GRACE_SECONDS", "1")
    rh.faults.add(Fault("download", kind="expired"))
    run = await runs.begin(flows.one)
    for _ in range(2):
        with pytest.raises(OutputsExpired) as gone:
            await rerun(flows.one, run)
    job = str(gone.value.job)
    assert len(rh.recorder.paid) == 1
    await runs.command("jobs", "mark-lost", job)
    rh.faults.clear()
    result = await rerun(flows.one, run)
    assert [one.task_id for one in rh.recorder.paid][1:] == [result.task_id]
    assert await rerun(flows.one, run) == result, "and not a third time"
    assert len(rh.recorder.paid) == 2


async def test_a_job_whose_files_can_still_be_downloaded_is_not_marked_as_lost(
    rh: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RH_GRACE_SECONDS", "1")
    rh.faults.add(Fault("download", kind="expired"))
    run = await runs.begin(flows.one)
    with pytest.raises(OutputsExpired) as gone:
        await rerun(flows.one, run)
    rh.faults.clear()
    with pytest.raises(InputError, match=r"its files are in the storage.* Nothing was recorded"):
        await runs.command("jobs", "mark-lost", str(gone.value.job))
    result = await rerun(flows.one, run)
    assert [one.task_id for one in rh.recorder.paid] == [result.task_id]


@pytest.mark.long
async def test_a_key_of_another_account_marks_no_task_as_lost(rh: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await runs.begin(flows.one)
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
        await runs.command("jobs", "mark-lost", job)
    monkeypatch.setenv("RH_API_KEY", rh.key)
    await rerun(flows.one, run)
    assert len(rh.recorder.paid) == 1

"""A run that is rebuilt from nothing but its task id."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import InputError, JobCancelled, JobFailed, TaskNotFound
from rh_prefect.job_blocks import RunningHubJobRun, RunningHubModel, RunningHubWorkflow
from rh_prefect.media.store import MediaStore
from rh_prefect.settings import get_settings
from rh_prefect.works import stored_result
from rh_prefect.works.journal.works_journal import default_works
from tests.support.processes import warm_process
from tests.support.servers.scripted_server import Asked, WireServer, reply, task

TURBO = RunningHubModel(model="z-image/turbo", params={"prompt": "a lighthouse"})
HOUR = 3600
UNKNOWN = "2031112223334445057"


@pytest.fixture
def paid_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """Starts a task with a journal and a storage that are lost afterwards."""

    def start(block: RunningHubModel | RunningHubWorkflow = TURBO) -> str:
        with monkeypatch.context() as patch:
            patch.setenv("RH_STORAGE_URL", str(tmp_path / "lost" / "out"))
            patch.setenv("RH_STATE_DIR", str(tmp_path / "lost" / "state"))
            return block.trigger(scope="lost").task_id

    return start


def test_in_a_fresh_process_a_bare_id_is_all_that_is_needed(
    slow_rh: Emulator, tmp_path: Path, paid_elsewhere: Callable[..., str]
) -> None:
    task_id = paid_elsewhere()
    slow_rh.clock.advance(HOUR)
    code = (
        "import sys; from rh_prefect import RunningHubJobRun; run = RunningHubJobRun.attach(sys.argv[1], label='found')"
        "; run.wait_for_completion(); print(run.job, run.fetch_result().first_output.uri)"
    )
    done = warm_process.run(["-c", code, task_id])
    assert done.returncode == 0, done.stderr
    job, uri = done.stdout.split()
    assert job == f"attached/{task_id}"
    assert Path(uri).is_relative_to(tmp_path / "out")
    assert Path(uri).name.startswith("found-")
    assert len(slow_rh.recorder.paid) == 1


async def test_it_waits_fetches_and_leaves_a_stored_result_and_no_record_of_a_submit(
    slow_rh: Emulator, tmp_path: Path, paid_elsewhere: Callable[..., str]
) -> None:
    task_id = paid_elsewhere()
    run = await RunningHubJobRun.attach_async(task_id)
    slow_rh.clock.advance(HOUR)
    await run.wait_for_completion_async()
    result = await run.fetch_result_async()
    assert result.cost == slow_rh.recorder.paid[0].charged
    (stored,) = stored_result.read_all(MediaStore(str(tmp_path / "out")))
    assert (stored.task_id, stored.texts, stored.cost) == (task_id, result.texts, result.cost)
    assert slow_rh.key not in Path(result.record).read_text()
    assert default_works(get_settings()).scopes() == []
    assert len(slow_rh.recorder.paid) == 1


def test_what_the_storage_has_already_is_neither_asked_for_nor_fetched_again(rh: Emulator, tmp_path: Path) -> None:
    first = TURBO.trigger(scope="test").fetch_result()
    requests = len(rh.recorder.requests)
    run = RunningHubJobRun.attach(first.task_id)
    assert run.job == first.job
    assert run.fetch_result() == first
    run.cancel()
    assert len(rh.recorder.requests) == requests
    assert len(list(stored_result.read_all(MediaStore(str(tmp_path / "out"))))) == 1


def test_a_result_whose_file_is_gone_is_fetched_again(rh: Emulator) -> None:
    first = TURBO.trigger(scope="test").fetch_result()
    Path(first.first_output.uri).unlink()
    again = RunningHubJobRun.attach(first.task_id).fetch_result()
    assert again.first_output.sha256 == first.first_output.sha256
    assert Path(again.first_output.uri).is_file()
    assert RunningHubJobRun.attach(first.task_id).fetch_result() == again
    assert len(rh.recorder.paid) == 1


def test_the_result_of_another_site_is_not_the_result_of_the_task(rh: Emulator) -> None:
    first = TURBO.trigger(scope="test").fetch_result()
    record = Path(first.record)
    record.write_text(json.dumps(json.loads(record.read_text()) | {"site": "another.example"}))
    assert RunningHubJobRun.attach(first.task_id).job == f"attached/{first.task_id}"
    assert len(rh.recorder.paid) == 1


def test_twice_attached_it_is_fetched_once(rh: Emulator, tmp_path: Path, paid_elsewhere: Callable[..., str]) -> None:
    task_id = paid_elsewhere()
    first, second = RunningHubJobRun.attach(task_id), RunningHubJobRun.attach(task_id)
    assert first.fetch_result() == second.fetch_result() == RunningHubJobRun.attach(task_id).fetch_result()
    assert len(list(stored_result.read_all(MediaStore(str(tmp_path / "out"))))) == 1


def test_an_attached_task_can_be_cancelled(slow_rh: Emulator, paid_elsewhere: Callable[..., str]) -> None:
    run = RunningHubJobRun.attach(task_id := paid_elsewhere())
    run.cancel()
    with pytest.raises(JobCancelled, match=task_id):
        run.wait_for_completion()
    assert slow_rh.recorder.cancelled == [task_id]


async def test_a_cancelled_task_that_is_called_running_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing documents that RunningHub ever calls a cancelled task so."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: Asked) -> bool:
        answer = task(UNKNOWN) if asked.path.endswith("/query") else {"code": 0, "msg": "success", "data": None}
        return await reply(answer)(reader, writer, asked)

    async with WireServer(always=play) as wire:
        monkeypatch.setenv("RH_BASE_URL", wire.url)
        monkeypatch.setenv("RH_API_KEY", "canary0123456789abcdef0123456789")
        monkeypatch.setenv("RH_STORAGE_URL", str(tmp_path))
        monkeypatch.setenv("RH_STATE_DIR", str(tmp_path))
        run = await RunningHubJobRun.attach_async(UNKNOWN)
        waiting = asyncio.create_task(run.wait_for_completion_async())
        await run.cancel_async()
        with pytest.raises(JobCancelled, match=UNKNOWN):
            await asyncio.wait_for(waiting, 300)
        assert sum("cancel" in path for path in wire.paths) == 1


def test_a_failed_task_names_its_node(rh: Emulator, paid_elsewhere: Callable[..., str]) -> None:
    rh.faults.add(Fault("submit", number=1, kind="fail", node="6", exception="ValueError"))
    workflow = RunningHubWorkflow(workflow_id=rh.workflows.id_of("text-to-image"))
    with pytest.raises(JobFailed, match=r"6.*ValueError"):
        RunningHubJobRun.attach(paid_elsewhere(workflow)).fetch_result()


def test_an_id_that_is_none_and_one_that_nobody_knows(rh: Emulator) -> None:
    with pytest.raises(InputError, match="ids contain only digits"):
        RunningHubJobRun.attach("z-image/turbo")
    with pytest.raises(TaskNotFound):
        RunningHubJobRun.attach(UNKNOWN)

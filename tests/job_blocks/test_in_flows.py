"""Saved blocks in flows: loaded by name, started in the flow run's scope, paid for once whatever happens."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import pytest
from prefect.client.schemas.objects import FlowRun

from rh_prefect import flow
from rh_prefect.blocks import MediaStorage, RunningHubCredentials
from rh_prefect.emulator import Emulator
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.job_blocks import RunningHubModel
from rh_prefect.prefect_api import connect
from rh_prefect.works.journal.job_records_and_state import JobView, jobs_of
from tests.job_blocks.flows import MODULE, at_once, in_sync, tried_again
from tests.support.processes.flow_process import flow_processes
from tests.support.servers.emulator_env import environment
from tests.support.servers.prefect_server import PrefectServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.prefect

HOUR = 3600


@pytest.fixture
async def saved(rh: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A saved model whose account and storage are known by their blocks' names only."""
    name = f"b-{uuid.uuid4().hex[:8]}"
    await RunningHubCredentials(api_key=rh.key, base_url=rh.url, account="studio").asave(name)
    await MediaStorage(url=str(tmp_path / "named")).asave(name)
    params = {"prompt": "a lighthouse"}
    await RunningHubModel(model="z-image/turbo", params=params, credentials=name, storage=name).asave(name)
    monkeypatch.delenv("RH_API_KEY")
    return name


async def records(flow_run_id: str) -> list[JobView]:
    return [view async for view in jobs_of(FlowRunJournal(uuid.UUID(flow_run_id)))]


async def test_an_async_flow_triggers_waits_and_fetches(rh: Emulator, saved: str, tmp_path: Path) -> None:
    result = await at_once(saved)
    assert Path(result.first_output.uri).is_relative_to(tmp_path / "named")
    (view,) = await records(result.job.partition("/")[0])
    assert view.last is not None and view.last.end is not None
    assert (view.last.intent.account, view.last.intent.credentials) == ("studio", saved)
    assert [one.task_id for one in rh.recorder.paid] == [view.last.task_id]


async def test_in_a_sync_flow_each_take_is_a_job(rh: Emulator, saved: str) -> None:
    results = await asyncio.to_thread(in_sync, saved)
    assert len({result.task_id for result in results}) == len(rh.recorder.paid) == 3
    assert len({result.job.partition("/")[0] for result in results}) == 1


def test_killed_between_trigger_and_wait_a_run_that_is_run_again_pays_nothing(
    slow_rh: Emulator, prefect_server: PrefectServer, tmp_path: Path
) -> None:
    env = {**prefect_server.env, **environment(slow_rh, tmp_path)}
    marker = tmp_path / "task"
    with flow_processes(env, tmp_path) as children:
        children.spare(2)
        child = children.run(f"{MODULE}:told", parameters={"marker": str(marker)})
        run_id = child.wait_for("run")["id"]
        wait_until(marker.exists)
        child.kill()
        slow_rh.clock.advance(HOUR)
        again = children.run(f"{MODULE}:told", run=run_id)
        done = again.wait_for("done")
    assert done["result"]["task_id"] == marker.read_text()
    assert [one.task_id for one in slow_rh.recorder.paid] == [marker.read_text()]


async def test_a_task_that_is_tried_again_meets_its_own_job_while_it_still_runs(slow_rh: Emulator) -> None:
    block = RunningHubModel(model="z-image/turbo", params={"prompt": "a lighthouse"})
    ids: list[str] = []

    @flow
    async def made() -> None:
        await tried_again(block, ids)

    await made()
    assert ids == [slow_rh.recorder.paid[0].task_id] * 2
    assert len(slow_rh.recorder.paid) == 1


async def test_outside_of_a_flow_the_scope_is_the_task_run_of_the_caller(slow_rh: Emulator) -> None:
    block = RunningHubModel(model="z-image/turbo", params={"prompt": "a lighthouse"})
    for paid in (1, 2):
        ids: list[str] = []
        await tried_again(block, ids)
        assert ids == [slow_rh.recorder.paid[-1].task_id] * 2
        assert len(slow_rh.recorder.paid) == paid


async def test_parameters_of_a_flow_run_hold_no_key(rh: Emulator, saved: str) -> None:
    result = await at_once(saved)
    connection = await connect()
    flow_run: FlowRun = await connection.client.read_flow_run(uuid.UUID(result.job.partition("/")[0]))
    assert flow_run.parameters == {"block": saved}
    document = await (await connect()).client.read_block_document_by_name(saved, "runninghub-model")
    assert rh.key not in document.model_dump_json()

"""What a plan learns from the records of a store."""

from __future__ import annotations

import asyncio
import os
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import RunningHubError
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.known_works import StoredWorks
from rh_prefect.pipelines.last_run import LastRuns
from rh_prefect.pipelines.plan import Plan
from rh_prefect.pipelines.plan.planned_steps import KnownWork, WorkQuery
from rh_prefect.pipelines.plan.work_identity import recipe_id
from rh_prefect.pipelines.rounds_across_runs import COMMAND_LINE, Rounds
from rh_prefect.pipelines.stored_edits import as_recorded, open_edits
from rh_prefect.settings import get_settings
from rh_prefect.works.journal.costs_and_budget import COINS
from rh_prefect.works.journal.record_types import End, Lost
from rh_prefect.works.journal.works_journal import WorksJournal
from tests.support.processes.cli_process import run_each
from tests.support.samples import media as samples
from tests.support.servers.caller import Caller
from tests.support.servers.emulator_env import environment
from tests.support.servers.s3 import S3Server
from tests.support.world.job_records import KEY, TASK, adopted_late, intent, ticket, write
from tests.support.world.pipeline_runs import PipelineRun, picture


@pytest.fixture(params=["folder", "s3"])
def run(rh: Emulator, tmp_path: Path, request: pytest.FixtureRequest) -> PipelineRun:
    given: dict[str, Any] = {"url": rh.url, "key": rh.key, "folder": tmp_path}
    if request.param == "folder":
        return PipelineRun(**given, store_url=str(tmp_path / "store"))
    s3: S3Server = request.getfixturevalue("s3")
    return PipelineRun(**given, store_url=s3.url("known"), store_options=s3.options)


async def stored(run: PipelineRun) -> StoredWorks:
    return StoredWorks(await run.works(), open_edits(run.store, get_settings()), run.store, rounds=run.rounds())


def test_a_task_without_outputs_made_nothing() -> None:
    assert KnownWork("=").lack("image") == "its task made nothing"
    assert KnownWork("=", texts=("waves",)).lack("image") == "its task made text, but no image"


async def test_each_state_of_a_work_is_known(rh: Emulator, run: PipelineRun) -> None:
    done, lost = await run.one(picture("done")), await run.one(picture("its file is lost"))
    await asyncio.to_thread(run.store.delete, lost.record.outputs[0].uri)
    rh.faults.add(Fault("submit", prompt="unanswered"))
    rh.faults.add(Fault("submit", prompt="failed", kind="fail", code="1504"))
    unknown, failed = await run.make(picture("unanswered")), await run.make(picture("failed"))
    lost_jobs: list[Any] = [*unknown, *failed]
    works = [done.result.key, lost.result.key, *(str(one.job).rpartition("/")[2] for one in lost_jobs), "ab" * 20]
    known = await (await stored(run)).find([WorkQuery(work) for work in works])
    assert [one and one.state for one in known] == ["=", "!", "?", "+", None]
    first = known[0]
    assert first is not None
    assert first.outputs == done.result.outputs
    assert (first.task_id, first.cost, first.texts) == (done.record.task_id, done.record.cost, ())
    assert first.at == datetime.fromisoformat(done.record.at)
    assert first.record.endswith(f"/works/{done.result.key}/result.json")
    assert await (await stored(run)).find([]) == []


async def test_a_lost_file_makes_no_result_lost_that_is_looked_up_at_once(rh: Emulator, tmp_path: Path) -> None:
    run = PipelineRun(rh.url, rh.key, tmp_path, str(tmp_path / "store"))
    done, lost = await run.one(picture("done")), await run.one(picture("its file is lost"))
    await asyncio.to_thread(run.store.delete, lost.record.outputs[0].uri)
    for _ in range(10):
        known = await stored(run)
        found = await asyncio.gather(*(known.find([WorkQuery(one.result.key)]) for one in (done, lost)))
        assert [one and one.state for (one,) in found] == ["=", "!"]


async def test_a_lost_task_and_one_that_cost_coins_count_at_their_estimates(tmp_path: Path) -> None:
    """It was accepted, so the costs of earlier runs in a budget contain it."""
    store, works = MediaStore(str(tmp_path / "store")), WorksJournal(str(tmp_path / "records"))
    stored = StoredWorks(works, open_edits(store, get_settings()), store, rounds=Rounds(works.rounds, deployment="cli"))
    ended = End(status="FAILED", task_id="2", cost="0.20")
    in_coins = End(status="FAILED", task_id="3", cost="250", currency=COINS)
    for cost, records in (
        ("0.50", {"intent-1": intent(estimate="0.50"), "answer-1": ticket(), "lost-1": Lost(by="a run")}),
        ("0.70", {"intent-2": intent(estimate="0.50"), "answer-2": ticket("2"), "end-2": ended}),
        ("1.20", {"intent-3": intent(estimate="0.50"), "answer-3": ticket("3"), "end-3": in_coins}),
    ):
        await write(works, records)
        (known,) = await stored.find([WorkQuery(KEY)])
        assert known is not None and (known.state, known.cost) == ("+", Decimal(cost))


async def test_a_late_task_that_the_next_submission_has_adopted_counts_once(tmp_path: Path) -> None:
    store, works = MediaStore(str(tmp_path / "store")), WorksJournal(str(tmp_path / "records"))
    stored = StoredWorks(works, open_edits(store, get_settings()), store, rounds=Rounds(works.rounds, deployment="cli"))
    await write(works, adopted_late(estimate="0.50"))
    (known,) = await stored.find([WorkQuery(KEY)])
    assert known is not None and (known.task_id, known.cost) == (TASK, Decimal("0.50"))


async def test_a_task_that_goes_on_is_waited_for(tmp_path: Path) -> None:
    with Emulator(clock="real", factor=0, long_side=96) as rh:
        run = PipelineRun(rh.url, rh.key, tmp_path, str(tmp_path / "store"))
        running = asyncio.create_task(run.make(picture()))
        await asyncio.to_thread(rh.recorder.wait, lambda recorder: len(recorder.paid) == 1)
        works = await run.works()
        (work,) = [key async for key, _ in works.jobs()]
        while f"{work}-answer-1" not in await works.job(work):
            assert not running.done()
            await asyncio.sleep(0.05)
        (known,) = await (await stored(run)).find([WorkQuery(work)])
        assert known is not None and known.state == "…"
        assert known.task_id == rh.recorder.paid[0].task_id
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_an_edit_is_known_by_its_recipe(run: PipelineRun, tmp_path: Path) -> None:
    photo = await asyncio.to_thread(run.store.publish, samples.png(tmp_path / "photo.png"), "in/photo.png")
    params = {"file": photo, "width": 20, "height": 20}
    made = await open_edits(run.store, get_settings()).make("resize", params)
    recipe = recipe_id("resize", as_recorded(params, {}))
    known = await (await stored(run)).find([WorkQuery(recipe, is_edit=True), WorkQuery("ab" * 20, is_edit=True)])
    assert [one and (one.state, one.outputs) for one in known] == [("=", (made.file,)), None]


async def test_a_person_settles_a_work_by_its_name(rh: Emulator, tmp_path: Path) -> None:
    run = PipelineRun(rh.url, rh.key, tmp_path, str(tmp_path / "store"))
    rh.faults.add(Fault("submit", prompt="a pier"))
    (unknown,) = await run.make(picture("a pier"))
    assert isinstance(unknown, RunningHubError)
    job, task_id = str(vars(unknown)["job"]), rh.recorder.paid[0].task_id
    rh.add_model("test/sound", output="audio")
    sound = Caller(rh).submit("test/sound", {})
    Caller(rh).query(sound["taskId"])
    words = {
        "shown before": f"show {job}",
        "refused": f"adopt {job} {sound['taskId']}",
        "adopted": f"adopt {job} {task_id}",
        "collected": f"collect {job.partition('/')[0]}",
        "shown": f"show {job}",
    }
    env = {**os.environ, **environment(rh, tmp_path), "RH_STORAGE_URL": str(tmp_path / "store")}
    commands = [["jobs", *one.split()] for one in words.values()]
    done = dict(zip(words, await asyncio.to_thread(run_each, commands, env=env, cwd=tmp_path)))
    assert "submit 1: unknown" in done["shown before"].stdout
    assert done["refused"].returncode == 1
    for said in ("made audio, but rhart-image", "Nothing was recorded"):
        assert said in " ".join(done["refused"].stderr.split())
    for said in (
        f"{job}: task {task_id} is recorded for this job",
        "does not report which request created a task",
        'prompt "a pier"',
    ):
        assert said in done["adopted"].stdout
    assert done["collected"].returncode == 1
    assert "name the run or the scope" in done["collected"].stderr
    assert f'"task_id": "{task_id}"' in done["shown"].stdout
    assert (await run.one(picture("a pier"))).record.task_id == task_id
    assert len(rh.recorder.paid) == 2, "the picture, and the sound"


@pytest.mark.parametrize("deployment", ["cli", "latest", "Latest", "nightly"])
async def test_a_deployment_of_any_name_has_its_own_last_run(deployment: str, tmp_path: object) -> None:
    runs = LastRuns(MediaStore(str(tmp_path)))
    for run, name in (("own", deployment), ("terminal", COMMAND_LINE), ("other", "hourly")):
        runs.write(Plan("film"), run=run, deployment=name)
    found = [await runs.read("film", name) for name in (deployment, COMMAND_LINE, "hourly", "never run")]
    assert [one.run for one in found if one is not None] == ["own", "terminal", "other", "other"]

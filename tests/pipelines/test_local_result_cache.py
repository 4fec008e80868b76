"""This machine's copies of results: they save reads, and never hide what was deleted."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

from rh_prefect.media.media import Media
from rh_prefect.pipelines.known_works import ResultCache, StoredWorks, cache_of
from rh_prefect.pipelines.plan.planned_steps import WorkQuery
from rh_prefect.pipelines.stored_edits import open_edits
from rh_prefect.settings import Settings
from rh_prefect.works.journal.record_types import ResultRecord
from rh_prefect.works.journal.works_journal import FOLDER
from tests.support.world.pipeline_runs import PipelineRun, picture


async def works_on(run: PipelineRun, state_dir: Path) -> StoredWorks:
    """The works as a new process of a machine looks them up."""
    works, settings = await run.works(), Settings(state_dir=state_dir)
    edits, cache = open_edits(run.store, settings), cache_of(works, settings)
    return StoredWorks(works, edits, run.store, rounds=run.rounds(), cache=cache)


async def state_of(run: PipelineRun, work: str, *, state_dir: Path) -> str | None:
    (known,) = await (await works_on(run, state_dir)).find([WorkQuery(work)])
    return None if known is None else known.state


async def test_a_result_with_a_copy_is_not_read_again(run: PipelineRun, tmp_path: Path) -> None:
    done = await run.one(picture())
    assert await state_of(run, done.result.key, state_dir=tmp_path / "first") == "="
    (tmp_path / "store" / FOLDER / done.result.key / "result.json").unlink()
    assert await state_of(run, done.result.key, state_dir=tmp_path / "first") == "="
    assert await state_of(run, done.result.key, state_dir=tmp_path / "other machine") == "…", "its task has ended"


async def test_a_copy_does_not_hide_a_file_or_a_store_that_was_deleted(run: PipelineRun, tmp_path: Path) -> None:
    done = await run.one(picture())
    assert await state_of(run, done.result.key, state_dir=tmp_path / "here") == "="
    await asyncio.to_thread(run.store.delete, done.record.outputs[0].uri)
    assert await state_of(run, done.result.key, state_dir=tmp_path / "here") == "!"
    (tmp_path / "store").rename(tmp_path / "archive")
    assert await state_of(run, done.result.key, state_dir=tmp_path / "here") is None


async def test_copies_that_cannot_be_used_only_cost_time(run: PipelineRun, tmp_path: Path) -> None:
    done = await run.one(picture())
    assert await state_of(run, done.result.key, state_dir=tmp_path / "here") == "="
    (copies,) = (tmp_path / "here").rglob("*.sqlite")
    assert stat.S_IMODE(copies.stat().st_mode) == 0o600
    copies.write_bytes(b"not a database" * 100)
    assert await state_of(run, done.result.key, state_dir=tmp_path / "here") == "="
    copies.unlink()
    copies.mkdir()
    assert await state_of(run, done.result.key, state_dir=tmp_path / "here") == "="


def test_each_place_has_its_own_copies_and_the_oldest_are_deleted_first(tmp_path: Path) -> None:
    file = Media(uri="files/1.png", kind="image", mime="image/png", size=1, sha256="0" * 64)
    result = ResultRecord(task_id="1", flow_run="one", store="memory://a", outputs=(file,))
    first, second = (ResultCache(tmp_path / "results.sqlite", place, most=50) for place in ("first", "second"))
    first.write({"a": result})
    assert (set(first.read(["a", "b"])), second.read(["a"])) == ({"a"}, {})
    many = {str(n): result for n in range(50)}
    second.write(many)
    assert first.read(["a"]) == {}
    assert set(second.read(list(many))) == set(many)


async def test_a_result_that_another_run_made_since_the_listing_is_whole(run: PipelineRun, tmp_path: Path) -> None:
    first, stored = await run.one(picture("first")), await works_on(run, tmp_path / "here")
    await stored.find([WorkQuery(first.result.key)])
    second = await run.one(picture("second"))
    (known,) = await stored.find([WorkQuery(second.result.key)])
    assert known is not None and known.state == "="

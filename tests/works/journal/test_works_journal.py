from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from rh_prefect.errors import ConfigError, JournalError
from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore
from rh_prefect.settings import Settings, get_settings
from rh_prefect.works.journal.identity import work_id
from rh_prefect.works.journal.job_records_and_state import JobRecords, result_key
from rh_prefect.works.journal.journal import FolderJournal, NotExclusive
from rh_prefect.works.journal.record_types import FORMAT_KEY, Format, ResultRecord
from rh_prefect.works.journal.works_journal import (
    FOLDER,
    HasEnded,
    Waiting,
    WorksJournal,
    choose_new_take,
    default_works,
    find_works,
    named_works,
    no_evidence,
    open_default_works,
    open_works,
    options_of_records,
    records_url,
    signs_of_life,
)
from tests.support.servers.s3 import S3Server
from tests.support.world.filesystems import ClockedFiles, TwoWriters
from tests.support.world.job_records import SOMEWHERE_ELSE, dead_owner, failed, intent, ticket, write
from tests.support.world.virtual_time import now

WORK = work_id("ab" * 20, 1)


def result(task_id: str = "1") -> ResultRecord:
    file = Media(uri="pipelines/ab.mp4", kind="video", mime="video/mp4", size=2, sha256="ab")
    return ResultRecord(task_id=task_id, store="s3://old/films", outputs=(file,))


def waiting(owner: Any = SOMEWHERE_ELSE) -> dict[str, Any]:
    return Waiting(flow_run="0190-b", owner=owner, seconds=0).model_dump(mode="json")


@pytest.fixture(params=["folder", "s3"])
def works(request: pytest.FixtureRequest, tmp_path: Path) -> WorksJournal:
    if request.param == "folder":
        return WorksJournal(str(tmp_path / "store"))
    s3: S3Server = request.getfixturevalue("s3")
    return WorksJournal(s3.url("works"), options=s3.options)


async def test_a_work_is_read_by_the_numbers_of_its_submissions(works: WorksJournal) -> None:
    await works.check()
    assert await works.job(WORK) == {}
    await write(works, {"intent-1": intent(flow_run="A")}, key=WORK)
    assert not await works.create(f"{WORK}-intent-1", intent().model_dump(mode="json"))
    await write(works, {"answer-1": ticket(), "end-1": failed("805"), "intent-2": intent()}, key=WORK)
    await write(works, {"intent-4": intent()}, key=WORK)  # no number is left out
    assert set(await works.job(WORK)) == {f"{WORK}-{what}" for what in ("intent-1", "answer-1", "end-1", "intent-2")}
    first, second = await JobRecords(works, WORK).submission(1), await JobRecords(works, WORK).submission(2)
    assert first is not None and first.state == "ended" and first.intent.flow_run == "A"
    assert second is not None and second.state == "open" and second.n == 2
    assert await JobRecords(works, WORK).submission(3) is None
    assert [key async for key, _ in works.jobs()] == [WORK]


async def test_a_result_is_recorded_once(works: WorksJournal) -> None:
    records = JobRecords(works, WORK)
    assert await records.read_result() is None
    written = [result(str(n)) for n in range(5)]
    is_first = await asyncio.gather(*map(records.create_result, written))
    assert sum(is_first) == 1
    assert await records.read_result() == written[is_first.index(True)]
    assert await records.read_result("cd") is None
    assert await records.create_result(other := result("9"), "cd")
    assert await records.read_result("cd") == other


async def test_the_results_of_many_works_are_read_together(works: WorksJournal) -> None:
    ids = [work_id("ab" * 20, take) for take in range(1, 41)]
    await asyncio.gather(*(JobRecords(works, work).create_result(result(work)) for work in ids[::2]))
    found = await works.read_results(map(result_key, ids))
    assert {key: one.task_id for key, one in found.items()} == {result_key(work): work for work in ids[::2]}


async def test_another_run_waits_until_it_is_released_or_has_ended(works: WorksJournal) -> None:
    await works.add_waiter(WORK, "0190-a")
    assert not await works.has_other_waiter(WORK, "0190-a")
    for _ in range(2):
        await works.add_waiter(WORK, "0190-b")
    assert await works.has_other_waiter(WORK, "0190-a")
    await works.release_waiters(WORK, "0190-b")
    assert [await works.has_other_waiter(WORK, reader) for reader in ("0190-a", "0190-c")] == [False, True]
    await works.add_waiter(WORK, "0190-b")  # its next attempt
    assert await works.has_other_waiter(WORK, "0190-a")

    async def has_ended(flow_run: str) -> bool:
        return flow_run == "0190-b"

    assert not await works.has_other_waiter(WORK, "0190-a", has_ended=has_ended)
    await works.add_waiter(WORK, "The Third")
    assert await works.has_other_waiter(WORK, "0190-a", has_ended=has_ended)


async def test_a_process_of_this_host_that_has_ended_waits_no_more(works: WorksJournal) -> None:
    for owner, waits in ((dead_owner(), False), (SOMEWHERE_ELSE, True)):
        await works.create(f"{WORK}-waiter-0190-b-{1 + waits}", waiting(owner))
        assert await works.has_other_waiter(WORK, "0190-a") == waits


async def test_the_scopes_outside_of_flows_are_listed(works: WorksJournal) -> None:
    for name in ("order-18", "order-17"):
        await works.notes_of(name).create("run-1", {})
    assert await asyncio.to_thread(works.scopes) == ["order-17", "order-18"]


START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def clocked() -> WorksJournal:
    ClockedFiles.now = START
    return WorksJournal(f"{ClockedFiles.protocol}://{uuid4().hex}")


def says(has_ended: bool) -> HasEnded:
    """What Prefect says of a run."""

    async def answer(_: str) -> bool:
        return has_ended

    return answer


HOUR = 3600.0


@pytest.mark.parametrize(
    ("minutes", "suspended", "has_ended", "waits"),
    [
        (14, None, no_evidence, True),
        (16, None, no_evidence, False),
        (1, None, says(True), False),
        (10_000, None, says(False), True),
        (70, HOUR, no_evidence, True),
        (80, HOUR, no_evidence, False),
        (80, HOUR, says(False), True),
        (1, HOUR, says(True), False),
    ],
)
async def test_a_run_that_prefect_cannot_be_asked_about_waits_until_it_was_silent_for_15_minutes(
    clocked: WorksJournal, minutes: float, suspended: float | None, has_ended: HasEnded, waits: bool
) -> None:
    if suspended is None:
        await clocked.create(f"{WORK}-waiter-0190-b-1", waiting())
    else:
        await clocked.add_waiter(WORK, "0190-b", suspended=suspended)
    ClockedFiles.now = START + timedelta(minutes=minutes)
    assert await clocked.has_other_waiter(WORK, "0190-a", has_ended=has_ended) is waits


async def test_a_waiter_of_another_process_is_released_only_with_the_whole_run(clocked: WorksJournal) -> None:
    await clocked.create(f"{WORK}-waiter-0190-b-1", waiting())
    await clocked.release_waiters(WORK, "0190-b", only=())
    assert await clocked.has_other_waiter(WORK, "0190-a"), "its process is on another host and may live"


async def test_a_run_that_wrote_a_moment_ago_waits_in_each_storage(works: WorksJournal) -> None:
    await works.check()
    await works.create(f"{WORK}-waiter-0190-b-1", waiting())
    assert await works.has_other_waiter(WORK, "0190-a")
    if Path(works.url).exists():  # a disk, whose times can be changed
        os.utime(f"{works.url}/works/{WORK}/waiter-0190-b-1.json", (time.time() - 16 * 60,) * 2)
        assert not await works.has_other_waiter(WORK, "0190-a")
    await works.sign_of_life("0190-b")
    assert await works.has_other_waiter(WORK, "0190-a")


@pytest.mark.parametrize("year", [2000, 2100])
async def test_a_run_is_silent_after_15_minutes_by_the_clock_of_the_storage(clocked: WorksJournal, year: int) -> None:
    ClockedFiles.now = datetime(year, 1, 1, tzinfo=UTC)
    await clocked.add_waiter(WORK, "0190-b")
    for _ in range(2):
        ClockedFiles.now += timedelta(minutes=15)
        assert await clocked.has_other_waiter(WORK, "0190-a")
        ClockedFiles.now += timedelta(microseconds=1)
        assert not await clocked.has_other_waiter(WORK, "0190-a")
        await clocked.sign_of_life("0190-b")


async def test_a_run_is_never_silent_if_the_storage_does_not_tell_when_it_began_to_wait(clocked: WorksJournal) -> None:
    ClockedFiles.now = None
    await clocked.add_waiter(WORK, "0190-b")
    assert await clocked.has_other_waiter(WORK, "0190-a")
    ClockedFiles.now = START
    await clocked.sign_of_life("0190-b")
    ClockedFiles.now += timedelta(minutes=16)
    assert await clocked.has_other_waiter(WORK, "0190-a")


@pytest.mark.virtual_time
async def test_a_run_writes_one_sign_of_life_a_minute_for_all_its_works_while_one_of_them_waits() -> None:
    """The record of its waiter is the first sign."""
    signs: list[tuple[str, int]] = []

    class Noted(WorksJournal):
        async def sign_of_life(self, flow_run: str) -> None:
            signs.append((flow_run, round(now())))
            if len(signs) == 1:
                raise JournalError("the place is away for a moment")

    works = Noted("/records")
    with signs_of_life(works, "a"):
        with signs_of_life(works, "a"), signs_of_life(works, "b"):
            await asyncio.sleep(90)
        await asyncio.sleep(60)
    await asyncio.sleep(600)
    assert signs == [("a", 60), ("b", 60), ("a", 120)]


async def test_a_new_take_is_the_least_that_was_never_submitted(works: WorksJournal, tmp_path: Path) -> None:
    base = "cd" * 20
    runs = [FolderJournal(str(tmp_path / "runs"), scope=name) for name in ("one", "two")]
    for take in (1, 2):
        await write(works, {"intent-1": intent()}, key=work_id(base, take))
    assert await choose_new_take(works, runs[0], base) == 3
    await write(works, {"intent-1": intent()}, key=work_id(base, 3))
    assert await choose_new_take(works, runs[0], base) == 3  # the resumed run
    assert await choose_new_take(works, runs[1], base) == 4


async def test_a_place_without_exclusive_creation_is_refused_before_payment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MediaStore(f"{TwoWriters.protocol}://{tmp_path}/store")
    with pytest.raises(NotExclusive, match=r"two processes could create the same record .* set RH_RECORDS"):
        await open_works(store, get_settings())
    monkeypatch.setenv("RH_STORAGE_URL", store.url)
    with pytest.raises(NotExclusive):
        await open_default_works()
    works = await open_works(store, Settings(records=str(tmp_path / "records")))
    assert works.url == str(tmp_path / "records")


async def test_a_process_looks_for_the_format_of_a_place_and_writes_it_once(tmp_path: Path) -> None:
    """After a failure it tries again."""
    new, known = tmp_path / "new", tmp_path / "known"
    new.touch()
    with pytest.raises(JournalError):
        await write(WorksJournal(str(new)), {"intent-1": intent()}, key=WORK)
    new.unlink()
    await write(WorksJournal(str(new)), {"intent-1": intent()}, key=WORK)
    await FolderJournal(str(known), scope=FOLDER).create(FORMAT_KEY, Format().model_dump(mode="json"))
    await WorksJournal(str(known)).check()
    for place in (new, known):
        (place / "works/format/1.json").unlink()
        await write(WorksJournal(str(place)), {"intent-2": intent()}, key=WORK)
        assert not (place / "works/format/1.json").exists()


def test_records_are_found_by_the_name_in_messages_of_which_each_place_has_one(tmp_path: Path) -> None:
    settings = Settings(storage_url=f"{tmp_path}/out", records=f"{tmp_path}/records")
    for url in (f"{tmp_path}/records", f"{tmp_path}/out"):
        found = find_works(WorksJournal(url).scope, settings)
        assert found is not None and found.url == url
    assert find_works("works-0", settings) is None
    names = {WorksJournal(url).scope for url in ("/a", "/b", "s3://user:secret@bucket/a")}
    assert len(names) == 3
    assert all(name.startswith("works-") for name in names)


def test_the_files_of_a_result_are_in_the_storage_that_it_names_and_beside_its_records(tmp_path: Path) -> None:
    """A store under another name than at the time of the payment has the files under its own."""
    store = MediaStore(tmp_path / "out")
    beside, elsewhere = WorksJournal(store.url), WorksJournal("/records")
    assert beside.is_in(result(), store)
    assert not elsewhere.is_in(result(), store)
    assert elsewhere.is_in(result().model_copy(update={"store": store.url}), store)


async def test_records_at_rh_records_are_opened_with_the_storage_options(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without RH_STORAGE_URL they were opened without a key, so no call with a storage block could use them."""
    monkeypatch.delenv("RH_STORAGE_URL", raising=False)
    monkeypatch.setenv("RH_RECORDS", s3.url("records"))
    monkeypatch.setenv("RH_STORAGE_OPTIONS", json.dumps(s3.options))
    works = await open_default_works(MediaStore(str(tmp_path)))
    assert await works.create("a-intent-1", {"one": 1})


async def test_all_calls_open_rh_records_with_the_same_options() -> None:
    """A pipeline and a named scope with one block had their records in two services, and each paid."""
    settings = Settings(records="memory://records", storage_options={"endpoint": "own"})
    block = MediaStore("memory://films", options={"endpoint": "of the block"})
    opened = [await open_works(block, settings), *(named_works(settings, at) for at in (block, None))]
    opened.append(default_works(settings, block))
    assert len({repr(works) for works in opened}) == 1
    elsewhere = options_of_records("memory://earlier", block, settings)
    assert elsewhere == {"endpoint": "of the block"}


async def test_records_lie_beside_the_files(s3: S3Server) -> None:
    store = MediaStore(s3.url("films"), options=s3.options)
    await write(await open_works(store, get_settings()), {"intent-1": intent()}, key=WORK)
    assert f"works/{WORK}/intent-1.json" in await asyncio.to_thread(store.list, "works")


def test_records_are_in_one_place_for_a_plan_and_the_run_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files for containers often set all variables, unused ones to an empty text."""
    monkeypatch.chdir(tmp_path)
    store = MediaStore(tmp_path / "out")
    places = [records_url(store, Settings(records=records)) for records in ("records", "", None)]
    assert places == [f"{tmp_path}/records", store.url, store.url]


async def test_records_in_a_folder_that_a_worker_deletes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run would find none of its works, and pay for all of them again."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(uuid4()))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="RH_RECORDS"):
        await open_works(MediaStore(tmp_path / "out"), Settings(records="records"))

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.errors import JournalError
from rh_prefect.media.store import MediaStore
from rh_prefect.settings import get_settings
from rh_prefect.works.accounts.pool import Pool
from rh_prefect.works.journal.journal import FolderJournal
from rh_prefect.works.journal.record_types import FORMAT, FORMAT_KEY, Format, Record, current_owner
from rh_prefect.works.journal.scope import (
    LOCAL_RUN,
    FolderScope,
    Opened,
    begin_attempt,
    end_run,
    find_scope,
    last_attempt,
    last_number,
    new_run,
    open_scope,
    read_run,
)
from rh_prefect.works.journal.works_journal import WorksJournal
from rh_prefect.works.manual_repair import recover
from rh_prefect.works.pool_services import PoolServices
from tests.support.world.job_records import dead_owner

RUN: Mapping[str, str] = {"flow_run": "night"}


def scope_of(journal: Any, details: Mapping[str, str] = RUN) -> Any:
    scope = FolderScope(journal)
    scope.details = details
    return scope


@pytest.fixture
def store(tmp_path: Path) -> MediaStore:
    return MediaStore(str(tmp_path / "out"))


@pytest.fixture
def journal(tmp_path: Path) -> Counting:
    return Counting(str(tmp_path / "journal"), scope="night")


class Counting(FolderJournal):
    reads = checks = 0

    async def check_cache(self) -> None:
        self.checks += 1

    async def names(self) -> AsyncIterator[str]:
        self.reads += 1
        async for key in super().names():
            yield key


async def test_an_empty_scope_is_read_once_in_an_attempt(journal: Counting, store: MediaStore) -> None:
    shared, scope = PoolServices(Pool(), settings=get_settings()), scope_of(journal)
    await shared.open(scope, store)
    await journal.create("a1-intent-1", {"token": "x"})
    await shared.open(scope, store)
    assert (journal.reads, journal.checks) == (1, 1), "what this process has cached of it may have been deleted"
    await shared.open(scope_of(journal), store)
    assert (journal.reads, journal.checks) == (2, 2), "a retry of the flow is another attempt"


@pytest.mark.parametrize("number", [1, FORMAT + 1])
async def test_a_scope_of_another_format_is_refused(journal: Counting, store: MediaStore, number: int) -> None:
    record = Format(format=number).model_dump(mode="json")
    await journal.create(FORMAT_KEY, record)
    with pytest.raises(JournalError, match="the version that started it"):
        await begin_attempt(scope_of(journal), store)


async def test_a_scope_with_jobs_and_without_a_format_is_refused(journal: Counting, store: MediaStore) -> None:
    await journal.create("a1-intent-1", {"token": "x"})
    with pytest.raises(JournalError, match=r"no record .* of their format.*jobs recover night"):
        await begin_attempt(scope_of(journal), store)
    assert await recover(journal, store) == []
    await begin_attempt(scope_of(journal), store)


async def test_a_run_whose_records_are_older_than_itself_pays_for_nothing(tmp_path: Path, store: MediaStore) -> None:
    """Prefect's database was restored from a backup; the store knows that the run had begun."""
    before, restored = (FolderJournal(str(tmp_path / name), scope="night") for name in ("lost", "restored"))
    await begin_attempt(scope_of(before), store)
    for _ in range(2):
        with pytest.raises(JournalError, match="rh-prefect jobs recover night"):
            await begin_attempt(scope_of(restored), store)
    other = FolderJournal(str(tmp_path / "restored"), scope="another")
    await begin_attempt(scope_of(other), store)
    await begin_attempt(scope_of(restored, {}), store)  # a named scope may begin again


async def test_a_run_that_is_found_has_the_pipeline_and_the_attempt_that_it_was_opened_with(tmp_path: Path) -> None:
    works = WorksJournal(str(tmp_path))
    for attempt in (1, 2):
        opened = Opened(owner=current_owner(), pipeline=f"film {attempt}").model_dump(mode="json")
        await works.notes_of("run-1").create(f"attempt-{attempt}", opened)
    found = [await find_scope(works, name) for name in ("run-1", "nothing-yet")]
    assert [(one.pipeline, one.flow, one.attempt, one.first_attempt) for one in found] == [
        ("film 2", "film 2", 2, 2),
        ("", "call", 1, 1),
    ]


async def test_attempts_are_numbered_without_gaps_however_many_open_a_scope_at_once(tmp_path: Path) -> None:
    works = WorksJournal(str(tmp_path))
    place = works.notes_of("nightly")
    assert await last_attempt(place) == 0
    opened = await asyncio.gather(*(open_scope(works, "nightly") for _ in range(21)))
    assert sorted(scope.attempt for scope in opened) == list(range(1, 22))
    assert await last_attempt(place) == 21
    assert [name async for name in place.names()] == []


@pytest.mark.parametrize(
    ("last", "reads"), [(0, [1]), (1, [1, 2]), (2, [1, 2, 4, 3]), (21, [1, 2, 4, 8, 16, 32, 24, 20, 22, 21])]
)
async def test_the_last_of_many_numbers_is_found_with_few_reads(last: int, reads: list[int]) -> None:
    asked: list[int] = []

    async def exists(number: int) -> bool:
        asked.append(number)
        assert len(asked) < 99, "it asks for ever"
        return 0 < number <= last

    assert (await last_number(exists), asked) == (last, reads)


def test_the_names_of_runs_sort_by_their_start_times(tmp_path: Path) -> None:
    names = []
    for _ in range(6):
        names.append(new_run(WorksJournal(str(tmp_path)), "film").journal.scope)
        time.sleep(0.002)
    assert names == sorted(filter(LOCAL_RUN.fullmatch, names))


async def test_the_records_of_a_run_say_how_it_stands(tmp_path: Path) -> None:
    works = WorksJournal(str(tmp_path))
    running = new_run(works, "film")
    assert (running.attempt, running.pipeline, running.flow, await running.works()) == (1, "film", "film", works)
    stopped = works.notes_of("run-1")
    await stopped.create("attempt-1", Opened(owner=dead_owner(), pipeline="film").model_dump(mode="json"))
    assert await read_run(works, "run-1") is None, "it has claimed no work"
    states = list[tuple[str, str, int]]()
    for journal in (running.journal, stopped):
        await journal.create("abc-claim-1", Record().model_dump(mode="json"))
    await stopped.create("def-claim-1", Record().model_dump(mode="json"))
    elsewhere = works.notes_of("run-2")
    owner = dead_owner().model_copy(update={"host": "elsewhere"})
    await elsewhere.create("attempt-1", Opened(owner=owner, pipeline="film").model_dump(mode="json"))
    await elsewhere.create("abc-claim-1", Record().model_dump(mode="json"))
    for name in (running.journal.scope, "run-1", "run-2"):
        found = await read_run(works, name)
        assert found is not None
        states.append((found.pipeline, found.state, found.jobs))
    assert states == [("film", "Running", 1), ("film", "Stopped", 2), ("film", "No end recorded", 1)]
    await end_run(running, "Completed")
    ended = await read_run(works, running.journal.scope)
    assert ended is not None and ended.state == "Completed"

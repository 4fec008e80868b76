"""The contract of every journal. A test module inherits the suite:

    class TestFolderJournal(JournalContract):
        @pytest.fixture
        def open_journal(self, tmp_path):
            return lambda scope: FolderJournal(str(tmp_path), scope=scope)

`open_journal(name)` opens the journal of a scope; the same name opens the same scope anew, as another process would.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from rh_prefect.works.journal.job_records_and_state import jobs_of
from rh_prefect.works.journal.journal import Journal, UnreadableRecord

OpenJournal = Callable[[str], Journal]
PAGE = 200
"""The longest page of any of the stores."""
SPECIAL_TEXTS = {
    "scripts": "灯塔 🗼 naïve \u200e",
    "control": 'quote " back \\ tab \t nul \0 percent %',
    "surrogate": "\ud83d without its other half",
    "long": "é" * 100_000,
}


def record(**facts: Any) -> dict[str, Any]:
    """A record as the driver writes it, with its own token."""
    return {"token": uuid.uuid4().hex, **facts}


async def listed(journal: Journal) -> list[str]:
    return list({name.partition("-")[0]: None async for name in journal.names()})


class JournalContract:
    """Inherit, and define the fixture `open_journal`."""

    @pytest.fixture
    def scope(self) -> str:
        return f"s{uuid.uuid4().hex[:8]}"

    @pytest.fixture
    def journal(self, open_journal: OpenJournal, scope: str) -> Journal:
        return open_journal(scope)

    @pytest.fixture
    def job(self) -> str:
        return uuid.uuid4().hex[:16]

    async def test_a_missing_record_is_none(self, journal: Journal, job: str) -> None:
        assert await journal.read(f"{job}-intent-1") is None
        assert await journal.job(job) == {}
        assert await listed(journal) == []
        assert [found async for found in journal.jobs()] == []

    async def test_a_record_is_never_overwritten_and_its_own_creation_is_known_by_its_token(
        self, journal: Journal, job: str
    ) -> None:
        mine = record(by="first")
        others = record(by="second"), {**mine, "token": "another"}
        won = [await journal.create(f"{job}-answer-1", one) for one in (mine, mine, *others)]
        assert won == [True, True, False, False]
        assert await journal.read(f"{job}-answer-1") == mine

    async def test_one_of_32_concurrent_creations_succeeds(
        self, open_journal: OpenJournal, scope: str, job: str
    ) -> None:
        records = [record(n=n) for n in range(32)]
        journals = [open_journal(scope) for _ in records]
        won = await asyncio.gather(*(j.create(f"{job}-intent-1", r) for j, r in zip(journals, records)))
        assert won.count(True) == 1
        assert await open_journal(scope).read(f"{job}-intent-1") == records[won.index(True)]

    async def test_creations_on_other_threads_and_loops_are_exclusive(
        self, open_journal: OpenJournal, scope: str, job: str
    ) -> None:
        journals = [open_journal(scope) for _ in range(4)]
        barrier = threading.Barrier(len(journals))

        def create(journal: Journal) -> bool:
            barrier.wait()
            return asyncio.run(journal.create(f"{job}-intent-1", record()))

        won = await asyncio.gather(*(asyncio.to_thread(create, journal) for journal in journals))
        assert won.count(True) == 1

    async def test_a_job_has_only_its_own_records(self, journal: Journal, job: str) -> None:
        mine = {f"{job}-{what}-{n}": record() for what in ("intent", "answer") for n in (1, 2, 10)}
        others = [f"{job}0-intent-1", f"{job[:-1]}-intent-1", f"media-{job}", "cancel-1"]
        for key, value in mine.items():
            await journal.create(key, value)
        for key in others:
            await journal.create(key, record())
        assert await journal.job(job) == mine

    async def test_scopes_are_separate(self, open_journal: OpenJournal, scope: str, job: str) -> None:
        other = open_journal(f"{scope}-other")
        assert await open_journal(scope).create(f"{job}-intent-1", record()) is True
        assert await other.read(f"{job}-intent-1") is None
        assert await listed(other) == []

    async def test_more_records_than_a_page_are_all_read(self, journal: Journal, job: str) -> None:
        keys = [f"{job}-intent-{n}" for n in range(1, PAGE + 32)]
        await asyncio.gather(*(journal.create(key, record()) for key in keys))
        assert sorted(await journal.job(job)) == sorted(keys)

    async def test_more_jobs_than_a_page_are_all_listed(self, journal: Journal, job: str) -> None:
        jobs = [f"{job}{n}" for n in range(PAGE + 1)]
        await asyncio.gather(*(journal.create(f"{each}-intent-1", record()) for each in jobs))
        assert sorted(await listed(journal)) == sorted(jobs)

    async def test_jobs_are_read_with_exactly_their_records(self, journal: Journal, job: str) -> None:
        written = {f"{job}{n}-{what}-1": record(n=n) for n in range(90) for what in ("intent", "answer", "end")}
        await asyncio.gather(*(journal.create(key, value) for key, value in written.items()))
        for key in (f"media-{job}", "cancel-1", "attempt-1", "format-1"):
            await journal.create(key, record())
        jobs = {
            job_key: {key: journal.decode(key, text) for key, text in texts.items()}
            async for job_key, texts in journal.jobs()
        }
        assert jobs == {each: await journal.job(each) for each in [f"{job}{n}" for n in range(90)]}
        assert {key: value for records in jobs.values() for key, value in records.items()} == written
        assert sorted([name async for name in journal.names()]) == sorted(written)

    async def test_a_damaged_job_hides_no_other_job(self, journal: Journal, job: str) -> None:
        damaged = {f"{job}{n}-result" for n in (3, 7)}
        for key in [*damaged, *(f"{job}{n}-answer-1" for n in (1, 2, 4, 5, 6, 8, 9))]:
            await journal.create(key, record())
        read = list[str]()
        with pytest.raises(UnreadableRecord) as error:
            async for view in jobs_of(journal):
                read.append(view.key)
        assert sorted(read) == [f"{job}{n}" for n in (1, 2, 4, 5, 6, 8, 9)]
        assert error.value.key in damaged
        assert all(journal.locate(key) in error.value.message for key in damaged)

    @pytest.mark.parametrize("text", SPECIAL_TEXTS.values(), ids=SPECIAL_TEXTS.keys())
    async def test_any_text_is_stored_unchanged(self, journal: Journal, job: str, text: str) -> None:
        written = record(prompt=text, payload={"seed": 7, "tags": ["x", None, True, 1.5]})
        await journal.create(f"{job}-intent-1", written)
        assert await journal.read(f"{job}-intent-1") == written
        assert await journal.job(job) == {f"{job}-intent-1": written}

    @pytest.mark.parametrize("key", ["Upper-intent-1", "under_score-1", "a/b-1", "", "plain", "-intent-1", "a--1"])
    async def test_a_key_that_is_invalid_in_any_journal_is_refused(self, journal: Journal, key: str) -> None:
        with pytest.raises(ValueError, match="journal key"):
            await journal.create(key, record())

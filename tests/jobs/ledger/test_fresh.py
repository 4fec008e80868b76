from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from rh_prefect.errors import JournalError
from rh_prefect.jobs.ledger.fresh import FreshScopes
from rh_prefect.jobs.ledger.journal import FolderJournal


class Counting(FolderJournal):
    asked = 0

    async def keys(self) -> AsyncIterator[str]:
        self.asked += 1
        async for key in super().keys():
            yield key


class Broken(FolderJournal):
    async def keys(self) -> AsyncIterator[str]:
        raise JournalError("no answer")
        yield ""


async def test_an_empty_scope_is_asked_once_and_stays_what_it_was(tmp_path: Path) -> None:
    fresh, journal = FreshScopes(), Counting(str(tmp_path), scope="night")
    assert await fresh.was_empty(journal)
    await journal.create("a1-intent-1", {"token": "x"})
    assert await fresh.was_empty(journal)
    assert journal.asked == 1


async def test_a_scope_with_a_record_is_not_empty(tmp_path: Path) -> None:
    journal = FolderJournal(str(tmp_path), scope="night")
    await journal.create("a1-intent-1", {"token": "x"})
    assert not await FreshScopes().was_empty(journal)


async def test_scopes_are_told_apart(tmp_path: Path) -> None:
    fresh, used = FreshScopes(), FolderJournal(str(tmp_path), scope="used")
    await used.create("a1-intent-1", {"token": "x"})
    assert not await fresh.was_empty(used)
    assert await fresh.was_empty(FolderJournal(str(tmp_path), scope="new"))


async def test_a_journal_that_does_not_answer_is_not_taken_for_empty(tmp_path: Path) -> None:
    assert not await FreshScopes().was_empty(Broken(str(tmp_path), scope="night"))

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextvars import ContextVar
from pathlib import Path

from rh_prefect.errors import ConfigError, JournalError
from rh_prefect.jobs.ledger.fresh import FreshScopes
from rh_prefect.jobs.ledger.journal import FolderJournal
from tests.support.memory_journal import MemoryJournal, MemoryPlace
from tests.support.reachable import count_of


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


class Failing(FolderJournal):
    """Fails at first, in a way that is not the journal's own."""

    failures = 2

    async def keys(self) -> AsyncIterator[str]:
        if self.failures:
            self.failures -= 1
            raise ConfigError("There is no Prefect API")
        async for key in super().keys():
            yield key


async def test_a_failure_of_any_kind_is_not_remembered(tmp_path: Path) -> None:
    """A25: a scope that could not be looked at is looked at again by the next job."""
    fresh, journal = FreshScopes(), Failing(str(tmp_path), scope="night")
    assert [await fresh.was_empty(journal) for _ in range(4)] == [False, False, True, True]


async def test_many_jobs_at_once_ask_once(tmp_path: Path) -> None:
    fresh, journal = FreshScopes(), Counting(str(tmp_path), scope="night")
    assert await asyncio.gather(*(fresh.was_empty(journal) for _ in range(20))) == [True] * 20
    assert journal.asked == 1


async def test_what_is_remembered_of_scopes_is_limited(tmp_path: Path) -> None:
    """A25: a process does not remember every scope that it has looked at."""
    fresh, place = FreshScopes(), MemoryPlace()

    async def look(scopes: range) -> int:
        for number in scopes:
            await fresh.was_empty(Named(place, f"night-{number}"))
        return count_of(fresh)

    few = await look(range(2000))
    assert await look(range(2000, 4000)) < 1.1 * few


class Named(MemoryJournal):
    """A journal that its description names."""

    def __repr__(self) -> str:
        return f"Named({self.scope!r})"


class Context:
    """What a context variable leads to, as to Prefect's flow run."""


_context: ContextVar[Context] = ContextVar("context")


async def test_the_context_of_the_first_caller_is_not_kept(tmp_path: Path) -> None:
    """A25: nothing of the flow run is kept in which a scope was first looked at."""
    fresh, journal = FreshScopes(), FolderJournal(str(tmp_path), scope="night")

    async def look() -> weakref.ref[Context]:
        _context.set(Context())
        await fresh.was_empty(journal)
        return weakref.ref(_context.get())

    context = await asyncio.create_task(look())
    await asyncio.sleep(0)
    gc.collect()
    assert context() is None
    assert await fresh.was_empty(journal)

"""An in-memory journal for tests in virtual time: a folder and a server need threads, sockets and real time."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from rh_prefect.works.journal.journal import JSON, Journal, StoredText, by_job, check_key


class MemoryPlace:
    """Where journals lie: what all processes of a test share. Records are kept as text, as in any other place."""

    def __init__(self) -> None:
        self._scopes: defaultdict[str, dict[str, str]] = defaultdict(dict)

    def texts(self, scope: str) -> dict[str, str]:
        """All records as they lie there, by key."""
        return self._scopes[scope].copy()


class MemoryJournal(Journal):
    """One scope of a place; see `rh_prefect.works.journal.journal.Journal`."""

    def __init__(self, place: MemoryPlace, scope: str) -> None:
        self.place = place
        self.scope = scope

    async def create(self, key: str, record: Mapping[str, Any]) -> bool:
        text = json.dumps(record)
        there = self.place._scopes[self.scope].setdefault(check_key(key), text)
        return there is text or json.loads(there).get("token") == record["token"]

    async def read(self, key: str) -> JSON | None:
        text = self.place._scopes[self.scope].get(check_key(key))
        return None if text is None else self.decode(key, text)

    async def job(self, job_key: str) -> dict[str, JSON]:
        texts = self.place.texts(self.scope).items()
        return {key: self.decode(key, text) for key, text in texts if key.startswith(f"{job_key}-")}

    async def jobs(self) -> AsyncIterator[tuple[str, dict[str, StoredText]]]:
        texts: dict[str, StoredText] = {**self.place.texts(self.scope)}
        for job in by_job(texts).items():
            yield job


class FiniteJournal(MemoryJournal):
    """A scope that ends what reads it for ever, which would wait for nothing; a test can act before its operations."""

    LIMIT = 5000
    reads = 0
    before_create: Callable[[str, Mapping[str, Any]], Awaitable[object]] | None = None
    before_read: Callable[[str], Awaitable[object]] | None = None

    async def create(self, key: str, record: Mapping[str, Any]) -> bool:
        if self.before_create is not None:
            await self.before_create(key, record)
        return await super().create(key, record)

    async def read(self, key: str) -> JSON | None:
        self._count()
        if self.before_read is not None:
            await self.before_read(key)
        return await super().read(key)

    async def job(self, job_key: str) -> dict[str, JSON]:
        self._count()
        return await super().job(job_key)

    def _count(self) -> None:
        self.reads += 1
        assert self.reads <= self.LIMIT, "the records are read for ever"

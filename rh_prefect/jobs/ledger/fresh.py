"""Scopes in which nothing is recorded yet: their jobs need not be looked up one by one before they are begun."""

from __future__ import annotations

import asyncio

from rh_prefect.errors import JournalError
from rh_prefect.jobs.ledger.journal import Journal


class FreshScopes:
    """Remembers which scopes were empty when this process came to them.

    What another process records there later does no harm: to claim a job is exclusive, and who comes second reads it.
    """

    def __init__(self) -> None:
        """Starts with nothing known."""
        self._looks: dict[str, asyncio.Task[bool]] = {}

    async def was_empty(self, journal: Journal) -> bool:
        """Tells whether a scope had no record when this process first asked; asks the journal once."""
        look = self._looks.get(journal.scope)
        if look is None:
            look = self._looks[journal.scope] = asyncio.ensure_future(_is_empty(journal))
        return await asyncio.shield(look)


async def _is_empty(journal: Journal) -> bool:
    try:
        async for _ in journal.keys():
            return False
    except JournalError:
        return False  # The job's own look will say what is wrong.
    return True

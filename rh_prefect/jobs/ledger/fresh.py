"""Scopes in which nothing is recorded yet: their jobs need not be looked up one by one before they are begun."""

from __future__ import annotations

from rh_prefect.cache import SingleFlight
from rh_prefect.jobs.ledger.journal import Journal

_KEPT = 1000
"""Of how many scopes one process remembers whether they were empty; one that was dropped is asked again."""


class FreshScopes:
    """Remembers which scopes were empty when this process came to them.

    What another process records there later does no harm: to claim a job is exclusive, and who comes second reads it.
    """

    def __init__(self) -> None:
        """Starts with nothing known."""
        self._were_empty: SingleFlight[str, bool] = SingleFlight(_KEPT)

    async def was_empty(self, journal: Journal) -> bool:
        """Tells whether a scope had no record when this process first asked; asks the journal once.

        Args:
            journal: The scope's records. While it does not answer, the scope counts as not empty, and each call asks
                again: the job's own look says what is wrong.
        """
        try:
            return await self._were_empty.get(repr(journal), lambda: _is_empty(journal))
        except Exception:  # whatever it is, the job's own look meets it too
            return False


async def _is_empty(journal: Journal) -> bool:
    async for _ in journal.keys():
        return False
    return True

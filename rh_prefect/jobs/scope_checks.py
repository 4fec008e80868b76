"""What is checked once when a process comes to a scope: its format, and that its records are not older than the run."""

from __future__ import annotations

import asyncio
import json

from rh_prefect.errors import JournalError
from rh_prefect.jobs.journal.journal import Journal
from rh_prefect.jobs.journal.records import FORMAT, FORMAT_KEY, Format
from rh_prefect.jobs.journal.scope import Scope
from rh_prefect.media.store import MediaStore
from rh_prefect.memory_cache import SingleFlight

_KEPT = 1000
"""Of how many scopes one process remembers whether they were empty; one that was dropped is asked again."""


class OpenScopes:
    """The scopes that this process has come to."""

    def __init__(self) -> None:
        """Starts with none."""
        self._were_empty: SingleFlight[tuple[str, str, int], bool] = SingleFlight(_KEPT)

    async def open(self, scope: Scope, store: MediaStore) -> bool:
        """Checks a scope before the first job of an attempt; asks the journal and the store once.

        What another process records there later does no harm: to claim a job is exclusive, and who comes second reads
        it.

        Args:
            scope: The run.
            store: Where its outputs go.

        Returns:
            Whether it had no job when this attempt came to it.

        Raises:
            JournalError: It was written in another format; it is older than its run, as after a database was restored
                from a backup; or it cannot be read.
            StoreError: The store cannot be read or written.
        """
        # A later attempt in this process finds what the ones before it have recorded.
        name = (repr(scope.journal), store.url, scope.calls.number)
        return await self._were_empty.get(name, lambda: _open(scope, store))


async def _open(scope: Scope, store: MediaStore) -> bool:
    journal = scope.journal
    was_empty = await is_empty(journal)
    record = await journal.read(FORMAT_KEY)
    if record is None and was_empty:
        await _begin(scope, store)
    elif record is None or Format.model_validate(record).format != FORMAT:
        raise JournalError(
            f"The jobs of {journal.scope} are recorded in another format than {FORMAT}, which this version of "
            "rh_prefect writes. Nothing was paid. What to do: finish this run with the version that began it, or start "
            "a new run."
        )
    return was_empty


async def _begin(scope: Scope, store: MediaStore) -> None:
    """Records the format, and in the store that the run has begun: a journal that is older than that lacks jobs."""
    journal, marker = scope.journal, f"runs/{scope.journal.scope}.json"
    # A named scope outside of flows may be deleted by its owner, to begin it again.
    is_flow_run = "flow_run" in scope.details
    if is_flow_run and await asyncio.to_thread(store.exists, marker) and await journal.read(FORMAT_KEY) is None:
        raise _is_restored(journal, store, marker)
    await begin_scope(journal)
    if is_flow_run:
        text = json.dumps({**scope.details, "format": FORMAT})
        await asyncio.to_thread(store.write_bytes, marker, text.encode())


async def begin_scope(journal: Journal) -> None:
    """Records the format of a scope, as its first record.

    Args:
        journal: The scope's records.
    """
    await journal.create(FORMAT_KEY, Format().model_dump(mode="json"))


async def is_empty(journal: Journal) -> bool:
    """Whether a scope has no job."""
    async for _ in journal.keys():
        return False
    return True


def _is_restored(journal: Journal, store: MediaStore, marker: str) -> JournalError:
    return JournalError(
        f"The flow run {journal.scope} has begun to pay for jobs, as {store.uri(marker)} says, and no job of it is "
        "recorded: its records are older than the run, as after Prefect's database was restored from a backup. Nothing "
        f"was paid now. What to do: rh-prefect jobs recover {journal.scope}, which records again what the manifests in "
        "the store contain; then run it again."
    )

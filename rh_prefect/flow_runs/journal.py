"""`FlowRunJournal`: the records of a flow run's paid jobs, stored as inputs of that flow run in the Prefect API.

Prefect creates an input atomically (a second one with the same key gets a 409). Every worker and hook can read it,
even after kill -9 and in every final state. If the flow run is deleted, its journal is deleted too.

The inputs `rh-log-<number>` are the entries of a `RecordLog`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final
from uuid import UUID
from weakref import WeakKeyDictionary

from rh_prefect.bounded_caches_and_locks import UsedObjects
from rh_prefect.errors import JournalError
from rh_prefect.flow_runs import task_end_events
from rh_prefect.flow_runs.append_only_log import RecordLog
from rh_prefect.flow_runs.log_entry_storage import FlowRunInputs
from rh_prefect.prefect_api import PATIENCE, connection_key, disconnect
from rh_prefect.works.accounts.poller import Poller
from rh_prefect.works.journal.journal import JSON, Journal, StoredText, check_key
from rh_prefect.works.loop_thread import LOOP

_CACHE_SIZE: Final = 64
_CACHE_CHARACTERS: Final = 64 * 1024 * 1024
"""Maximum number of characters in all cached logs of one event loop, except logs that a journal uses."""

# The package's own loop keeps a connection to the Prefect API; it is closed with the loop.
LOOP.on_close(disconnect)

_LogKey = tuple[str, int, str, float]
_logs: WeakKeyDictionary[asyncio.AbstractEventLoop, UsedObjects[_LogKey, RecordLog]] = WeakKeyDictionary()


class FlowRunJournal(Journal):
    """A journal in the inputs of one flow run; see `rh_prefect.works.journal.journal.Journal`.

    The journal works on any event loop, with the Prefect API in the caller's settings. All journals of a flow run on
    one loop share one log.
    """

    notifies = True

    def __init__(self, flow_run_id: UUID | str, *, patience: float = PATIENCE) -> None:
        """Opens the journal of a root flow run; sends no request.

        If the API does not respond, a call is repeated for `patience` seconds. Prefect's client also repeats requests
        for up to a minute, so a call may take longer.
        """
        self._inputs = FlowRunInputs(UUID(str(flow_run_id)), patience)
        self.scope = self._inputs.scope
        self._used: RecordLog | None = None  # keeps the log while the journal is used

    def __repr__(self) -> str:
        return f"FlowRunJournal({self.scope!r})"

    async def create(self, key: str, record: Mapping[str, Any]) -> bool:
        """Creates a record exclusively; see `Journal.create`."""
        text = json.dumps(record, allow_nan=False)
        return await self._log().create(check_key(key), text, record["token"])

    async def read(self, key: str) -> JSON | None:
        """Reads one record; see `Journal.read`."""
        log = self._log()
        if check_key(key) not in log.records.texts:  # an existing record never changes
            await log.read()
        text = log.records.texts.get(key)
        return None if text is None else self.decode(key, text)

    def is_absent(self, key: str, *, max_age: float) -> bool:
        """Returns whether a record was absent at the last read; see `Journal.is_absent`."""
        log = self._log()
        return log.is_current(max_age) and key not in log.records.texts

    async def check_cache(self) -> None:
        """Raises an error if cached records were deleted; see `Journal.check_cache`."""
        number = await self._log().missing()
        if number is not None:
            raise JournalError(
                f"Entry {number} of the journal of flow run {self.scope} no longer exists, although this process has "
                "read it: inputs of the flow run, in which Prefect keeps the journal, were deleted. Nothing was paid "
                "in this attempt. What to do: for a pipeline, start a new run, in which existing results cost nothing. "
                f"For any other flow, run `rh-prefect jobs recover {self.scope}`, which restores the records from the "
                "results in the storage, restart this process, and retry the flow run."
            )

    async def job(self, job_key: str) -> dict[str, JSON]:
        """Reads all records of one job; see `Journal.job`."""
        return {key: self.decode(key, text) for key, text in (await self._log().read()).job(job_key).items()}

    async def names(self) -> AsyncIterator[str]:
        """Lists the keys of the records of all jobs; see `Journal.names`."""
        for name in (await self._log().read()).names():
            yield name

    async def jobs(self) -> AsyncIterator[tuple[str, dict[str, StoredText]]]:
        """Reads the records of all jobs; see `Journal.jobs`."""
        records = await self._log().read()
        for name in records.jobs():
            yield name, dict(records.job(name))

    async def notify_of_ends(self, poller: Poller) -> None:
        """Registers a poller for the ends of tasks; see `Journal.notify_of_ends`."""
        task_end_events.subscribe(poller)

    def _log(self) -> RecordLog:
        """Returns this event loop's log of the flow run; all journals of the run on the loop share it."""
        logs = _logs.setdefault(asyncio.get_running_loop(), UsedObjects(_CACHE_SIZE))
        key = (*connection_key(), self.scope, self._inputs.patience)
        log = logs.get(key)
        if log is None:
            _make_room(logs)
            log = logs[key] = RecordLog(self._inputs)
        self._used = log
        return log


def _make_room(logs: UsedObjects[_LogKey, RecordLog]) -> None:
    """Drops the least recently used logs while all logs together are too large; a log in use is found again."""
    sizes = {key: log.records.size for key, log in logs.items()}
    total = sum(sizes.values())
    for key, size in sizes.items():
        if total <= _CACHE_CHARACTERS:
            break
        logs.pop(key)
        total -= size

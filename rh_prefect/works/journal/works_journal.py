"""Reads and writes the records of works, beside their files or at RH_RECORDS.

    works = await open_works(store, settings)
    result = await JobRecords(works, work_id(request.base, 1)).read_result()

A work's submissions are read by number and its result by name. Only commands list records.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import count
from typing import Any, TypeAlias

from rh_prefect.bounded_caches_and_locks import LruSet, SharedTasks
from rh_prefect.errors import RunningHubError
from rh_prefect.media.storage_urls import protocol_of, shown_url
from rh_prefect.media.store import MediaStore, lasting_location
from rh_prefect.settings import Settings, get_settings
from rh_prefect.works.journal.identity import text_hash, work_id
from rh_prefect.works.journal.job_records_and_state import KINDS
from rh_prefect.works.journal.journal import (
    JSON,
    FolderJournal,
    Journal,
    UnreadableRecord,
    folder_scopes,
)
from rh_prefect.works.journal.record_types import (
    FORMAT,
    FORMAT_KEY,
    Format,
    Owner,
    Record,
    ResultRecord,
    current_owner,
    is_surely_dead,
)
from rh_prefect.works.journal.scope import last_number

FOLDER = "works"
"""The folder of all works, in the storage of the records."""

ROUNDS = "rounds"
"""The folder of all rounds, beside `works`."""

FILES = "pipelines"
"""The folder of files that are named by their content, in a storage."""

HasEnded: TypeAlias = Callable[[str], Awaitable[bool | None]]
"""Returns whether a flow run has ended; None if that is not known."""

SCOPES = "scopes"
"""The folder of the notes of scopes outside of flows, beside `works`."""

SIGNS = "runs"
"""The folder of the files by which runs show that they are alive."""

SILENT_AFTER = timedelta(minutes=15)
"""Time after its last sign of life at which a run is regarded as ended, if Prefect cannot be asked about it."""

_known: LruSet[str] = LruSet(1000)
"""The locations whose format this process has checked or recorded."""


async def no_evidence(_flow_run: str) -> bool | None:
    """Returns None, which means that it is not known whether a flow run has ended."""
    return None


class Waiting(Record):
    """The record of a flow run that waits for a work or may pay for it."""

    flow_run: str
    owner: Owner | None = None  # Its process; None for a suspended run, which has none
    seconds: float  # Seconds after this record for which a suspended run counts as waiting


class Chosen(Record):
    """The record of the take that a run has chosen for a new result of a request."""

    take: int  # The number of the take


class WorksJournal(FolderJournal):
    """The records of works that runs share; the attribute `rounds` is the journal of rounds beside these records."""

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(url, scope=FOLDER, options=options)
        self.rounds = FolderJournal(url, scope=ROUNDS, options=options)
        self._signs = FolderJournal(url, scope=SIGNS, options=options)
        self._scopes_at = f"{url.rstrip('/')}/{SCOPES}"
        # A machine's spool and a process's running jobs distinguish storages by this name only.
        self.scope = f"{FOLDER}-{text_hash(self.url, 8)}"

    def __repr__(self) -> str:
        return f"WorksJournal({super().__repr__()})"

    async def check(self) -> None:
        """Raises an error if records cannot be created exclusively here, or have another format."""
        await super().check()
        record = None if repr(self) in _known else await self.read_as(FORMAT_KEY, Format)
        if record is None:
            return
        if record.format != FORMAT:
            raise UnreadableRecord(
                f"The records of jobs that runs share at {self.url} have the format {record.format}, but this version "
                f"of rh_prefect uses the format {FORMAT}. Nothing was paid. What to do: use the version that wrote "
                "these records, or set RH_RECORDS to another place, in which all jobs are paid for again."
            )
        _known.add(repr(self))

    async def place_id(self) -> str:
        """Returns the id of this place: the token of its format record, which it creates if that is missing."""
        record = await self.read_as(FORMAT_KEY, Format) or await self.ensure(FORMAT_KEY, Format())
        return record.token

    def notes_of(self, scope: str, *, first: Mapping[str, Record] | None = None) -> FolderJournal:
        """Opens the journal of a scope outside of flows, for its notes about attempts and claims."""
        return FolderJournal(self._scopes_at, scope=scope, options=self._options, first=first)

    def scopes(self) -> list[str]:
        """Returns the names of the scopes outside of flows that have notes here; blocks."""
        return folder_scopes(self._scopes_at, options=self._options)

    async def create(self, key: str, record: Mapping[str, Any]) -> bool:
        """Creates a record exclusively, after the format record if that is missing; see `Journal.create`."""
        if repr(self) not in _known:
            await super().create(FORMAT_KEY, Format().model_dump(mode="json"))
            _known.add(repr(self))
        return await super().create(key, record)

    async def job(self, job_key: str) -> dict[str, JSON]:
        """Reads the submissions of a work by number, without a listing."""
        found: dict[str, JSON] = {}
        for n in count(1):
            if not (records := await self.numbered(job_key, n)):
                break
            found |= records
        return found

    async def numbered(self, job_key: str, n: int) -> dict[str, JSON]:
        """Returns the records of submission n as a mapping from full key to record; empty without intent n."""
        intent = await self.read(f"{job_key}-intent-{n}")
        if intent is None:
            return {}
        keys = [f"{job_key}-{kind}-{n}" for kind in KINDS if kind != "intent"]
        found = dict(zip(keys, await asyncio.gather(*map(self.read, keys))))
        return {f"{job_key}-intent-{n}": intent, **{key: record for key, record in found.items() if record is not None}}

    async def read_results(self, keys: Iterable[str]) -> dict[str, ResultRecord]:
        """Reads the results of many works at once."""
        return {key: self.parse(key, ResultRecord, record) for key, record in (await self.read_many(keys)).items()}

    def is_in(self, result: ResultRecord, store: MediaStore) -> bool:
        """Returns whether the files of a result are in a store.

        If the store has the records, it also has the files, even if the result names the store by an earlier URL.
        """
        return result.store == store.url or self.url == shown_url(store.url)

    async def add_waiter(self, work: str, flow_run: str, *, suspended: float | None = None) -> str:
        """Records that a flow run waits for a work, so that other runs do not cancel the work's task.

        A suspended run has no process; it waits for `suspended` seconds. Returns the name of the waiter.
        """
        owner = current_owner() if suspended is None else None
        waiting = Waiting(flow_run=flow_run, owner=owner, seconds=suspended or 0).model_dump(mode="json")
        # Each attempt is a separate waiter: the one before may have been released.
        for number in count(1):
            name = f"{run_name(flow_run)}-{number}"
            if await self.create(f"{work}-waiter-{name}", waiting):
                break
        return name

    async def release_waiters(self, work: str, flow_run: str, *, only: Collection[str] | None = None) -> None:
        """Records that a flow run no longer waits for a work.

        `only` names the waiters that have ended; waiters of earlier processes of the run are also released. Without
        `only`, the whole run has ended.
        """
        for name, waiting in (await self._waiters(work)).items():
            is_over = only is None or name in only or waiting.owner is None or is_surely_dead(waiting.owner)
            if waiting.flow_run == flow_run and is_over:
                await self.create(f"{work}-released-{name}", Record().model_dump(mode="json"))

    async def has_other_waiter(self, work: str, flow_run: str, *, has_ended: HasEnded = no_evidence) -> bool:
        """Returns whether another flow run still waits for a work.

        A run no longer waits if `has_ended` says so, or if its process has certainly ended. If neither is known, the
        run no longer waits after 15 minutes without a sign of life.
        """
        others: dict[str, dict[str, Waiting]] = {}
        for name, one in (await self._waiters(work)).items():
            if one.flow_run != flow_run and not (one.owner and is_surely_dead(one.owner)):
                others.setdefault(one.flow_run, {})[name] = one
        for other, waiters in others.items():
            is_over = await has_ended(other)
            if is_over is None:
                times = [await self.time_of(f"{work}-waiter-{name}") for name in waiters]
                seconds = [timedelta(seconds=one.seconds) for one in waiters.values()]
                begun = [None if when is None else when + more for when, more in zip(times, seconds)]
                is_over = await self.is_silent(other, begun, reader=flow_run)
            if not is_over:
                return True
        return False

    async def sign_of_life(self, flow_run: str) -> None:
        """Writes the file that shows that a flow run is alive."""
        await self._signs.sign(f"{run_name(flow_run)}-alive", flow_run)

    async def alive_at(self, flow_run: str) -> datetime | None:
        """Returns when a run gave its last sign of life, by the storage's clock; None if that is not known."""
        return await self._signs.time_of(f"{run_name(flow_run)}-alive")

    async def is_silent(self, run: str, begun: Sequence[datetime | None], *, reader: str) -> bool:
        """Returns whether the last sign of life of a run is too old.

        The storage's clock is used, because the clocks of two machines may differ; the reader writes a file to get the
        present time. If a storage has no modification times, the result is False.
        """
        own = f"{run_name(reader)}-reads"
        await self._signs.sign(own, reader)
        now, alive = await self._signs.time_of(own), await self.alive_at(run)
        known = [when for when in begun if when is not None]
        if now is None or len(known) < len(begun):
            return False
        return now - max(known if alive is None else [*known, alive]) > SILENT_AFTER

    async def _waiters(self, work: str) -> dict[str, Waiting]:
        """Returns the waiters that have not been released, by the last part of each waiter's key."""
        records, begin = await super().job(work), f"{work}-waiter-"
        waiting = {key.removeprefix(begin): one for key, one in records.items() if key.startswith(begin)}
        return {
            name: self.parse(f"{begin}{name}", Waiting, one)
            for name, one in waiting.items()
            if f"{work}-released-{name}" not in records
        }


def run_name(flow_run: str) -> str:
    """Returns the name of a run as a part of a record's key."""
    if re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", flow_run):
        return flow_run
    return text_hash(flow_run, 24)


def records_url(store: MediaStore, settings: Settings) -> str:
    """Returns the URL of the records of works: RH_RECORDS, or the storage."""
    return (lasting_location(settings.records) if settings.records else store.url).rstrip("/")


def options_of_records(url: str, store: MediaStore | None, settings: Settings) -> Mapping[str, Any]:
    """Returns the options that open records: RH_STORAGE_OPTIONS for RH_RECORDS, otherwise those of `store`.

    RH_STORAGE_OPTIONS are for the kind of RH_STORAGE_URL or, if that is a folder, of RH_RECORDS. They come first for
    RH_RECORDS: with the options of a block, one URL would be another service for each call, and both would pay.
    """
    kind = protocol_of(settings.storage_url)
    if kind == "file" and settings.records:
        kind = protocol_of(settings.records)
    own = settings.storage_options if kind == protocol_of(url) else {}
    if own and settings.records and url == lasting_location(settings.records).rstrip("/"):
        return own
    return store.options_for(url) if store is not None and store.protocol == protocol_of(url) else own


async def open_works(store: MediaStore, settings: Settings) -> WorksJournal:
    """Opens the records of works, and checks whether they can be created exclusively."""
    works = _works_of(store, settings)
    await works.check()
    return works


def default_works(settings: Settings, store: MediaStore | None = None) -> WorksJournal:
    """Opens the records of named scopes and `reuse="always"`: at RH_RECORDS, else RH_STORAGE_URL.

    If neither is set, the records are in `store`, the storage of the call: the current folder may be another one on
    another machine, which would pay again and overwrite the file.
    """
    if settings.records:
        url = lasting_location(settings.records).rstrip("/")
        return WorksJournal(url, options=options_of_records(url, None, settings))
    if store is None or "storage_url" in settings.model_fields_set:
        store = MediaStore(lasting_location(settings.storage_url), options=settings.storage_options)
    return _works_of(store, settings)


def named_works(settings: Settings, store: MediaStore | None) -> WorksJournal:
    """Opens the records for a command: at RH_RECORDS, else in the storage that the command names, if it names one."""
    return default_works(settings) if store is None else _works_of(store, settings)


def _works_of(store: MediaStore, settings: Settings) -> WorksJournal:
    url = records_url(store, settings)
    return WorksJournal(url, options=options_of_records(url, store, settings))


async def open_default_works(store: MediaStore | None = None) -> WorksJournal:
    """Opens the records as `default_works` does, and checks whether they can be created exclusively."""
    works = default_works(get_settings(), store)
    await works.check()
    return works


def find_works(scope: str, settings: Settings, store: MediaStore | None = None) -> WorksJournal | None:
    """Opens the records of works whose `scope` messages show; None if no known location has this name.

    The known locations are those of the settings and, if it is given, `store`.
    """
    beside_storage = settings.model_copy(update={"records": None})
    places = (named_works(one, at) for at in dict.fromkeys((store, None)) for one in (settings, beside_storage))
    return next((works for works in places if works.scope == scope), None)


async def choose_new_take(works: WorksJournal, run: Journal, base: str, scope: str = "") -> int:
    """Returns a take of a request for which nothing was submitted, and records the take for resumed runs."""
    key = f"{work_id(base, 0, scope)}-take-1"
    noted = await run.read_as(key, Chosen)
    if noted is None:
        noted = await run.ensure(key, Chosen(take=await next_take(works, base, scope)))
    return noted.take


async def next_take(works: WorksJournal, base: str, scope: str = "") -> int:
    """Returns the take after the last submitted take of a request; the number of reads is logarithmic."""

    async def is_submitted(take: int) -> bool:
        return await works.read(f"{work_id(base, take, scope)}-intent-1") is not None

    return 1 + await last_number(is_submitted)


EVERY = 60.0
"""Seconds between two signs of life; the record of the waiter is the first one."""

_log = logging.getLogger("rh_prefect")


_writers: SharedTasks[tuple[asyncio.AbstractEventLoop, str, str], None] = SharedTasks()


@contextmanager
def signs_of_life(works: WorksJournal, flow_run: str) -> Iterator[None]:
    """Writes signs of life during a `with` block, to one file for all works of a run.

    The writes are made on the package's loop thread, so that they continue while the flow's own thread computes.
    """
    # By loop, because a forked child has another loop, in which the tasks of its parent do not run.
    key = (asyncio.get_running_loop(), flow_run, repr(works))
    writing = _writers.run(key, lambda: _write(works, flow_run))
    needs_it = asyncio.ensure_future(writing)
    try:
        yield
    finally:
        needs_it.cancel()


async def _write(works: WorksJournal, flow_run: str) -> None:
    while True:
        await asyncio.sleep(EVERY)
        try:
            await works.sign_of_life(flow_run)
        except RunningHubError as error:
            _log.info("flow run %s: its sign of life was not written: %s", flow_run, error)

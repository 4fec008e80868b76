"""For a plan, reads a store's recorded works and edits, and caches results on this machine; pays nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from rh_prefect.local_files import create, make_folder
from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.parsed_answers import fits_shape
from rh_prefect.pipelines.plan.planned_steps import KnownWork, KnownWorks, Round, WorkQuery
from rh_prefect.pipelines.rounds_across_runs import COMMAND_LINE, Rounds
from rh_prefect.pipelines.stored_edits import EditResult, EditResults, open_edits
from rh_prefect.settings import Settings
from rh_prefect.works import stored_result
from rh_prefect.works.journal.costs_and_budget import charges_of
from rh_prefect.works.journal.job_records_and_state import JobView, Submit, result_key
from rh_prefect.works.journal.journal import Journal
from rh_prefect.works.journal.record_types import ResultRecord, is_surely_dead
from rh_prefect.works.journal.works_journal import (
    FILES,
    FOLDER,
    WorksJournal,
    choose_new_take,
    next_take,
    options_of_records,
    records_url,
)
from rh_prefect.works.loop_thread import LOOP

T = TypeVar("T")

MOST_CACHED = 200_000
"""Maximum number of cached results, about 1 kB each; the oldest are deleted first."""

_TABLE = "CREATE TABLE IF NOT EXISTS results (place TEXT, key TEXT, record TEXT, UNIQUE (place, key))"
_DELETE_OLDEST = "DELETE FROM results WHERE rowid <= (SELECT max(rowid) FROM results) - ?"
_log = logging.getLogger("rh_prefect")


class ResultCache:
    """The cached results, in one SQLite file. A recorded result never changes, but its record can be deleted.

    `StoredWorks` uses a cached result only while its files exist; results without files are not cached. If the SQLite
    file cannot be used, the records are read, which only takes longer.
    """

    def __init__(self, path: Path, place: str, *, most: int = MOST_CACHED) -> None:
        self._path = path
        self._place = place
        self._most = most

    def read(self, keys: Sequence[str]) -> dict[str, ResultRecord]:
        """Returns the results in the cache, by key."""

        def read(database: sqlite3.Connection) -> list[tuple[str, str]]:
            query = "SELECT key, record FROM results WHERE place = ? AND key IN (SELECT value FROM json_each(?))"
            return database.execute(query, (self._place, json.dumps(keys))).fetchall()

        found: dict[str, ResultRecord] = {}
        for key, record in self._use(read) or ():
            with suppress(ValidationError):  # another version wrote it
                found[key] = ResultRecord.model_validate_json(record)
        return found

    def write(self, results: Mapping[str, ResultRecord]) -> None:
        """Adds results to the cache."""
        rows = [(self._place, key, result.model_dump_json()) for key, result in results.items()]

        def write(database: sqlite3.Connection) -> None:
            with database:
                database.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?)", rows)
                database.execute(_DELETE_OLDEST, (self._most,))

        if rows:
            self._use(write)

    def _use(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        try:
            make_folder(self._path.parent)
            with suppress(FileExistsError):
                create(self._path).close()  # SQLite itself would let other users read it
            with closing(sqlite3.connect(self._path)) as database:
                database.execute(_TABLE)
                return work(database)
        except (sqlite3.Error, OSError) as error:
            _log.info("%s cannot be used, which only causes a delay: %s", self._path, error)
            return None


_AT_ONCE = 32


class StoredWorks(KnownWorks):
    """Reads recorded works in a store; see `planned_steps.KnownWorks`.

    Each result is read once, in parallel with others, unless this machine has a copy of the record. Submissions are
    read only for works without a result. One listing shows which result files exist; no payment depends on it. A
    copy counts only if the listing contains its files, so missing files are noticed.
    """

    def __init__(
        self,
        works: WorksJournal,
        edits: EditResults,
        store: MediaStore,
        *,
        rounds: Rounds,
        cache: ResultCache | None = None,
        run: Journal | None = None,
    ) -> None:
        self._rounds = rounds
        self._run = run
        self._cache = cache
        self._works = works
        self._edits = edits
        self._store = store
        self._sizes: dict[str, int] | None = None
        self._gate = asyncio.Semaphore(_AT_ONCE)

    @property
    def url(self) -> str:
        """The location of the records, without secrets."""
        return self._works.url

    async def find(self, queries: Sequence[WorkQuery]) -> Sequence[KnownWork | None]:
        """Looks up works; the result is None for a work without records."""
        keys = {query: result_key(query.work, query.shape) for query in queries if not query.is_edit}
        results = await self._results(list(keys.values()))
        edits = await self._edits.read_many({query.work: None for query in queries if query.is_edit})
        again, sizes = await self._downloaded_again(results) if results else ({}, {})
        found = await self._begun([query for query, key in keys.items() if key not in results])
        for query, key in keys.items():
            if key in results:
                found[query] = self._known(query, results[key], again.get(key), sizes)
        for query in queries:
            if query.is_edit and (edit := edits.get(query.work)) is not None:
                # A missing file is rendered again at no cost, and requests keep the hash of its first version.
                is_lost = self._edits.lacks(edit, await self._list_files())
                found[query] = replace(known_edit(edit, self._edits.located(edit)), is_lost=is_lost)
        return [found.get(query) for query in queries]

    async def _results(self, keys: Sequence[str]) -> dict[str, ResultRecord]:
        if self._cache is None or not keys:
            return await self._works.read_results(dict.fromkeys(keys))
        copies = await asyncio.to_thread(self._cache.read, keys)
        if copies:
            sizes = await self._list_files()
            copies = {key: one for key, one in copies.items() if self._is_here(one) and _has_files(one, sizes)}
        read = await self._works.read_results(key for key in dict.fromkeys(keys) if key not in copies)
        await asyncio.to_thread(self._cache.write, {key: one for key, one in read.items() if one.outputs})
        return copies | read

    async def _downloaded_again(
        self, results: Mapping[str, ResultRecord]
    ) -> tuple[dict[str, ResultRecord], dict[str, int]]:
        """For results whose files are missing, returns by key the stored results with newly downloaded files.

        Also returns the listing that was used.
        """
        sizes = await self._list_files()
        missing = self._without_files(results, sizes)
        if missing:
            sizes = await self._list_files(again=True)  # another run may have made them since the last listing
            missing = self._without_files(missing, sizes)
        names = {key: stored_result.name_of(one) for key, one in missing.items()}
        reads = (LOOP.in_file_thread(stored_result.read, self._store, name) for name in names.values())
        found = dict(zip(names, await asyncio.gather(*reads)))
        return {key: one for key, one in found.items() if one is not None and _has_files(one, sizes)}, sizes

    def _without_files(self, results: Mapping[str, ResultRecord], sizes: Mapping[str, int]) -> dict[str, ResultRecord]:
        return {key: one for key, one in results.items() if self._is_here(one) and not _has_files(one, sizes)}

    async def _list_files(self, *, again: bool = False) -> dict[str, int]:
        if again or self._sizes is None:
            self._sizes = await LOOP.in_file_thread(self._store.sizes, FILES)
        return self._sizes

    def _is_here(self, result: ResultRecord) -> bool:
        """Returns whether a result belongs to this store; the store's listing must then contain the result's files."""
        return self._works.is_in(result, self._store)

    async def new_take(self, base: str, scope: str = "") -> int:
        """Returns the number of a take that was never submitted for a request."""
        if self._run is None:
            return await next_take(self._works, base, scope)
        return await choose_new_take(self._works, self._run, base, scope)

    async def round(self, pipeline: str) -> Round:
        """Returns the round of the run; see `KnownWorks.round`."""
        return await self._rounds.round(pipeline)

    async def takes_of(self, choice: str, new: Sequence[int] = ()) -> Sequence[int]:
        """Returns the takes that a round uses for a step; see `KnownWorks.takes_of`."""
        return await self._rounds.takes_of(choice, new)

    def _known(
        self, query: WorkQuery, record: ResultRecord, again: ResultRecord | None, sizes: Mapping[str, int]
    ) -> KnownWork:
        # The files may lie in another store, which is read when they are needed.
        is_here, there = self._is_here(record), again or record
        is_whole = not is_here or _has_files(there, sizes)
        outputs = stored_result.files_in(self._store.url if is_here else record.store, there.outputs)
        name = result_key(query.work, query.shape).removeprefix(f"{query.work}-")
        return replace(
            known_result(record, outputs),
            state="=" if is_whole else "!",
            record=f"{self._works.url}/{FOLDER}/{query.work}/{name}.json",
        )

    async def _begun(self, queries: Sequence[WorkQuery]) -> dict[WorkQuery, KnownWork]:
        """Returns the works that were submitted and have no result of the requested shape."""
        intents = await self._works.read_many({f"{query.work}-intent-1": None for query in queries})
        begun = [query for query in queries if f"{query.work}-intent-1" in intents]
        found = await asyncio.gather(*map(self._state, begun))
        return {query: known for query, known in zip(begun, found) if known is not None}

    async def _state(self, query: WorkQuery) -> KnownWork | None:
        async with self._gate:
            view = JobView.parse(self._works, query.work, await self._works.job(query.work))
        # As in the budget of its run
        cost = sum((one.amount or Decimal(0) for one in charges_of(view).values() if one is not None), Decimal(0))
        for submit in view.submits:
            state = _state_of(submit, query.shape)
            if state is not None:
                return replace(state, cost=cost)
        has_ended = any(submit.end is not None or submit.lost is not None for submit in view.submits)
        return KnownWork(state="+", cost=cost) if has_ended else None


def open_records(store: MediaStore, settings: Settings, *, deployment: str = COMMAND_LINE) -> StoredWorks:
    """Opens the records of a store for a plan, which writes nothing."""
    url = records_url(store, settings)
    works = WorksJournal(url, options=options_of_records(url, store, settings))
    rounds = Rounds(works.rounds, deployment=deployment, alive_at=works.alive_at)
    return StoredWorks(works, open_edits(store, settings), store, rounds=rounds, cache=cache_of(works, settings))


def cache_of(works: WorksJournal, settings: Settings) -> ResultCache:
    """Returns this machine's cache for the results in a journal of works."""
    return ResultCache(settings.state_dir / "pipelines" / "results.sqlite", works.scope)


def known_result(record: ResultRecord, files: tuple[Media, ...]) -> KnownWork:
    """Returns the result of a paid work for plans; `files` has its files with their present addresses and contents."""
    return KnownWork(
        "=",
        files,
        record.texts,
        record.value,
        record.cost,
        record.currency or "",
        record.coins,
        task_id=record.task_id,
        run_seconds=record.run_seconds,
        at=datetime.fromisoformat(record.at),
        counts_as=_counts_as(files, record.outputs),
    )


def known_edit(first: EditResult, file: Media | None) -> KnownWork:
    """Returns the result of an edit for plans: the text or the present file of a recipe with this first result."""
    files, recorded = (() if one is None else (one,) for one in (file, first.file))
    texts = () if first.text is None else (first.text,)
    return KnownWork("=", files, texts, counts_as=_counts_as(files, recorded))


def _counts_as(files: Sequence[Media], recorded: Sequence[Media]) -> dict[str, str]:
    """Maps the hash of each file that was made or downloaded again with other bytes to the recorded hash."""
    return {file.sha256: first.sha256 for file, first in zip(files, recorded) if file.sha256 != first.sha256}


def _has_files(result: ResultRecord, sizes: Mapping[str, int]) -> bool:
    """Returns whether a listing contains all files of a result; True for a result without files."""
    return all(sizes.get(file.uri) == file.size for file in result.outputs)


def _state_of(submit: Submit, shape: str) -> KnownWork | None:
    """Returns a submission's state for a plan; None if it gives no result, so that another submission may follow."""
    task_id = submit.task_id or ""
    match submit.state:
        case "unknown":
            return KnownWork(state="?")
        case "open":
            return KnownWork(state="?" if is_surely_dead(submit.intent.owner) else "…")
        case "ticket":
            return KnownWork(state="…", task_id=task_id)
        case "ended" if submit.end is not None and submit.end.status == "SUCCESS":
            # A run uses a paid answer that has the right structure, and pays for another task otherwise.
            fits = fits_shape("\n\n".join(link.text for link in submit.end.links if link.text), shape)
            return KnownWork(state="…", task_id=task_id) if fits else None
    return None

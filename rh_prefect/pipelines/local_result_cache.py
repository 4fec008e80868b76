"""Caches recorded results on this machine, so that a plan does not read thousands of records from an object store."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from rh_prefect.local_files import create, make_folder
from rh_prefect.pipelines.work_lifecycle import Home

T = TypeVar("T")

MOST = 200_000
"""How many results are kept, about 1 kB each; the oldest copies are deleted first."""

_TABLE = "CREATE TABLE IF NOT EXISTS homes (place TEXT, key TEXT, record TEXT, UNIQUE (place, key))"
_log = logging.getLogger("rh_prefect")


class HomeCache:
    """The cached results, in one SQLite file. A recorded result never changes, but its record can be deleted.

    `StoredWorks` uses a copy only while the result's files exist, and keeps none of a result without files. If the file
    cannot be used, results are read from their records, which only takes longer.
    """

    def __init__(self, path: Path, place: str, *, most: int = MOST) -> None:
        """Stores the path; does not open the file.

        Args:
            path: The file, which several processes may use.
            place: The records that the results come from.
            most: How many copies the file keeps.
        """
        self._path = path
        self._place = place
        self._most = most

    def read(self, keys: Sequence[str]) -> dict[str, Home]:
        """Reads results; returns those in the cache, by key."""

        def read(database: sqlite3.Connection) -> list[tuple[str, str]]:
            query = "SELECT key, record FROM homes WHERE place = ? AND key IN (SELECT value FROM json_each(?))"
            return database.execute(query, (self._place, json.dumps(keys))).fetchall()

        found: dict[str, Home] = {}
        for key, record in self._use(read) or ():
            with suppress(ValidationError):  # another version wrote it
                found[key] = Home.model_validate_json(record)
        return found

    def write(self, homes: Mapping[str, Home]) -> None:
        """Adds results to the cache."""
        rows = [(self._place, key, home.model_dump_json()) for key, home in homes.items()]

        def write(database: sqlite3.Connection) -> None:
            with database:
                database.executemany("INSERT OR REPLACE INTO homes VALUES (?, ?, ?)", rows)
                database.execute("DELETE FROM homes WHERE rowid <= (SELECT max(rowid) FROM homes) - ?", (self._most,))

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

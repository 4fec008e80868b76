"""Manages the local folder for unfinished downloads, and checks it before any payment."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import TypeAlias, TypeVar

from rh_prefect.bounded_caches_and_locks import LruCache, SingleFlight
from rh_prefect.client.download import resume_note
from rh_prefect.errors import ConfigError, StoreError
from rh_prefect.local_files import lock_file, make_folder
from rh_prefect.media.file_name_templates import safe
from rh_prefect.media.store import MediaStore
from rh_prefect.works.journal.record_types import ResultRecord


def check_folder(folder: Path) -> None:
    """Creates a folder if it is missing; raises `ConfigError` if no file can be written there."""
    try:
        make_folder(folder)
        with TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        raise ConfigError(
            f"The state folder {folder} of this machine cannot be written to: {error.strerror}. Nothing was paid. "
            "What to do: set RH_STATE_DIR to a writable folder."
        ) from error


RunAttempt: TypeAlias = tuple[str, int]
"""The id of a flow run or the name of a scope, and the number of an attempt."""

_HOLD = 60.0
"""Seconds for which no job is paid for after a store has refused outputs; then one job may test the store."""

_TOLERATED = 2
"""Number of jobs with refused outputs before payments stop: the cause may be one file or a temporary fault."""


_T = TypeVar("_T", bound=ResultRecord)


@dataclass(slots=True)
class _Refusals:
    """The jobs whose outputs a store has refused since it last accepted an output."""

    jobs: set[str] = field(default_factory=set)  # The names of the jobs
    reason: str = ""  # Why the outputs of the last job were refused
    is_permanent: bool = False  # Whether only a person can repair that
    at: float = 0.0  # When it was refused, or when a job was allowed to try
    trying: str = ""  # The job that was allowed to try; empty if there is none


class StoreChecks:
    """Checks, once per store, that outputs can be written to the store and to the local download folder.

    A disk that is nearly full may have room for the check, but not for outputs. So if a store refuses the outputs of
    several jobs in a row, a run pays for only one job a minute until the store accepts an output.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._checks: SingleFlight[str, None] = SingleFlight(50)
        self._refusals: LruCache[tuple[RunAttempt, str], _Refusals] = LruCache(50)

    async def check(self, store: MediaStore) -> None:
        """Checks that outputs can be written to a store, before anything is paid."""
        await self._checks.get(store.identity, lambda: asyncio.to_thread(self._check, store))

    async def storing(self, run: RunAttempt, store: MediaStore, job: str, collecting: Awaitable[_T]) -> _T:
        """Awaits `collecting`, which stores outputs; records whether the store accepts or refuses the outputs."""
        try:
            result = await collecting
        except StoreError as error:
            # Without the exception, whose frames reference the whole job.
            refused = self._refusals.setdefault((run, store.identity), _Refusals())
            refused.jobs.add(job)
            refused.reason, refused.is_permanent, refused.at = error.message, error.is_permanent, self._clock()
            raise
        if result.outputs:  # of a text, only a small record is stored
            self._refusals.pop((run, store.identity), None)
        return result

    def refuse_payment(self, run: RunAttempt, store: MediaStore, job: str) -> None:
        """Raises `StoreError` if a store has refused a run's last outputs; every `_HOLD` s, one job may try again."""
        refused = self._refusals.get((run, store.identity))
        if refused is None or len(refused.jobs) <= _TOLERATED or refused.trying == job:
            return
        if self._clock() - refused.at < _HOLD:
            raise StoreError(
                "The storage refused the outputs of other jobs, so this job was not submitted, and nothing was paid. "
                f"{refused.reason}",
                is_permanent=refused.is_permanent,
            )
        refused.at, refused.trying = self._clock(), job

    def _check(self, store: MediaStore) -> None:
        check_folder(self._folder)
        store.check()


@contextlib.contextmanager
def local_errors(folder: Path) -> Iterator[None]:
    """Converts file system errors of the local download folder to `StoreError`."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"The state folder {folder} of this machine cannot be written to: {error.strerror or error}. Records "
            "of paid jobs are kept. What to do: free some space there, or set RH_STATE_DIR to a writable "
            "folder; then run again."
        ) from error


@contextlib.contextmanager
def part_file(folder: Path, name: str) -> Iterator[Path]:
    """Locks a new or unfinished download, and yields its path; yields a unique path if another process has the lock."""
    name = safe(name)  # it contains an id from RunningHub
    with local_errors(folder):
        make_folder(folder)
        try:
            lock = lock_file(folder / f"{name}.lock", fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another process holds it
            lock = None
    if lock is None:
        private = folder / f"{name}.{uuid.uuid4().hex}.part"
        try:
            yield private
        finally:
            remove(private)
        return
    try:
        yield folder / f"{name}.part"
    finally:
        os.close(lock)


def remove(part: Path) -> None:
    """Removes a download, its resume file and its lock file."""
    for path in (part, resume_note(part), part.with_suffix(".lock")):
        path.unlink(missing_ok=True)

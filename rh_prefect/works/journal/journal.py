"""The append-only journal of jobs: each record is created exclusively, and never changed or deleted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar
from urllib.parse import urlsplit

import fsspec
from pydantic import BaseModel, ValidationError

from rh_prefect.bounded_caches_and_locks import LruSet
from rh_prefect.client.http_connections import chance
from rh_prefect.errors import InputError, JournalError, RunningHubError
from rh_prefect.local_files import NoHardLinks, write_atomic
from rh_prefect.media.storage_errors import describe, fault_of
from rh_prefect.media.storage_listing import files_below
from rh_prefect.media.storage_urls import identity_of, is_local, local_path, refuse_signature, shown_url

if TYPE_CHECKING:
    from rh_prefect.works.accounts.poller import Poller

JSON: TypeAlias = "dict[str, Any]"
"""A JSON object; the classes of `record_types` define its fields."""

StoredText: TypeAlias = "str | bytes"
"""A record as it is stored, which may be damaged; `Journal.decode` returns its JSON object."""

LONGEST_SCOPE: Final = 200
"""Maximum length of a scope's name. The file name of a spooled task id also contains the job's key, and may have 255
characters.
"""

_SCOPE = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_SCOPE - 1}}}")
_KEY = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+")
_RECORD_FILE = re.compile(r"[a-z0-9-]+\.json")
"""Matches the name of a record's file. Other programs put files beside records: sync clients, file managers."""
HEX_DIGITS: Final = "0123456789abcdef"
"""The characters of a job's key. Keys of other records begin with a word that contains other letters."""

_FOLDERS_AT_A_TIME: Final = 64
"""Number of jobs that one thread reads."""
_AT_ONCE: Final = 4
"""Number of threads that read jobs."""

T = TypeVar("T")
V = TypeVar("V")
M = TypeVar("M", bound=BaseModel)
_FILE_MODE: Final = 0o666
_FOLDER_MODE: Final = 0o777
"""Modes of new folders before the umask, equal to those of the output folders."""


class Journal(ABC):
    """Stores the records of a scope.

    Keys have lower-case letters, digits and dashes. The keys of a job's records are `<job key>-<kind>-<n>`, with a
    hexadecimal job key; other keys begin with a word. Each method raises `JournalError` if the storage cannot be used.
    """

    scope: str  # What the journal covers: a flow-run id, or a folder's name
    notifies = False  # Whether the journal notifies listeners of ends that other processes have recorded

    @abstractmethod
    async def create(self, key: str, record: Mapping[str, Any]) -> bool:
        """Creates a record exclusively; returns False if the key exists.

        The record has a unique `token`. If a response is lost and the request is repeated, the token shows that the
        first request created the record.
        """

    @abstractmethod
    async def read(self, key: str) -> JSON | None:
        """Reads one record; None if it does not exist."""

    async def read_as(self, key: str, kind: type[M]) -> M | None:
        """Reads one record as an object; None if it does not exist."""
        record = await self.read(key)
        return None if record is None else self.parse(key, kind, record)

    async def ensure(self, key: str, record: M) -> M:
        """Creates a record; returns the existing record, which another process may have created."""
        if await self.create(key, record.model_dump(mode="json")):
            return record
        return await self.read_as(key, type(record)) or record

    def parse(self, key: str, kind: type[M], record: Mapping[str, Any]) -> M:
        """Returns a record as an object; raises `UnreadableRecord` if a field is missing or has another type."""
        try:
            # A default in place of the stored value would be another identity, or another age of a result.
            record["token"], datetime.fromisoformat(record["at"])
            return kind.model_validate(record)
        except (KeyError, TypeError, ValueError) as error:
            raise self.unreadable(key, error) from error

    def decode(self, key: str, text: StoredText) -> JSON:
        """Returns the record in a stored text; raises `UnreadableRecord` if the text is not a JSON object."""
        try:
            record = json.loads(text)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise self.unreadable(key, TypeError("it is not a JSON object"))
        return record

    def unreadable(self, key: str, error: Exception) -> UnreadableRecord:
        """Returns the error for a record that cannot be read."""
        match error:
            case ValidationError():
                flaw = error.errors()[0]
                why = f"{'.'.join(map(str, flaw['loc']))}: {flaw['msg']}"
            case KeyError():
                why = f"{error.args[0]}: Field required"
            case _:
                why = str(error)
        return UnreadableRecord(
            f"The record {self.locate(key)} cannot be read ({why}): it is damaged, or another version of rh-prefect "
            "wrote it. Nothing was paid because of that, and no task that depends on this record is submitted. What to "
            "do: restore the record from a backup, or use the version that wrote it.",
            key=key,
        )

    def locate(self, key: str) -> str:
        """Returns the words for a record in messages: its key and its place."""
        return f"{key} in the journal of {self.scope}"

    @abstractmethod
    async def job(self, job_key: str) -> dict[str, JSON]:
        """Returns all records of one job as a mapping from full key to record, without reading other jobs."""

    async def numbered(self, job_key: str, n: int) -> dict[str, JSON]:  # noqa: ARG002 - of a journal of single files
        """Returns at least the records of submission n of a job, as a mapping from full key to record."""
        return await self.job(job_key)

    @abstractmethod
    def jobs(self) -> AsyncIterator[tuple[str, dict[str, StoredText]]]:
        """Reads all jobs in pages, in no particular order; yields each job's key and its records' texts by full key.

        The first jobs are yielded before the last are read. Records that are created meanwhile may be missing.
        """

    async def names(self) -> AsyncIterator[str]:
        """Lists the full keys of all records of jobs."""
        async for _, texts in self.jobs():
            for key in texts:
                yield key

    def is_absent(self, key: str, *, max_age: float) -> bool:  # noqa: ARG002 - of a cached journal
        """Returns whether a record was absent at the last read, if that read is at most `max_age` seconds old.

        Sends no request.
        """
        return False

    async def check_cache(self) -> None:  # noqa: B027 - the same
        """Raises `JournalError` if records that this process has cached were deleted."""

    async def notify_of_ends(self, poller: Poller) -> None:  # noqa: B027 - of a journal that notifies
        """Registers a poller that is told when tasks end; a second registration has no effect."""


class UnreadableRecord(JournalError):
    """A record exists, but is damaged or has a format that this version does not support."""

    is_permanent = True
    key: str = ""  # The record's key; empty if all records of a journal cannot be read

    @property
    def job_key(self) -> str:
        """The key of the job to which the record belongs; for other records, the first word of their key."""
        return self.key.partition("-")[0]


class NotExclusive(JournalError):
    """The storage cannot prevent two processes from creating the same record."""

    is_permanent = True


def check_key(key: str) -> str:
    """Returns a key; raises an error if the key is not valid in every kind of journal."""
    if not _KEY.fullmatch(key):
        raise ValueError(
            f"{key!r} is not a valid journal key: a key has only lower-case letters and digits, in parts joined by "
            "dashes"
        )
    return key


def is_scope_name(name: object) -> bool:
    """Returns whether a name of a scope is valid in every journal."""
    return isinstance(name, str) and _SCOPE.fullmatch(name) is not None


def check_scope(name: str) -> str:
    """Returns a scope's name; raises an error if the name is not valid in every kind of journal."""
    if not is_scope_name(name):
        raise InputError(
            f"{str(name)[:80]!r} is not a valid scope name. Nothing was sent. What to do: use up to {LONGEST_SCOPE} "
            "letters, digits, dashes, dots and underscores, beginning with a letter or a digit."
        )
    return name


def is_job_key(key: str) -> bool:
    """Returns whether a text is the key of a job."""
    return not key.strip(HEX_DIGITS) and bool(key)


def by_job(records: Mapping[str, V]) -> dict[str, dict[str, V]]:
    """Groups records by job; other records are left out."""
    jobs: dict[str, dict[str, V]] = {}
    for key, record in records.items():
        job_key, _, _ = key.partition("-")
        if is_job_key(job_key):
            jobs.setdefault(job_key, {})[key] = record
    return jobs


async def run_together(calls: Iterable[Coroutine[Any, Any, T]], *, at_once: int) -> AsyncIterator[T]:
    """Runs at most `at_once` of some calls concurrently, and yields each result when it is available."""
    waiting, running = iter(calls), set[asyncio.Task[T]]()
    try:
        while True:
            running |= {asyncio.ensure_future(call) for call in islice(waiting, at_once - len(running))}
            if not running:
                return
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
            running -= done
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class FolderJournal(Journal):
    """A journal on fsspec: one folder for each job, one small JSON file for each record.

    On a local disk, a record has the mode of any new file, like the outputs beside it. It appears completely or not at
    all, and survives a power failure: it is written to a temporary file, flushed to the disk, and then linked to its
    name. The link fails if the name exists. Then the folder is flushed. Elsewhere, the journal uses the conditional put
    of the store (If-None-Match on S3). Before a process first uses a store, several clients try to create the same
    file at the same moment: the store is rejected if two succeed, as on servers that refuse only later creations.
    """

    def __init__(
        self,
        url: str,
        *,
        scope: str,
        options: Mapping[str, Any] | None = None,
        first: Mapping[str, BaseModel] | None = None,
    ) -> None:
        """Opens the journal; accesses no storage before the first call.

        The records in `first` are created just before the first other record, so that a scope without records leaves no
        file.
        """
        self.scope = self._folder = check_scope(scope)
        self.url = shown_url(url)
        self._options = dict(options or {})
        self._files = _open_files(url, self._options)
        self._first = dict(first or {})

    def __repr__(self) -> str:
        # What a process remembers of a journal is kept by this text: two services can have buckets of one name.
        place = f", place={identity_of(self.url, self._options)!r}" if self._options else ""
        return f"FolderJournal({self.url!r}, scope={self._folder!r}{place})"

    async def check(self) -> None:
        """Checks that records can be created exclusively, and raises `NotExclusive` otherwise."""
        await self._call(self._files.check)

    async def create(self, key: str, record: Mapping[str, Any]) -> bool:
        """Creates a record exclusively; see `Journal.create`."""
        for name, one in self._first.items():
            await self._call(self._files.create, self._path(name), one.model_dump_json().encode())
        self._first = {}
        data = json.dumps(record).encode()
        if await self._call(self._files.create, self._path(key), data):
            return True
        existing = await self.read(key)
        return existing is not None and existing.get("token") == record["token"]

    async def read(self, key: str) -> JSON | None:
        """Reads one record; see `Journal.read`."""
        return (await self.read_many([key])).get(key)

    async def read_many(self, keys: Iterable[str]) -> dict[str, JSON]:
        """Reads many records concurrently; returns the existing records by key."""
        paths = {self._path(key): key for key in keys}
        files = await self._call(self._files.read_some, list(paths))
        return {paths[path]: self.decode(paths[path], data) for path, data in files.items()}

    async def job(self, job_key: str) -> dict[str, JSON]:
        """Reads all records of one job; see `Journal.job`."""
        files = await self._call(lambda: self._files.read_some(self._files.files(f"{self._folder}/{job_key}")))
        return {key: self.decode(key, data) for key, data in ((_key_of(path), data) for path, data in files.items())}

    async def sign(self, key: str, text: str) -> None:
        """Writes or replaces a file that is not a record; readers use only its modification time."""
        await self._call(self._files.replace, self._path(key), text.encode())

    async def time_of(self, key: str) -> datetime | None:
        """Returns the modification time of a file by the storage's clock; None if the file or its time is missing."""
        when: datetime | None = await self._call(self._files.time_of, self._path(key))
        return when

    async def names(self) -> AsyncIterator[str]:
        """Lists the keys of the records of all jobs; see `Journal.names`."""
        for folder, paths in (await self._call(self._files.find, self._folder)).items():
            if is_job_key(folder):
                for path in paths:
                    yield _key_of(path)

    async def jobs(self) -> AsyncIterator[tuple[str, dict[str, StoredText]]]:
        """Reads the records of all jobs; see `Journal.jobs`."""
        folders: dict[str, list[str]] = await self._call(self._files.find, self._folder)
        jobs = [name for name in folders if is_job_key(name)]
        parts = (jobs[start : start + _FOLDERS_AT_A_TIME] for start in range(0, len(jobs), _FOLDERS_AT_A_TIME))
        reading = (self._call(self._files.read_some, [path for job in part for path in folders[job]]) for part in parts)
        async for contents in run_together(reading, at_once=_AT_ONCE):
            for job in by_job({_key_of(path): data for path, data in contents.items()}).items():
                yield job

    def locate(self, key: str) -> str:
        """Returns the URL of a record's file; see `Journal.locate`."""
        return f"{self.url}/{self._path(key)}"

    async def _call(self, function: Any, *args: Any) -> Any:  # a method of `_LocalFiles` or `_StoreFiles`
        with _as_journal_error(self.url, self._options):
            return await asyncio.to_thread(function, *args)

    def _path(self, key: str) -> str:
        job, _, rest = check_key(key).partition("-")
        return f"{self._folder}/{job}/{rest}.json"


def _key_of(path: str) -> str:
    """Returns the key of the record in a file; see `FolderJournal._path`."""
    *_, job, file = path.split("/")
    return f"{job}-{file.removesuffix('.json')}"


def folder_scopes(url: str, *, options: Mapping[str, Any]) -> list[str]:
    """Returns the names of the scopes that have a folder at a journal's URL."""
    with _as_journal_error(shown_url(url), options):
        return list(filter(is_scope_name, _open_files(url, options).folders("")))


@contextlib.contextmanager
def _as_journal_error(url: str, options: Mapping[str, Any]) -> Iterator[None]:
    try:
        yield
    except RunningHubError:
        raise
    except Exception as error:  # the drivers of fsspec raise their own errors
        message, cause = describe(error, f"The journal at {url} cannot be used", options=options)
        is_permanent = fault_of(error).is_permanent
        raise JournalError(
            f"{message} After that, run again: the records of paid jobs are kept.", is_permanent=is_permanent
        ) from cause


def _open_files(url: str, options: Mapping[str, Any]) -> _LocalFiles | _StoreFiles:
    if is_local(url):
        # Absolute, so that a flow that changes its working folder keeps its journal.
        return _LocalFiles(Path(local_path(url)))
    refuse_signature(url)
    with _as_journal_error(shown_url(url), options):
        return _StoreFiles(url, options)


def _status_of(error: BaseException) -> int | None:
    """Returns the HTTP status in the cause of a driver's error, as botocore stores it."""
    cause: BaseException | None = error
    while cause is not None:
        response = getattr(cause, "response", None)
        if isinstance(response, Mapping):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return status if isinstance(status, int) else None
        cause = cause.__cause__
    return None


class _LocalFiles:
    """A folder on a local disk.

    `files` lists the files of records in a folder; `find` lists those in its sub-folders, by sub-folder; `read_some`
    omits missing files.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def check(self) -> None:
        pass  # a link to a name that exists fails on every local file system

    def create(self, path: str, data: bytes) -> bool:
        target = self._root / path
        try:
            write_atomic(target, data, file_mode=_FILE_MODE, folder_mode=_FOLDER_MODE, exclusive=True)
        except FileExistsError:
            return False
        except NoHardLinks as error:
            raise NotExclusive(
                f"No record can be created in {self._root}: its file system has no hard links ({error.strerror}). "
                "Without them, two processes could both pay for a job. This job was not submitted. What to do: set "
                "RH_STATE_DIR and RH_RECORDS to folders on another disk, or RH_RECORDS to an S3 bucket; outputs can "
                "stay on this disk."
            ) from None
        return True

    def replace(self, path: str, data: bytes) -> None:
        write_atomic(self._root / path, data, file_mode=_FILE_MODE, folder_mode=_FOLDER_MODE)

    def time_of(self, path: str) -> datetime | None:
        try:
            return datetime.fromtimestamp((self._root / path).stat().st_mtime, UTC)
        except FileNotFoundError:
            return None

    def folders(self, path: str) -> list[str]:
        try:
            return sorted(entry.name for entry in (self._root / path).iterdir() if entry.is_dir())
        except FileNotFoundError:
            return []

    def find(self, path: str) -> dict[str, list[str]]:
        return {folder: self.files(f"{path}/{folder}") for folder in self.folders(path)}

    def files(self, path: str) -> list[str]:
        try:
            with os.scandir(self._root / path) as entries:
                return [f"{path}/{entry.name}" for entry in entries if _RECORD_FILE.fullmatch(entry.name)]
        except FileNotFoundError:
            return []

    def read_some(self, paths: Sequence[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                found[path] = (self._root / path).read_bytes()
        return found


_PROOFS: Final = 3
"""Number of tests with concurrent creations before a storage is accepted."""
_RACERS: Final = 16
_CONFLICT: Final = 409
_LONGEST_CONFLICT: Final = 30.0
"""Seconds for which a creation is repeated if the storage answers that another creation is in progress."""
_PROVED: LruSet[str] = LruSet(1000)
"""The locations that have passed the tests of concurrent creation in this process."""


class _StoreFiles:
    """A folder on any other fsspec storage; its `pipe_file(mode="create")` must be exclusive."""

    _exclusive_in_process = threading.Lock()

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        options = {"use_listings_cache": False, **options}
        self._open = partial(fsspec.core.url_to_fs, url.rstrip("/"), **options)
        self._fs, self._root = self._open()
        self._shown = shown_url(url)  # The name that the file system gives to its folder may lack the host
        parts = urlsplit(url)
        # All folders of a bucket, or of a host, behave alike.
        self._place = identity_of(f"{parts.scheme}://{parts.netloc}" if parts.netloc else url, options)

    def check(self) -> None:
        if self._place not in _PROVED:
            self._prove_exclusive()
            _PROVED.add(self._place)

    def create(self, path: str, data: bytes) -> bool:
        self.check()
        return self._create(f"{self._root}/{path}", data)

    def replace(self, path: str, data: bytes) -> None:
        self._fs.pipe_file(f"{self._root}/{path}", data)

    def time_of(self, path: str) -> datetime | None:
        self._fs.invalidate_cache()
        # Some file systems have no times, and some drivers cannot tell them.
        with contextlib.suppress(FileNotFoundError, NotImplementedError, KeyError):
            when = self._fs.modified(f"{self._root}/{path}")
            return when if isinstance(when, datetime) else None
        return None

    def files(self, path: str) -> list[str]:
        return [f"{path}/{name}" for name in self._names(path, kind="file") if _RECORD_FILE.fullmatch(name)]

    def folders(self, path: str) -> list[str]:
        return sorted(self._names(path, kind="directory"))

    def find(self, path: str) -> dict[str, list[str]]:
        self._fs.invalidate_cache()
        by_folder: dict[str, list[str]] = {}
        for file in files_below(self._fs, f"{self._root}/{path}"):
            relative = str(file)[len(self._root) + 1 :]
            folder, _, name = relative.removeprefix(f"{path}/").partition("/")
            if _RECORD_FILE.fullmatch(name):
                by_folder.setdefault(folder, []).append(relative)
        return by_folder

    def read_some(self, paths: Sequence[str]) -> dict[str, bytes]:
        # In one call: asynchronous file systems read many at once. `cat` would expand `[`, `*` and `?` in the paths.
        contents = self._fs.cat_ranges([f"{self._root}/{path}" for path in paths], None, None, on_error="return")
        for value in contents:
            if isinstance(value, BaseException) and not isinstance(value, FileNotFoundError):
                raise value
        found = zip(paths, contents, strict=True)
        return {path: bytes(value) for path, value in found if not isinstance(value, BaseException)}

    def _names(self, path: str, *, kind: str) -> list[str]:
        self._fs.invalidate_cache()
        try:
            listing = self._fs.ls(f"{self._root}/{path}".rstrip("/"), detail=True)
        except FileNotFoundError:
            return []
        return [entry["name"].rstrip("/").rpartition("/")[2] for entry in listing if entry["type"] == kind]

    def _create(self, path: str, data: bytes, *, fs: Any = None) -> bool:
        fs, began = fs or self._fs, time.monotonic()
        while True:
            try:
                # Memory file systems check first and write then; the lock makes both one step in this process.
                with self._exclusive_in_process if fs.protocol == "memory" else contextlib.nullcontext():
                    fs.pipe_file(path, data, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                # Another creation is in progress, and may fail: whether the record will exist is not decided yet.
                if _status_of(error) == _CONFLICT and time.monotonic() - began < _LONGEST_CONFLICT:
                    time.sleep(chance())
                    continue
                # s3fs reports a failed If-None-Match as EINVAL; only an existing record means that it was not created.
                if fs.exists(path):
                    return False
                raise error from None
            return True

    def _prove_exclusive(self) -> None:
        # fsspec's default implementation checks first and writes then, so two processes can both succeed.
        if getattr(self._fs.pipe_file, "__func__", None) is fsspec.AbstractFileSystem.pipe_file:
            raise self._unfit()
        # With separate connections, as another process has.
        other, _ = self._open(skip_instance_cache=True)
        with ThreadPoolExecutor(_RACERS) as racers:
            for _ in range(_PROOFS):
                self._race(f"{self._root}/.probe-{uuid.uuid4().hex}", other, racers)

    def _race(self, path: str, other: Any, racers: ThreadPoolExecutor) -> None:
        start = threading.Barrier(_RACERS)

        def create(number: int) -> bool:
            start.wait()
            return self._create(path, f"{number}".encode(), fs=(self._fs, other)[number % 2])

        try:
            winners = sum(racers.map(create, range(_RACERS)))
            is_kept = not self._create(path, b"later")
        finally:
            with contextlib.suppress(OSError):
                self._fs.rm_file(path)
        # The answer to the winner can be lost, so that no creation is seen to win.
        if winners > 1 or not is_kept:
            raise self._unfit()

    def _unfit(self) -> NotExclusive:
        return NotExclusive(
            f"Records of jobs cannot be stored at {self._shown}: two processes could create the same record there, and "
            "both would pay. Nothing was paid. What to do: set RH_RECORDS to a folder or an S3 bucket that all "
            "machines share."
        )

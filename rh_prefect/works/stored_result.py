"""Stored results: the JSON file of each result, `results/<request>/<task id>.json`, in the store of its files.

People, reports and `reuse="always"` use the stored result. The journal's record `result` decides whether a work is
done, and is written once. If files are downloaded again, RunningHub may return other bytes; then only the stored result
is written again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import TypeVar

from pydantic import Field, ValidationError

from rh_prefect.errors import InputError, StoreError
from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore
from rh_prefect.works.checked_request import JobRequest
from rh_prefect.works.journal.identity import base_hash, graph_base
from rh_prefect.works.journal.record_types import Requested, ResultRecord
from rh_prefect.works.result import Result

FOLDER = "results"

_R = TypeVar("_R", bound=ResultRecord)
_log = logging.getLogger("rh_prefect")


class StoredResult(ResultRecord, Requested):
    """The fields of a finished job in its JSON file."""

    job: str  # The job's full name, `<scope>/<key>`
    seed: int | None = None  # The seed in the request, if there is one
    submitted_at: str  # ISO 8601, UTC
    ended_at: str  # ISO 8601, UTC
    run: Mapping[str, str] = Field(default_factory=dict)  # Details of the run, such as the flow run's id and name

    def result(self, store: MediaStore) -> Result:
        """Returns the `Result` for a caller, with the addresses of its files in a store."""
        return as_result(self, self, job=self.job, url=store.url, reused=False)


def as_result(record: ResultRecord, request: StoredResult | JobRequest, *, job: str, url: str, reused: bool) -> Result:
    """Returns the `Result` for a caller, with addresses of its files in a storage; the cost of a reused result is 0."""
    return Result(
        model=request.model,
        endpoint=request.endpoint,
        job=job,
        key=job.rpartition("/")[2],
        task_id=record.task_id,
        outputs=files_in(url, record.outputs),
        texts=record.texts,
        cost=Decimal(0) if reused else record.cost,
        currency=record.currency,
        queued_seconds=record.queued_seconds,
        run_seconds=record.run_seconds,
        reused=reused,
        record=f"{url.rstrip('/')}/{name_of(record)}",
        label=request.label,
    )


def files_in(url: str, outputs: Sequence[Media]) -> tuple[Media, ...]:
    """Returns files with their addresses in a storage, in place of their names."""
    return tuple(file.at(f"{url.rstrip('/')}/{file.uri}") for file in outputs)


def name_of(result: ResultRecord) -> str:
    """Returns the name of a stored result, which is the same in each run."""
    return f"{FOLDER}/{result.base}/{result.task_id}.json"


def write(store: MediaStore, stored: StoredResult) -> None:
    """Writes a stored result atomically."""
    text = stored.model_dump_json(indent=1, exclude_none=True)
    store.write_bytes(name_of(stored), text.encode())


def read(store: MediaStore, name: str) -> StoredResult | None:
    """Reads a stored result; returns None if it is missing or invalid."""
    if not store.exists(name):
        return None
    try:
        return StoredResult.model_validate_json(store.read_bytes(name))
    except ValidationError:
        return None


def find_equal(store: MediaStore, request: JobRequest, *, take: int) -> StoredResult | None:
    """Finds the newest stored result of an equal request; see `find`."""
    # Results of one run are stored under the request alone, others under the request with the site's graph.
    base = base_hash(site=request.site, endpoint=request.endpoint, payload=request.request)
    return find(store, base, request.graph, take=take)


def find(store: MediaStore, base: str, graph: str = "", *, take: int = 1) -> StoredResult | None:
    """Finds the newest finished job with an equal request whose files are all in the store and undamaged.

    For a saved workflow or an app, `graph` is the fingerprint of what the site has under its id now; results
    of another graph are not found.
    """
    names = [name for folder in {base, graph_base(base, graph)} for name in store.list(f"{FOLDER}/{folder}")]
    found = [one for one in _read_valid(store, names) if one.graph == graph and one.take == take]
    newest_first = sorted(found, key=lambda one: one.ended_at, reverse=True)
    return next((one for one in newest_first if is_whole(store, one)), None)


def read_all(store: MediaStore, damaged: list[str] | None = None) -> Iterator[StoredResult]:
    """Reads all valid stored results of a store; damaged results are logged, and their names added to `damaged`."""
    return _read_valid(store, store.list(FOLDER), damaged)


def _read_valid(store: MediaStore, names: Iterable[str], damaged: list[str] | None = None) -> Iterator[StoredResult]:
    for name in names:
        stored = read(store, name)
        if stored is not None:
            yield stored
        elif store.exists(name):
            if damaged is not None:
                damaged.append(name)
            _log.warning(
                "The stored result %s is damaged and was left out, although its task was paid for. What to do: restore "
                "the file from a backup, then run the command again.",
                store.uri(name),
            )


def whole(store: MediaStore, record: ResultRecord) -> ResultRecord | None:
    """Returns the descriptions of a result's files if all are in the store and complete; None otherwise.

    If files were downloaded again with other bytes, only the stored result describes the new files.
    """
    if all(_is_unchanged(store, record, index) for index, _ in enumerate(record.outputs)):
        return record
    stored = read(store, name_of(record))
    return next((one for one in (stored, record) if one is not None and is_whole(store, one)), None)


def copy_from_its_place(store: MediaStore, record: ResultRecord) -> ResultRecord | None:
    """Copies a result's files and its stored result into a store, from the storage that the result names.

    Returns the result with descriptions of these files; None if a file is missing or damaged there. Raises a
    `StoreError` if a storage does not answer.
    """
    source = MediaStore(record.store, options=store.options_for(record.store))
    found = whole(source, record)
    if found is None or found.is_damaged:
        return None
    for file in found.outputs:
        with source.open(file.uri) as reader:
            store.write_stream(file.uri, reader, mime=file.mime)
    if (stored := read(source, name_of(record))) is not None:
        write(store, stamped(store, stored.model_copy(update={"outputs": found.outputs})))
    return found


def is_whole(store: MediaStore, result: ResultRecord) -> bool:
    """Returns whether all files of a result are in the store and undamaged."""
    return not result.is_damaged and has_all_files(store, result)


def has_all_files(store: MediaStore, result: ResultRecord) -> bool:
    """Returns whether all files of a result are in the store, each with its recorded size and content.

    If the state of a file is not the recorded one, the file is read and hashed, and its new state is stored.
    """
    changed = [index for index, _ in enumerate(result.outputs) if not _is_unchanged(store, result, index)]
    if not all(_is_equal(store, result.outputs[index]) for index in changed):
        return False
    if changed and isinstance(result, StoredResult):
        with suppress(StoreError):  # the next lookup reads the files again
            write(store, stamped(store, result))
    return True


def whole_files(store: MediaStore, results: Sequence[ResultRecord]) -> dict[int, Media]:
    """Returns a task's undamaged files in the store, by index; the first result that contains a file describes it."""
    found: dict[int, Media] = {}
    for result in results:
        for index, file in enumerate(result.outputs):
            if index in found or file.defect is not None:
                continue
            if _is_unchanged(store, result, index) or _is_equal(store, file):
                found[index] = file
    return found


def stamped(store: MediaStore, result: _R) -> _R:
    """Returns a result with the present location and states of its files, whose contents were checked."""
    stamps = [store.stamp(file.uri) for file in result.outputs]
    states = tuple(stamp.text if stamp is not None else "" for stamp in stamps)
    return result.model_copy(update={"store": store.url, "states": states})


def _is_unchanged(store: MediaStore, result: ResultRecord, index: int) -> bool:
    """Returns whether a file has the recorded state, in which case it need not be read."""
    state, name = "".join(result.states[index : index + 1]), result.outputs[index].uri
    try:
        return bool(state) and (stamp := store.stamp(name)) is not None and stamp.text == state
    except InputError:  # a person has edited the name
        return False


def _is_equal(store: MediaStore, file: Media) -> bool:
    """Reads a file, and returns whether it has the recorded size and content."""
    try:
        return store.size(file.uri) == file.size and store.digest(file.uri) == file.sha256
    except InputError:
        return False

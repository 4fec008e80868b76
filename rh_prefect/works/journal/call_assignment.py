"""Finds the recorded job of each paid call of a resumed run, or gives the call a new job."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from rh_prefect.caches_and_locks import LruCache
from rh_prefect.errors import AmbiguousCall
from rh_prefect.works.journal.call_matching import Equal, Match, RecordedCall, find_record
from rh_prefect.works.journal.identity import Address, job_key, other_job_key
from rh_prefect.works.journal.job_records import JobRecords, calls_in
from rh_prefect.works.journal.journal import Journal, as_cached
from rh_prefect.works.journal.process_identity import Owner, current_owner
from rh_prefect.works.journal.record_types import CallRecord, Intent

_NUMBERS = count(1)

REQUESTED_KEYS: LruCache[str, set[str]] = LruCache(500, make=set)
"""Scope -> keys of the jobs that this process has requested; other jobs of the journal are orphans. A flow run's keys
are dropped when it ends. If a scope is dropped to limit the memory, its jobs are read again from the journal."""


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt at something that may be retried.

    Attributes:
        id: Equal in all attempts, such as a task run's id.
        number: Different in each attempt.
    """

    id: str
    number: int


@dataclass(frozen=True, slots=True)
class Caller:
    """The task run or flow code that makes a paid call, and its position.

    Attributes:
        address: Its position in the run.
        tries: The current attempts of the runs that contain the call, except the root.
        version: Version of the flow.
        is_detached: Whether it runs in a process that knows only a part of the run.
        equal: How to handle several recorded calls that may be this one.
    """

    address: Address = field(default_factory=Address)
    tries: tuple[Try, ...] = ()
    version: str = ""
    is_detached: bool = False
    equal: Equal = "refuse"

    def repeats(self, other: Caller) -> bool:
        """Checks whether this is a later attempt of a run that contained the other call."""
        numbers = {attempt.id: attempt.number for attempt in other.tries}
        return any(numbers.get(attempt.id, attempt.number) != attempt.number for attempt in self.tries)


@dataclass(frozen=True, slots=True)
class CallJob:
    """The job of a call.

    Attributes:
        key: The job's key.
        is_new: Whether it has no record yet.
        order: Which of the calls with this request it is, as they were first recorded.
        note: A message for the log about how the job was matched; empty for none.
    """

    key: str
    is_new: bool = False
    order: int = 1
    note: str = ""


@dataclass(slots=True)
class _Entry:
    """One call of a request in this process."""

    key: str
    address: Address
    version: str
    order: int
    is_elsewhere: bool = False
    is_recorded: bool = True
    taker: Caller | None = None
    is_being_recorded: bool = False

    def recorded_call(self, caller: Caller) -> RecordedCall:
        taken_at = self.taker.address if self.taker is not None and not caller.repeats(self.taker) else None
        return RecordedCall(self.key, self.address, self.version, self.order, taken_at, self.is_elsewhere)


@dataclass(slots=True)
class _Request:
    """The calls of one request in this process.

    Attributes:
        turn: Held while a call is matched.
        entries: The calls by their jobs' keys.
        at: The calls by the digests of their addresses.
        free: The keys of the calls that no call of this attempt has taken.
        taken_at: The digests of the addresses of the calls that have taken one.
        is_read: Whether the journal was read.
        recording: Writes the latest record.
    """

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    entries: dict[str, _Entry] = field(default_factory=dict)
    at: dict[str, _Entry] = field(default_factory=dict)
    free: set[str] = field(default_factory=set)
    taken_at: set[str] = field(default_factory=set)
    is_read: bool = False
    recording: asyncio.Task[None] | None = None

    def add(self, entry: _Entry) -> None:
        self.entries[entry.key] = entry
        self.at.setdefault(entry.address.digest, entry)
        if entry.taker is None:
            self.free.add(entry.key)

    def take(self, entry: _Entry, caller: Caller, digest: str) -> None:
        entry.taker = caller
        self.free.discard(entry.key)
        self.taken_at.add(digest)


class CallRegistry:
    """Finds the job of each paid call; one for each attempt of a run, on the package's loop thread.

    Attributes:
        number: Different for each attempt in this process.
    """

    def __init__(self) -> None:
        self.number = next(_NUMBERS)
        self._requests: dict[str, _Request] = {}
        self._tries: dict[str, int] = {}
        self._retried: set[str] = set()

    async def find(self, request: str, caller: Caller, *, journal: Journal, attempt: int, is_empty: bool) -> CallJob:
        """Finds a call's job, or makes a key for a new one.

        Args:
            request: Hash of the request with its label; see `identity.request_id`.
            caller: The call.
            journal: The scope's records.
            attempt: Which attempt of the run this is.
            is_empty: Whether the scope had no job when this process opened it.

        Raises:
            AmbiguousCall: It may be one of several recorded calls, or it cannot be distinguished from another one.
            JournalError: The records cannot be read or written.
        """
        calls = self._requests.setdefault(request, _Request())
        async with calls.turn:
            if not calls.is_read:
                if not is_empty:
                    records = await journal.request(request)
                    for entry in _entries(records, attempt=attempt, is_detached=caller.is_detached):
                        calls.add(entry)
                calls.is_read = True
            job = self._match(request, calls, caller, journal.scope)
        # Outside of the lock, so that concurrent equal calls are recorded together.
        await _record_calls(calls, caller, journal, attempt)
        return job

    def _match(self, request: str, calls: _Request, caller: Caller, scope: str) -> CallJob:
        digest = caller.address.digest
        if (match := self._quick_match(calls, caller, digest)) is None:
            records = [entry.recorded_call(caller) for entry in calls.entries.values()]
            match = find_record(caller.address, records, version=caller.version, equal=caller.equal)
        if match.verdict in ("unclear", "repeated"):
            raise _refusal(f"{scope}/{request}", match, caller)
        if match.record is not None:
            entry = calls.entries[match.record.key]
            calls.take(entry, caller, digest)
            return CallJob(entry.key, order=entry.order, note=_note(match, caller))
        note = _note_of_new(calls.entries.values(), caller)
        entry = _Entry(
            key=_new_key(request, digest, calls.entries),
            address=caller.address,
            version=caller.version,
            order=len(calls.entries) + 1,
            is_recorded=False,
        )
        calls.add(entry)
        calls.take(entry, caller, digest)
        return CallJob(entry.key, is_new=True, order=entry.order, note=note)

    def _quick_match(self, calls: _Request, caller: Caller, digest: str) -> Match | None:
        """Matches a call without comparing it with all others, which takes long for thousands of equal calls.

        Returns:
            What `find_record` would find; None where only `find_record` can tell.
        """
        if self._is_retried(caller) or digest in calls.taken_at:
            return None
        exact = calls.at.get(digest)
        if exact is None:
            return None if calls.free else Match("new")
        is_found = exact.key in calls.free and caller.address.is_repeatable and exact.address == caller.address
        return Match("found", exact.recorded_call(caller)) if is_found else None

    def _is_retried(self, caller: Caller) -> bool:
        """Whether a run that contains the call has made calls in more than one of its tries."""
        self._retried |= {one.id for one in caller.tries if self._tries.setdefault(one.id, one.number) != one.number}
        return any(one.id in self._retried for one in caller.tries)


def _entries(records: Mapping[str, Mapping[str, Any]], *, attempt: int, is_detached: bool) -> Iterator[_Entry]:
    """Reads the calls of a request from the records of its jobs: from the call's own, else from the first intent."""
    owner = current_owner()
    for key, record in calls_in(records).items():
        yield _entry(key, record, attempt=attempt, is_detached=is_detached, owner=owner)


def _entry(key: str, record: CallRecord | Intent, *, attempt: int, is_detached: bool, owner: Owner) -> _Entry:
    # A worker process of this attempt made it, so no call of this process can take it.
    is_elsewhere = (is_detached or record.is_detached) and record.attempt == attempt and record.owner != owner
    return _Entry(
        key=key,
        address=record.address,
        version=record.version,
        order=record.order,
        is_elsewhere=is_elsewhere,
        is_recorded=True,
    )


def _new_key(request: str, digest: str, entries: Mapping[str, _Entry]) -> str:
    key, again = job_key(request, digest), 0
    # A job that another call has taken keeps the key that this address would have.
    while key in entries:
        again += 1
        key = other_job_key(request, digest, again)
    return key


async def _record_calls(calls: _Request, caller: Caller, journal: Journal, attempt: int) -> None:
    """Records the positions of equal calls, once there are two, before either of them continues.

    Otherwise, after a crash, the first call could take the job of the other one. So calls are recorded in order, and
    each call waits for the records of all earlier ones.
    """
    if len(calls.entries) == 1 and not caller.is_detached:
        return
    for entry in calls.entries.values():
        if not (entry.is_recorded or entry.is_being_recorded):
            entry.is_being_recorded = True
            before = calls.recording if calls.recording is not None and not calls.recording.done() else None
            calls.recording = asyncio.ensure_future(_record(entry, calls, caller, journal, attempt, before=before))
    if calls.recording is not None and not calls.recording.done():
        # The cancellation of one call must not cancel the records that others wait for.
        await asyncio.shield(calls.recording)


async def _record(
    entry: _Entry, calls: _Request, caller: Caller, journal: Journal, attempt: int, *, before: asyncio.Task[None] | None
) -> None:
    """Records one call, and waits until the earlier ones are recorded."""
    record = CallRecord(
        owner=current_owner(),
        address=entry.address,
        version=entry.version,
        order=entry.order,
        attempt=attempt,
        is_detached=caller.is_detached,
    )
    # A log keeps the order of its records; to other journals they are written one after the other.
    turn = nullcontext() if as_cached(journal) else calls.turn
    try:
        async with turn:
            await JobRecords(journal, entry.key).call(record)
        entry.is_recorded = True
    finally:
        entry.is_being_recorded = False
    if before is not None:
        await before


def _note(match: Match, caller: Caller) -> str:
    if match.record is None or match.verdict not in ("moved", "renamed"):
        return ""
    return f"was called at [{match.record.address}] and is now called at [{caller.address}]; the paid result is used"


def _note_of_new(entries: Iterable[_Entry], caller: Caller) -> str:
    edited = [entry for entry in entries if entry.version != caller.version]
    if not edited:
        return ""
    return (
        f"the flow's source has changed, and this call at [{caller.address}] is a new job: the "
        f"{len(edited)} identical calls that were recorded before are distinguished by their position in "
        "the source. Set labels on identical calls to distinguish them"
    )


def _refusal(job: str, match: Match, caller: Caller) -> AmbiguousCall:
    place = f"[{caller.address}]"
    if match.verdict == "repeated":
        return AmbiguousCall(
            f"{job}: two calls with this request are made at {place}, and they cannot be distinguished: a "
            "resumed run could return the result of one for the other. Nothing was paid for the second. "
            "What to do: give each call its own `label` or `key`, or call them with `generate_many` or "
            "`.submit` in the flow itself.",
            job=job,
        )
    record = match.record
    record_place = f"[{record.address}]" if record is not None else ""
    is_edited = record is not None and record.version != caller.version
    if is_edited:
        reason = "the flow's source has changed since"
    elif caller.address.is_repeatable:
        reason = "its task or the arguments of its task have changed"
    else:
        reason = "asyncio tasks or threads of yours call its flow with equal arguments, in any order"
    return AmbiguousCall(
        f"{job}: this call at {place} may be the call that was paid for at {record_place}, or a different call; "
        f'{reason}. Nothing was paid for it. What to do: resume with equal="by order" or "by place" if '
        'it is the same call, or equal="new" if it is a new call, as in resume(flow, run, equal=...); '
        "labels distinguish identical calls from the start.",
        job=job,
    )

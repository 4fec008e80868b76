"""The paid calls of one attempt of a run, and the job in the scope that belongs to each call."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from rh_prefect.errors import AmbiguousCall
from rh_prefect.jobs.journal.call_matching import Equal, Known, Match, find_record
from rh_prefect.jobs.journal.identity import Address, job_key, other_job_key
from rh_prefect.jobs.journal.job_records import JobRecords, calls_in
from rh_prefect.jobs.journal.journal import Journal, as_cached
from rh_prefect.jobs.journal.records import CallRecord, Intent
from rh_prefect.jobs.journal.writer_process import Owner, current_owner
from rh_prefect.memory_cache import LruCache

_NUMBERS = count(1)

REQUESTED_KEYS: LruCache[str, set[str]] = LruCache(500, make=set)
"""Scope -> keys of the jobs that this process was asked for; other jobs of the journal are orphans. A flow run's keys
are dropped when it ends. Where a scope is dropped because there are many, its jobs are read again from the journal."""


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt at something that may be retried.

    Attributes:
        id: The same in every try, as a task run's id.
        number: Another one in every try.
    """

    id: str
    number: int


@dataclass(frozen=True, slots=True)
class Caller:
    """The task run or flow code that makes a paid call, and its position.

    Attributes:
        address: Where in the run.
        tries: The present tries of the runs that the call is in, except for the root.
        version: Version of the flow.
        is_detached: Whether it runs in a process that knows only a part of the run.
        equal: What to do where several recorded calls may be this one.
    """

    address: Address = field(default_factory=Address)
    tries: tuple[Try, ...] = ()
    version: str = ""
    is_detached: bool = False
    equal: Equal = "refuse"

    def repeats(self, other: Caller) -> bool:
        """Checks whether this is a later attempt of a run that contained the other call."""
        numbers = {one.id: one.number for one in other.tries}
        return any(numbers.get(one.id, one.number) != one.number for one in self.tries)


@dataclass(frozen=True, slots=True)
class Found:
    """The job of a call.

    Attributes:
        key: The job's key.
        is_new: Whether nothing was recorded of it.
        order: Which of the calls with this request it is, as they were first recorded.
        note: What a person should know of how it was found; empty for nothing.
    """

    key: str
    is_new: bool = False
    order: int = 1
    note: str = ""


@dataclass(slots=True)
class _Entry:
    """One call of a request, as far as this process knows it."""

    key: str
    address: Address
    version: str
    order: int
    is_elsewhere: bool = False
    is_recorded: bool = True
    taker: Caller | None = None
    is_being_recorded: bool = False

    def known_to(self, caller: Caller) -> Known:
        is_taken = self.taker is not None and not caller.repeats(self.taker)
        return Known(self.key, self.address, self.version, self.order, is_taken, self.is_elsewhere)


@dataclass(slots=True)
class _Request:
    """What is known of the calls of one request."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    entries: dict[str, _Entry] = field(default_factory=dict)
    is_read: bool = False
    recording: asyncio.Task[None] | None = None


class CallRegistry:
    """Finds the job of each paid call; one for each attempt of a run, on the package's loop thread.

    Attributes:
        number: Another one for each attempt in this process.
    """

    def __init__(self) -> None:
        self.number = next(_NUMBERS)
        self._requests: dict[str, _Request] = {}

    async def find(self, request: str, caller: Caller, *, journal: Journal, attempt: int, is_empty: bool) -> Found:
        """Finds a call's job, or makes a key for a new one.

        Args:
            request: Hash of what is asked for, with its label; see `identity.request_id`.
            caller: Who asks.
            journal: The scope's records.
            attempt: Which attempt of the run this is.
            is_empty: Whether nothing was recorded in the scope when this process came to it.

        Raises:
            AmbiguousCall: It may be one of several recorded calls, or nothing tells it from another one.
            JournalError: The records cannot be read or written.
        """
        known = self._requests.setdefault(request, _Request())
        async with known.turn:
            if not known.is_read:
                if not is_empty:
                    records = await journal.request(request)
                    known.entries |= _entries(records, attempt=attempt, is_detached=caller.is_detached)
                known.is_read = True
            found = self._match(request, known, caller, journal.scope)
        # Outside of the turn, so that equal calls which are made together are recorded together.
        await _record_calls(known, caller, journal, attempt)
        return found

    def _match(self, request: str, known: _Request, caller: Caller, scope: str) -> Found:
        records = [entry.known_to(caller) for entry in known.entries.values()]
        match = find_record(caller.address, records, version=caller.version, equal=caller.equal)
        if match.verdict in ("unclear", "repeated"):
            raise _refusal(f"{scope}/{request}", match, caller)
        if match.record is not None:
            entry = known.entries[match.record.key]
            entry.taker = caller
            return Found(entry.key, order=entry.order, note=_note(match, caller))
        entry = _Entry(
            key=_new_key(request, caller.address, known.entries),
            address=caller.address,
            version=caller.version,
            order=len(known.entries) + 1,
            is_recorded=False,
            taker=caller,
        )
        note = _note_of_new(records, caller)
        known.entries[entry.key] = entry
        return Found(entry.key, is_new=True, order=entry.order, note=note)


def _entries(records: Mapping[str, Mapping[str, Any]], *, attempt: int, is_detached: bool) -> dict[str, _Entry]:
    """Reads the calls of a request from the records of its jobs: from the call's own, else from the first intent."""
    found, here = calls_in(records), current_owner()
    return {key: _entry(key, one, attempt=attempt, is_detached=is_detached, here=here) for key, one in found.items()}


def _entry(key: str, record: CallRecord | Intent, *, attempt: int, is_detached: bool, here: Owner) -> _Entry:
    # A worker process of this attempt made it: it is that process's call, and moved to no other.
    is_elsewhere = (is_detached or record.is_detached) and record.attempt == attempt and record.owner != here
    return _Entry(
        key=key,
        address=record.address,
        version=record.version,
        order=record.order,
        is_elsewhere=is_elsewhere,
        is_recorded=True,
    )


def _new_key(request: str, address: Address, entries: Mapping[str, _Entry]) -> str:
    key, again = job_key(request, address.digest), 0
    # A job that another call has taken over keeps the key that this address would have.
    while key in entries:
        again += 1
        key = other_job_key(request, address.digest, again)
    return key


async def _record_calls(known: _Request, caller: Caller, journal: Journal, attempt: int) -> None:
    """Records where equal requests are asked for, once there are two, before either of them waits for anything.

    After a crash the first one to come would else be given what is the other's. So they are recorded in order, and each
    call waits for the records of all before it.
    """
    if len(known.entries) == 1 and not caller.is_detached:
        return
    for entry in known.entries.values():
        if not (entry.is_recorded or entry.is_being_recorded):
            entry.is_being_recorded = True
            before = known.recording if known.recording is not None and not known.recording.done() else None
            known.recording = asyncio.ensure_future(_record(entry, known, caller, journal, attempt, before=before))
    if known.recording is not None and not known.recording.done():
        # A call that is cancelled must not cut off the records that others wait for.
        await asyncio.shield(known.recording)


async def _record(
    entry: _Entry, known: _Request, caller: Caller, journal: Journal, attempt: int, *, before: asyncio.Task[None] | None
) -> None:
    """Records one call, and ends when those before it are recorded too."""
    record = CallRecord(
        owner=current_owner(),
        address=entry.address,
        version=entry.version,
        order=entry.order,
        attempt=attempt,
        is_detached=caller.is_detached,
    )
    # A log keeps the order in which records are given to it; other journals get one after the other.
    turn = nullcontext() if as_cached(journal) else known.turn
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


def _note_of_new(records: list[Known], caller: Caller) -> str:
    edited = [one for one in records if one.version != caller.version]
    if not edited:
        return ""
    return (
        f"the flow's source has changed, and this call at [{caller.address}] is a new job: the "
        f"{len(edited)} identical calls that were recorded before are distinguished by their position in "
        "the source. Set labels on identical calls to distinguish them"
    )


def _refusal(job: str, match: Match, caller: Caller) -> AmbiguousCall:
    where = f"[{caller.address}]"
    if match.verdict == "repeated":
        return AmbiguousCall(
            f"{job}: two calls with this request are made at {where}, and they cannot be distinguished: a "
            "resumed run could return the result of one for the other. Nothing was paid for the second. "
            "What to do: give each call its own `label` or `key`, or call them with `generate_many` or "
            "`.submit` in the flow itself.",
            job=job,
        )
    record = match.record
    there = f"[{record.address}]" if record is not None else ""
    is_edited = record is not None and record.version != caller.version
    why = "the flow's source has changed since" if is_edited else "its task or the arguments of its task have changed"
    return AmbiguousCall(
        f"{job}: this call at {where} may be the call that was paid for at {there}, or a different call; "
        f'{why}. Nothing was paid for it. What to do: resume with equal="by order" or "by place" if '
        'it is the same call, or equal="new" if it is a new call, as in resume(flow, run, equal=...); '
        "labels distinguish identical calls from the start.",
        job=job,
    )

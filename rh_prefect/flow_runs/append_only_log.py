"""`RecordLog`: the records of one scope as numbered entries of an append-only log, with compare-and-append.

An entry can contain records of many jobs. Entry n is created exclusively, by a process that has read entries 1 to n-1.
So only one process can create a record, because any other process first reads the entry that contains it.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from rh_prefect.client.http_connections import chance, uptime
from rh_prefect.errors import JournalError
from rh_prefect.flow_runs.log_entry_storage import EntryRefused, FlowRunInputs
from rh_prefect.works.journal.journal import UnreadableRecord, is_job_key
from rh_prefect.works.journal.record_types import FORMAT

LARGEST_ENTRY: Final = 128 * 1024
"""Maximum bytes of one entry, unless one record alone is longer. Prefect Cloud refuses requests above 5 MiB. A short
write locks SQLite for a short time, and a block of a hundred entries stays below 13 MiB.
"""

LINGER: Final = 0.2
"""Seconds for which the record of an answer, an end or a result waits for other records to share its entry, while
several jobs are in progress. Claims do not wait.
"""

SPACING: Final = 0.03
"""Minimum seconds between the starts of two entries: records of a burst share entries, and a single record does not
wait.
"""

_PAUSE_EVERY: Final = 4
"""Number of consecutive entries after which a writer pauses, so that another process, which must read them first, can
append.
"""
_LONGEST_PAUSE: Final = 0.2
_RIVAL_SECONDS: Final = 3.0
"""Seconds after another process's entry during which further entries from that process are expected."""
_MAY_WAIT: Final = ("answer", "end", "settled", "result")
"""The kinds of records that wait for others; see `LINGER`."""


def encode(by: str, records: Mapping[str, str]) -> str:
    """Encodes an entry: one line with the format and the writer, and one line for each record."""
    head = json.dumps({"format": FORMAT, "by": by})
    return "\n".join([head, *(f"{key} {text}" for key, text in records.items())])


def decode(text: str) -> tuple[str, dict[str, str]]:
    """Decodes an entry; see `encode`. Raises `ValueError` if the entry has a different format."""
    head, *lines = text.split("\n")
    first = json.loads(head)
    if not isinstance(first, dict) or first.get("format") != FORMAT:
        found = first.get("format") if isinstance(first, dict) else None
        raise ValueError(f"it has format {found}, but this version reads and writes only format {FORMAT}")
    records = {}
    for line in lines:
        key, space, record = line.partition(" ")
        if not space:
            raise ValueError("a line contains no record")
        records[key] = record
    return str(first.get("by", "")), records


class Records:
    """The records read from a log, as text; for each key, the first record is kept."""

    def __init__(self) -> None:
        self.next = 1  # The number of the entry after the last one that was read
        self.size = 0  # Characters of all records
        self.texts: dict[str, str] = {}  # By key
        self._jobs: dict[str, list[str]] = {}

    def add(self, records: Mapping[str, str]) -> None:
        """Adds the records of the next entry; ignores a record whose key already exists."""
        for key, text in records.items():
            if key not in self.texts:
                self.texts[key] = text
                self.size += len(text)
                self._jobs.setdefault(key.partition("-")[0], []).append(key)
        self.next += 1

    def job(self, name: str) -> dict[str, str]:
        """Returns the records whose keys begin with a name and a dash."""
        return {key: self.texts[key] for key in self._jobs.get(name, ())}

    def jobs(self) -> list[str]:
        """Returns the keys of all jobs that have a record."""
        return list(filter(is_job_key, self._jobs))

    def names(self) -> list[str]:
        """Returns the keys of all records of jobs."""
        return [key for name in self.jobs() for key in self._jobs[name]]


def _kind_of(key: str) -> str:
    return key.partition("-")[2].partition("-")[0]


@dataclass(slots=True, eq=False)
class _Item:
    """A record that waits to be appended, and the future that tells the caller whether the record was created."""

    key: str
    text: str
    token: str
    since: float
    done: asyncio.Future[bool] = field(repr=False)


class RecordLog:
    """The view that one process has, on one event loop, of a log; a single writer serves all jobs."""

    def __init__(self, inputs: FlowRunInputs) -> None:
        """Opens a log; sends no request."""
        self.records = Records()
        self._inputs = inputs
        self._me = uuid.uuid4().hex
        self._entries = count(1)
        self._last = ""  # The writer of the last entry that was read
        self._missing: int | None = None
        self._under_way: set[str] = set()
        self._sent_at = float("-inf")
        self._queue: list[_Item] = []
        self._is_urgent = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._read_at = float("-inf")
        self._rival_until = float("-inf")
        self._took = 0.02  # Average seconds of an append, at first a guess

    async def create(self, key: str, text: str, token: str) -> bool:
        """Creates a record exclusively; see `Journal.create`."""
        if key in self.records.texts:
            return self._is_same(key, token)
        item = _Item(key, text, token, uptime(), asyncio.get_running_loop().create_future())
        self._queue.append(item)
        self._note_job(key)
        if _kind_of(key) not in _MAY_WAIT or len(self._under_way) < 2:
            self._is_urgent.set()
        if self._writer is None or self._writer.done():
            self._writer = asyncio.ensure_future(self._write())
        return await item.done

    def _note_job(self, key: str) -> None:
        """Notes whether this process will write more records of a job."""
        name, kind = key.partition("-")[0], _kind_of(key)
        if kind in ("intent", "claim"):
            self._under_way.add(name)
        elif kind in ("end", "settled"):
            self._under_way.discard(name)

    def is_current(self, max_age: float) -> bool:
        """Returns whether the last read is at most the given number of seconds ago."""
        return self._read_at >= uptime() - max_age

    async def read(self) -> Records:
        """Returns the records that existed at the time of the call, and possibly later records."""
        began = uptime()
        async with self._turn:
            # A read that started after this call began serves all waiting callers.
            if self._read_at < began:
                await self._read_newer()
        return self.records

    async def missing(self) -> int | None:
        """Returns the number of the last entry known to this process if that entry was deleted or replaced, else None.

        A person who deletes entries usually also deletes the last one. Each entry contains a unique token, so a
        replaced entry is detected.
        """
        async with self._turn:
            number, last = self.records.next - 1, self._last  # this process may append meanwhile
            if self._missing is None and number and not _is_by(last, await self._inputs.entry(number)):
                self._missing = number
        return self._missing

    async def _read_newer(self) -> None:
        is_more = True
        while is_more:
            sent = uptime()
            entries, is_more = await self._inputs.newer(self.records.next)
            for number in sorted(entries):
                self._take(number, entries[number])
        self._read_at = max(self._read_at, sent)

    def _take(self, number: int, text: str) -> None:
        if number < self.records.next:
            return
        if number > self.records.next:
            raise UnreadableRecord(
                f"Entry {self.records.next} of the journal is missing, but entry {number} exists: the missing entry "
                "was deleted, or the Prefect API does not list everything that was written. No new task is submitted "
                f"in this run. What to do: look for the input rh-log-{self.records.next:08} of the flow run; if it "
                "cannot be restored, start a new run, in which existing results of a pipeline cost nothing."
            )
        try:
            by, records = decode(text)
        except ValueError as error:
            raise UnreadableRecord(
                f"Entry {number} of the journal has an unknown format ({error}). Nothing was paid. What to do: finish "
                "this run with the version of rh_prefect that started it, or start a new run."
            ) from error
        if not by.startswith(self._me):
            self._rival_until = uptime() + _RIVAL_SECONDS
        self.records.add(records)
        self._last = by

    def _is_same(self, key: str, token: str) -> bool:
        """Returns whether this process created an existing record; the response to the creation may have been lost."""
        with suppress(ValueError):
            there = json.loads(self.records.texts[key])
            return isinstance(there, dict) and there.get("token") == token
        return False

    async def _write(self) -> None:
        """Appends queued records until the queue is empty."""
        in_a_row = 0
        try:
            while self._queue:
                await self._linger()
                batch = self._next_batch()
                if batch:
                    await self._append_or_fail(batch)
                    in_a_row += 1
                    await self._pause(in_a_row)
        finally:
            # A task keeps the context in which it was made: the whole flow run of the first caller.
            self._writer = None
            for item in self._drain():
                item.done.cancel()

    async def _linger(self) -> None:
        """Waits for records that may share an entry."""
        await asyncio.sleep(self._sent_at + SPACING - uptime())
        remaining = min(item.since for item in self._queue) + LINGER - uptime()  # less after a slow append
        with suppress(TimeoutError):
            await asyncio.wait_for(self._is_urgent.wait(), remaining)
        self._is_urgent.clear()

    def _next_batch(self) -> list[_Item]:
        """Takes the next records from the queue, those that must not wait first; answers calls for existing records."""
        batch: dict[str, _Item] = {}
        rest, size = [], 0
        for item in sorted(self._drain(), key=lambda item: _kind_of(item.key) in _MAY_WAIT):
            if item.done.done() or self._settle(item):  # its caller was cancelled, or the record exists
                continue
            if item.key in batch or (batch and size + len(item.text) > LARGEST_ENTRY):
                rest.append(item)
            else:
                batch[item.key] = item
                size += len(item.text) + len(item.key) + 2
        self._queue[:0] = rest
        if rest:  # the entry is full
            self._is_urgent.set()
        return list(batch.values())

    def _drain(self) -> list[_Item]:
        taken, self._queue = self._queue, []
        return taken

    async def _append_or_fail(self, batch: list[_Item]) -> None:
        began = uptime()
        try:
            await self._append(batch)
        except EntryRefused as error:
            if len(batch) == 1:
                self._fail(batch, error)
            for item in batch if len(batch) > 1 else ():
                await self._append_or_fail([item])
        except JournalError as error:
            # Records that have waited as long as this one are also due.
            late = [item for item in self._queue if item.since < began - self._inputs.patience]
            self._queue = [item for item in self._queue if item not in late]
            self._fail([*batch, *late], error)
        except Exception as error:  # such as a `ConfigError`: the log cannot be reached at all
            self._fail([*batch, *self._drain()], error)
        except BaseException:
            self._queue[:0] = batch  # cancelled with the writer
            raise

    @staticmethod
    def _fail(items: Iterable[_Item], error: Exception) -> None:
        for item in items:
            if not item.done.done():
                item.done.set_exception(error)

    async def _append(self, batch: list[_Item]) -> None:
        """Appends new records as one entry; if records exist already, tells callers whether this process made them."""
        if self._read_at == float("-inf"):
            await self.read()  # another version may have written here
        by = f"{self._me}-{next(self._entries)}"
        tries = 0
        # At each turn: other calls read the log too, for example while a refused batch is appended one by one.
        while batch := [item for item in batch if not self._settle(item)]:
            number, sent = self.records.next, uptime()
            self._sent_at = sent
            texts = {item.key: item.text for item in batch}
            if await self._inputs.append(number, encode(by, texts)):
                self._took = 0.7 * self._took + 0.3 * (uptime() - sent)
                if number == self.records.next:
                    self.records.add(texts)
                    self._last = by
                self._read_at = max(self._read_at, sent)
                break
            # Before it reads, so that what it reads is new when it tries again.
            await asyncio.sleep(self._took * chance() * min(tries, 3) / 3)
            tries += 1
            await self.read()  # the entry may be this one, if the response to an earlier request was lost
        for item in batch:
            _answer(item, is_mine=True)

    def _settle(self, item: _Item) -> bool:
        """Answers the call for a record that exists already; returns whether it exists."""
        exists = item.key in self.records.texts
        if exists:
            _answer(item, is_mine=self._is_same(item.key, item.token))
        return exists

    async def _pause(self, in_a_row: int) -> None:
        """Pauses, so that other processes, which read before they append, can append entries."""
        if self._queue and (uptime() < self._rival_until or in_a_row % _PAUSE_EVERY == 0):
            await asyncio.sleep(min(_LONGEST_PAUSE, self._took * (1.5 + chance())))


def _is_by(by: str, text: str | None) -> bool:
    with suppress(ValueError):
        return text is not None and decode(text)[0] == by
    return False


def _answer(item: _Item, *, is_mine: bool) -> None:
    if not item.done.done():  # its caller was cancelled
        item.done.set_result(is_mine)

"""The scope of paid jobs: a flow run, or a name outside of flows.

A scope has the journal of its jobs and the calls for them. If a run requests the same work again, `Calls` decides
whether this repeats the first call, as in a retry, or is a second call, which is refused before it pays.
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from rh_prefect.bounded_caches_and_locks import LruCache
from rh_prefect.errors import EqualRequest, JournalError
from rh_prefect.media.store import MediaStore
from rh_prefect.works.journal.job_records_and_state import JobView, jobs_of
from rh_prefect.works.journal.journal import Journal
from rh_prefect.works.journal.record_types import (
    FORMAT,
    FORMAT_KEY,
    Cancelled,
    Format,
    Owner,
    Record,
    current_owner,
    is_surely_dead,
    is_visible,
)
from rh_prefect.works.loop_thread import LOOP

if TYPE_CHECKING:
    from rh_prefect.works.journal.works_journal import WorksJournal

Chain: TypeAlias = tuple[tuple[str, int], ...]
"""The runs around a call, outermost first: the id of each, and the serial number of its execution."""

_NUMBERS = count()

REQUESTED_KEYS: LruCache[str, set[str]] = LruCache(500)
"""The keys of the jobs that this process has requested, by scope; other jobs of the journal are orphans. The keys of a
flow run are deleted when the run ends. If a scope is dropped to limit the memory, its journal is read again.
"""


def is_repeat(chain: Chain, earlier: Chain) -> bool:
    """Returns whether a call repeats an earlier call; it does if the outermost run that differs was executed again."""
    for (run, number), (other, other_number) in zip(chain, earlier, strict=False):
        if (run, number) != (other, other_number):
            return run == other
    return False


@dataclass(slots=True, eq=False)
class _Call:
    """A call that this process made for a work; it shows whether a later call is a repeat or a second call."""

    chain: Chain  # The runs around the call
    before: _Call | None  # The call before it, which it repeats
    task: asyncio.Task[Any] | None  # The task that makes it; None when it has ended
    has_failed: bool = False  # Whether it has ended without a result

    @property
    def is_cancelled(self) -> bool:
        """Whether the call is being cancelled; its caller may continue before the call has ended."""
        return self.task is not None and self.task.cancelling() > 0


_undo: ContextVar[list[Callable[[], object]] | None] = ContextVar("rh_prefect_undo", default=None)


@contextmanager
def delivered_at_end() -> Iterator[None]:
    """Counts the calls in a `with` block as delivered only when the block ends without an error."""
    outer, calls = _undo.get(), list[Callable[[], object]]()

    def withdraw() -> None:
        for undo in calls:
            undo()

    token = _undo.set(calls)
    try:
        yield
    except BaseException:
        LOOP.loop.call_soon_threadsafe(withdraw)  # before the caller's next call
        raise
    finally:
        _undo.reset(token)
    if outer is not None:
        outer.extend(calls)


def undo_unless_delivered(undo: Callable[[], object]) -> None:
    """Registers a function that the loop thread calls if the block of `delivered_at_end` ends with an error."""
    calls = _undo.get()
    if calls is not None:
        calls.append(undo)


class Calls:
    """The calls of one attempt of a run, by work; used on the package's loop thread."""

    def __init__(self) -> None:
        self.number = next(_NUMBERS)  # different for each attempt in this process
        self._calls: dict[str, list[_Call]] = {}

    @contextmanager
    def asking(
        self,
        work: str,
        chain: Chain | None,
        *,
        job: str,
        may_repeat: bool = False,
        task: asyncio.Task[Any] | None = None,
    ) -> Iterator[None]:
        """Registers a call for a block, permanently if the block succeeds; raises `EqualRequest` for a second call.

        A call without a chain may be repeated without limit.
        """
        if chain is None:
            yield
            return
        calls = self._calls.setdefault(work, [])
        before = next((call for call in calls if is_repeat(chain, call.chain)), None)
        if before is None and not (may_repeat or all(call.is_cancelled for call in calls)):
            raise EqualRequest(
                f"{job}: an earlier call of this run has the same request and the same take. Nothing was paid for this "
                "call. What to do: for another result, pass take=2 (then 3, and so on); to use the result of the "
                "first call, pass same=True or, outside of flows, a `scope`. Then run the program again: results that "
                "were paid for are used, not paid for again.",
                job=job,
            )
        own = _Call(chain, before, task)
        self._replace(calls, before, own)
        try:
            yield
        except BaseException:
            self._withdraw(work, own)
            raise
        finally:
            own.task = None
        undo_unless_delivered(partial(self._withdraw, work, own))

    def _withdraw(self, work: str, own: _Call) -> None:
        """Removes a call without a result, and restores the newest earlier call that has not failed."""
        own.has_failed, before = True, own.before
        while before is not None and before.has_failed:
            before = before.before
        calls = self._calls[work]
        if own in calls:
            self._replace(calls, own, before)

    @staticmethod
    def _replace(calls: list[_Call], old: _Call | None, new: _Call | None) -> None:
        """Replaces a call with another; without `old`, adds the new call; without `new`, removes the old call."""
        at = len(calls) if old is None else calls.index(old)
        calls[at : at + 1] = [] if new is None else [new]


@dataclass
class Scope:
    """The run that a job belongs to, or its named scope: the journal, the attempt and the calls."""

    journal: Journal  # Holds the scope's records
    run: str  # A short name of the run, for file names
    flow: str  # The flow's name, for file names
    attempt: int  # Which attempt of the run this is, from 1
    # The first attempt whose payments count together with this one's: this one itself, which a person started, or an
    # earlier one if Prefect retries the flow by itself
    first_attempt: int = 0
    details: Mapping[str, str] = field(default_factory=dict)  # What a stored result says of the run, as plain JSON
    calls: Calls = field(default_factory=Calls)  # The calls of this attempt of the run

    def __post_init__(self) -> None:
        self.first_attempt = self.first_attempt or self.attempt

    async def works(self) -> WorksJournal | None:
        """Opens the records of the works that this run shares with other runs; None if this run shares none."""
        return None

    async def jobs(self) -> AsyncIterator[JobView]:
        """Reads the jobs whose records are in the journal of this run; see `jobs_of`."""
        async for view in jobs_of(self.journal):
            yield view


class FolderScope(Scope):
    """A scope outside of flows. Its notes are in a folder beside the records of its works.

    `pipeline` is the name of a pipeline if the scope is a pipeline run, else empty.
    """

    def __init__(
        self, journal: Journal, works: WorksJournal | None = None, *, attempt: int = 1, pipeline: str = ""
    ) -> None:
        super().__init__(journal, run=journal.scope, flow=pipeline or "call", attempt=attempt)
        self.pipeline = pipeline
        self._works = works

    async def works(self) -> WorksJournal | None:
        """Returns the records of works with which the scope was created."""
        return self._works

    async def jobs(self) -> AsyncIterator[JobView]:
        """Reads the jobs of a scope that was created without records of works; see `Scope.jobs`."""
        # Beside such records, the journal has only notes, and a folder's journal would read each of them.
        if self._works is None:
            async for view in super().jobs():
                yield view


class Opened(Record):
    """The record that a process has opened a scope; opening it starts a new attempt."""

    owner: Owner  # The process
    pipeline: str = ""  # The pipeline of a run; empty for a named scope


class Ended(Record):
    """The record that a run has ended without a crash."""

    state: str  # How it has ended


def new_run(works: WorksJournal, pipeline: str) -> FolderScope:
    """Creates the scope of a pipeline run outside of flows; the scope has no file before its first record."""
    now = f"{datetime.now(UTC):%Y%m%d-%H%M%S%f}"[:-3]  # to the millisecond, because names sort by their start times
    name = f"run-{now}-{uuid.uuid4().hex[:8]}"
    opened = Opened(owner=current_owner(), pipeline=pipeline)
    first = {FORMAT_KEY: Format(), _attempt_key(1): opened}
    return FolderScope(works.notes_of(name, first=first), works, pipeline=pipeline)


async def end_run(run: FolderScope, state: str) -> None:
    """Records how a run has ended, unless the run has no records."""
    if await run.journal.read(_attempt_key(1)) is not None:
        await run.journal.create(_END_KEY, Ended(state=state).model_dump(mode="json"))


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """The records of a pipeline run outside of flows."""

    name: str
    pipeline: str  # The pipeline's name
    state: str  # How it ended; else `Stopped` or `Running` if the process is of this host, `No end recorded` if not
    jobs: int  # The number of works that it has claimed


async def read_run(works: WorksJournal, name: str) -> RecordedRun | None:
    """Reads the records of a run; None if the run has claimed no work."""
    journal = works.notes_of(name)
    claimed = {key.partition("-")[0] async for key in journal.names() if "-claim-" in key}
    opened, ended = await journal.read_as(_attempt_key(1), Opened), await journal.read_as(_END_KEY, Ended)
    if not claimed or opened is None:
        return None
    if ended is not None:
        state = ended.state
    elif is_visible(opened.owner):
        state = "Stopped" if is_surely_dead(opened.owner) else "Running"
    else:
        state = "No end recorded"
    return RecordedRun(name, opened.pipeline, state, len(claimed))


LOCAL_RUN: Final = re.compile(r"run-(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)(\d\d)(?:\d{3})?-[0-9a-f]{8}")
"""Matches the name of a pipeline run outside of flows, which contains the run's start time in UTC."""

_END_KEY = "ended-1"


def _attempt_key(attempt: int) -> str:
    return f"attempt-{attempt}"


async def open_scope(works: WorksJournal, name: str) -> FolderScope:
    """Opens a named scope as a new attempt, in which failed or cancelled jobs may be paid for again.

    Each process is an attempt, even if the previous process is still running. Two processes at the same time do not pay
    for one job twice, because only the process that creates the intent submits.
    """
    journal, record = works.notes_of(name), Opened(owner=current_owner()).model_dump(mode="json")
    attempt = await last_attempt(journal) + 1
    while not await journal.create(_attempt_key(attempt), record):
        attempt += 1
    return FolderScope(journal, works, attempt=attempt)


async def find_scope(works: WorksJournal, name: str) -> FolderScope:
    """Finds a named scope or a run, with its newest attempt; writes nothing."""
    journal = works.notes_of(name)
    attempt = max(await last_attempt(journal), 1)
    opened = await journal.read_as(_attempt_key(attempt), Opened)
    pipeline = opened.pipeline if opened is not None else ""
    return FolderScope(journal, works, attempt=attempt, pipeline=pipeline)


async def last_attempt(journal: Journal, *, kind: str = "attempt") -> int:
    """Returns the newest attempt of a named scope; it needs few reads, because attempts are numbered without gaps."""

    async def exists(number: int) -> bool:
        return await journal.read(f"{kind}-{number}") is not None

    return await last_number(exists)


async def last_number(exists: Callable[[int], Awaitable[bool]]) -> int:
    """Returns the last number of records that are numbered from 1 without gaps; the number of reads is logarithmic."""
    newest, beyond = 0, 1
    while await exists(beyond):
        newest, beyond = beyond, 2 * beyond
    while beyond - newest > 1:
        middle = (newest + beyond) // 2
        newest, beyond = (middle, beyond) if await exists(middle) else (newest, middle)
    return newest


async def begin_attempt(scope: Scope, store: MediaStore) -> None:
    """Checks the records of a scope before the first job of an attempt, and begins a new scope."""
    journal = scope.journal
    await journal.check_cache()
    # In this order: another process may begin the scope meanwhile, and it records the format before its jobs.
    was_empty, record = await is_empty(journal), await journal.read_as(FORMAT_KEY, Format)
    if record is None and was_empty:
        await _begin(scope, store)
    elif record is None:
        raise JournalError(
            f"{journal.scope} has jobs, but no record {FORMAT_KEY} of their format: this record was deleted, or "
            "another program wrote the jobs. Nothing was paid. What to do: if the record was deleted, restore it "
            f"with rh-prefect jobs recover {journal.scope}; otherwise start a new run."
        )
    elif record.format != FORMAT:
        raise JournalError(
            f"The jobs of {journal.scope} are not recorded in format {FORMAT}, the format of this version of "
            "rh_prefect. Nothing was paid. What to do: finish this run with the version that started it, or start a "
            "new run."
        )


async def _begin(scope: Scope, store: MediaStore) -> None:
    """Records the format, and writes the run's marker into the store; the marker later reveals a restored journal."""
    journal, marker = scope.journal, f"runs/{scope.journal.scope}.json"
    # The owner of a named scope outside of flows may delete it, to start again.
    is_flow_run = "flow_run" in scope.details
    if is_flow_run and await asyncio.to_thread(store.exists, marker) and await journal.read(FORMAT_KEY) is None:
        raise _is_restored(journal, store, marker)
    await begin_scope(journal)
    if is_flow_run:
        text = json.dumps({**scope.details, "format": FORMAT})
        await asyncio.to_thread(store.write_bytes, marker, text.encode())


async def begin_scope(journal: Journal) -> None:
    """Records the format of a scope, as its first record."""
    await journal.create(FORMAT_KEY, Format().model_dump(mode="json"))


def cancel_key(attempt: int) -> str:
    """Returns the key of an attempt's `cancel` record, after which the attempt submits nothing more."""
    return f"cancel-{attempt}"


async def forbid_attempt(journal: Journal, attempt: int, *, by: str) -> None:
    """Records that an attempt of a run submits nothing more."""
    await journal.create(cancel_key(attempt), Cancelled(by=by).model_dump(mode="json"))


async def is_empty(journal: Journal) -> bool:
    """Returns whether a scope has no job."""
    async for _ in journal.names():
        return False
    return True


def _is_restored(journal: Journal, store: MediaStore, marker: str) -> JournalError:
    return JournalError(
        f"The flow run {journal.scope} may have paid for jobs in an earlier attempt, as {store.uri(marker)} shows, but "
        "its journal is empty: its records were deleted, or Prefect's database was restored from an older backup. "
        "Nothing was paid in this attempt. What to do: for a pipeline, start a new run, in which existing results cost "
        f"nothing; for a flow, restore the records from the results in the storage with rh-prefect jobs recover "
        f"{journal.scope}, and run the flow run again."
    )

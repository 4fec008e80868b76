"""A flow run's notes about the works that it has paid for or waited for; they show what its budget has been spent on.

| note                             | written                                                                    |
|----------------------------------|----------------------------------------------------------------------------|
| `place-1`                        | before the first claim or wait, with the id of the place of its works      |
| `<work>-claim-<n>`               | before the run creates `intent-n` of the work                              |
| `<work>-wait<a>-<n>`             | before attempt a waits for a task of another run or attempt                |
| `<work>-settled-<…>-<n>`         | when the cost of submission n is final                                     |

A claim counts only if the intent is this run's; a claim without an intent cost nothing. The name of a `settled` note
contains the cost of the submission, because a storage lists all names in one request, but reads only one record with
each request. If a submission has no such note, for example after a crash, the records of its work are read.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any

from rh_prefect.bounded_caches_and_locks import SingleFlight, UsedObjects
from rh_prefect.errors import ConfigError, RunningHubError
from rh_prefect.works.journal.costs_and_budget import (
    Charge,
    Charges,
    Costs,
    SpendTracker,
    charge_of,
    charges_in,
    charges_of,
)
from rh_prefect.works.journal.job_records_and_state import JobRecords, JobView, Submit
from rh_prefect.works.journal.journal import Journal, UnreadableRecord, run_together
from rh_prefect.works.journal.record_types import FORMAT_KEY, Record
from rh_prefect.works.journal.scope import Scope
from rh_prefect.works.journal.works_journal import HasEnded, WorksJournal, signs_of_life
from rh_prefect.works.loop_thread import LOOP

_AT_ONCE = 16
_PLACE = "pipeline-records-1"
_PLACE_ID = "place-1"
_CLAIM = re.compile(r"([0-9a-f]+)-claim-([0-9]+)")
_WAIT = re.compile(r"([0-9a-f]+)-wait[0-9]+-([0-9]+)")
_SETTLED = re.compile(r"([0-9a-f]+)-settled-([0-9a-f]+)-([0-9]+)")
_LONGEST_NOTE = 200
"""Maximum length of the name of a note; a folder's journal uses it as a file name."""

_log = logging.getLogger("rh_prefect")

Claim = tuple[str, int]
"""A work and the number of a submission."""


class RecordsLocation(Record):
    """The record that says where the records of a run's works are; another process reads it to cancel the run."""

    url: str  # The URL of the location
    storage: str | None = None  # Name of the storage block whose options open it; None for RH_STORAGE_OPTIONS


class PlaceId(Record):
    """The record that says which place has the records of a run: a path is another place on another machine."""

    id: str  # See `WorksJournal.place_id`


async def note_location(run: Journal, location: RecordsLocation) -> None:
    """Records the location of the works that a flow run shares with other runs; all its attempts use this location.

    A call at another location is refused: if it used the first one, the order of the calls would decide where another
    run finds its result.
    """
    first = await run.ensure(_PLACE, location)
    if first.url != location.url:
        raise ConfigError(
            f"This call would store its records in {location.url}, but an earlier call of the flow run used "
            f"{first.url}. A flow run has one place for these records, or it would not find its earlier results and "
            f"would pay for them again. Nothing was sent. What to do: set RH_RECORDS to {first.url} (and "
            "RH_STORAGE_OPTIONS, if it needs keys), which all calls, attempts and pipelines of the run then use; or "
            "give them the same storage; or start a new run."
        )


async def read_location(run: Journal) -> RecordsLocation | None:
    """Returns the location of the works that a flow run shares with other runs; None if the run shares none."""
    return await run.read_as(_PLACE, RecordsLocation)


@dataclass(slots=True)
class Notes:
    """The submissions of shared works that a run has claimed, waited for or settled."""

    run: Scope
    claims: set[Claim] = field(default_factory=set)  # Submissions that it has claimed, or was about to claim
    waits: set[Claim] = field(default_factory=set)  # Submissions of other runs that it has waited for
    # What a submission adds to its budget, if nothing can change that any more
    settled: dict[Claim, Charge | None] = field(default_factory=dict)

    @classmethod
    async def of(cls, run: Scope) -> Notes:
        """Builds the notes of a run from the names of its records."""
        notes = cls(run)
        async for name in run.journal.names():
            notes.add(name)
        return notes

    def add(self, name: str) -> None:
        """Adds the note that a record's name contains; ignores the names of other records."""
        if note := _CLAIM.fullmatch(name):
            self.claims.add((note[1], int(note[2])))
        elif note := _WAIT.fullmatch(name):
            self.waits.add((note[1], int(note[2])))
        elif note := _SETTLED.fullmatch(name):
            self.settled[note[1], int(note[3])] = _charge_in(note[2])

    @property
    def unsettled(self) -> list[Claim]:
        """The submissions that the run has claimed or waited for, and whose tasks may be running."""
        return sorted((self.claims | self.waits) - self.settled.keys())

    def jobs(self) -> AsyncIterator[JobView]:
        """Reads the submissions that the run has made, by work; if any are damaged, raises after the other works."""
        return self._read(self.claims)

    def open_jobs(self) -> AsyncIterator[JobView]:
        """Reads the submissions that the run has made and that have no `settled` note; see `jobs`."""
        return self._read(self.claims - self.settled.keys())

    async def charges(self) -> dict[str, Charges]:
        """Returns the charges of the submissions of the run, by work."""
        found: dict[str, Charges] = {}
        for work, n in self.claims & self.settled.keys():
            found.setdefault(work, {})[n] = self.settled[work, n]
        async for view in self.open_jobs():
            found.setdefault(view.key, {}).update(charges_of(view))
        return found

    async def _read(self, claims: Iterable[Claim]) -> AsyncIterator[JobView]:
        """Reads the run's own submissions among its claims, from the records of works."""
        works = await self.run.works()
        if works is None:
            return
        reading = (self._own(works, work, n) for work, n in sorted(claims))
        found, damaged = dict[str, JobView](), dict[str, UnreadableRecord]()
        async for work, submit in run_together(reading, at_once=_AT_ONCE):
            if isinstance(submit, UnreadableRecord):
                damaged[work] = submit
            else:
                view = found.setdefault(work, JobView(work))
                found[work] = view if submit is None else view.adding(submit)
        for work, view in found.items():
            if work not in damaged:
                yield view
        if damaged:
            first, *others = damaged.values()
            raise first.with_others(others)

    async def _own(self, works: WorksJournal, work: str, n: int) -> tuple[str, Submit | UnreadableRecord | None]:
        try:
            submit = await JobRecords(works, work).submission(n)
        except UnreadableRecord as error:
            return work, error
        is_own = submit is not None and submit.intent.flow_run == self.run.journal.scope
        return work, submit if is_own else None


def is_settled(submit: Submit) -> bool:
    """Returns whether the cost of a submission is final, because the submission was refused or its task has ended.

    The cost is not final if a person has resolved the submission, because its late owner may still report a task id.
    """
    if submit.answer is None or submit.resolution or submit.lost or submit.late:
        return False
    return submit.answer.outcome == "refused" or (submit.answer.outcome == "ticket" and submit.end is not None)


def settled_name(work: str, n: int, charge: Charge | None) -> str | None:
    """Returns the name of a `settled` note; None if the amounts do not fit into a name."""
    noted: list[Any] | None = None
    if charge is not None:
        amounts = {unit: str(amount) for unit, amount in charge.costs.amounts.items()}
        noted = [charge.currency, None if charge.amount is None else str(charge.amount), amounts, charge.costs.unknown]
    # In the characters that the key of a record may have.
    name = f"{work}-settled-{json.dumps(noted, separators=(',', ':')).encode().hex()}-{n}"
    return name if len(name) <= _LONGEST_NOTE else None


def _charge_in(code: str) -> Charge | None:
    """Returns the charge in the name of a note; see `settled_name`."""
    noted = json.loads(bytes.fromhex(code))
    if noted is None:
        return None
    currency, amount, amounts, unknown = noted
    costs = Costs({unit: Decimal(text) for unit, text in amounts.items()}, unknown=unknown)
    return Charge(None if amount is None else Decimal(amount), is_spent=True, currency=currency, costs=costs)


class SharedRecords(JobRecords):
    """The records of one work that all runs share, and one run's notes about this work."""

    is_shared = True

    def __init__(self, works: WorksJournal, work: str, run: Scope, *, has_ended: HasEnded) -> None:
        super().__init__(works, work)
        self._works = works
        self._run = run
        self._flow_run = run.journal.scope
        self._has_ended = has_ended
        self._waiters: list[str] = []
        self._noted: set[int] = set()
        self._settled: set[int] = set()

    def note_settled(self, submit: Submit) -> None:
        """Records the cost of a submission in the run's journal, if the cost is final; returns at once."""
        is_of_run = submit.intent.flow_run == self._flow_run or submit.n in self._noted
        if is_of_run and submit.n not in self._settled and is_settled(submit):
            self._settled.add(submit.n)
            LOOP.critical(self._note_settled(submit))

    async def _note_settled(self, submit: Submit) -> None:
        charge = charge_of(submit) if submit.intent.flow_run == self._flow_run else None
        name = settled_name(self.key, submit.n, charge)
        try:
            if name is not None:
                await self._note(name)
        except RunningHubError as error:
            _log.info(
                "%s: the outcome of submission %d is known, but could not be recorded for the budget: %s",
                self.name,
                submit.n,
                error,
            )

    async def note_waiter(self, *, suspended: float | None = None) -> None:
        """Records that the run waits for the work, so that other runs do not cancel its task."""
        name = await self._works.add_waiter(self.key, self._flow_run, suspended=suspended)
        if suspended is None:
            self._waiters.append(name)

    def signs_of_life(self) -> AbstractContextManager[None]:
        """Writes the run's signs of life at intervals during a `with` statement."""
        return signs_of_life(self._works, self._flow_run)

    async def release_waiter(self, *, only_own: bool = False) -> None:
        """Records that the run no longer waits for the work, so that another run can cancel its task.

        With `only_own`, other callers of the run may still wait.
        """
        if self._waiters or not only_own:
            await self._works.release_waiters(self.key, self._flow_run, only=self._waiters if only_own else None)

    async def has_other_waiters(self) -> bool:
        """Returns whether another run waits for the work."""
        return await self._works.has_other_waiter(self.key, self._flow_run, has_ended=self._has_ended)

    async def note_claim(self, n: int) -> None:
        """Records that the run is about to claim submission n; raises an error if the run has paid for it before."""
        self._noted.add(n)
        paid = await self._paid_before()
        if not await self._note(f"{self.key}-claim-{n}"):
            # An earlier process has ended before it claimed, or the records were replaced during this attempt.
            paid = await _paid_by(self._run)
        # If the records were deleted or are a copy without the latest ones, their numbers begin again, so the paid
        # submission may have another number than n.
        for number, costs in paid.get(self.key, {}).items():
            if await self.submission(number) is None:
                raise ConfigError(
                    f"{self.name}: this run has paid for submission {number} ({costs}), but {self._works.url} "
                    "does not have its records: they were deleted, or this place is an older copy. Nothing was sent. "
                    "What to do: restore these records, or start a new run."
                )

    async def note_wait(self, n: int) -> None:
        """Records that this attempt waits for the task of submission n, which it has not submitted."""
        await self.check_place()
        self._noted.add(n)
        await self._note(f"{self.key}-wait{self._run.attempt}-{n}")

    async def check_place(self) -> None:
        """Raises an error if an earlier attempt has used other records at the same path, as on another disk."""
        await self._paid_before()

    async def _paid_before(self) -> Mapping[str, Mapping[int, str]]:
        """Checks the place of the records; returns what the run has paid for before this attempt, see `_paid_by`."""
        # A later attempt in this process checks it again: the records may have been deleted meanwhile.
        name = (repr(self._run.journal), repr(self._works), self._run.calls.number)
        return await _places.get(name, partial(_check_place, self._run, self._works))

    async def has_waited(self, n: int, *, since: int) -> bool:
        """Returns whether this attempt, or an earlier one from attempt `since` on, waited for the task."""
        attempts = range(since, self._run.attempt + 1)
        notes = [await self._run.journal.read(f"{self.key}-wait{attempt}-{n}") for attempt in attempts]
        return any(note is not None for note in notes)

    async def _note(self, key: str) -> bool:
        return await self._run.journal.create(key, Record().model_dump(mode="json"))


_places: SingleFlight[tuple[str, str, int], Mapping[str, Mapping[int, str]]] = SingleFlight(1000)
# Its calls are tasks of the loop of the parent, which a forked child does not have.
os.register_at_fork(after_in_child=_places.clear)


async def _check_place(run: Scope, works: WorksJournal) -> Mapping[str, Mapping[int, str]]:
    """Returns what a run has paid for before; see `_paid_by`.

    Raises an error unless the run uses the same records as at its first claim or wait, whose place it notes.
    """
    place = PlaceId(id=await works.place_id())
    first = await run.journal.ensure(_PLACE_ID, place)
    if first is place:
        return {}
    if first.id != place.id:
        raise ConfigError(
            f"Run {run.journal.scope} may have submitted tasks, or waited for them, but the records that it used, with "
            f"the id in {FORMAT_KEY}, are not in {works.url}: they are on the disk of another machine, or were "
            "deleted. Nothing was paid now. What to do: run again where these records are, or start a new run. For "
            "workers on several machines, set RH_RECORDS to a place that they share, such as an S3 bucket."
        )
    return await _paid_by(run)


async def _paid_by(run: Scope) -> Mapping[str, Mapping[int, str]]:
    """Returns the settled costs of a run's submissions by work and number, as text, which needs little memory."""
    found: dict[str, dict[int, str]] = {}
    for (work, n), charge in (await Notes.of(run)).settled.items():
        if charge is not None:
            found.setdefault(work, {})[n] = str(charge.costs)
    return found


_trackers: UsedObjects[tuple[str, int], SpendTracker] = UsedObjects(200)
# The locks are bound to the event loop of the parent, which a forked child does not have.
os.register_at_fork(after_in_child=_trackers.clear)


def spending_of(run: Scope) -> SpendTracker:
    """Returns this process's only `SpendTracker` for an attempt of a run; call it on the loop thread.

    Each attempt reads the journal again, because another process may have paid meanwhile.
    """
    return _trackers.setdefault((repr(run.journal), run.calls.number), SpendTracker(partial(all_charges, run)))


async def all_charges(run: Scope) -> AsyncIterator[tuple[str, Charges]]:
    """Yields the charges of a run's jobs, and of its submissions of shared works."""
    async for key, charges in charges_in(run):
        yield key, charges
    if await run.works() is not None:
        for one in (await (await Notes.of(run)).charges()).items():
            yield one

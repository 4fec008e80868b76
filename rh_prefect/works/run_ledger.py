"""The works that a flow run has paid for or waited for; the run's budget is computed from them.

| note                             | written                                                                    |
|----------------------------------|----------------------------------------------------------------------------|
| `<work>-claim-<n>`               | before the run creates `intent-n` of the work                              |
| `<work>-wait<a>-<n>`             | before attempt a waits for the task of another run                         |
| `<work>-settled-<place>-<…>-<n>` | when the run sees that nothing can change any more what submission n costs |

A claim counts only where the intent is this run's: one without an intent cost nothing.

The name of a `settled` note holds what the submission adds to the budget, since a storage lists names in one request
and reads records in one request each. Submissions without such a note are read in the records of their works, so that
a crash before the note loses nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial

from rh_prefect.errors import ConfigError
from rh_prefect.works.journal.budget import (
    Entries,
    Entry,
    SpendTracker,
    entries_in,
    entries_of,
    entry_of,
    spend_tracker_of,
)
from rh_prefect.works.journal.costs import COINS, Costs
from rh_prefect.works.journal.job_records import JobView, Submit
from rh_prefect.works.journal.journal import JSON, Journal, run_together
from rh_prefect.works.journal.record_types import Record
from rh_prefect.works.journal.scope import Scope
from rh_prefect.works.journal.works_journal import FOLDER, WorksJournal

_AT_ONCE = 16
_PLACE = "pipeline-records-1"
_OF_A_PIPELINE = "-place-1"
_CLAIM = re.compile(r"([0-9a-f]+)-claim-([0-9]+)")
_WAIT = re.compile(r"([0-9a-f]+)-wait[0-9]+-([0-9]+)")
_SETTLED = re.compile(r"([0-9a-f]+)-settled-([0-9a-f]+)((?:-[a-z0-9]+)*)-([0-9]+)")
_AMOUNT = re.compile(r"([a-z]+)([0-9]+(?:p[0-9]+)?)?")
_UNKNOWN = "unknown"
_LONGEST_NOTE = 200
"""Characters of the name of a note, which a folder's journal uses as the name of a file."""

Claim = tuple[str, int]
"""A work and the number of a submission."""


class Noted(Record):
    """A note in a flow run's journal about a claim or a wait."""

    attempt: int  # The attempt of the flow run
    name: str = ""  # The step, for people


class RecordsPlace(Record):
    """The location of the records of a flow run's works, for its cancellation from another process."""

    url: str  # The place
    storage: str | None = None  # Name of the storage block whose options open it; None for RH_STORAGE_OPTIONS


async def note_place(run: Journal, place: RecordsPlace, pipeline: str, *, attempt: int) -> None:
    """Records the location of the works of a pipeline in a flow run's journal.

    Several pipelines of one flow run may have several places, and each keeps its own in later attempts.
    """
    noted = place.model_dump(mode="json")
    await run.create(_PLACE, noted)
    first_key, key = f"{_hash_of(pipeline)}{_OF_A_PIPELINE}", _key_of(pipeline, place)
    # Before the first place: a flow that also uses that one in this attempt runs the pipeline in several places.
    await run.create(_used_key(key, attempt), Record().model_dump(mode="json"))
    if not await run.create(first_key, noted):
        first = RecordsPlace.model_validate(await run.read(first_key))
        is_known = first.url == place.url or await run.read(key) is not None
        if not is_known and await run.read(_used_key(_key_of(pipeline, first), attempt)) is None:
            raise ConfigError(
                f"{pipeline}: this attempt would keep its records in {place.url}, but an earlier attempt of the flow "
                f"run used {first.url}: the run would pay again for results that exist. Nothing was sent. What to do: "
                "give this attempt the same storage and the same RH_RECORDS, or start a new run."
            )
    await run.create(key, noted)


def _key_of(pipeline: str, place: RecordsPlace) -> str:
    """The key of a place; a flow may run a pipeline of one name in several places."""
    return f"{_hash_of(f'{pipeline} {place.url}')}{_OF_A_PIPELINE}"


def _used_key(key: str, attempt: int) -> str:
    return f"{key.removesuffix(_OF_A_PIPELINE)}-used-{attempt}"


def _hash_of(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:40]


async def has_works(run: Journal) -> bool:
    """Checks whether a flow run has run a pipeline."""
    return await run.read(_PLACE) is not None


async def read_places(run: Journal) -> list[RecordsPlace]:
    """Reads the locations of a flow run's works; it has several if its pipelines have several storages."""
    first = await run.read(_PLACE)
    if first is None:
        return []
    found = [first]
    async for _, records in run.jobs():
        found += [record for key, record in records.items() if key.endswith(_OF_A_PIPELINE)]
    places: dict[str, RecordsPlace] = {}
    for record in found:
        place = RecordsPlace.model_validate(record)
        places.setdefault(place.url, place)  # two blocks of one location would list each work twice
    return list(places.values())


@dataclass(slots=True)
class Notes:
    """The notes of a flow run about the works in one place."""

    claims: set[Claim] = field(default_factory=set)  # Submissions that it has claimed, or was about to claim
    waits: set[Claim] = field(default_factory=set)  # Submissions of other runs that it has waited for
    # What a submission adds to its budget, where nothing can change that any more
    settled: dict[Claim, Entry | None] = field(default_factory=dict)

    def add(self, name: str, place: str) -> None:
        """Adds a note by its name; ignores other records, and what was settled in another place."""
        if note := _CLAIM.fullmatch(name):
            self.claims.add((note[1], int(note[2])))
        elif note := _WAIT.fullmatch(name):
            self.waits.add((note[1], int(note[2])))
        elif (note := _SETTLED.fullmatch(name)) and note[2] == place:
            self.settled[note[1], int(note[4])] = _entry_in(note[3].split("-")[1:])

    @property
    def open_claims(self) -> set[Claim]:
        """The claims of which no note says what they cost."""
        return self.claims - self.settled.keys()


def is_settled(submit: Submit) -> bool:
    """Returns whether no later record can change what a submission costs, or whether its task runs.

    A submission that was resolved by a person may still get the ticket of its late owner.
    """
    if submit.answer is None or submit.resolution or submit.lost or submit.late:
        return False
    return submit.answer.outcome == "refused" or (submit.answer.outcome == "ticket" and submit.end is not None)


def _words_of(entry: Entry | None) -> list[str]:
    """Returns the parts of a note's name: the amount in the budget, then what the task has cost."""
    if entry is None:
        return []
    amounts = [(entry.currency, entry.amount), *entry.costs.amounts.items()]
    words = [unit.lower() + ("" if amount is None else f"{amount:f}".replace(".", "p")) for unit, amount in amounts]
    return words + [_UNKNOWN] * entry.costs.unknown


def _entry_in(words: Sequence[str]) -> Entry | None:
    """Reads what a note says that a submission adds to the budget; see `_words_of`."""
    if not words:
        return None
    (currency, amount), words = _amount_in(words[0]), words[1:]
    costs = [_amount_in(word) for word in words if word != _UNKNOWN]
    paid = Costs({unit: cost for unit, cost in costs if cost is not None}, unknown=words.count(_UNKNOWN))
    return Entry(amount, is_spent=True, currency=currency, costs=paid)


def _amount_in(word: str) -> tuple[str, Decimal | None]:
    found = _AMOUNT.fullmatch(word)
    if found is None:
        raise ValueError(f"{word!r} is not an amount")
    unit = found[1] if found[1] == COINS else found[1].upper()
    return unit, Decimal(found[2].replace("p", ".")) if found[2] else None


def settled_name(work: str, place: str, n: int, entry: Entry | None) -> str | None:
    """Returns the name of a note; None where a name cannot hold the amount, whose record is read then."""
    words = _words_of(entry)
    name = "-".join([work, "settled", place, *words, str(n)])
    if len(name) > _LONGEST_NOTE or not all(map(_AMOUNT.fullmatch, words)):
        return None
    noted = _entry_in(words)
    is_whole = noted == entry and (noted is None or entry is None or noted.costs == entry.costs)
    return name if is_whole else None


class WorksLedger:
    """The claims of one flow run, and the submissions that it pays for."""

    def __init__(self, run: Scope, works: WorksJournal) -> None:
        """Stores the arguments; reads nothing."""
        self._run = run
        self._works = works
        self._place = works.scope.removeprefix(f"{FOLDER}-")
        self.scope = run.journal.scope

    def __repr__(self) -> str:
        return f"WorksLedger({self._run.journal!r}, {self._works!r})"

    @property
    def flow_run(self) -> str:
        """The flow run's name, as written in intents."""
        return self._run.journal.scope

    @property
    def attempt(self) -> int:
        """The attempt of the flow run."""
        return self._run.attempt

    async def note_claim(self, work: str, n: int, name: str) -> None:
        """Notes that this run is about to claim a submission of a work."""
        await self._note(f"{work}-claim-{n}", name)

    async def note_wait(self, work: str, n: int) -> None:
        """Notes that this attempt waits for the task of another run."""
        await self._note(f"{work}-wait{self._run.attempt}-{n}")

    async def note_settled(self, work: str, submit: Submit) -> None:
        """Notes what a submission has cost this run, if nothing can change that any more."""
        entry = entry_of(submit) if submit.intent.flow_run == self.flow_run else None
        name = settled_name(work, self._place, submit.n, entry) if is_settled(submit) else None
        if name is not None:
            await self._note(name)

    async def has_waited(self, work: str, n: int) -> bool:
        """Checks whether this attempt, or one whose payments count with it, has waited for a task."""
        attempts = range(self._run.first_attempt, self._run.attempt + 1)
        notes = [await self._run.journal.read(f"{work}-wait{attempt}-{n}") for attempt in attempts]
        return any(note is not None for note in notes)

    async def claims(self) -> list[Claim]:
        """Lists the submissions that this run has claimed, or was about to claim."""
        return sorted((await self._notes()).claims)

    async def unsettled(self) -> list[Claim]:
        """Lists the submissions that it has claimed or waited for, and whose tasks may run."""
        notes = await self._notes()
        return sorted((notes.claims | notes.waits) - notes.settled.keys())

    async def _notes(self) -> Notes:
        notes = Notes()
        async for name in self._run.journal.names():
            notes.add(name, self._place)
        return notes

    async def jobs(self) -> list[JobView]:
        """Reads the submissions that this run has made, by work."""
        return await self._read((await self._notes()).claims)

    async def open_jobs(self) -> list[JobView]:
        """Reads the submissions that this run has made and of which no note says that they are settled."""
        return await self._read((await self._notes()).open_claims)

    async def entries(self) -> AsyncIterator[tuple[str, Entries]]:
        """Lists what the submissions of this run add to its budget.

        Each work by its full name, since the run may have the same work in several places.
        """
        notes = await self._notes()
        found: dict[str, Entries] = {}
        for work, n in notes.claims & notes.settled.keys():
            found.setdefault(work, {})[n] = notes.settled[work, n]
        for view in await self._read(notes.open_claims):
            found.setdefault(view.key, {}).update(entries_of(view))
        for work, entries in found.items():
            yield f"{self._works.scope}/{work}", entries

    async def _read(self, claims: Iterable[Claim]) -> list[JobView]:
        """Reads submissions in the records of works, by work; those of other runs are left out."""
        waiting = deque(partial(self._own, work, n) for work, n in sorted(claims))
        found: dict[str, dict[str, JSON]] = {}
        async for work, records in run_together(waiting, at_once=_AT_ONCE):
            found.setdefault(work, {}).update(records)
        return [JobView.parse(work, records) for work, records in found.items()]

    async def _note(self, key: str, name: str = "") -> None:
        await self._run.journal.create(key, Noted(attempt=self._run.attempt, name=name).model_dump(mode="json"))

    async def _own(self, work: str, n: int) -> tuple[str, dict[str, JSON]]:
        records = await self._works.numbered(work, n)
        is_own = records.get(f"{work}-intent-{n}", {}).get("flow_run") == self.flow_run
        return work, records if is_own else {}


def spending_of(run: Scope) -> SpendTracker:
    """Returns this process's only count of what a run pays for; call it on the loop thread."""
    return spend_tracker_of(repr(run.journal), partial(_entries_of, run), attempt=run.calls.number)


async def _entries_of(run: Scope) -> AsyncIterator[tuple[str, Entries]]:
    """Lists what a run pays for: its own jobs, and the works that it shares with other runs."""
    async for key, entries in entries_in(run.journal):
        yield key, entries
    for works in await run.works():
        async for key, entries in WorksLedger(run, works).entries():
            yield key, entries

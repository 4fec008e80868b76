"""The works that a flow run has paid for or waited for; the run's budget is computed from them.

| note                   | written                                             |
|------------------------|-----------------------------------------------------|
| `<work>-claim-<n>`     | before the run creates `intent-n` of the work       |
| `<work>-wait<a>-<n>`   | before attempt a waits for the task of another run  |

A claim counts only where the intent is this run's: one without an intent cost nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import assert_never

from rh_prefect.errors import ConfigError, RunningHubError
from rh_prefect.jobs.journal.job_records import JobRecords, Submit
from rh_prefect.jobs.journal.journal import JSON, Journal, run_together
from rh_prefect.jobs.journal.record_types import Intent, Record
from rh_prefect.jobs.journal.scope import Scope
from rh_prefect.jobs.lifecycle import cancel_work
from rh_prefect.jobs.lifecycle_step_types import CancelTask, ReadSubmission, ReadWaiters, ReleaseWaiter
from rh_prefect.jobs.run_cancellation import UNCLEAR, Cancels, cancel_submission, is_unclear
from rh_prefect.pipelines.rounds import HasEnded, no_evidence
from rh_prefect.pipelines.works_store import WorksJournal

_AT_ONCE = 16
_PLACE = "pipeline-records-1"
_OF_A_PIPELINE = "-place-1"
_CLAIM = re.compile(r"([0-9a-f]+)-claim-([0-9]+)")
_WAIT = re.compile(r"([0-9a-f]+)-wait[0-9]+-([0-9]+)")


class Noted(Record):
    """A note in a flow run's journal about a claim or a wait.

    Attributes:
        attempt: The attempt of the flow run.
        name: The step, for people.
    """

    attempt: int
    name: str = ""


class RecordsPlace(Record):
    """The location of the records of a flow run's works, for its cancellation from another process.

    Attributes:
        url: The place.
        storage: Name of the storage block whose options open it; None for RH_STORAGE_OPTIONS.
    """

    url: str
    storage: str | None = None


async def note_place(run: Journal, place: RecordsPlace, pipeline: str, *, attempt: int) -> None:
    """Records the location of the works of a pipeline in a flow run's journal.

    Several pipelines of one flow run may have several places, and each keeps its own in later attempts.

    Args:
        run: The flow run's journal.
        place: The place.
        pipeline: The pipeline's name.
        attempt: The attempt of the flow run.

    Raises:
        ConfigError: An earlier attempt of the run has the works of the pipeline in another place.
    """
    noted = place.model_dump(mode="json")
    await run.create(_PLACE, noted)
    first_key, key = f"{_hash_of(pipeline)}{_OF_A_PIPELINE}", _key_of(pipeline, place)
    # Before the first place: a flow that uses that one in this attempt, too, runs the pipeline in several places.
    await run.create(_used_key(key, attempt), Record().model_dump(mode="json"))
    if not await run.create(first_key, noted):
        first = RecordsPlace.model_validate(await run.read(first_key))
        is_known = first.url == place.url or await run.read(key) is not None
        if not is_known and await run.read(_used_key(_key_of(pipeline, first), attempt)) is None:
            raise ConfigError(
                f"An earlier attempt of this flow run has the records of {pipeline} in {first.url}, and this one would "
                f"have them in {place.url}: what was paid for would be paid for again, and would not count in the "
                "budget. Nothing was sent. What to do: give this attempt the same storage and the same RH_RECORDS, or "
                "start a new run."
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
    """Checks whether a flow run has run a pipeline.

    Args:
        run: The flow run's journal.
    """
    return await run.read(_PLACE) is not None


async def read_places(run: Journal) -> list[RecordsPlace]:
    """Reads the locations of a flow run's works; it has several if its pipelines have several storages.

    Args:
        run: The flow run's journal.
    """
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
class CancelledWorks:
    """The results of cancelling the tasks of a run.

    Attributes:
        cancelled: Tasks that were cancelled.
        finished: Tasks that had ended already.
        continued: Tasks that continue, since another run waits for them.
        failed: Work -> the reason why its task could not be cancelled, or why its existence is unknown.
    """

    cancelled: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    continued: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class WorksLedger:
    """The claims of one flow run; as a job source, it returns the submissions that this run pays for."""

    def __init__(self, run: Scope, works: WorksJournal) -> None:
        """Stores the arguments; reads nothing.

        Args:
            run: The flow run.
            works: The records of works.
        """
        self._run = run
        self._works = works
        self.scope = run.journal.scope

    def __repr__(self) -> str:
        return f"WorksLedger({self._run.journal!r}, {self._works!r})"

    @property
    def flow_run(self) -> str:
        """The flow run's name, as written in intents."""
        return self._run.journal.scope

    async def note_claim(self, work: str, n: int, name: str) -> None:
        """Notes that this run is about to claim a submission of a work."""
        await self._note(f"{work}-claim-{n}", name)

    async def note_wait(self, work: str, n: int) -> None:
        """Notes that this attempt waits for the task of another run."""
        await self._note(f"{work}-wait{self._run.attempt}-{n}")

    async def has_waited(self, work: str, n: int) -> bool:
        """Checks whether this attempt, or one whose payments count with it, has waited for a task."""
        attempts = range(self._run.first_attempt, self._run.attempt + 1)
        notes = [await self._run.journal.read(f"{work}-wait{attempt}-{n}") for attempt in attempts]
        return any(note is not None for note in notes)

    async def claims(self) -> list[tuple[str, int]]:
        """Lists the submissions that this run has claimed, or was about to claim."""
        return await self._noted(_CLAIM)

    async def _noted(self, *kinds: re.Pattern[str]) -> list[tuple[str, int]]:
        found = [key async for _, records in self._run.journal.jobs() for key in records]
        notes = (kind.fullmatch(key) for kind in kinds for key in found)
        return sorted({(note[1], int(note[2])) for note in notes if note})

    async def jobs(self) -> AsyncIterator[tuple[str, dict[str, JSON]]]:
        """Reads the submissions that this run has made, in the form of a journal's jobs."""
        waiting = deque(partial(self._own, work, n) for work, n in await self.claims())
        found: dict[str, dict[str, JSON]] = {}
        async for work, records in run_together(waiting, at_once=_AT_ONCE):
            found.setdefault(work, {}).update(records)
        for work, records in found.items():
            yield work, records

    async def cancel(
        self, client_for: Callable[[Intent], Awaitable[Cancels]], *, has_ended: HasEnded = no_evidence
    ) -> CancelledWorks:
        """Cancels the tasks that this run made or waited for, and that no other run waits for.

        Args:
            client_for: Finds the client of the account that an intent names.
            has_ended: Returns whether a flow run has certainly ended.
        """
        done = CancelledWorks()
        noted = await self._noted(_CLAIM, _WAIT)
        waiting = deque(partial(self._cancel, work, n, client_for, has_ended, done) for work, n in noted)
        async for _ in run_together(waiting, at_once=_AT_ONCE):
            pass
        return done

    async def _note(self, key: str, name: str = "") -> None:
        await self._run.journal.create(key, Noted(attempt=self._run.attempt, name=name).model_dump(mode="json"))

    async def _own(self, work: str, n: int) -> tuple[str, dict[str, JSON]]:
        records = await self._works.numbered(work, n)
        is_own = records.get(f"{work}-intent-{n}", {}).get("flow_run") == self.flow_run
        return work, records if is_own else {}

    async def _cancel(
        self,
        work: str,
        n: int,
        client_for: Callable[[Intent], Awaitable[Cancels]],
        has_ended: HasEnded,
        done: CancelledWorks,
    ) -> None:
        name, life = f"{self._works.scope}/{work}", cancel_work(n)
        submit: Submit | None = None
        status: str | None = None
        try:
            step = next(life)
            while True:
                match step:
                    case ReadSubmission():
                        submit = await self._works.submission(work, n)
                        step = life.send(submit)
                    case ReleaseWaiter():
                        await self._works.release_waiters(work, self.flow_run)
                        step = life.send(None)
                    case ReadWaiters():
                        others = await self._works.has_other_waiter(work, self.flow_run, has_ended=has_ended)
                        step = life.send(others)
                    case CancelTask(ticket):
                        records, client = JobRecords(self._works, work), await client_for(ticket.intent)
                        status = await cancel_submission(client, ticket, records=records, attempt=self._run.attempt)
                        step = life.send(None)
                    case other:
                        assert_never(other)
        except StopIteration:
            task_id = submit.task_id if submit is not None and submit.state == "ticket" else None
            if task_id:
                found = done.cancelled if status == "CANCELLED" else done.finished if status else done.continued
                found.append(task_id)
            elif submit is not None and submit.intent.flow_run == self.flow_run and is_unclear(submit):
                done.failed[name] = UNCLEAR
        except RunningHubError as error:
            done.failed[name] = error.message

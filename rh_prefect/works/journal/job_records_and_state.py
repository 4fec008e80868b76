"""Reads and writes one job's records, and derives the job's state from them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from rh_prefect.errors import InputError
from rh_prefect.works.journal.identity import text_hash
from rh_prefect.works.journal.journal import Journal, UnreadableRecord, is_job_key
from rh_prefect.works.journal.record_types import (
    Answer,
    End,
    Intent,
    Lost,
    Record,
    Resolution,
    ResultRecord,
)

RESUBMITTED = "on_unknown=resubmit"
"""The source of a resolution by the caller's option, without a check: the submission may be charged."""

BY_A_PERSON = "a person"
"""The source of a resolution by a person, who has checked that the submission was not accepted."""

JobState = Literal["new", "open", "ticket", "refused", "unknown", "forgotten", "ended"]

KINDS: Final[Mapping[str, type[Record]]] = {
    "intent": Intent,
    "answer": Answer,
    "resolution": Resolution,
    "end": End,
    "lost": Lost,
    "late": Answer,
}
"""The records of a submission, by the word in their keys."""

_KIND_OF: Final = {known: kind for kind, known in KINDS.items() if kind != "late"}
"""The word of a record in its key, by the record's type; a late answer is named by its caller."""

_log = logging.getLogger("rh_prefect")


@dataclass(frozen=True, slots=True)
class Submit:
    """One numbered submission of a job, with its records."""

    n: int
    intent: Intent
    answer: Answer | None = None
    resolution: Resolution | None = None
    end: End | None = None
    lost: Lost | None = None
    late: Answer | None = None

    @property
    def state(self) -> JobState:
        """The state that the submission's records show."""
        # A task that was given up and has an end was found after all.
        if self.lost is not None and (self.end is None or self.lost.of_result):
            return "forgotten"
        if self.end is not None:
            return "ended"
        # A recorded task id takes precedence over any other answer: to ignore it would pay again.
        if self.resolution is not None and self.resolution.outcome == "adopted":
            return "ticket"
        if self.answer is None:
            return "open"
        if self.answer.outcome != "unknown":
            return self.answer.outcome
        return "unknown" if self.resolution is None else "forgotten"

    @property
    def has_succeeded(self) -> bool:
        """Whether its task is recorded as successful, and so as paid for."""
        return self.end is not None and self.end.status == "SUCCESS"

    @property
    def may_give_result(self) -> bool:
        """Whether it has or may have a task whose result a run would use."""
        return self.state in ("open", "ticket", "unknown") or (self.state == "ended" and self.has_succeeded)

    @property
    def may_be_paid(self) -> bool:
        """Whether the submission may be charged: it is unknown, was resolved unchecked, or has lost its task."""
        if self.state == "forgotten":
            return self.lost is not None or (self.resolution is not None and self.resolution.by == RESUBMITTED)
        return self.state == "unknown"

    @property
    def task_id(self) -> str | None:
        """RunningHub's task id, from any record that contains it."""
        for record in (self.end, self.resolution, self.answer):
            if record is not None and record.task_id:
                return record.task_id
        return None

    def has_answer(self, answer: Answer) -> bool:
        """Returns whether the records of the submission already say what a certain answer to it says."""
        return self.task_id == answer.task_id if answer.task_id else self.state not in ("open", "unknown")

    @property
    def late_task_id(self) -> str | None:
        """The task id that arrived after the submission was resolved without a task id."""
        late = self.late.task_id if self.late is not None else None
        return late if late != self.task_id else None


@dataclass(frozen=True, slots=True)
class JobView:
    """All journal records of one job, in the order of its submissions."""

    key: str
    submits: tuple[Submit, ...] = ()
    result: ResultRecord | None = None

    @property
    def last(self) -> Submit | None:
        """The newest submission, which determines the next step."""
        return self.submits[-1] if self.submits else None

    @property
    def state(self) -> JobState:
        """The state of the newest submission; `new` if there is none."""
        return self.last.state if self.last else "new"

    @property
    def tickets(self) -> int:
        """The number of this job's tasks that were paid for."""
        return sum(1 for submit in self.submits if submit.task_id)

    def find(self, n: int) -> Submit | None:
        """Returns the submission with this number; None if the job has no such submission."""
        return next((submit for submit in self.submits if submit.n == n), None)

    def adding(self, submit: Submit) -> JobView:
        """Returns a copy with one more submission, or with newer data of a known submission."""
        others = (old for old in self.submits if old.n != submit.n)
        return replace(self, submits=tuple(sorted((*others, submit), key=lambda other: other.n)))

    @classmethod
    def parse(cls, journal: Journal, key: str, records: Mapping[str, Mapping[str, Any]]) -> JobView:
        """Builds the view from a job's records in a journal, which may be in any order."""
        by_number: dict[int, dict[str, Mapping[str, Any]]] = {}
        for name, record in records.items():
            kind, _, n = name.removeprefix(f"{key}-").rpartition("-")
            if n.isdecimal():
                by_number.setdefault(int(n), {})[kind] = record
        # A submit without its intent can only be a half-finished reading: the intent is always written first.
        submits = tuple(_submit(journal, key, n, by_number[n]) for n in sorted(by_number) if "intent" in by_number[n])
        name = result_key(key)
        result = journal.parse(name, ResultRecord, records[name]) if name in records else None
        return cls(key, submits, result)


class JobRecords:
    """Reads and writes one work's records in the scope of one run. No other class makes the keys of such records.

    No other run shares this work, so the methods for waiters, signs of life and the run's notes do nothing.
    """

    is_shared = False  # Whether other runs share the work

    def __init__(self, journal: Journal, key: str) -> None:
        self.journal = journal
        self.key = key

    @property
    def name(self) -> str:
        """The job's full name, as messages and `rh-prefect jobs` show it."""
        return f"{self.journal.scope}/{self.key}"

    async def view(self) -> JobView:
        """Reads all records of the job."""
        return JobView.parse(self.journal, self.key, await self.journal.job(self.key))

    async def submission(self, n: int) -> Submit | None:
        """Reads one submission; None if the job has no submission of this number."""
        return JobView.parse(self.journal, self.key, await self.journal.numbered(self.key, n)).find(n)

    async def note_waiter(self, *, suspended: float | None = None) -> None:
        """Records that the run waits for the work; `suspended` is the seconds for which a suspended run waits."""

    async def release_waiter(self, *, only_own: bool = False) -> None:
        """Records that the run no longer waits for the work; with `only_own`, that this process no longer does."""

    def signs_of_life(self) -> AbstractContextManager[None]:
        """Writes a sign of life of the run at intervals, during a `with` block."""
        return nullcontext()

    async def has_other_waiters(self) -> bool:
        """Returns whether another run waits for the work."""
        return False

    async def check_place(self) -> None:
        """Raises an error if the run's earlier attempts had other records; those of a flow run are always the same."""

    async def note_claim(self, n: int) -> None:
        """Records that the run is about to claim submission n."""

    async def note_wait(self, n: int) -> None:
        """Records that the run waits for the task of submission n."""

    async def has_waited(self, n: int, *, since: int) -> bool:  # noqa: ARG002 - of shared works
        """Returns whether this attempt, or an earlier one from attempt `since` on, waited for the task."""
        return False

    def note_settled(self, submit: Submit) -> None:
        """Records the cost of a submission in the run's journal, if the cost is final; returns at once."""

    async def create(self, n: int, record: Record, *, kind: str = "") -> bool:
        """Creates a record of submission n; returns False if it exists. The type determines the kind, except `late`."""
        kind = kind or _KIND_OF[type(record)]
        return await self.journal.create(f"{self.key}-{kind}-{n}", record.model_dump(mode="json"))

    async def settle(self, submit: Submit, answer: Answer, *, by: str) -> Submit:
        """Records the answer to a submission, and returns the submission as it is recorded.

        If another process has already recorded the answer as unknown, this process resolves the unknown answer.
        """
        n = submit.n
        if await self.create(n, answer):
            return replace(submit, answer=answer)
        known = await self.submission(n)
        if known is not None and answer.task_id and known.task_id == answer.task_id:
            return known  # a resolution would only leave the cost open
        if answer.outcome == "ticket":
            await self.create(n, Resolution(outcome="adopted", task_id=answer.task_id, by=by))
        elif answer.outcome == "refused":
            await self.create(n, Resolution(outcome="forgotten", by=by))
        valid = await self.submission(n) or submit
        if answer.outcome == "ticket" and valid.task_id != answer.task_id:
            await self.create(n, answer, kind="late")
            _log.error(
                "%s: task %s was paid for, but another outcome of its submission is recorded, so its result is not "
                "used. What to do: look for the task in RunningHub's call log.",
                self.name,
                answer.task_id,
            )
        return valid

    async def end(self, n: int, record: End) -> End:
        """Creates end n; returns the recorded end, which another process may have created."""
        return await self.journal.ensure(f"{self.key}-end-{n}", record)

    async def read_end(self, n: int) -> End | None:
        """Reads how submission n ended; None if no end is recorded."""
        return await self.journal.read_as(f"{self.key}-end-{n}", End)

    async def read_result(self, shape: str = "") -> ResultRecord | None:
        """Reads the result; None if it does not exist."""
        return await self.journal.read_as(result_key(self.key, shape), ResultRecord)

    async def create_result(self, record: ResultRecord, shape: str = "") -> bool:
        """Creates the result; returns False if a result exists."""
        return await self.journal.create(result_key(self.key, shape), record.model_dump(mode="json"))


def result_key(key: str, shape: str = "") -> str:
    """Returns the key of a work's result; each `shape` of an answer has a separate result."""
    return f"{key}-result-{text_hash(shape, 16)}" if shape else f"{key}-result"


def split_job(name: str) -> tuple[str, str]:
    """Splits a job's full name, `<scope>/<key>`."""
    scope, slash, key = name.rpartition("/")
    if not (scope and slash and is_job_key(key)):
        raise InputError(
            f"{name!r} is not the name of a job. What to do: pass <run>/<key>, as `rh-prefect jobs list` shows it."
        )
    return scope, key


async def read_job(journal: Journal, key: str) -> JobView:
    """Reads a job; raises an error if it is not recorded."""
    view = await JobRecords(journal, key).view()
    if view.last is None:
        raise InputError(
            f"{journal.scope}/{key}: this job is not recorded here. What to do: look up the job with `rh-prefect jobs "
            "list`. If the job belongs to a pipeline or a named scope, set RH_RECORDS and RH_STORAGE_URL to the "
            "values of its run; if its storage is a block, pass --storage BLOCK."
        )
    return view


async def jobs_of(journal: Journal) -> AsyncIterator[JobView]:
    """Reads all jobs of a scope, page by page; raises `UnreadableRecord` after the other jobs if any are damaged."""
    damaged = list[UnreadableRecord]()
    async for key, texts in journal.jobs():
        try:
            # A damaged note of a run that waits for the work, or claims it, says nothing about its tasks.
            read = {name: journal.decode(name, text) for name, text in texts.items() if _is_of_view(key, name)}
            view = JobView.parse(journal, key, read)
        except UnreadableRecord as error:
            damaged.append(error)
        else:
            yield view
    if damaged:
        first, *others = damaged
        raise first.with_others(others)


def _is_of_view(key: str, name: str) -> bool:
    return name == result_key(key) or name.removeprefix(f"{key}-").rpartition("-")[0] in KINDS


def _submit(journal: Journal, key: str, n: int, records: Mapping[str, Mapping[str, Any]]) -> Submit:
    # In one order, so that of several unreadable records the same one is named each time.
    parsed: Mapping[str, Any] = {
        kind: journal.parse(f"{key}-{kind}-{n}", known, records[kind])
        for kind, known in KINDS.items()
        if kind in records
    }
    return Submit(n, **parsed)

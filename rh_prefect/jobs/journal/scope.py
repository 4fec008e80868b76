"""The run that a job belongs to: its records, and its calls."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Protocol

from rh_prefect.jobs.journal.call_registry import CallRegistry
from rh_prefect.jobs.journal.journal import FolderJournal, Journal
from rh_prefect.jobs.journal.process import Owner, current_owner
from rh_prefect.jobs.journal.records import Record


class Scope(Protocol):
    """The run that a job belongs to.

    Attributes:
        journal: Holds the scope's records.
        run: A short name of the run, for file names.
        flow: The flow's name, for file names.
        attempt: Which attempt of the run this is, from 1.
        task_attempt: Which attempt of the calling task this is, from 1.
        first_attempt: The first attempt whose payments count together with this one's: this one itself, which a person
            started, or an earlier one where Prefect retries the flow by itself.
        details: What a manifest says of the run, as plain JSON.
        calls: The calls of this attempt of the run.
    """

    @property
    def journal(self) -> Journal:
        """The scope's records."""
        ...

    @property
    def run(self) -> str:
        """A short name, for file names."""
        ...

    @property
    def flow(self) -> str:
        """The flow's name, for file names."""
        ...

    @property
    def attempt(self) -> int:
        """Which attempt of the run this is."""
        ...

    @property
    def task_attempt(self) -> int:
        """Which attempt of the calling task this is."""
        ...

    @property
    def first_attempt(self) -> int:
        """The first attempt whose payments count together with this one's."""
        ...

    @property
    def details(self) -> Mapping[str, str]:
        """What a manifest says of the run."""
        ...

    @property
    def calls(self) -> CallRegistry:
        """The calls of this attempt of the run."""
        ...


class FolderScope:
    """A scope outside flows: a name, and a folder of records below the journal's URL."""

    def __init__(self, journal: FolderJournal, *, attempt: int = 1) -> None:
        """Looks at the scope as one of its attempts; to begin a new one, use `open_scope`.

        Args:
            journal: Its records.
            attempt: Which attempt this is.
        """
        self.journal = journal
        self.run = journal.scope
        self.flow = "call"
        self.attempt = self.first_attempt = attempt
        self.task_attempt = 1
        self.details: Mapping[str, str] = {}
        self.calls = CallRegistry()


class Opened(Record):
    """A process has opened a named scope, which is an attempt of its own there."""

    owner: Owner


async def open_scope(journal: FolderJournal) -> FolderScope:
    """Opens a named scope as a new attempt: what failed in an earlier one, or was cancelled, may be paid for again.

    Each process is an attempt, whether the one before it has ended or not. Two that are at work at the same time do
    not pay for one job together: who submits is decided by the claim, which is exclusive whatever the attempts are.

    Args:
        journal: The scope's records.
    """
    record = Opened(owner=current_owner()).model_dump(mode="json")
    attempt = await last_attempt(journal) + 1
    while not await journal.create(f"attempt-{attempt}", record):
        attempt += 1
    return FolderScope(journal, attempt=attempt)


async def last_attempt(journal: Journal, *, what: str = "attempt") -> int:
    """Finds the newest attempt of a named scope, in few looks however many there were: they are numbered without gaps.

    Args:
        journal: The scope's records.
        what: `cancel` finds the newest that was cancelled instead.

    Returns:
        Its number; 0 where there is none.
    """

    async def is_there(number: int) -> bool:
        return await journal.read(f"{what}-{number}") is not None

    there, beyond = 0, 1
    while await is_there(beyond):
        there, beyond = beyond, 2 * beyond
    while beyond - there > 1:
        middle = (there + beyond) // 2
        there, beyond = (middle, beyond) if await is_there(middle) else (there, middle)
    return there


def loose_scope(journal_url: str) -> FolderScope:
    """Makes a scope that no later process will find again: a crash loses the way back to what was paid."""
    return FolderScope(FolderJournal(journal_url, scope=f"loose-{uuid.uuid4().hex[:12]}"))

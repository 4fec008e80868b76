"""Flow runs of pipelines, without Prefect: each has a separate journal, and all share a store and its works."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from rh_prefect import models
from rh_prefect.errors import RunningHubError
from rh_prefect.jobs.accounts.account import Key, member
from rh_prefect.jobs.engine import JobEngine, engine_for
from rh_prefect.jobs.events import JobEvent
from rh_prefect.jobs.job_context import JobCall
from rh_prefect.jobs.journal.journal import JSON, FolderJournal
from rh_prefect.jobs.journal.scope import FolderScope
from rh_prefect.jobs.loop_thread import LOOP
from rh_prefect.jobs.options import Options
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.work_runner import WorkCall, WorkResult, WorkRunner
from rh_prefect.pipelines.works_store import WorksJournal, open_works
from rh_prefect.settings import Settings


@dataclass
class PipelineRun:
    """One process of a flow run.

    Attributes:
        url: The emulator's address.
        key: The account's key.
        folder: Where runs and machines lie.
        store_url: The store.
        store_options: fsspec's options for it.
        name: The flow run.
        machine: Processes of one machine share a state folder.
        attempt: Of the flow run.
        operation: Is called before each operation on a journal.
        heard: What the works have told.
        other_keys: Of further accounts, which make a pool with the first.
    """

    url: str
    key: str
    folder: Path
    store_url: str
    store_options: Mapping[str, Any] = field(default_factory=dict)
    name: str = "one"
    machine: str = "here"
    attempt: int = 1
    operation: Callable[[str], None] = lambda _: None
    heard: list[JobEvent] = field(default_factory=list)
    other_keys: Sequence[str] = ()

    @property
    def store(self) -> MediaStore:
        return MediaStore(self.store_url, options=dict(self.store_options))

    @property
    def settings(self) -> Settings:
        state = self.folder / self.machine
        return Settings(base_url=self.url, state_dir=state, poll_seconds=0.02, grace_seconds=1)

    @property
    def scope(self) -> FolderScope:
        journal = _Watched(str(self.folder / "runs"), scope=self.name)
        journal.operation = self.operation
        return FolderScope(journal, attempt=self.attempt)

    @property
    def engine(self) -> JobEngine:
        keys = [Key(SecretStr(key), self.url, f"account {key[-4:]}", None) for key in (self.key, *self.other_keys)]
        members = [member(key, settings=self.settings) for key in keys]
        return engine_for(members, settings=self.settings, pool="accounts" if self.other_keys else None)

    async def works(self) -> WorksJournal:
        works = _WatchedWorks(self.store.url, options=dict(self.store_options))
        works.operation = self.operation
        await works.check()
        return works

    def notify(self, event: JobEvent) -> None:
        self.heard.append(event)

    async def make(self, *asked: WorkCall, **options: Any) -> list[WorkResult | RunningHubError]:
        """Makes works at once; a failure is given in place of the result."""
        return await LOOP.call(self._make(asked, Options(**options)))

    async def one(self, asked: WorkCall, **options: Any) -> WorkResult:
        """Makes one work."""
        (done,) = await self.make(asked, **options)
        if isinstance(done, RunningHubError):
            raise done
        return done

    async def _make(self, asked: Sequence[WorkCall], options: Options) -> list[WorkResult | RunningHubError]:
        await open_works(self.store, self.settings)
        runner = WorkRunner(self.engine, await self.works(), settings=self.settings)
        call = JobCall(self.scope, self.store, options=options, observer=self)
        done = await asyncio.gather(*(runner.make(one, call) for one in asked), return_exceptions=True)
        for one in done:
            if not isinstance(one, WorkResult | RunningHubError):
                raise one
        return [one for one in done if isinstance(one, WorkResult | RunningHubError)]


def picture(words: str = "a lighthouse", **given: Any) -> WorkCall:
    """A step that asks for a picture."""
    return WorkCall(f"picture of {words}", models.ZImageTurbo(prompt=words), **given)


class Killed:
    """Kills the process before an operation, by its number.

    Args:
        number: Which operation, from 1.
        after: The operation is done first, and the process killed before the next one.
    """

    def __init__(self, number: int) -> None:
        self._left = number

    def __call__(self, _: str) -> None:
        self._left -= 1
        if not self._left:
            os._exit(9)


def run_and_be_killed(run: Mapping[str, Any], number: int) -> None:
    """Runs one work in this process, which is killed before an operation; exits with 0 where it has ended before."""
    process = PipelineRun(**run, operation=Killed(number))
    asyncio.run(process.one(picture()))
    os._exit(0)


class _Watched(FolderJournal):
    operation: Callable[[str], None]

    async def create(self, key: str, record: Mapping[str, Any]) -> bool:
        self.operation(f"create {key}")
        return await super().create(key, record)


class _WatchedWorks(WorksJournal):
    operation: Callable[[str], None]

    async def create(self, key: str, record: Mapping[str, Any]) -> bool:
        self.operation(f"create {key}")
        return await super().create(key, record)

    async def read(self, key: str) -> JSON | None:
        self.operation(f"read {key}")
        return await super().read(key)

"""Flow runs of pipelines, without Prefect: each has a separate journal, and all share a store and its works."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from rh_prefect import models
from rh_prefect.errors import RunningHubError
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.call_builder import work_call
from rh_prefect.pipelines.known_works import StoredWorks
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan import Plan
from rh_prefect.pipelines.rounds_across_runs import COMMAND_LINE, Rounds
from rh_prefect.pipelines.stored_edits import open_edits
from rh_prefect.settings import Settings
from rh_prefect.works.accounts.account import account_of
from rh_prefect.works.events import JobEvent
from rh_prefect.works.job_options import Options
from rh_prefect.works.journal.journal import JSON, FolderJournal
from rh_prefect.works.journal.scope import FolderScope
from rh_prefect.works.journal.works_journal import ROUNDS, WorksJournal, open_works
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.pool_services import PoolServices, pool_services
from rh_prefect.works.result_delivery import Delivered
from rh_prefect.works.work_runner import WorkCall, WorkRunner


@dataclass
class PipelineRun:
    """One process of a flow run."""

    url: str  # of the emulator
    key: str
    folder: Path  # where runs and machines lie
    store_url: str
    store_options: Mapping[str, Any] = field(default_factory=dict)  # fsspec's options for it
    name: str = "one"  # the flow run
    machine: str = "here"  # processes of one machine share a state folder
    attempt: int = 1  # of the flow run
    operation: Callable[[str], None] = lambda _: None  # is called before each operation on a journal
    heard: list[JobEvent] = field(default_factory=list)  # what the works have told
    other_keys: Sequence[str] = ()  # of further accounts, which make a pool with the first
    sleep: Any = asyncio.sleep  # for pauses between attempts

    def another(self, **facts: Any) -> PipelineRun:
        """Another process: of this run, or of the one that the facts describe."""
        return replace(self, **{"heard": [], "operation": PipelineRun.operation, **facts})

    @property
    def store(self) -> MediaStore:
        return MediaStore(self.store_url, options=dict(self.store_options))

    @property
    def settings(self) -> Settings:
        state = self.folder / self.machine
        return Settings(base_url=self.url, state_dir=state, poll_seconds=0.02, grace_seconds=1)

    @cached_property
    def scope(self) -> FolderScope:
        journal = _Watched(str(self.folder / "runs"), scope=self.name)
        journal.operation = self.operation
        return FolderScope(journal, self._works, attempt=self.attempt)

    @property
    def engine(self) -> PoolServices:
        settings, keys = self.settings, (self.key, *self.other_keys)
        accounts = [
            account_of(SecretStr(key), base_url=self.url, name=f"account {key[-4:]}", settings=settings) for key in keys
        ]
        services = pool_services(accounts, settings=self.settings, pool="accounts" if self.other_keys else None)
        services.sleep = self.sleep
        return services

    @property
    def _works(self) -> WorksJournal:
        works = _WatchedWorks(self.store.url, options=dict(self.store_options))
        works.operation = self.operation
        return works

    async def works(self) -> WorksJournal:
        works = self._works
        await works.check()
        return works

    def rounds(self, *, is_run: bool = False, **options: Any) -> Rounds:
        """The rounds as a plan sees them, or as this flow run does."""
        records = _Watched(self.store.url, scope=ROUNDS, options=dict(self.store_options))
        records.operation = self.operation
        return Rounds(records, run=self.scope.journal if is_run else None, **{"deployment": COMMAND_LINE, **options})

    async def plan(self, text: str, rounds: Rounds | None = None, **params: Any) -> Plan:
        edits = open_edits(self.store, self.settings)
        known = StoredWorks(await self.works(), edits, self.store, rounds=rounds or self.rounds())
        return await Pipeline.from_text(text).plan(params, known=known, site=self.engine.pool.site)

    async def run(
        self, text: str, *, new: Sequence[str] = (), rounds: Mapping[str, Any] | None = None, **params: Any
    ) -> Plan:
        """Runs the paid steps of a pipeline as a flow run does, without Prefect; returns its last plan."""
        return await LOOP.call(self._run(Pipeline.from_text(text), new, rounds or {}, params))

    async def _run(
        self, pipeline: Pipeline, new: Sequence[str], options: Mapping[str, Any], params: Mapping[str, Any]
    ) -> Plan:
        await open_works(self.store, self.settings)
        await self.engine.open(self.scope, self.store)
        works, rounds, journal = await self.works(), self.rounds(is_run=True, **options), self.scope.journal
        runner = await self.runner()
        is_complete = False
        try:
            while True:
                edits = open_edits(self.store, self.settings)
                known = StoredWorks(works, edits, self.store, rounds=rounds, run=journal)
                plan = await pipeline.plan(params, known=known, site=self.engine.pool.site, new=new)
                assert not plan.problems, plan.problems
                ready = [
                    work_call(one, work)
                    for one in plan.instances
                    for work in one.works
                    if one.is_needed and work.is_settled and work.state != "="
                ]
                if not ready:
                    is_complete = all(one.state == "=" for one in plan.instances)
                    return plan
                await asyncio.gather(*(runner.make(one) for one in ready))
        finally:
            with suppress(ProcessKilled):
                await rounds.leave(is_complete=is_complete)

    def notify(self, event: JobEvent) -> None:
        self.heard.append(event)

    def said(self, state: str) -> list[JobEvent]:
        """What it was told of works in a state."""
        return [event for event in self.heard if event.state == state]

    async def runner(self, options: Options | None = None) -> WorkRunner:
        return WorkRunner(self.engine, self.scope, self.store, await self.works(), options or Options(), observer=self)

    async def make(self, *asked: WorkCall, **options: Any) -> list[Delivered | RunningHubError]:
        """Makes works at once; a failure is given in place of the result."""
        return await LOOP.call(self._make(asked, Options(**options)))

    async def one(self, asked: WorkCall, **options: Any) -> Delivered:
        (done,) = await self.make(asked, **options)
        if isinstance(done, RunningHubError):
            raise done
        return done

    async def _make(self, asked: Sequence[WorkCall], options: Options) -> list[Delivered | RunningHubError]:
        await open_works(self.store, self.settings)
        runner = await self.runner(options)
        done = await asyncio.gather(*(runner.make(one) for one in asked), return_exceptions=True)
        for one in done:
            if not isinstance(one, Delivered | RunningHubError):
                raise one
        return [one for one in done if isinstance(one, Delivered | RunningHubError)]


def picture(words: str = "a lighthouse", **given: Any) -> WorkCall:
    return WorkCall(models.ZImageTurbo(prompt=words), f"picture of {words}", **given)


class Killed:
    """Kills the process before an operation, by its number."""

    def __init__(self, number: int, *, of: str = "") -> None:
        self._left, self._of = number, of

    def __call__(self, operation: str) -> None:
        self._left -= operation.startswith(self._of)
        if not self._left:
            os._exit(9)


class ProcessKilled(BaseException):
    """What ends a process in whose place a test goes on."""


class Stopped:
    """Stops a run before it creates a record, by its number, or once none are `left`; then it reads and writes nothing.

    It stands for a kill without the costs of a process; `bury` makes the records say that the process has ended.
    """

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, operation: str) -> None:
        self.left -= operation.startswith("create")
        if self.left <= 0:
            raise ProcessKilled(operation)


def bury(*folders: Path) -> None:
    """Replaces this process by one that has ended in all records below some folders."""
    for file in (file for folder in folders for file in folder.rglob("*.json")):
        text = file.read_text()
        dead = re.sub(rf'"pid": {os.getpid()}\b', f'"pid": {_NO_PROCESS}', text)
        if dead != text:
            file.write_text(dead)


_NO_PROCESS = 2**22 + 1
"""Above the highest pid of Linux."""


def run_and_be_killed(run: Mapping[str, Any], number: int) -> None:
    """Runs one work in this process, which is killed before an operation; exits with 0 where it has ended before."""
    process = PipelineRun(**run, operation=Killed(number))
    asyncio.run(process.one(picture()))
    os._exit(0)


def run_pipeline_and_be_killed(run: Mapping[str, Any], text: str, number: int, rounds: Mapping[str, Any]) -> None:
    """Runs a pipeline in this process, which is killed before a record is created; exits with 0 if it has ended."""
    asyncio.run(PipelineRun(**run, operation=Killed(number, of="create")).run(text, rounds=rounds))
    os._exit(0)


class _Watched(FolderJournal):
    operation: Callable[[str], None]

    async def create(self, key: str, record: Mapping[str, Any]) -> bool:
        self.operation(f"create {key}")
        return await super().create(key, record)


class _WatchedWorks(_Watched, WorksJournal):
    async def read(self, key: str) -> JSON | None:
        self.operation(f"read {key}")
        return await super().read(key)

"""A run of jobs that an account pool pays for, outside of Prefect: a named scope in a folder."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from rh_prefect import models
from rh_prefect.emulator import Emulator
from rh_prefect.errors import ConfigError, RunningHubError
from rh_prefect.media.store import MediaStore
from rh_prefect.settings import Settings
from rh_prefect.works.accounts.account import Account, account_of
from rh_prefect.works.events import JobEvent
from rh_prefect.works.job_options import Options, Request
from rh_prefect.works.journal.job_records_and_state import jobs_of
from rh_prefect.works.journal.journal import FolderJournal
from rh_prefect.works.journal.record_types import Intent
from rh_prefect.works.journal.scope import FolderScope
from rh_prefect.works.journal.works_journal import WorksJournal
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.pool_services import pool_services
from rh_prefect.works.result import Result
from rh_prefect.works.work_runner import WorkCall, WorkRunner


@dataclass
class PooledRun:
    """One run, in this process."""

    rh: Emulator
    folder: Path
    members: Sequence[str] = ("main", "two")  # names of keys, each with a block of that name, in order
    gone: frozenset[str] = frozenset()  # names whose blocks are gone
    secrets: Mapping[str, str] = field(default_factory=dict)  # wrong keys in blocks, by name
    attempt: int = 1  # of the run
    scope: str = "night"  # the name of its journal
    heard: list[JobEvent] = field(default_factory=list)  # what its jobs have told
    scopes: dict[int, FolderScope] = field(default_factory=dict)
    outputs: MediaStore | None = None  # where its files go, if not to a folder

    @property
    def journal(self) -> FolderJournal:
        return FolderJournal(str(self.folder / "journal"), scope=self.scope)

    @property
    def store(self) -> MediaStore:
        return self.outputs or MediaStore(str(self.folder / "out"))

    def account(self, name: str) -> Account:
        secret = SecretStr(self.secrets.get(name) or self.rh.keys[name].secret)
        known = f"account of {name}"
        return account_of(secret, base_url=self.rh.url, name=known, block=name, settings=self.settings)

    @property
    def settings(self) -> Settings:
        return Settings(base_url=self.rh.url, state_dir=self.folder / "state", poll_seconds=0.02, grace_seconds=1)

    async def find(self, intent: Intent) -> Account:
        if intent.credentials is None or intent.credentials in self.gone:
            raise ConfigError(f"there is no block {intent.credentials!r}")
        return self.account(intent.credentials)

    def notify(self, event: JobEvent) -> None:
        self.heard.append(event)

    async def all(self, asked: Sequence[Request], *, takes: int = 1, **options: Any) -> list[Result | RunningHubError]:
        """Runs all jobs, so many takes of each; a failure is told in place of the result."""
        jobs = [(one, Options(take=take, **options)) for one in asked for take in range(1, takes + 1)]
        return await LOOP.call(self._all(jobs))

    async def pay(self, asked: Request, **options: Any) -> Result:
        """Runs one job."""
        (done,) = await LOOP.call(self._all([(asked, Options(**options))]))
        if isinstance(done, RunningHubError):
            raise done
        return done

    async def _all(self, jobs: Sequence[tuple[Request, Options]]) -> list[Result | RunningHubError]:
        accounts = [self.account(name) for name in self.members]
        pool = "night" if len(accounts) > 1 else None
        pay = pool_services(accounts, settings=self.settings, find=self.find, pool=pool)
        scope = self.scopes.setdefault(self.attempt, FolderScope(self.journal, attempt=self.attempt))
        run = WorkRunner(pay, scope, self.store, observer=self)
        calls = (complete_job(replace(run, options=options, works=self._works(options)), one) for one, options in jobs)
        done = await asyncio.gather(*calls, return_exceptions=True)
        wrong = [one for one in done if not isinstance(one, Result | RunningHubError)]
        assert not wrong, wrong
        return [one for one in done if isinstance(one, Result | RunningHubError)]

    def _works(self, options: Options) -> WorksJournal | None:
        """What `reuse` reads."""
        return WorksJournal(self.store.url) if options.reuse == "always" else None

    def said(self, state: str) -> list[str]:
        return [event.message for event in self.heard if event.state == state]

    @property
    def paid(self) -> Counter[str]:
        return Counter(one.key_name for one in self.rh.recorder.paid)

    @property
    def refused(self) -> Counter[tuple[str, str]]:
        """How many submits were refused: by key and code."""
        return Counter((one.key_name, one.code) for one in self.rh.recorder.submissions if not one.accepted)

    async def intents(self) -> list[Intent]:
        views = [view async for view in jobs_of(self.journal)]
        return [view.last.intent for view in views if view.last is not None]


def pictures(count: int, words: str = "picture") -> list[models.ModelInput]:
    return [models.ZImageTurbo(prompt=f"{words} {number}") for number in range(count)]


async def complete_job(runner: WorkRunner, request: Request) -> Result:
    """Makes a job in its run's own journal, on the loop thread."""
    return (await runner.complete(WorkCall(request, take=runner.options.take))).result

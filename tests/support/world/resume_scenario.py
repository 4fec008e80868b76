"""A scenario: a few jobs in a flow run that is interrupted and run again until all jobs are done.

Many trials run at once in one process: each has its own emulator, folder, store and account.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import stamina
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from pydantic import SecretStr

from rh_prefect import flow, models
from rh_prefect.emulator import Emulator
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.progress_observer import run_observer
from rh_prefect.flow_runs.resume_or_rerun import create, rerun
from rh_prefect.flow_runs.root_flow_run import current_chain, current_scope
from rh_prefect.flow_runs.run_queries_and_scopes import FlowScope
from rh_prefect.media.store import MediaStore
from rh_prefect.settings import Settings
from rh_prefect.works.accounts.account import Account, account_of
from rh_prefect.works.events import JobEvent, Observer
from rh_prefect.works.job_options import Options
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.pool_services import PoolServices, pool_services
from rh_prefect.works.result import Result
from rh_prefect.works.run_cancellation import CancelReport, cancel_scope
from rh_prefect.works.work_runner import WorkRunner
from tests.support.processes.flow_process import leaves
from tests.support.processes.pooled_run import complete_job
from tests.support.samples import media as samples
from tests.support.waiting import until
from tests.support.world.call_log import settle
from tests.support.world.invariants import Evidence, Place, Told, broken, gather

ON: dict[str, Any] = {"aspect_ratio": "1:1", "output_format": "png"}

_trials: dict[str, Scenario] = {}
_names = (f"trial-{number}" for number in itertools.count(1))


@flow
async def trial(name: str) -> list[str]:
    return [result.task_id for result in await _trials[name].work()]


@dataclass
class Scenario:
    rh: Emulator
    folder: Path
    place: Place
    settings: Settings  # what the environment says elsewhere
    asked: list[models.ModelInput]
    options: Options = field(default_factory=Options)
    journal_patience: float = 10.0  # seconds for which a call of the journal is repeated
    is_watched: bool = False  # whether the dashboard is told too
    told: list[Told] = field(default_factory=list)  # what the user was told so far
    said: list[JobEvent] = field(default_factory=list)  # every change of a job
    run: str = ""
    name: str = field(default_factory=lambda: next(_names))
    store: MediaStore = field(init=False)
    is_running: bool = False

    @property
    def journal(self) -> FlowRunJournal:
        return FlowRunJournal(self.run)

    def account(self) -> Account:
        """Who pays for it; on the package's loop thread."""
        return account_of(SecretStr(self.rh.key), base_url=self.rh.url, settings=self.settings)

    async def desk(self) -> PoolServices:
        """The same, with what its works share."""
        return pool_services([self.account()], settings=self.settings)

    async def work(self) -> list[Result]:
        """Does all jobs, each to its end; what goes wrong with several is raised together."""
        # One for all of them, as with a block, and a new one each time, as in a new process.
        self.store = MediaStore(self.place.url, options=self.place.options)
        done = await asyncio.gather(*map(self._one, self.asked), return_exceptions=True)
        wrong = [one for one in done if isinstance(one, BaseException)]
        if wrong:
            raise BaseExceptionGroup("some jobs did not end well", wrong)
        return [one for one in done if isinstance(one, Result)]

    async def _one(self, asked: models.ModelInput) -> Result:
        scope, chain = current_scope(), current_chain()
        assert scope is not None
        scope.journal = FlowRunJournal(scope.journal.scope, patience=self.journal_patience)
        observer = _Watching(self.said, run_observer() if self.is_watched else None)

        async def run() -> Result:
            runner = WorkRunner(await self.desk(), scope, self.store, None, self.options, chain, observer)
            return await complete_job(runner, asked)

        return await LOOP.call(run())

    async def begin(self) -> None:
        _trials[self.name] = self
        # The server reads before it writes a flow run, and SQLite refuses the write at once if anybody wrote meanwhile.
        # Many short tries get through where the client's few, with pauses of up to a minute, do not. Without those, an
        # idle connection that the server closes in the moment of a request is an error, too.
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            tries = stamina.retry_context(
                on=_may_be_repeated, attempts=None, timeout=300.0, wait_initial=0.05, wait_max=0.5
            )
            async for attempt in tries:
                with attempt:
                    self.run = str(await create(trial, {"name": self.name}))

    async def once(self, *, evicted: Callable[[], bool] = lambda: False) -> list[str] | None:
        """Runs it to its end, or until it is evicted as on a cluster; what goes wrong is kept in `told`."""
        running = asyncio.ensure_future(rerun(trial, self.run))
        evict = asyncio.ensure_future(until(evicted, seconds=float("inf")))
        evict.add_done_callback(lambda done: done.cancelled() or running.cancel())
        self.is_running = True
        try:
            return await _kept(running, self.told)
        finally:
            evict.cancel()
            self.is_running = False

    async def cancel(self) -> CancelReport:
        """Cancels the run's first attempt as the hook does."""
        here = FlowScope(self.journal, run="", flow=trial.name, attempt=1)

        async def cancel() -> CancelReport:
            pool = (await self.desk()).pool
            return await cancel_scope(here, pool.provider_of, by="a test")

        report = await LOOP.call(cancel())
        self.told += [Told("cancel", why, job) for job, why in report.failed.items()]
        return report

    async def settle(self) -> None:
        await settle(self.rh, self.journal, states=("unknown",))

    async def look(self, *, was_cancelled: bool = False) -> Evidence:
        return await gather(
            self.rh,
            journals=[self.journal],
            place=self.place,
            told=self.told,
            words={"the log": "\n".join(event.message for event in self.said)},
            folder=Path(self.settings.state_dir),
            was_cancelled=was_cancelled,
            held=await self._held(),
        )

    async def _held(self) -> int:
        """The slots that are held where nothing runs; what was evicted may need a moment to give its own back."""
        slots = self.account().limiter
        for _ in range(200):
            if self.is_running or not slots.held:
                return 0
            await asyncio.sleep(0.05)
        return slots.held

    async def problems(self, *, is_over: bool = False, was_cancelled: bool = False) -> list[str]:
        evidence = await self.look(was_cancelled=was_cancelled)
        found = broken(evidence, secrets=[self.rh.key], is_over=is_over)
        if is_over and len(evidence.jobs) != len(self.asked):
            found.append(f"{len(evidence.jobs)} jobs are recorded where {len(self.asked)} were asked for")
        return found


async def _kept(running: asyncio.Future[Any], told: list[Told]) -> list[str] | None:
    """Waits for a run; its errors are what the user is told."""
    try:
        done: list[str] = await running
    except (Exception, BaseExceptionGroup, asyncio.CancelledError) as error:
        told += [Told(type(one).__name__, str(one), str(getattr(one, "job", ""))) for one in leaves(error)]
        return None
    return done


def _may_be_repeated(error: Exception) -> bool:
    is_busy = isinstance(error, PrefectHTTPStatusError) and error.response.status_code == 503
    return is_busy or isinstance(error, httpx.TransportError)


@dataclass
class _Watching:
    said: list[JobEvent]
    other: Observer | None

    def notify(self, event: JobEvent) -> None:
        self.said.append(event)
        if self.other is not None:
            self.other.notify(event)


def jobs(photo: str, *, words: str = "waves") -> list[models.ModelInput]:
    """Three jobs: two without a file, one with."""
    return [
        models.ZImageTurbo(prompt=f"{words}: a lighthouse"),
        models.ZImageTurbo(prompt=f"{words}: a harbour"),
        models.ZImageTurboImageToImage(image_url=photo, prompt=f"{words}: a gull", **ON),
    ]


@asynccontextmanager
async def open_trial(folder: Path, *, place: Place | None = None, **more: Any) -> AsyncIterator[Scenario]:
    folder.mkdir(parents=True, exist_ok=True)
    emulator: Mapping[str, Any] = {"long_side": 48, "fps": 2, "max_seconds": 1, "limit": 3, **more.pop("emulator", {})}
    rh = await asyncio.to_thread(Emulator(**emulator).start)
    try:
        settings = _settings(rh, folder, more.pop("settings", {}))
        asked = more.pop("asked", None) or jobs(str(samples.png(folder / "photo.png")))
        made = Scenario(rh, folder, place or Place(str(folder / "out")), settings, asked, **more)
        await made.begin()
        yield made
        del _trials[made.name]
    finally:
        await asyncio.to_thread(rh.stop)


def _settings(rh: Emulator, folder: Path, more: Mapping[str, Any]) -> Settings:
    usual = {"api_key": rh.key, "base_url": rh.url, "state_dir": folder / "state", "poll_seconds": 0.02}
    return Settings(**{**usual, "submit_timeout": 3.0, "grace_seconds": 2.0, **more})

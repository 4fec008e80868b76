"""Runs of deployments in this process that suspend themselves, and their tasks in the emulator."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import Flow
from prefect.exceptions import Pause
from prefect.states import Completed

from rh_prefect.emulator import Emulator
from rh_prefect.flow_runs.resume_or_rerun import rerun
from rh_prefect.flow_runs.suspended_run_resumer import wake_suspended
from rh_prefect.works.loop_thread import LOOP
from tests.support.servers.emulator_env import environment
from tests.support.servers.prefect_server import PrefectServer
from tests.support.servers.webhook_receiver import TOKEN, receiver
from tests.support.world.prefect_runs import deployed_run, set_states, state_of, until_state


def end_tasks(rh: Emulator) -> None:
    """Advances a clock that stands by ten minutes, and waits for the renderings of the tasks that end then."""
    rh.clock.advance(600)
    assert rh.recorder.wait(lambda recorder: all(one.status != "RUNNING" for one in recorder.tasks))


class SuspendedRuns:
    """What the runs of one test have at RunningHub."""

    def __init__(self, rh: Emulator) -> None:
        self.rh = rh
        self.runs: list[UUID] = []
        self.before = len(rh.recorder.submissions)
        self.asked_before = len(rh.recorder.requests)

    @property
    def paid(self) -> list[str]:
        return [one.task_id for one in self.rh.recorder.submissions[self.before :] if one.accepted]

    @property
    def calls(self) -> Counter[str]:
        return Counter(one.path.rpartition("/")[2] for one in self.rh.recorder.requests[self.asked_before :])

    async def begin(self, flow_: Flow[..., Any], **parameters: Any) -> UUID:
        self.runs.append(run := await deployed_run(flow_, **parameters))
        return run

    async def run_until_suspended(self, flow_: Flow[..., Any], run: UUID, jobs: int) -> None:
        with pytest.raises(Pause):
            await rerun(flow_, run)
        assert await state_of(run) == "Suspended"
        assert len(self.paid) == jobs

    async def suspended(self, flow_: Flow[..., Any], *prompts: str) -> UUID:
        """A run that has suspended itself, with a paid task for each prompt."""
        run = await self.begin(flow_, prompts=list(prompts))
        await self.run_until_suspended(flow_, run, len(prompts))
        return run

    async def end(self) -> None:
        """Has everything at RunningHub end, once it is rendered."""
        await asyncio.to_thread(end_tasks, self.rh)

    async def wake(self, run: UUID) -> None:
        """Has everything at RunningHub end, and a run be woken by the clock."""
        await self.end()
        assert run in await LOOP.call(wake_suspended())

    async def end_and_wake(self, run: UUID) -> None:
        await self.end()
        await until_state(run, "Resuming")

    async def has_all(self, tasks: Awaitable[list[str]], jobs: int) -> None:
        """What a run returns, or a rerun of it: the tasks that were paid for, one for each job."""
        assert sorted(await tasks) == sorted(self.paid)
        assert len(self.paid) == jobs


@pytest.fixture
def without_webhooks(
    prefect_server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> Iterator[SuspendedRuns]:
    """RunningHub, whose tasks end when the test says so, and which reaches no receiver."""
    with Emulator(clock="real", factor=0, long_side=64, limit=5) as rh:
        nobody = {"RH_WEBHOOK_URL": f"http://127.0.0.1:{closed_port}", "RH_WEBHOOK_TOKEN": TOKEN}
        for name, value in {**environment(rh, tmp_path), **nobody, "RH_POLL_SECONDS": "0.05"}.items():
            monkeypatch.setenv(name, value)
        desk = SuspendedRuns(rh)
        yield desk
        # Other tests' receivers and `reconcile` would look after these runs.
        for run in desk.runs:
            asyncio.run(set_states(run, Completed()))


@pytest.fixture
def with_webhooks(without_webhooks: SuspendedRuns, monkeypatch: pytest.MonkeyPatch) -> Iterator[SuspendedRuns]:
    """The same, with a receiver that it reaches."""
    with receiver() as callback:
        monkeypatch.setenv("RH_WEBHOOK_URL", callback.url)
        yield without_webhooks

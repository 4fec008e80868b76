"""A pool of accounts where one account's name stands: in tasks, flows and job blocks, against Prefect's server."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest

from rh_prefect import flow, generate_many, models
from rh_prefect.blocks import RunningHubCredentials, RunningHubPool
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import ConfigError, SubmissionUnknown
from rh_prefect.flows.pipeline import Pipeline
from rh_prefect.job_blocks import RunningHubJobRun, RunningHubModel
from rh_prefect.tasks import generate
from tests.support.processes import warm_process
from tests.support.servers.emulator_env import StartEmulator, environment
from tests.support.servers.prefect_server import PrefectServer

pytestmark = pytest.mark.prefect


@pytest.fixture
def rh(start_rh: StartEmulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """Two keys with little room each, and no key in the environment."""
    emulator = start_rh(clock="real", factor=50, limit=2, long_side=48, fps=2)
    emulator.keys.add("spare", limit=2)
    monkeypatch.delenv("RH_API_KEY")
    return emulator


@dataclass(frozen=True)
class Blocks:
    """Blocks that this test has saved, by what the emulator calls their keys."""

    rh: Emulator
    mark: str

    def name(self, key: str) -> str:
        return f"{key}-{self.mark}"

    async def pool(self, *keys: str) -> str:
        """Saves accounts and a pool of them; the pool's name."""
        for key in keys:
            block = RunningHubCredentials(api_key=self.rh.keys[key].secret, base_url=self.rh.url, account=f"the {key}")
            await block.asave(self.name(key), overwrite=True)
        await RunningHubPool(credentials=[self.name(key) for key in keys]).asave(self.name("night"), overwrite=True)
        return self.name("night")


@pytest.fixture
def blocks(rh: Emulator) -> Blocks:
    return Blocks(rh, uuid.uuid4().hex[:8])


@pytest.mark.parametrize("budget", ["budget: 1", "", "# RH_MAX_BUDGET"])
async def test_a_pipeline_refuses_wallets_of_two_currencies(
    rh: Emulator, blocks: Blocks, monkeypatch: pytest.MonkeyPatch, budget: str
) -> None:
    if budget.startswith("#"):
        monkeypatch.setenv("RH_MAX_BUDGET", "1")
    rh.keys.add("dollars", limit=2, currency="USD")
    pool = await blocks.pool("spare", "dollars")
    text = f"{budget}\nsteps:\n  a: {{model: z-image/turbo, with: {{prompt: x}}}}\n"
    with pytest.raises(ConfigError, match="do not all have the same currency"):
        await Pipeline.from_text(text).run(credentials=pool)
    assert not rh.recorder.submissions


async def test_an_account_that_cannot_pay_is_one_warning_in_the_run_s_log(
    rh: Emulator, blocks: Blocks, caplog: pytest.LogCaptureFixture
) -> None:
    @flow
    async def night(credentials: str) -> None:
        await generate_many([models.ZImageTurbo(prompt=f"{n}") for n in range(8)], credentials=credentials)

    rh.keys["spare"].account.money = Decimal(0)
    await night(await blocks.pool("main", "spare"))
    assert Counter(one.key_name for one in rh.recorder.paid) == {"main": 8}
    warnings = [one for one in caplog.records if "is no longer used" in one.getMessage()]
    assert [one.levelno for one in warnings] == [logging.WARNING]
    assert f"the spare (block '{blocks.name('spare')}')" in warnings[0].getMessage()
    assert vars(warnings[0]).get("flow_run_id"), "it is in the run's own log"


async def test_a_person_settles_a_job_on_the_account_that_was_asked(
    rh: Emulator, blocks: Blocks, tmp_path: Path, prefect_server: PrefectServer
) -> None:
    await blocks.pool("main", "spare")
    env = {**prefect_server.env, **environment(rh, tmp_path)}

    async def adopt(job: str, task_id: str) -> str:
        done = await asyncio.to_thread(warm_process.run, [*warm_process.RH, "jobs", "adopt", job, task_id], env=env)
        return done.stdout + done.stderr

    rh.faults.add(Fault("submit", kind="cut", times=1))
    with pytest.raises(SubmissionUnknown) as unknown:
        await generate.fn(models.ZImageTurbo(prompt="x"), scope=blocks.mark, credentials=blocks.name("night"))
    (paid,) = rh.recorder.paid
    assert f"account the {paid.key_name}" in unknown.value.message
    other = "spare" if paid.key_name == "main" else "main"
    unrelated = await generate.fn(
        models.ZImageTurbo(prompt="y"), scope=f"{blocks.mark}-2", credentials=blocks.name(other)
    )
    said = await adopt(unknown.value.job, unrelated.task_id)
    assert "has no task" in said, "the account that was asked does not know it"
    assert "is recorded for this job" in await adopt(unknown.value.job, paid.task_id)


async def test_a_job_block_triggers_cancels_and_attaches_on_the_right_account(rh: Emulator, blocks: Blocks) -> None:
    pool = await blocks.pool("main", "spare")
    rh.clock.factor = 0
    still = RunningHubModel(model="z-image/turbo", params={"prompt": "a harbour"}, credentials=pool)
    runs = [await still.trigger_async(scope=blocks.mark, take=number) for number in range(1, 5)]
    owners = {one.task_id: one.key_name for one in rh.recorder.paid}
    assert Counter(owners.values()) == {"main": 2, "spare": 2}
    for run in runs[:2]:
        await run.cancel_async()
    last = next(run for run in runs[2:] if owners[run.task_id] == "spare")
    attached = await RunningHubJobRun.attach_async(last.task_id, credentials=pool)
    await attached.cancel_async()
    assert set(rh.recorder.cancelled) == {runs[0].task_id, runs[1].task_id, last.task_id}
    rh.clock.factor = 50

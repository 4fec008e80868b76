"""A receiver in one process and whoever waits in another: who asks how often, and what goes wrong without harm."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from rh_prefect import flow, generate, models
from rh_prefect.emulator import Emulator
from rh_prefect.flow_runs import task_end_events
from rh_prefect.flow_runs.resume_or_rerun import create, rerun
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.result import Result
from tests.support.servers.emulator_env import environment
from tests.support.servers.holding_proxy import Proxy
from tests.support.servers.prefect_server import PrefectServer
from tests.support.servers.webhook_receiver import ReceiverProcess
from tests.support.waiting import until

pytestmark = pytest.mark.prefect
JOBS = 6


@flow(log_prints=False)
async def pictures(jobs: int) -> list[Result]:
    asked = [models.ZImageTurbo(prompt=f"a lighthouse {n}") for n in range(jobs)]
    return list(await asyncio.gather(*(generate(one) for one in asked)))


async def test_a_job_needs_a_submit_and_one_query_and_the_receiver_logs_no_secret(
    prefect_server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "receiver.log"
    with Emulator(clock="real", long_side=64, durations=lambda model, payload: (0.1, 0.5)) as rh:
        env = {**environment(rh, tmp_path), "RH_POLL_SECONDS": "2"}
        with ReceiverProcess({**prefect_server.env, **env}, log=log) as exported:
            # A state folder of its own is an account object of its own, as in a separate process.
            for name, value in {**env, **exported, "RH_STATE_DIR": str(tmp_path / "state-2")}.items():
                monkeypatch.setenv(name, value)
            began = time.monotonic()
            results: list[Result] = await rerun(pictures, str(await create(pictures, {"jobs": JOBS})))
            seconds = time.monotonic() - began
    counted = Counter(one.path for one in rh.recorder.requests)
    asked = counted.pop("/openapi/v2/query")
    submits = counted.pop("/openapi/v2/rhart-image/z-image/turbo")
    assert (submits, asked) == (JOBS, JOBS)
    assert counted.pop("/uc/openapi/accountStatus") <= 2  # the currency, once in the run and once in the receiver
    assert counted.total() <= 1 + seconds / 5  # whether the account has slots, every five seconds for all jobs
    assert seconds < 60  # after which it polls by itself
    assert all(result.run_seconds is not None and result.outputs for result in results)
    said = log.read_text()
    assert "has ended: SUCCESS" in said
    assert len(exported["RH_WEBHOOK_TOKEN"]) >= 32
    assert exported["RH_WEBHOOK_TOKEN"] not in said
    assert rh.key not in said


class Ear:
    """Hears what a subscription tells."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.states: list[bool] = []

    def wake(self, task_id: str) -> None:
        self.heard.append(task_id)

    def set_receiving(self, *, is_on: bool) -> None:
        self.states.append(is_on)


async def announced(task_id: str) -> None:
    task_end_events.announce(task_id, job="run/key", model="some/model", status="SUCCESS", flow_run=None)


async def until_one_is_heard(*ears: Ear) -> None:
    """Announces ends until one is heard: the filter of a subscription reaches the server after its connection."""
    before = [len(ear.heard) for ear in ears]
    for number in range(3000):
        if all(len(ear.heard) > count for ear, count in zip(ears, before, strict=True)):
            return
        await announced(f"trial {number} after {before}")
        await asyncio.sleep(0.1)
    raise AssertionError("none was heard within 300 s")


async def test_a_subscription_outlives_a_break_and_says_when_it_does_not_stand(prefect_server: PrefectServer) -> None:
    ear: Any = Ear()
    with Proxy(prefect_server.url) as proxy, temporary_settings({PREFECT_API_URL: f"{proxy.url}/api"}):
        subscription = task_end_events.Subscription()
        subscription.add(ear)
        subscription.add(ear)
        assert ear.states == [True]
        await until(lambda: ear.states == [True, True])
        await until_one_is_heard(ear)
        proxy.drop()
        await until(lambda: ear.states[-2:] == [False, True])
        await until_one_is_heard(ear)
        await announced("2")
        await announced("2")
        await until(lambda: "2" in ear.heard)
        await announced("3")
        await until(lambda: "3" in ear.heard)
        await subscription.close()
    assert ear.heard.count("2") == 1


async def test_where_no_api_answers_nobody_counts_on_being_told(closed_port: int) -> None:
    ear: Any = Ear()
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{closed_port}/api"}):
        subscription = task_end_events.Subscription()
        subscription.add(ear)
        await until(lambda: ear.states == [True, False])
        await subscription.close()


async def test_a_process_subscribes_once(prefect_server: PrefectServer) -> None:
    ears: list[Any] = [Ear(), Ear()]

    async def subscribe() -> int:
        for ear in ears:
            task_end_events.subscribe(ear)
        return len({key for key in task_end_events._open if key[0] is asyncio.get_running_loop()})

    before = await LOOP.call(subscribe())
    assert await LOOP.call(subscribe()) == before
    await until_one_is_heard(*ears)

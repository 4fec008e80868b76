"""A receiver in one process and whoever waits in another: who asks how often, and what goes wrong without harm."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from rh_prefect import flow, generate, models
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.flow_runs import task_end_events
from rh_prefect.flow_runs.rerun import create, rerun
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.result import Result
from tests.support.servers.emulator_env import environment
from tests.support.servers.holding_proxy import Proxy
from tests.support.servers.prefect_server import PrefectServer
from tests.support.servers.webhook_receiver import receiver_process

pytestmark = pytest.mark.prefect
JOBS = 6


@flow(log_prints=False)
async def pictures(jobs: int) -> list[Result]:
    asked = [models.ZImageTurbo(prompt=f"a lighthouse {n}") for n in range(jobs)]
    return list(await asyncio.gather(*(generate(one) for one in asked)))


@dataclass
class Stage:
    """One emulator and one receiver for all tests here: a process takes seconds to start."""

    rh: Emulator
    env: dict[str, str]
    log: Path

    def since(self) -> Callable[[], Counter[str]]:
        """Counts the requests to RunningHub's API from here on, by path."""
        before = len(self.rh.recorder.requests)
        return lambda: Counter(one.path for one in self.rh.recorder.requests[before:])


@pytest.fixture(scope="module")
def shared(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("webhook")

    def durations(model: Any, payload: Any) -> tuple[float, float]:
        return 0.1, 0.5

    with Emulator(clock="real", long_side=64, durations=durations) as rh:
        env = {**environment(rh, folder), "RH_POLL_SECONDS": "2"}
        log = folder / "receiver.log"
        with receiver_process({**prefect_server.env, **env}, log=log) as exported:
            yield Stage(rh, {**env, **exported}, log)


@pytest.fixture
def stage(shared: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    # Its own state folder is its own account object, as in a separate process.
    for name, value in {**shared.env, "RH_STATE_DIR": str(tmp_path / "state")}.items():
        monkeypatch.setenv(name, value)
    shared.rh.faults.clear()
    return shared


async def run(jobs: int = JOBS) -> tuple[list[Result], float]:
    began = time.monotonic()
    results: list[Result] = await rerun(pictures, str(await create(pictures, {"jobs": jobs})))
    return results, time.monotonic() - began


async def test_a_job_needs_a_submit_and_one_query(stage: Stage) -> None:
    calls = stage.since()
    results, seconds = await run()
    counted = calls()
    asked = counted.pop("/openapi/v2/query")
    submits = counted.pop("/openapi/v2/rhart-image/z-image/turbo")
    assert (submits, asked) == (JOBS, JOBS)
    assert counted.pop("/uc/openapi/accountStatus") <= 2  # the currency, once in the run and once in the receiver
    assert counted.total() <= 1 + seconds / 5  # whether the account has slots, every five seconds for all jobs
    assert seconds < 60  # after which it polls by itself
    assert all(result.run_seconds is not None and result.outputs for result in results)


async def test_lost_deliveries_cost_time_and_nothing_else(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RH_POLL_SECONDS", "0.05")
    stage.rh.faults.add(Fault("webhook", kind="lost"))
    paid = len(stage.rh.recorder.paid)
    results, _ = await run()
    assert len(results) == len(stage.rh.recorder.paid) - paid == JOBS


async def test_a_failure_reaches_the_waiter_with_its_reason(stage: Stage) -> None:
    stage.rh.faults.add(Fault("submit", kind="fail", code="1501", message="no such face"))
    calls = stage.since()
    with pytest.raises(Exception, match="no such face"):
        await run(1)
    assert calls()["/openapi/v2/query"] == 1


async def test_the_token_and_what_was_told_are_not_in_the_receivers_log(stage: Stage) -> None:
    await run(1)
    said = stage.log.read_text()
    assert "has ended: SUCCESS" in said
    assert len(stage.env["RH_WEBHOOK_TOKEN"]) >= 32
    assert stage.env["RH_WEBHOOK_TOKEN"] not in said
    assert stage.rh.key not in said


class Ear:
    """Hears what a subscription tells."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.states: list[bool] = []

    def wake(self, task_id: str) -> None:
        self.heard.append(task_id)

    def set_receiving(self, *, is_on: bool) -> None:
        self.states.append(is_on)


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.02)


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
    async def soon(_: float) -> None:
        await asyncio.sleep(0.05)

    ear = Ear()
    with Proxy(prefect_server.url) as proxy, temporary_settings({PREFECT_API_URL: f"{proxy.url}/api"}):
        subscription = task_end_events.Subscription(sleep=soon)
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
    ear = Ear()
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{closed_port}/api"}):
        subscription = task_end_events.Subscription()
        subscription.add(ear)
        await until(lambda: ear.states == [True, False])
        await subscription.close()


async def test_a_process_subscribes_once(prefect_server: PrefectServer) -> None:
    ears = [Ear(), Ear()]

    async def subscribe() -> int:
        for ear in ears:
            task_end_events.subscribe(ear)
        return len({key for key in task_end_events._open if key[0] is asyncio.get_running_loop()})

    before = await LOOP.call(subscribe())
    assert await LOOP.call(subscribe()) == before
    await until_one_is_heard(*ears)

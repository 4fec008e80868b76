"""Flow runs of pipelines that share works: cancellation beside another run, and places that cannot keep records."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.objects import FlowRun

from rh_prefect.emulator import Emulator
from rh_prefect.flow_runs.cancellation import cancel_run
from rh_prefect.flow_runs.queries import scope_of
from rh_prefect.flows.pipeline import Pipeline, pipeline_flow
from rh_prefect.pipelines.run.result import NOTHING_NEW
from rh_prefect.works.journal.journal import NotExclusive
from rh_prefect.works.loop_thread import LOOP
from tests.support.servers.emulator_env import environment
from tests.support.world.pipeline_flows import in_flow_run, run_in_flow
from tests.support.world.two_writers import TwoWriters

PAIR = """
name: {name}
params: {{other: {{type: string, optional: true}}}}
steps:
  shared: {{model: z-image/turbo, with: {{prompt: a lighthouse}}}}
  own: {{when: {{exists: $(params.other)}}, model: z-image/turbo, with: {{prompt: $(params.other)}}}}
outputs: {{shared: $(shared)}}
"""


@pytest.fixture
def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """An emulator whose tasks end when its clock is advanced."""
    with Emulator(long_side=96, clock="real", factor=0) as emulator:
        for name, value in environment(emulator, tmp_path).items():
            monkeypatch.setenv(name, value)
        yield emulator


async def flow_run_of(name: str) -> FlowRun:
    async with get_client() as client:
        (found,) = await client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=[name])))
    return found


async def until(condition: Any) -> None:
    for _ in range(6000):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not happen")


@in_flow_run
async def test_a_cancelled_run_leaves_the_task_that_another_run_waits_for(waiting: Emulator, tmp_path: Path) -> None:
    def start(name: str, **params: Any) -> asyncio.Future[Any]:
        flow: Any = pipeline_flow(Pipeline.from_text(PAIR.format(name=name)))
        started: asyncio.Future[Any] = asyncio.ensure_future(flow(**params, return_state=True))
        return started

    first = start("cancelled-pair", other="a ship")
    await until(lambda: len(waiting.recorder.paid) == 2)
    second = start("waiting-pair")
    await until(lambda: len(list((tmp_path / "out" / "works").glob("*/waiter-*"))) == 3)
    cancelled = await flow_run_of("cancelled-pair")
    await LOOP.call(cancel_run(scope_of(cancelled, "cancelled-pair"), by="test"))
    (own,) = [one.task_id for one in waiting.recorder.paid if one.payload["prompt"] == "a ship"]
    assert waiting.recorder.cancelled == [own]
    waiting.clock.advance(1000)
    assert not (await first).is_completed()
    state = await second
    assert state.is_completed(), state.message
    assert len(waiting.recorder.paid) == 2
    assert "1 reused, 1 absent; paid nothing" in str(state.message)


@in_flow_run
async def test_a_store_without_exclusive_creation_is_refused_before_a_payment(
    rh: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = PAIR.format(name="pair")
    monkeypatch.setenv("RH_STORAGE_URL", f"{TwoWriters.protocol}://{tmp_path}/store")
    state = await pipeline_flow(Pipeline.from_text(text))(return_state=True)
    with pytest.raises(NotExclusive, match=r"two runs could create the same record there.* set RH_RECORDS"):
        await state.aresult()
    assert rh.recorder.submissions == []
    # The records lie elsewhere then, the files in the store.
    monkeypatch.setenv("RH_RECORDS", str(tmp_path / "records"))
    text = text.replace("a lighthouse}", "a lighthouse}, save_as: light.png")
    state, _ = await run_in_flow(text)
    assert state.is_completed(), state.message
    assert (tmp_path / "store" / "light.png").is_file()
    assert list((tmp_path / "records" / "works").glob("*/result.json"))
    state, _ = await run_in_flow(text)
    assert (state.name, len(rh.recorder.paid)) == (NOTHING_NEW, 1)

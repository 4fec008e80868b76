"""Runs of pipelines whose storage does not respond for a while, or at their end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rh_prefect.emulator import Emulator
from rh_prefect.errors import JournalError, RunningHubError, StoreError
from rh_prefect.pipelines.run.store_outages import while_store_is_away
from tests.support.servers.emulator_env import environment
from tests.support.world.pipeline_flows import run
from tests.support.world.virtual_time import in_virtual_time, now

AWAY = [StoreError("no answer"), JournalError("no answer")]


@pytest.mark.parametrize("error", AWAY, ids=["storage", "records"])
@in_virtual_time
async def test_a_step_waits_half_a_minute_for_a_storage_that_does_not_respond(error: RunningHubError) -> None:
    async def make() -> str:
        if now() < 30:
            raise error
        return "made"

    assert await while_store_is_away(make, jitter=lambda: 0.0) == "made"
    assert now() == pytest.approx(35, abs=1)


@in_virtual_time
async def test_a_step_does_not_wait_longer_nor_for_what_waiting_does_not_repair() -> None:
    tried: list[float] = []

    async def make() -> None:
        tried.append(now())
        raise StoreError("no right", is_permanent=len(tried) > 3)

    with pytest.raises(StoreError):
        await while_store_is_away(make, jitter=lambda: 0.0)
    assert tried == pytest.approx([0, 5, 35], abs=0.1)
    with pytest.raises(StoreError):
        await while_store_is_away(make)
    assert len(tried) == 4


PICTURES = """
name: pictures
steps:
  first: {model: z-image/turbo, with: {prompt: a mug}}
  second: {model: kling-v2.6-pro-image-to-video, from: $(first), with: {prompt: a turn, duration: 5, sound: false}}
"""


async def test_a_run_whose_report_cannot_be_written_says_what_it_made_and_paid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with Emulator(long_side=96, fps=6, clock="real", factor=0) as rh:
        for name, value in {**environment(rh, tmp_path), "RH_RECORDS": str(tmp_path / "records")}.items():
            monkeypatch.setenv(name, value)
        whole = asyncio.create_task(run(PICTURES, budget=9))
        assert await asyncio.to_thread(rh.recorder.wait, lambda now: bool(now.paid))
        if out.exists():
            out.rename(tmp_path / "before")
        out.write_text("a file in place of the folder")
        rh.clock.advance(1000)
        state, result = await whole
        message = state.message or ""
        assert state.is_failed()
        assert message.startswith("first: ")
        assert "A task was paid for" in message
        assert "Steps: 1 failed, 1 not run; paid 0.04 CNY. The report could not be written: " in message
        assert {one.step: one.state for one in result.steps} == {"first": "failed", "second": "not run"}
        assert result.report == ""
        out.unlink()
        if (tmp_path / "before").exists():
            (tmp_path / "before").rename(out)
        again = asyncio.create_task(run(PICTURES, budget=9))
        assert await asyncio.to_thread(rh.recorder.wait, lambda now: len(now.paid) == 2)
        rh.clock.advance(1000)
        state, result = await again
        assert state.is_completed(), state.message
        assert Path(result.report).is_file()
        assert Path(result.gallery).is_file()
        assert len(rh.recorder.paid) == 2

"""The currency of a cost, where the account could not be read when its job was submitted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rh_prefect import models
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.tasks import generate
from tests.support.servers.emulator_env import environment


async def test_a_cost_is_in_the_currency_that_the_account_reports_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was recorded in the catalogue's currency permanently, and no budget of the account's currency counted it."""
    with Emulator(clock="real", factor=0, long_side=96) as rh:
        for name, value in environment(rh, tmp_path).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("RH_API_KEY", rh.keys.add("dollars", currency="USD").secret)
        rh.faults.add(Fault("account", kind="502", times=9))
        call = generate.fn(models.ZImageTurbo(prompt="a lighthouse"), scope="test")
        early = asyncio.ensure_future(call)
        await asyncio.to_thread(rh.recorder.wait, lambda recorder: len(recorder.tasks) == 1)
        rh.faults.clear()
        # A job with a budget needs the currency, and asks for it again.
        call = generate.fn(models.ZImageTurbo(prompt="a harbour"), scope="test", budget=9)
        late = asyncio.ensure_future(call)
        await asyncio.to_thread(rh.recorder.wait, lambda recorder: len(recorder.tasks) == 2)
        rh.clock.advance(1000)
        done = await asyncio.gather(early, late)
    assert [one.currency for one in done] == ["USD", "USD"]

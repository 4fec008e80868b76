"""Every model from its smallest valid input to the file in the storage, and the files that both sides take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rh_prefect import catalog
from rh_prefect.emulator import Emulator
from tests.support.samples.minimal_calls import run_all, small_emulator
from tests.support.world.reading_comparison import WireReading

pytestmark = pytest.mark.long


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Emulator]:
    with small_emulator(tmp_path) as emulator:
        yield emulator


@pytest.mark.timeout(1200)
def test_the_client_and_the_emulator_take_the_same_files(small: Emulator, tmp_path: Path) -> None:
    asking = WireReading(small, tmp_path)
    apart = [
        (model.name, param.key, verdict)
        for model in catalog.models()
        for param in model.media_params
        for verdict in asking.disagreements_on_files(model, param)
    ]
    assert apart == []


@pytest.mark.parametrize("output", ["image", "video", "audio", "3d", "text"])
async def test_every_model_makes_what_it_says_for_the_price_that_was_estimated(
    small: Emulator, output: str, tmp_path: Path
) -> None:
    chosen = [model for model in catalog.models() if model.output == output]
    assert await run_all(small, chosen, tmp_path) == {}
    assert len(small.recorder.paid) == len(chosen)

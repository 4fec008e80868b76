"""Each model from its smallest valid input to the file in the storage, against the emulator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rh_prefect import catalog
from rh_prefect.emulator import Emulator
from tests.support.smallest import run_all, small_emulator

pytestmark = pytest.mark.long


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Emulator]:
    with small_emulator(tmp_path) as emulator:
        yield emulator


@pytest.mark.timeout(300)
@pytest.mark.parametrize("output", ["image", "video", "audio", "3d", "text"])
async def test_every_model_makes_what_it_says_for_the_price_that_was_estimated(
    small: Emulator, output: str, tmp_path: Path
) -> None:
    chosen = [model for model in catalog.models() if model.output == output]
    assert await run_all(small, chosen, tmp_path) == {}
    assert len(small.books.paid) == len(chosen)

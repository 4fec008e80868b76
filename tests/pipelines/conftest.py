"""An emulator with small files, and a run of pipelines in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rh_prefect.emulator import Emulator
from tests.support.world.pipeline_runs import PipelineRun


@pytest.fixture
def rh() -> Iterator[Emulator]:
    with Emulator(long_side=96, fps=6) as emulator:
        yield emulator


@pytest.fixture
def run(rh: Emulator, tmp_path: Path) -> PipelineRun:
    return PipelineRun(rh.url, rh.key, tmp_path, str(tmp_path / "store"))

"""An emulator whose tasks end when the test says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rh_prefect.emulator import Emulator
from tests.support.servers.emulator_env import environment


@pytest.fixture
def slow_rh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Its clock stands still until `slow_rh.clock.advance`; `RH_…` points at it and at folders of this test."""
    with Emulator(long_side=96, fps=6, clock="real", factor=0) as emulator:
        for name, value in environment(emulator, tmp_path).items():
            monkeypatch.setenv(name, value)
        yield emulator

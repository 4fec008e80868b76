from __future__ import annotations

import pytest

from rh_prefect.emulator import Emulator
from tests.support.processes.film_run import FilmRun, OpenStage


@pytest.fixture
def stage(open_stage: OpenStage, rh: Emulator) -> FilmRun:
    return open_stage(rh)

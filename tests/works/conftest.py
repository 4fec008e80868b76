from __future__ import annotations

from pathlib import Path

import pytest

from rh_prefect.emulator import Emulator
from rh_prefect.works.journal.journal import FolderJournal
from tests.support.world.pipeline_runs import PipelineRun


@pytest.fixture
def run(rh: Emulator, tmp_path: Path) -> PipelineRun:
    return PipelineRun(rh.url, rh.key, tmp_path, str(tmp_path / "store"))


@pytest.fixture
def journal(tmp_path: Path) -> FolderJournal:
    """An empty journal in a local folder."""
    return FolderJournal(str(tmp_path / "journal"), scope="run")

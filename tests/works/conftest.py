from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rh_prefect.emulator import Emulator
from rh_prefect.works.journal.journal import FolderJournal


@pytest.fixture
def given(rh: Emulator, tmp_path: Path) -> dict[str, Any]:
    """What a `PipelineRun` of the emulator in a folder is given."""
    return {"url": rh.url, "key": rh.key, "folder": tmp_path, "store_url": str(tmp_path / "store")}


@pytest.fixture
def journal(tmp_path: Path) -> FolderJournal:
    """An empty journal in a local folder."""
    return FolderJournal(str(tmp_path / "journal"), scope="run")

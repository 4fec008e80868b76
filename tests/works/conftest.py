from __future__ import annotations

from pathlib import Path

import pytest

from rh_prefect.works.journal.journal import FolderJournal


@pytest.fixture
def journal(tmp_path: Path) -> FolderJournal:
    """An empty journal in a local folder."""
    return FolderJournal(str(tmp_path / "journal"), scope="run")

from __future__ import annotations

from pathlib import Path

import pytest

from rh_prefect.jobs.journal import FolderJournal
from tests.support.s3 import s3  # noqa: F401  # a fixture is found by its name here


@pytest.fixture
def journal(tmp_path: Path) -> FolderJournal:
    """An empty journal in a local folder."""
    return FolderJournal(str(tmp_path / "journal"), scope="run")

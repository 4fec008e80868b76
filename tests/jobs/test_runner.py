"""What the runner does with the steps of a job's life, seen at RunningHub and in what the job tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from rh_prefect.emulator import Emulator
from rh_prefect.jobs.outputs.result import Result
from tests.support.pooled import PooledRun, pictures


@pytest.fixture
def run(rh: Emulator, tmp_path: Path) -> PooledRun:
    return PooledRun(rh, tmp_path, members=("main",))


async def test_a_finished_job_is_downloaded_once(run: PooledRun) -> None:
    first = await run.all(pictures(1))
    assert isinstance(first[0], Result)
    assert len(run.rh.books.downloads) == 1
    assert await run.all(pictures(1)) == first
    assert (len(run.rh.books.downloads), len(run.rh.books.paid)) == (1, 1)

"""Two flow runs of one pipeline at once, with records and files on a real S3 server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from rh_prefect.emulator import Emulator
from tests.support.processes.killed_pipelines import PAYMENTS, KilledRuns, Prefects, end_of, killed_runs
from tests.support.servers.s3 import S3Server

pytestmark = [pytest.mark.long, pytest.mark.prefect]


@pytest.fixture
def rh() -> Iterator[Emulator]:
    with Emulator(long_side=96, fps=6, clock="polls", polls=3) as emulator:
        yield emulator


@pytest.fixture
def runs(rh: Emulator, prefects: Prefects, s3: S3Server, tmp_path: Path) -> Iterator[KilledRuns]:
    with killed_runs(rh=rh, s3=s3, prefects=prefects, folder=tmp_path, params={"budget": 20}) as found:
        yield found


def test_two_runs_at_once_pay_once_together(runs: KilledRuns) -> None:
    runs.keeps_machine = False
    both = [end_of(run)["result"] for run in (runs.start(), runs.start())]
    for one in both:
        assert {step["state"] for step in one["steps"]} <= {"made", "reused"}
    asyncio.run(runs.check(payments=PAYMENTS))
    # Each payment is in the report of the run that made it, and in no other.
    paid = sum((Decimal(one["costs"]["amounts"].get("CNY", "0")) for one in both), Decimal(0))
    assert paid == runs.rh.recorder.charged

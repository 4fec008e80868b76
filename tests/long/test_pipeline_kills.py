"""`kill -9` at thirty points of a pipeline; then new flow runs on another Prefect server, with the same records.

Each chain kills several flow runs one after another, each at the next point, and then a run completes. In the end every
work is paid for once, every file is whole, and no two works have each other's result.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from rh_prefect.emulator import Emulator
from tests.support.processes.killed_pipelines import PAYMENTS, KilledRuns, Point, Prefects, end_of, killed_runs
from tests.support.servers.s3 import S3Server

pytestmark = [pytest.mark.long, pytest.mark.prefect]

WORK = r"/works/[0-9a-f]+"
POST = "^POST /openapi/v2/"
CHAINS: tuple[tuple[Point, ...], ...] = (
    (
        Point("s3", f"^PUT .*{WORK}/waiter-"),
        Point("s3", f"^PUT .*{WORK}/intent-1", after=True),
        Point("s3", f"^PUT .*{WORK}/end-1"),
        Point("s3", "^PUT .*/edits/"),
    ),
    (
        Point("prefect", "[0-9a-f]-claim-1"),
        Point("s3", f"^PUT .*{WORK}/intent-1", number=2),
        Point("s3", f"^PUT .*{WORK}/result", after=True),
        Point("s3", "^PUT .*/edits/", after=True),
    ),
    (
        Point("prefect", "[0-9a-f]-claim-1", after=True),
        Point("rh", f"{POST}rhart-image", after=True),
        Point("s3", "^PUT .*/pipelines/"),
        Point("s3", "^PUT .*/names/"),
    ),
    (
        Point("rh", f"{POST}rhart-text"),
        Point("rh", f"{POST}kling", after=True),
        Point("s3", "^PUT .*/names/", after=True),
    ),
    (
        Point("s3", f"^PUT .*{WORK}/answer-1", number=2, after=True),
        Point("rh", f"{POST}query"),
        Point("rh", f"{POST}media/upload"),
        Point("s3", "^PUT .*/ends/"),
    ),
    (
        Point("rh", f"{POST}query", number=2, after=True),
        Point("s3", f"^PUT .*{WORK}/end-1", after=True),
        Point("rh", f"{POST}kling"),
        Point("s3", "^PUT .*/ends/", after=True),
    ),
    (
        Point("s3", f"^PUT .*{WORK}/answer-1"),
        Point("s3", f"^PUT .*{WORK}/result"),
        Point("rh", f"{POST}media/upload", after=True),
        Point("s3", "^PUT .*/pipelines/", after=True),
        Point("s3", "^PUT .*/runs/", after=True),
    ),
)
"""In each chain the points lie further and further down the pipeline."""

SEEDS = range(3)
ANY = "^(PUT|GET|HEAD|POST|DELETE) "


@pytest.fixture
def runs(prefects: Prefects, s3: S3Server, tmp_path: Path) -> Iterator[KilledRuns]:
    with (
        Emulator(long_side=96, fps=6, clock="polls", polls=2) as rh,
        killed_runs(rh=rh, s3=s3, prefects=prefects, folder=tmp_path, params={"budget": 20}) as found,
    ):
        yield found


@pytest.mark.parametrize("number", range(len(CHAINS)))
def test_runs_killed_at_each_kind_of_operation(runs: KilledRuns, number: int) -> None:
    # Every second chain loses what the machine kept: the tickets that were on their way to the records, too.
    runs.keeps_machine = number % 2 == 0
    for point in CHAINS[number]:
        runs.kill_at(point)
    runs.finish()
    asyncio.run(runs.check(payments=PAYMENTS))
    if number == 0:
        assert runs.finish()["new"] == 0
        asyncio.run(runs.check(payments=PAYMENTS))


@pytest.mark.parametrize("seed", SEEDS)
def test_runs_killed_somewhere(runs: KilledRuns, seed: int) -> None:
    drawn = random.Random(seed)
    runs.keeps_machine = bool(seed % 2)
    for first, last in ((10, 60), (10, 80)):
        runs.kill_at(Point("s3", ANY, number=drawn.randint(first, last), after=drawn.random() < 0.5))
    runs.finish()
    asyncio.run(runs.check(payments=PAYMENTS))


def test_two_runs_at_once_pay_once_together(runs: KilledRuns) -> None:
    runs.keeps_machine = False
    runs.rh.clock.polls = 3
    both = [end_of(run)["result"] for run in (runs.start(), runs.start())]
    for one in both:
        assert {step["state"] for step in one["steps"]} <= {"made", "reused"}
    asyncio.run(runs.check(payments=PAYMENTS))
    # Each payment is in the report of the run that made it, and in no other.
    paid = sum((Decimal(one["costs"]["amounts"].get("CNY", "0")) for one in both), Decimal(0))
    assert paid == runs.rh.recorder.charged

"""`kill -9` at thirty points of a pipeline; then new flow runs on another Prefect server, with the same records.

Each chain kills several flow runs one after another, each at the next point, and then a run completes. In the end every
work is paid for once, every file is whole, and no two works have each other's result.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import TypeAlias

import pytest

from rh_prefect.emulator import Emulator
from tests.support.processes.flow_process import FlowProcesses, flow_processes
from tests.support.processes.killed_pipelines import PAYMENTS, KilledRuns, Point, end_of
from tests.support.servers.emulator_env import environment
from tests.support.servers.holding_proxy import Proxy
from tests.support.servers.prefect_server import PrefectServer
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
        Point("rh", f"{POST}rhart-image", after=True),
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
        Point("rh", f"{POST}kling", after=True),
        Point("s3", "^PUT .*/pipelines/", after=True),
        Point("s3", "^PUT .*/runs/", after=True),
    ),
)
"""Each point lies in a step that needs the step of an earlier point; else a run might pass it before its first kill."""

SEEDS = range(3)
ANY = "^(PUT|GET|HEAD|POST|DELETE) "


Prefects: TypeAlias = tuple[list[Proxy], list[FlowProcesses]]


@pytest.fixture(scope="module")
def prefects(
    prefect_server: PrefectServer, prefect_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prefects]:
    """Two Prefect servers, each behind a proxy and with processes that run pipelines on it."""
    folder = tmp_path_factory.mktemp("prefects")
    with PrefectServer(folder / "other", template=prefect_template) as other, ExitStack() as stack:
        servers = (prefect_server, other)
        proxies = [stack.enter_context(Proxy(server.url)) for server in servers]
        envs = [{**one.env, "PREFECT_API_URL": f"{proxy.url}/api"} for one, proxy in zip(servers, proxies, strict=True)]
        yield proxies, [stack.enter_context(flow_processes(env, folder)) for env in envs]


@pytest.fixture
def runs(prefects: Prefects, s3: S3Server, tmp_path: Path) -> Iterator[KilledRuns]:
    """Runs of the pipeline on a new prefix of the S3 server; none is started."""
    emulator = Emulator(long_side=96, fps=6, clock="polls", polls=2)
    with emulator as rh, Proxy(s3.endpoint) as to_s3, Proxy(rh.url) as to_rh:
        url, options = s3.url("killed"), json.dumps({**s3.options, "endpoint_url": to_s3.url})
        storage = {"RH_STORAGE_URL": url, "RH_STORAGE_OPTIONS": options}
        env = {**environment(rh, tmp_path), "RH_BASE_URL": to_rh.url, **storage}
        proxies = {"s3": to_s3, "rh": to_rh, **{f"prefect{n}": one for n, one in enumerate(prefects[0])}}
        yield KilledRuns(rh, tmp_path, url, s3.options, proxies, prefects[1], env)


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

"""One Prefect server, one emulator and one process that forks for all shapes, and the table at the end."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator

import pytest

from rh_prefect.emulator import Emulator
from tests.identity.harness import HEAD, World, lines_of, shuffled
from tests.support.processes.forked_attempts import attempts
from tests.support.servers.prefect_server import PrefectServer

_ROW = "paid"


@pytest.fixture(scope="session")
def world(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """What all shapes share."""
    seed = int(os.environ.get("RH_TEST_SEED") or 1)
    log = tmp_path_factory.mktemp("identity") / "attempts.log"
    quick = shuffled(random.Random(seed))
    with (
        Emulator(clock="real", long_side=64, fps=6, limit=500, random_seed=seed, durations=quick) as rh,
        attempts({**prefect_server.env, "PREFECT_LOGGING_LEVEL": "WARNING"}, log=log) as forking,
    ):
        yield World(forking, rh, [])


@pytest.fixture(autouse=True)
def _rows(world: World, record_property: Callable[[str, object], None]) -> Iterator[None]:
    """Gives a test's rows of the table to the process that prints it, which may be another one."""
    before = len(world.table)
    yield
    for line in lines_of(world.table[before:]):
        record_property(_ROW, line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    # Those of the tests' ends: the properties are complete only then.
    reports = [
        one for some in terminalreporter.stats.values() for one in some if getattr(one, "when", "") == "teardown"
    ]
    lines = [line for one in reports for name, line in one.user_properties if name == _ROW]
    if lines:
        terminalreporter.section("what was paid for")
        for line in (HEAD, *lines):
            terminalreporter.write_line(line)

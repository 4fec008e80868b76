"""One Prefect server, one emulator and one process that forks for all shapes, and the table at the end."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from rh_prefect.emulator import Emulator
from tests.identity.harness import Outcome, World, lines_of, shuffled
from tests.support.attempts import attempts
from tests.support.prefect_server import PrefectServer

_TABLE: pytest.StashKey[list[Outcome]] = pytest.StashKey()
_SEEDS: pytest.StashKey[str] = pytest.StashKey()


@pytest.fixture(scope="session")
def world(
    prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[World]:
    """What all shapes share."""
    seed = int(os.environ.get("RH_TEST_SEED") or random.randrange(10**6))
    pytestconfig.stash[_SEEDS] = f"RH_TEST_SEED={seed} gives these results and times again"
    table = pytestconfig.stash.setdefault(_TABLE, [])
    log = tmp_path_factory.mktemp("identity") / "attempts.log"
    quick = shuffled(random.Random(seed))
    with (
        Emulator(clock="real", long_side=64, fps=6, limit=500, random_seed=seed, durations=quick) as rh,
        attempts({**prefect_server.env, "PREFECT_LOGGING_LEVEL": "WARNING"}, log=log) as forking,
    ):
        yield World(forking, rh, table)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    table = config.stash.get(_TABLE, [])
    if table:
        terminalreporter.section("what was paid for")
        for line in [*lines_of(table), config.stash[_SEEDS]]:
            terminalreporter.write_line(line)

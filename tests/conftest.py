"""Fixtures of the whole suite."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import certifi
import pytest

from tests.support.world.virtual_time import VirtualLoop

# Each full collection would look at all tests and modules again, which live until the end: see below.
gc.disable()

# A developer's own settings, models and tickets must not reach the tests, and tests must not change them.
for _name in [name for name in os.environ if name.startswith(("RH_", "PREFECT_"))]:
    del os.environ[_name]
_STATE = tempfile.TemporaryDirectory(prefix="rh-tests-state-")
os.environ["RH_STATE_DIR"] = _STATE.name
os.environ["PREFECT_HOME"] = f"{_STATE.name}/prefect"
# A test that needs Prefect's API and does not ask for `prefect_server` fails, also where it runs first. Prefect would
# start a temporary server for it, which takes 20 s.
os.environ["PREFECT_SERVER_EPHEMERAL_ENABLED"] = "false"

# A flow run opens several clients, and each reads the certificates of all authorities: 20 ms of CPU. No test meets a
# host that one of them has certified, so one of them is enough.
_END = "-----END CERTIFICATE-----\n"
os.environ["SSL_CERT_FILE"] = f"{_STATE.name}/authority.pem"
Path(os.environ["SSL_CERT_FILE"]).write_text(Path(certifi.where()).read_text().partition(_END)[0] + _END)

# The servers that tests read links from are on this machine.
os.environ["RH_ALLOW_PRIVATE_LINKS"] = "1"
# pytest-xdist sets it, and commands would wrap their lines as for a terminal.
os.environ.pop("COLUMNS", None)

# A shell starts what runs in its background deaf to Ctrl-C, and so would be all that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = [
    "tests.support.servers.prefect_server",
    "tests.support.servers.emulator_env",
    "tests.support.servers.s3",
    "tests.support.servers.link_server",
    "tests.support.servers.receiver",
    "tests.support.world.suspended_runs",
    "tests.support.processes.film_run",
]


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Gives tests with the mark `virtual_time` a clock that jumps to the next timer."""
    return {"loop": VirtualLoop if item.get_closest_marker("virtual_time") else asyncio.new_event_loop}


def pytest_itemcollected(item: pytest.Item) -> None:
    """Gives the session's server to tests with the mark `prefect`."""
    fixtures = getattr(item, "fixturenames", None)
    if item.get_closest_marker("prefect") and fixtures is not None and "prefect_server" not in fixtures:
        fixtures.insert(0, "prefect_server")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Has test processes begin with the files that take longest.

    These are those with most tests that start flow runs, then those of `works`, some of which wait for half a minute.
    """
    if hasattr(config, "workerinput"):
        runs = Counter(item.path for item in items if "prefect_server" in getattr(item, "fixturenames", ()))
        items.sort(key=lambda item: (-runs[item.path], "works" not in item.path.parts))


def pytest_collection_finish() -> None:
    """Takes all that exists by now out of the garbage collections of the tests."""
    gc.freeze()
    gc.enable()

"""What the whole-way tests share: the session's Prefect server, behind a proxy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rh_prefect.emulator import Emulator
from tests.support.processes.film_run import FilmRun, staged
from tests.support.servers.holding_proxy import Proxy
from tests.support.servers.prefect_server import PrefectServer


@pytest.fixture(scope="session")
def prefect_proxy(prefect_server: PrefectServer) -> Iterator[Proxy]:
    """Stands between child processes and the session's Prefect server."""
    with Proxy(prefect_server.url) as proxy:
        yield proxy


@pytest.fixture
def stage(rh: Emulator, prefect_server: PrefectServer, prefect_proxy: Proxy, tmp_path: Path) -> Iterator[FilmRun]:
    """Child processes that work with the test's emulator."""
    with staged(prefect_server, prefect_proxy, rh, tmp_path) as made:
        yield made

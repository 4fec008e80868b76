"""What the long suites share: a Prefect server behind a proxy, and two that start runs of pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes.killed_pipelines import Prefects, pipeline_processes
from tests.support.servers.holding_proxy import Proxy
from tests.support.servers.prefect_server import PrefectServer


@pytest.fixture(scope="session")
def prefect_proxy(prefect_server: PrefectServer) -> Iterator[Proxy]:
    """Stands between child processes and the session's Prefect server."""
    with Proxy(prefect_server.url) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def prefects(
    prefect_server: PrefectServer, prefect_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prefects]:
    """Two Prefect servers, each behind a proxy and with processes that run pipelines on it."""
    folder = tmp_path_factory.mktemp("prefects")
    with (
        PrefectServer(folder / "other", template=prefect_template) as other,
        pipeline_processes((prefect_server, other), folder) as found,
    ):
        yield found

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes.killed_pipelines import Prefects, pipeline_processes
from tests.support.servers.prefect_server import PrefectServer


@pytest.fixture
def without_tracebacks() -> Iterator[None]:
    """Where hundreds of flow runs fail, Prefect's tracebacks of them cost more than the runs."""
    prefect = logging.getLogger("prefect")
    before = prefect.level
    prefect.setLevel(logging.CRITICAL)
    yield
    prefect.setLevel(before)


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

"""What the long suites share: one Prefect server behind a proxy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.holding_proxy import Proxy
from tests.support.prefect_server import PrefectServer


@pytest.fixture(scope="session")
def prefect_proxy(prefect_server: PrefectServer) -> Iterator[Proxy]:
    """Stands between child processes and the session's Prefect server."""
    with Proxy(prefect_server.url) as proxy:
        yield proxy

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def without_tracebacks() -> Iterator[None]:
    """Where hundreds of flow runs fail, Prefect's tracebacks of them cost more than the runs."""
    prefect = logging.getLogger("prefect")
    before = prefect.level
    prefect.setLevel(logging.CRITICAL)
    yield
    prefect.setLevel(before)

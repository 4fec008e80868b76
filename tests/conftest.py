"""Fixtures of the whole suite."""

from __future__ import annotations

pytest_plugins = ["tests.support.prefect_server", "tests.support.rh", "tests.support.s3"]

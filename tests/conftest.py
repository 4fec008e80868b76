"""Fixtures of the whole suite."""

from __future__ import annotations

import os
import tempfile

# A developer's own settings, models and tickets must not reach the tests, nor theirs his.
os.environ["RH_STATE_DIR"] = tempfile.mkdtemp(prefix="rh-tests-state-")

pytest_plugins = ["tests.support.prefect_server", "tests.support.rh", "tests.support.s3"]

"""Models' tasks in a real flow run, with every result persisted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rh_prefect import catalog
from rh_prefect.emulator import Emulator
from tests.support.processes import warm_process
from tests.support.servers.emulator_env import environment
from tests.support.servers.prefect_server import PrefectServer

pytestmark = pytest.mark.prefect


def test_two_endpoints_with_equal_input_never_share_a_result(
    rh: Emulator, prefect_server: PrefectServer, tmp_path: Path
) -> None:
    env = {
        **os.environ,
        **prefect_server.env,
        **environment(rh, tmp_path),
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
        "PREFECT_LOCAL_STORAGE_PATH": str(tmp_path / "results"),
    }
    script = Path(__file__).with_name("endpoint_flow.py")
    done = warm_process.run([script], env=env)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    turbo = "z-image/turbo"
    assert [model for model, _, _ in results] == [
        turbo, catalog.get("f_dev").name, "seedream-v4/text-to-image", turbo, turbo, turbo
    ]  # fmt: skip
    assert len({key for _, key, _ in results}) == len({task for _, _, task in results}) == len(rh.recorder.paid) == 6
    assert any((tmp_path / "results").rglob("*")), "results were persisted"

"""`rh-prefect emulator`: its key stays the same, so that what was saved with it is valid after a restart."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.processes.warm_process import RH, WarmProcess


def key_of(state: Path) -> str:
    """Starts the emulator, reads the key that it prints, and stops it."""
    env = {**os.environ, "RH_STATE_DIR": str(state)}
    with WarmProcess([*RH, "emulator", "--port", "0", "--factor", "0"], env=env) as process:
        lines = iter(process.stdout.readline, "")
        key = next(line for line in lines if line.startswith("export RH_API_KEY="))
        process.terminate()
        process.communicate()
    return key.partition("=")[2].strip()


def test_the_key_is_the_same_at_each_start(tmp_path: Path) -> None:
    first = key_of(tmp_path / "state")
    assert key_of(tmp_path / "state") == first
    assert (tmp_path / "state" / "emulator-key").stat().st_mode & 0o777 == 0o600
    assert key_of(tmp_path / "other") != first

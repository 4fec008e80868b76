"""Where no Prefect API is set, `--dashboard` starts a server."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from rh_prefect.emulator import Emulator
from tests.support.servers.emulator_env import environment
from tests.support.servers.prefect_server import PrefectServer

pytestmark = pytest.mark.long


def test_a_dashboard_stays_after_the_run_until_ctrl_c(
    rh: Emulator, prefect_server: PrefectServer, tmp_path: Path
) -> None:
    env = {**prefect_server.env, **environment(rh, tmp_path), "PREFECT_HOME": str(tmp_path / "home")}
    del env["PREFECT_API_URL"]
    (tmp_path / "mug.yaml").write_text("steps: {mug: {model: z-image/turbo, with: {prompt: a mug}}}\n")
    words = [sys.executable, "-m", "rh_prefect.cli", "run", "mug.yaml", "--dashboard"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, cwd=tmp_path, env=env, **pipes) as process:  # type: ignore[call-overload]
        try:
            address = next(found[1] for line in process.stderr if (found := re.search(r"stays at (\S+) until", line)))
            with urlopen(f"{address}/api/health") as answer:
                assert answer.read() == b"true"
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=600)[0]
        finally:
            process.kill()
    assert process.returncode == 0
    assert "Steps: 1 made" in said
    assert re.search(r"flow run [0-9a-f-]{36}", said)

"""Where no Prefect API is set, a flow of the package has a separate server, and other commands find its runs there."""

from __future__ import annotations

import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from rh_prefect.emulator import Emulator
from tests.support.processes.flow_process import command
from tests.support.samples import media as samples
from tests.support.servers.emulator_env import environment
from tests.support.servers.prefect_server import PrefectServer

pytestmark = pytest.mark.long


def test_a_run_is_kept_by_the_command_s_own_server(rh: Emulator, prefect_server: PrefectServer, tmp_path: Path) -> None:
    env = {**prefect_server.env, **environment(rh, tmp_path), "PREFECT_HOME": str(tmp_path / "home")}
    del env["PREFECT_API_URL"]
    photo = str(samples.png(tmp_path / "photo.png"))
    nothing = command(env, "jobs", "list")
    assert "flow runs are not included, because PREFECT_API_URL is not set" in nothing.stdout
    done = command(env, "run", "image-to-video", "--image", photo, "--prompt", "waves")
    assert done.returncode == 0, done.stderr
    run = re.findall(r"flow run ([0-9a-f-]{36})", done.stdout)[0]
    later = f"later: PREFECT_HOME={tmp_path / 'state' / 'prefect'} prefect server start"
    assert later in done.stdout, "the printed address ends with the command"
    assert not (tmp_path / "home" / "prefect.db").exists(), "no throw-away server was used"
    with sqlite3.connect(tmp_path / "state" / "prefect" / "prefect.db") as database:
        assert database.execute("select id from flow_run").fetchall() == [(run,)]
    listed = command(env, "jobs", "list")
    assert re.search(rf"{run} +1 job\(s\)  Completed", listed.stdout), listed.stdout + listed.stderr
    again = command(env, "run", "image-to-video", "--resume", run)
    assert "paid nothing now; 1.75 CNY was already paid" in again.stdout, again.stderr
    assert len(rh.recorder.paid) == 1


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

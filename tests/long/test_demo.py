"""Commands that run for minutes: `rh-prefect demo`, and a dashboard that stays."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import av
import pytest

from rh_prefect.emulator import Emulator
from rh_prefect.media.edit.audio_samples import audio_level
from tests.support.samples import clip_samples
from tests.support.servers.emulator_env import environment
from tests.support.servers.prefect_server import PrefectServer

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


def test_the_second_run_of_the_demo_is_free(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rh_prefect.cli", "demo", "--folder", "demo", "--shots", "2"]
    theirs = {"RH_RECORDS": str(tmp_path / "records"), "RH_MAX_BUDGET": "0", "RH_STORAGE_OPTIONS": "no JSON"}
    env = {**os.environ, **theirs}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "records").exists()
    recorded = re.search(r"recorded: (\d+) tasks .* by the first run, 0 tasks and 0\.00 CNY by the second", done.stdout)
    assert recorded is not None, done.stdout
    assert int(recorded[1]) == 10  # the script, the music, and four of each shot
    assert "an emulator, which ends with this command" in done.stdout
    steps = re.findall(r"\n  ((?:export|cd|rh-prefect gallery).*)", done.stdout)
    assert len(steps) >= 3
    env = {name: value for name, value in os.environ.items() if name != "RH_STORAGE_URL"}
    copied = subprocess.run("\n".join(steps), shell=True, env=env, capture_output=True, text=True, check=False)
    assert (tmp_path / "demo" / "out" / "gallery" / "index.html").as_uri() in copied.stdout, copied.stderr
    assert re.search(r"\nflow run [0-9a-f-]{36}", done.stdout), "the last run is one of a flow"
    assert done.stdout.count("Nothing new") == 2
    first, second, third = sorted((tmp_path / "demo" / "out" / "films").glob("*.mp4"))
    assert first.read_bytes() == second.read_bytes() == third.read_bytes()
    look_at(first, seconds=10)


def look_at(film: Path, *, seconds: float) -> None:
    """Every frame shows something, the picture moves, and the sound is as loud as films on the web are."""
    with av.open(str(film)) as file:
        frames = [frame.to_ndarray(format="gray").astype(float) for frame in file.decode(video=0)]
    assert len(frames) == pytest.approx(24 * seconds, abs=2)
    assert min(frame.std() for frame in frames) > 15
    assert all((frames[at] != frames[at + 12]).any() for at in range(0, len(frames) - 12, 12))
    level = audio_level(film)
    assert level.seconds == pytest.approx(seconds, abs=0.2)
    assert -18 < level.lufs < -12
    assert clip_samples.peak(film) < -0.5


def test_a_dashboard_stays_after_the_run_until_ctrl_c(
    rh: Emulator, prefect_server: PrefectServer, tmp_path: Path
) -> None:
    env = {**prefect_server.env, **environment(rh, tmp_path), "PREFECT_HOME": str(tmp_path / "home")}
    del env["PREFECT_API_URL"]
    env["HTTP_PROXY"] = "http://127.0.0.1:9"
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

"""The commands, as a person types them: in processes of their own, against a real Prefect server and the emulator."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rh_prefect.emulator import Emulator, Fault
from tests.support.prefect_server import PrefectServer
from tests.support.rh import environment

RH = [sys.executable, "-m", "rh_prefect.cli"]


@pytest.fixture
def env(rh: Emulator, prefect_server: PrefectServer, tmp_path: Path) -> dict[str, str]:
    return {**os.environ, **prefect_server.env, **environment(rh, tmp_path)}


def call(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RH, *arguments], env=env, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize("command", [[], ["run"], ["models"], ["jobs"], ["demo"], ["run", "film"], ["jobs", "adopt"]])
def test_help_says_what_a_command_does(command: list[str]) -> None:
    done = call(*command, "--help")
    assert done.returncode == 0
    assert "Usage: rh-prefect" in done.stdout


def test_help_loads_neither_prefect_nor_the_catalogue() -> None:
    code = "import sys\nfrom rh_prefect.cli import app\ntry: app(['--help'])\nexcept SystemExit: pass\n"
    code += (
        "print('LOADED', [m for m in ('prefect', 'httpx', 'av', 'rh_prefect.catalog.registry') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "LOADED []" in done.stdout


def test_models_are_found_and_shown() -> None:
    assert "models.KlingV26ProImageToVideo" in call("models", "search", "kling", "image", "to", "video").stdout
    shown = call("models", "show", "kling-v2.6-pro-image-to-video").stdout
    assert "duration" in shown
    assert "'5' | '10'" in shown


def test_an_unknown_model_names_the_nearest_and_fails() -> None:
    done = call("models", "show", "kling-v2.6-pro-image-to-vide")
    assert done.returncode == 1
    assert "kling-v2.6-pro-image-to-video" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.prefect
def test_a_film_is_made_listed_and_added_up(rh: Emulator, env: dict[str, str], tmp_path: Path) -> None:
    done = call("run", "film", "--prompt", "a lighthouse", "--shots", "2", "--out", str(tmp_path / "films"), env=env)
    assert done.returncode == 0, done.stderr
    film = Path(re.findall(r"^film: (.*)$", done.stdout, re.MULTILINE)[0])
    assert film.is_relative_to(tmp_path / "films")
    assert film.stat().st_size > 10_000
    run = re.findall(r"flow run ([0-9a-f-]{36})", done.stdout)[0]
    listed = call("jobs", "list", run, env=env).stdout
    assert listed.count("success") == 8
    assert run in call("jobs", "list", env=env).stdout
    key = re.findall(rf"{run}/([0-9a-f]+)", listed)[0]
    assert '"outcome":"ticket"' in call("jobs", "show", f"{run}/{key}", env=env).stdout
    spent = call("spend", env={**env, "RH_OUT": str(tmp_path / "films")}).stdout
    assert f"{sum(one.charged for one in rh.books.paid)} CNY" in spent
    assert rh.key not in done.stdout + done.stderr + listed + spent


@pytest.mark.prefect
def test_a_run_that_fails_exits_with_its_reason_and_no_traceback(env: dict[str, str]) -> None:
    done = call("run", "film", "--prompt", "a forbidden thing", "--shots", "1", env=env)
    assert done.returncode == 1
    assert "content check" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.prefect
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "film"], "--prompt"),
        (["run", "film", "--prompt", "x", "--shots", "99"], "shots"),
        (["run", "image-to-video", "--image", "nowhere.jpg", "--prompt", "x"], "nowhere.jpg"),
        (["run", "film", "--resume", "00000000-0000-0000-0000-000000000000"], "no flow run"),
        (["jobs", "show", "nonsense"], "no job's name"),
        (["jobs", "adopt", "test/abc"], "task id"),
        (["jobs", "forget", "test/abc"], "no such job"),
    ],
)
def test_bad_input_is_one_clear_message(rh: Emulator, env: dict[str, str], arguments: list[str], said: str) -> None:
    done = call(*arguments, env=env)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not rh.books.paid


@pytest.mark.prefect
def test_ctrl_c_says_what_runs_and_how_to_go_on_and_resuming_pays_nothing_twice(
    rh: Emulator, env: dict[str, str]
) -> None:
    rh.faults.add(Fault("query", every=1, kind="slow", seconds=0.3))
    out = str(Path(env["RH_STATE_DIR"]).parent / "my films")
    command = [*RH, "run", "image-to-video", "--image", _photo(env), "--prompt", "waves", "--out", out]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while "submitted" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait(timeout=60) != 0
    run = re.findall(r"--resume ([0-9a-f-]{36})", said)[0]
    assert rh.books.paid[0].task_id in said
    assert f"--out '{out}' --resume" in said
    done = call("run", "image-to-video", "--out", out, "--resume", run, env=env)
    assert done.returncode == 0, done.stderr
    assert len(rh.books.paid) == 1


def _photo(env: dict[str, str]) -> str:
    from tests.support import samples

    return str(samples.png(Path(env["RH_STATE_DIR"]).parent / "photo.png"))


@pytest.mark.prefect
def test_doctor_says_what_is_well_and_what_is_not(env: dict[str, str], tmp_path: Path) -> None:
    well = call("doctor", env=env)
    assert well.returncode == 0, well.stdout
    assert well.stdout.count("✓") == 5
    (tmp_path / "file").touch()
    broken = {**env, "RH_API_KEY": "0" * 32, "RH_OUT": str(tmp_path / "file" / "out")}
    ill = call("doctor", env=broken)
    assert ill.returncode == 1
    assert "✗ key and site" in ill.stdout
    assert "✗ storage" in ill.stdout
    assert "What to do" in ill.stdout
    assert "0" * 32 not in ill.stdout

"""The commands, as a person types them: in separate processes, against a real Prefect server and the emulator."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.blocks import RunningHubCredentials, RunningHubPool
from rh_prefect.cli.doctor import expiry_rules
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.emulator.accounts import Tier
from tests.support.processes import warm_process
from tests.support.processes.cli_process import run_each
from tests.support.processes.typed_commands import Terminal
from tests.support.processes.warm_process import RH, WarmProcess
from tests.support.servers.emulator_env import environment
from tests.support.servers.prefect_server import PrefectServer
from tests.support.servers.s3 import BUCKET, S3Server


@pytest.fixture
def env(rh: Emulator, prefect_server: PrefectServer, tmp_path: Path) -> dict[str, str]:
    return {**os.environ, **prefect_server.env, **environment(rh, tmp_path)}


def call(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return warm_process.run([*RH, *arguments], env=env)


@pytest.mark.parametrize("command", ["", "run", "models", "jobs", "demo", "run film", "jobs adopt"])
def test_help_says_what_a_command_does(command: str, terminal: Terminal) -> None:
    assert "Usage: rh-prefect" in terminal.call(f"{command} --help")


def test_help_loads_neither_prefect_nor_the_catalogue() -> None:
    code = "import sys\nfrom rh_prefect.cli import app\ntry: app(['--help'])\nexcept SystemExit: pass\n"
    heavy = ("prefect", "httpx", "av", "rh_prefect.catalog.registry")
    code += f"print('LOADED', [m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "LOADED []" in done.stdout


WRONG: dict[str, list[str]] = {
    "nowhere.jpg": ["run", "image-to-video", "--image", "https://127.0.0.1:9/nowhere.jpg", "--prompt", "x"],
    "not the name of a job": ["jobs", "show", "nonsense"],
    "task id": ["jobs", "adopt", "test/abc"],
    "test/abc: this job is not recorded": ["jobs", "mark-refused", "test/abc"],
    "not a valid scope name": ["jobs", "list", "../.."],
    "nowhere: no run and no scope in": ["jobs", "list", "nowhere"],
    "neverwhere: no run and no scope in": ["jobs", "cancel", "neverwhere"],
}


@pytest.mark.prefect
def test_bad_input_is_one_clear_message(rh: Emulator, env: dict[str, str], tmp_path: Path) -> None:
    for said, done in zip(WRONG, run_each(list(WRONG.values()), env=env, cwd=tmp_path), strict=True):
        assert done.returncode == 1, said
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert not rh.recorder.paid


WRONG_AT_ONCE: dict[str, list[str]] = {
    "shots takes a whole number of at least 1": ["run", "film", "--prompt", "x", "--shots", "0"],
    "prompt is missing; set it with --set prompt=": ["run", "film"],
    '"-1.0" for --budget. Must be >= 0': ["run", "film", "--prompt", "x", "--budget", "-1"],
    "film has no parameter shot; did you mean shots?": ["run", "film", "--prompt", "x", "--shot", "2"],
    "There is no pipeline flim: neither a file": ["run", "flim", "--prompt", "x"],
    "--budget. Input should be greater than 0. What": ["batch", "rows.csv", "--model", "a/b", "--budget", "-1"],
    "nowhere.jpg": ["run", "film", "--prompt", "x", "--image", "nowhere.jpg"],
    "'caf\\udce9' is not UTF-8": ["run", "film", "--prompt", "caf\udce9"],
    "'a\\x00b.jpg' contains a NUL byte": ["run", "film", "--prompt", "x", "--image", "a\0b.jpg"],
    "rh-prefect: 'a\\x00b' contains a NUL byte": ["run", "film", "--prompt", "x", "--out", "a\0b"],
    "'a\\x00b.csv' contains a NUL byte": ["batch", "a\0b.csv", "--model", "z-image/turbo"],
    "'a\\x00c' contains a NUL byte": ["demo", "--folder", "a\0c"],
    "'caf\\udce9.yaml' is not UTF-8": ["plan", "caf\udce9.yaml"],
    "there is no file of kind video": ["run", "upscale", "--videos", "."],
    "the name is too long": ["run", "upscale", "--videos", "x" * 300],
    "z-image/turbo": ["batch", "nowhere.csv", "--model", "z-image/turbi"],
    "no file or folder nowhere.csv": ["batch", "nowhere.csv", "--model", "z-image/turbo"],
    "parameter --music requires an argument. What to do: ": ["run", "film", "--music"],
    '"13" for --shots. Must be <= 12': ["demo", "--shots", "13"],
    "demo: --prompt is empty": ["demo", "--prompt", ""],
    "--port. Must be <= 65535": ["emulator", "--port", "70000"],
    "'last week' is not a day; write YYYY-MM-DD, today or yesterday. What": ["spend", "--since", "last week"],
}


def test_what_is_wrong_is_said_before_anything_is_started(prefect_server: PrefectServer, tmp_path: Path) -> None:
    env = {**prefect_server.env, "PREFECT_HOME": str(tmp_path / "prefect"), "RH_STATE_DIR": str(tmp_path / "state")}
    del env["PREFECT_API_URL"]
    for said, done in zip(WRONG_AT_ONCE, run_each(list(WRONG_AT_ONCE.values()), env=env, cwd=tmp_path), strict=True):
        assert done.returncode in (1, 2), said
        assert said in " ".join((done.stdout + done.stderr).replace("│", " ").split())
        assert "server" not in done.stdout
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "state").exists()


def test_a_prefect_api_that_does_not_answer_is_one_line(prefect_server: PrefectServer, tmp_path: Path) -> None:
    env = {**prefect_server.env, "PREFECT_HOME": str(tmp_path), "RH_STATE_DIR": str(tmp_path / "state")}
    env["PREFECT_API_URL"] = "http://127.0.0.1:9/api"
    film = ["run", "film", "--prompt", "x", "--credentials", "studio"]
    commands = [["jobs", "list"], ["jobs", "cancel", "00000000-0000-0000-0000-000000000000"], film]
    for done in run_each(commands, env=env, cwd=tmp_path):
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1, done.stderr
        assert re.search("[Tt]he Prefect API at http://127.0.0.1:9/api(: no answer| does not respond)", done.stderr)
        assert "What to do" in done.stderr
        assert "respond" not in done.stderr or "`prefect config unset PREFECT_API_URL`" in done.stderr


def test_what_a_run_would_refuse_is_said_before_a_server_is_started(
    rh: Emulator, prefect_server: PrefectServer, tmp_path: Path
) -> None:
    env = {**prefect_server.env, **environment(rh, tmp_path), "PREFECT_HOME": str(tmp_path / "prefect")}
    del env["PREFECT_API_URL"]
    (tmp_path / "words.txt").write_text("no picture")
    film = ["run", "film", "--prompt", "x"]
    wrong: list[tuple[dict[str, str], str, list[str]]] = [
        ({"RH_API_KEY": ""}, "No RunningHub API key", film),
        ({"RH_API_KEY": ""}, "API key is set", ["batch", ".", "--model", "rh-video-upscaler"]),
        ({"RH_API_KEY": "0" * 32}, "the key is missing or unknown", film),
        ({"RH_BASE_URL": "http://127.0.0.1:9"}, "http://127.0.0.1:9", film),
        ({}, "words.txt", [*film, "--image", "words.txt"]),
        ({}, "/proc/nope", [*film, "--out", "/proc/nope"]),
        ({"AWS_EC2_METADATA_DISABLED": "true"}, "no credentials were found", [*film, "--out", "s3://nowhere/films"]),
    ]
    for changed, said, command in wrong:
        for done in run_each([command], env={**env, **changed}, cwd=tmp_path):
            assert done.returncode in (1, 2), said
            assert said in done.stdout + done.stderr
            assert "server" not in done.stdout
            assert "resume" not in done.stderr
            assert "Traceback" not in done.stderr
    assert not (tmp_path / "prefect" / "server.log").exists()
    assert not rh.recorder.submissions


@pytest.mark.prefect
def test_sigterm_says_what_runs_and_how_to_go_on(rh: Emulator, env: dict[str, str]) -> None:
    rh.faults.add(Fault("query", every=1, kind="hold"))
    command = [*RH, "run", "film", "--prompt", "x", "--shots", "1"]
    with WarmProcess(command, env=env) as process:
        while "submitted" not in process.stdout.readline():
            assert process.poll() is None, process.stderr.read()
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=600)[1]
    assert process.returncode == 143
    assert rh.recorder.paid[0].task_id in said
    assert "rh-prefect run film --set prompt=x --set shots=1" in said
    assert "Traceback" not in said


@pytest.mark.long
@pytest.mark.prefect
def test_a_run_goes_on_where_nobody_reads_on(rh: Emulator, env: dict[str, str]) -> None:
    command = [*RH, "run", "film", "--prompt", "x", "--shots", "1"]
    with WarmProcess(command, env=env) as process:
        process.stdout.readline()
        process.stdout.close()
        try:
            said = process.communicate(timeout=600)[1]
        finally:
            process.kill()
    assert (process.returncode, said) == (0, "")
    assert list(Path(env["RH_STORAGE_URL"]).rglob("*.mp4"))


@pytest.mark.prefect
def test_doctor_says_what_is_well_and_what_is_not(env: dict[str, str], tmp_path: Path) -> None:
    well = call("doctor", env=env)
    assert well.returncode == 0, well.stdout
    assert well.stdout.count("✓") == 7
    alone = call("doctor", env={name: value for name, value in env.items() if name != "PREFECT_API_URL"})
    assert (alone.returncode, alone.stdout.count("✓")) == (0, 7), "a pipeline needs no server"
    (tmp_path / "file").touch()
    broken = {**env, "RH_API_KEY": "0" * 32, "RH_STORAGE_URL": str(tmp_path / "file" / "out")}
    ill = call("doctor", env=broken)
    assert ill.returncode == 1
    assert "✗ key and site" in ill.stdout
    assert "✗ storage" in ill.stdout
    assert "What to do" in ill.stdout
    assert "0" * 32 not in ill.stdout
    strange = call("doctor", env={**env, "PREFECT_API_URL": env["RH_BASE_URL"], "RH_BASE_URL": "www.runninghub.ai"})
    assert strange.returncode == 1
    assert "✗ Prefect: http" in strange.stdout
    assert "is not the address of a Prefect API" in strange.stdout
    assert "✗ key and site: RH_API_KEY or RH_BASE_URL cannot be used: the site must be a URL" in strange.stdout
    assert "✓ this machine" in strange.stdout, strange.stderr


def examined(terminal: Terminal, options: str = "", *, fails: bool = False) -> str:
    """What `doctor` says in this process."""
    terminal.call(f"doctor {options}", fails=fails)
    return terminal.said


@pytest.mark.prefect
@pytest.mark.usefixtures("rh")
def test_doctor_says_once_that_there_is_no_such_account(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    said = examined(terminal, "--credentials doctor-nobody", fails=True)
    assert said.count("There is no block 'doctor-nobody'") == 1
    monkeypatch.setenv("RH_API_KEY", "")
    said = examined(terminal, fails=True)
    assert said.count("No RunningHub API key is set") == 1
    assert "a key from the site's API console, or to the key of `rh-prefect emulator`" in said


@pytest.mark.prefect
@pytest.mark.parametrize("tier", ["NORMAL", "EXCLUSIVE"])
def test_doctor_notes_what_a_key_cannot_do(
    rh: Emulator, terminal: Terminal, tier: Tier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RH_API_KEY", rh.keys.add("other", tier=tier, coins=100).secret)
    assert f"Note: the key is a {tier} key" in examined(terminal)


@pytest.mark.prefect
def test_doctor_looks_at_each_account_of_a_pool(rh: Emulator, terminal: Terminal) -> None:
    keys = {"studio": rh.key, "spare": rh.keys.add("spare", limit=7).secret, "old": "0" * 32}
    for name, key in keys.items():
        RunningHubCredentials(api_key=key, base_url=rh.url).save(f"doctor-{name}", overwrite=True)
    RunningHubPool(credentials=["doctor-studio", "doctor-spare"]).save("doctor-night", overwrite=True)
    said = examined(terminal, "--credentials doctor-night")
    assert "✓ pool: doctor-night has 2 account(s)" in said
    assert "0 of 7 task(s) run" in next(line for line in said.splitlines() if "key and site of doctor-spare" in line)
    assert said.count("✓") == 10
    RunningHubPool(credentials=["doctor-studio", "doctor-old", "doctor-gone"]).save("doctor-night-2", overwrite=True)
    said = examined(terminal, "--credentials doctor-night-2", fails=True)
    for line in (
        "✗ pool:",
        "✓ account doctor-studio:",
        "✗ account doctor-old:",
        "✗ key and site of doctor-gone: There is no",
    ):
        assert line in said
    assert "0" * 32 not in said
    RunningHubCredentials(api_key="1" * 32, base_url=rh.url).save("doctor-older", overwrite=True)
    RunningHubPool(credentials=["doctor-old", "doctor-older"]).save("doctor-night-3", overwrite=True)
    said = examined(terminal, "--credentials doctor-night-3", fails=True)
    for name in ("doctor-old", "doctor-older"):
        assert f"✗ key and site of {name}: " in said
        assert f"✗ account {name}: " in said


@pytest.mark.prefect
@pytest.mark.usefixtures("rh")
def test_doctor_says_whether_webhook_settings_are_complete(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RH_WEBHOOK_URL", "https://hooks.example.net")
    assert "RH_WEBHOOK_TOKEN is not" in examined(terminal, fails=True)
    monkeypatch.setenv("RH_WEBHOOK_TOKEN", "canary" * 4)
    said = examined(terminal)
    assert "✓ webhook: RunningHub reports the end of each task to https://hooks.example.net;" in said
    assert "canary" not in said
    monkeypatch.delenv("RH_WEBHOOK_URL")
    assert "RH_WEBHOOK_URL is not" in examined(terminal, fails=True)
    monkeypatch.setenv("RH_WEBHOOK_TOKEN", "")
    assert "✓ webhook: RH_WEBHOOK_URL is not set" in examined(terminal)


# Rules by which a bucket deletes old objects, on a real S3 server


@pytest.fixture
def place(s3: S3Server) -> Iterator[str]:
    url = s3.url("expiry")
    yield url
    s3.filesystem().call_s3("delete_bucket_lifecycle", Bucket=BUCKET)


def set_rule(s3: S3Server, prefix: str) -> None:
    rule: dict[str, Any] = {"ID": "old", "Status": "Enabled", "Filter": {"Prefix": prefix}, "Expiration": {"Days": 30}}
    s3.filesystem().call_s3(
        "put_bucket_lifecycle_configuration", Bucket=BUCKET, LifecycleConfiguration={"Rules": [rule]}
    )


@pytest.mark.usefixtures("rh")
def test_a_rule_that_covers_the_place_is_found_by_the_doctor(
    s3: S3Server, place: str, terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = place.removeprefix(f"s3://{BUCKET}/")
    monkeypatch.setenv("RH_STORAGE_URL", place)
    monkeypatch.setenv("RH_STORAGE_OPTIONS", json.dumps(s3.options))
    assert "no rule of the bucket deletes them" in examined(terminal)
    set_rule(s3, f"{root}/results/")
    assert [one.prefix for one in expiry_rules(place, s3.options)] == [f"{root}/results/"], "of calls in flows"
    set_rule(s3, f"{root}/works/")
    said = f"✗ records: the bucket has a rule that deletes records and results in {place}"
    assert said in examined(terminal, fails=True)
    (rule,) = expiry_rules(place, s3.options)
    assert (rule.prefix, rule.when) == (f"{root}/works/", "after 30 days")
    for prefix in ("another-prefix/", f"{root}/tmp/"):
        set_rule(s3, prefix)
        assert expiry_rules(place, s3.options) == []
    assert expiry_rules("/tmp/out", {}) == []
    set_rule(s3, f"{root}/results/")
    monkeypatch.setenv("RH_RECORDS", str(tmp_path / "records"))
    assert said in examined(terminal, fails=True), "the results stay in the storage"

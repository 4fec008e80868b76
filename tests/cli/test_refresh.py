"""`rh-prefect models refresh`, as a person types it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from rh_prefect.catalog import Param
from rh_prefect.emulator import Emulator
from tests.support.processes import warm_process
from tests.support.processes.warm_process import RH
from tests.support.samples.registry_file import registry
from tests.support.servers.emulator_env import environment


def call(*arguments: str, state: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "RH_STATE_DIR": str(state), "COLUMNS": "200"}
    return warm_process.run([*RH, "models", *arguments], env=env)


def test_newer_models_are_taken_shown_and_given_up(tmp_path: Path) -> None:
    def dearer(models: dict[str, dict[str, dict[str, float]]]) -> None:
        models["z-image/turbo"]["price"]["fixed"] = 0.05

    file = registry(tmp_path / "newer.json", change=dearer)
    done = call("refresh", str(file), state=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "$ z-image/turbo: 0.04 CNY per call -> 0.05 CNY per call" in done.stdout
    assert "0 changed, 1 with a different price" in done.stdout
    assert str(tmp_path / "models.json") in done.stdout
    assert "0.05 CNY per call" in call("show", "z-image/turbo", state=tmp_path).stdout
    assert "0 new, 0 gone, 0 changed, 0 with a different price" in call("refresh", str(file), state=tmp_path).stdout
    assert "own models are used again" in call("refresh", "--reset", state=tmp_path).stdout
    assert "0.04 CNY per call" in call("show", "z-image/turbo", state=tmp_path).stdout


def test_what_cannot_be_used_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("no JSON")
    (tmp_path / "large.json").write_bytes(b" " * (16 * 2**20 + 1))
    for arguments, said in (
        (["refresh"], "or `--reset`"),
        (["refresh", str(tmp_path / "bad.json")], "not a list of models"),
        (["refresh", str(tmp_path / "none.json")], "cannot be read"),
        (["refresh", str(tmp_path / "large.json")], "is larger than 16 MiB"),
        (["refresh", "http://user:secret@127.0.0.1:9/list.json?sig=secret"], "127.0.0.1:9/list.json cannot be read"),
    ):
        done = call(*arguments, state=tmp_path / "state")
        assert (done.returncode, done.stdout) == (1, "")
        assert said in done.stderr
        assert "Traceback" not in done.stderr and "secret" not in done.stderr
    assert not (tmp_path / "state").exists()


def test_an_endpoint_that_the_catalogue_lacks_is_added_and_run(rh: Emulator, tmp_path: Path) -> None:
    env = {**os.environ, **environment(rh, tmp_path)}
    run = [*RH, "run", "video/of/tomorrow", "--prompt", "a kite"]
    assert "add the model with `rh-prefect models refresh FILE`" in warm_process.run(run, env=env).stderr
    rh.add_model("video/of/tomorrow", output="video", params=[Param("prompt", "prompt", "string", required=True)])
    listed = {
        "endpoint": "video/of/tomorrow",
        "output_type": "video",
        "params": [{"fieldKey": "prompt", "type": "STRING", "required": True}],
    }
    (tmp_path / "list.json").write_text(json.dumps([listed]))
    done = warm_process.run([*RH, "models", "refresh", str(tmp_path / "list.json")], env=env)
    assert "It has no date: only missing models and prices are added" in done.stdout
    assert "set its date with `--date YYYY-MM-DD`" in done.stdout
    for expected in ("1 made", "Nothing new"):
        done = warm_process.run([*run, "--budget", "1"], env=env)
        assert expected in done.stdout, done.stdout + done.stderr
    assert [one.payload for one in rh.recorder.paid] == [{"prompt": "a kite"}]

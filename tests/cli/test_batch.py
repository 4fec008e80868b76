"""`rh-prefect batch`, as a person types it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from rh_prefect.cli.argument_checks import check_batch
from rh_prefect.cli.options import PLACE, Place
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import InputError
from tests.support.processes import warm_process
from tests.support.processes.warm_process import RH, WarmProcess
from tests.support.servers.emulator_env import environment
from tests.support.servers.prefect_server import PrefectServer


@pytest.mark.parametrize("out", ["memory://films", "MEMORY://films", "memory://"])
def test_outputs_that_would_be_gone_with_the_command_are_refused(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"--out memory://.*lost when the command ends.*What to do"):
        Place(out=out.lower()).blocks("batch")
    monkeypatch.setenv("RH_STORAGE_URL", out)
    with pytest.raises(InputError, match=r"RH_STORAGE_URL=.*lost when the command ends"):
        PLACE.blocks("batch")
    Place(storage="films").blocks("batch")
    Place(out="memory").blocks("batch")


def test_a_name_with_brackets_that_is_there_is_no_missing_file(tmp_path: Path) -> None:
    (tmp_path / "photos [2024]").mkdir()
    check_batch(str(tmp_path / "photos [2024]"), ["z-image/turbo"])


@pytest.mark.long
@pytest.mark.prefect
def test_it_runs_says_what_is_missing_and_does_it_the_next_time(
    rh: Emulator, prefect_server: PrefectServer, tmp_path: Path
) -> None:
    env = {**os.environ, **prefect_server.env, **environment(rh, tmp_path)}
    rows = tmp_path / "rows.csv"
    rows.write_text("prompt,name\na lighthouse,light\na harbour,port\na gull,bird\n")
    command = [*RH, "batch", str(rows), "--model", "z-image/turbo"]
    command += ["--label-column", "name", "--set", "aspect_ratio=1:1", "--out", str(tmp_path / "batch")]

    def call(*more: str) -> subprocess.CompletedProcess[str]:
        return warm_process.run([*command, *more], env=env)

    first = call("--budget", "0.1")
    assert first.returncode == 1, first.stderr
    assert "2 of 3 rows done, 1 not started; 0.08 CNY" in first.stdout
    assert re.search(r"row 3 \(bird\): not started: .* the budget of the run is 0\.1", first.stdout)
    assert re.search(r"with a sufficient budget: rh-prefect batch .* --budget 0\.12$", first.stdout, re.MULTILINE)
    second = call()
    assert second.returncode == 0, second.stdout + second.stderr
    assert "3 of 3 rows done; 0.04 CNY" in second.stdout
    assert len(rh.recorder.paid) == 3
    assert {one.payload["aspectRatio"] for one in rh.recorder.paid} == {"1:1"}
    report = Path(re.findall(r"each row: (.*)", second.stdout)[0])
    assert Path(re.findall(r"gallery: (.*)", second.stdout)[0]).is_file()
    assert report.is_relative_to(tmp_path / "batch")
    assert re.findall(r",(made|reused),", report.read_text()) == ["reused", "reused", "made"]
    saved = sorted(path.name for path in (tmp_path / "batch" / "batches").glob("*/*"))
    assert saved == ["bird.png", "light.png", "port.png"]
    (folder,) = (tmp_path / "batch" / "batches").iterdir()
    assert re.findall(r"^outputs: (.*)", second.stdout, re.MULTILINE) == [str(folder)]
    plan = call("--dry-run")
    assert "least 0.00, expected 0.00, most 0.00" in plan.stdout, plan.stdout + plan.stderr
    (tmp_path / "batch.yaml").write_text(call("--print").stdout)
    again = [*RH, "run", str(tmp_path / "batch.yaml"), "--set", f"rows={rows}", "--out", str(tmp_path / "batch")]
    run = warm_process.run(again, env=env)
    assert "Nothing new" in run.stdout, run.stdout + run.stderr
    twice = call("--set", "aspect_ratio=9:16")
    assert twice.returncode == 1
    assert "aspect_ratio takes one value" in twice.stdout + twice.stderr
    assert len(rh.recorder.paid) == 3
    wrong = call("--set", "nonsense")
    assert (wrong.returncode, "write --set NAME=VALUE" in wrong.stderr, "Traceback" in wrong.stderr) == (1, True, False)


@pytest.mark.prefect
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGHUP, marks=pytest.mark.long)])
def test_ctrl_c_or_a_closed_terminal_leaves_an_account_and_the_same_command_goes_on(
    rh: Emulator, prefect_server: PrefectServer, tmp_path: Path, number: signal.Signals
) -> None:
    rh.faults.add(Fault("query", every=1, kind="hold"))
    rh.faults.add(Fault("submit", prompt="late", kind="slow", seconds=2))
    env = {**os.environ, **prefect_server.env, **environment(rh, tmp_path)}
    rows = tmp_path / "rows.csv"
    rows.write_text("prompt\na lighthouse\na harbour\nthe answer to this one is late\n")
    command = [*RH, "batch", str(rows), "--model", "z-image/turbo"]
    with WarmProcess(command, env=env) as process:
        assert rh.recorder.wait(lambda recorder: len(recorder.paid) == 3, seconds=600)
        process.send_signal(number)
        said = process.stderr.read()
        assert process.wait(timeout=600) != 0
    assert "rh-prefect batch" in said
    (report,) = (tmp_path / "out").glob("runs/*/report.csv")
    assert ",unfinished," in report.read_text()
    assert all(one.task_id in report.read_text() for one in rh.recorder.paid), "what was paid for is named"
    rh.faults.clear()
    done = warm_process.run(command, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(rh.recorder.paid) == 3

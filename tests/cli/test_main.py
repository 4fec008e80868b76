"""How a command ends that is ended from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.exceptions import TerminationSignal

from rh_prefect import cli

RH = [sys.executable, "-m", "rh_prefect.cli"]


@pytest.fixture
def handlers() -> Iterator[None]:
    """Leaves the handlers of signals as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), 130), (BrokenPipeError(), 141), (TerminationSignal(signal.SIGTERM), 143)],
)
def test_an_end_from_outside_is_an_exit_code_and_no_traceback(
    error: BaseException, code: int, grouped: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    def ended() -> None:
        raise BaseExceptionGroup("both", [BaseExceptionGroup("one", [error])]) if grouped else error

    with pytest.raises(SystemExit) as end:
        cli.main(ended)
    assert end.value.code == code
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["models", "search", "image", "to", "video"], ["models", "show", "z-image/turbo"]])
def test_output_that_nobody_reads_on_ends_a_command_without_a_word(words: list[str], unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run([*RH, *words], env=env, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_failure_is_said_where_nobody_reads_the_output() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [*RH, "models", "show", "z-image/turbi"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.returncode == 1
    assert "z-image/turbo" in done.stderr


def test_sigterm_before_a_flow_runs_ends_the_server_that_was_started(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    env = {**kept, "PREFECT_HOME": str(tmp_path / "home"), "RH_STATE_DIR": str(tmp_path / "state")}
    log = tmp_path / "state" / "prefect" / "server.log"
    command = [*RH, "run", "film", "--prompt", "x"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not log.exists():
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(0.5)
        [server] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
    assert (process.returncode, said) == (143, "")
    assert not Path(f"/proc/{server}").exists()

"""How a command ends that is ended from outside."""

from __future__ import annotations

import os
import re
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
    ("error", "code"), [(KeyboardInterrupt(), 130), (BrokenPipeError(), 141), (TerminationSignal(signal.SIGTERM), 143)]
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


def call_into_a_closed_pipe(words: list[str], unbuffered: str = "") -> subprocess.CompletedProcess[str]:
    reader, writer = os.pipe()
    os.close(reader)
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run([*RH, *words], env=env, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    return done


@pytest.mark.parametrize(
    ("words", "unbuffered"),
    [(["models", "search", "image", "to", "video"], ""), (["models", "show", "z-image/turbo"], "1")],
)
def test_output_that_nobody_reads_on_ends_a_command_without_a_word(words: list[str], unbuffered: str) -> None:
    done = call_into_a_closed_pipe(words, unbuffered)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_failure_is_said_where_nobody_reads_the_output() -> None:
    done = call_into_a_closed_pipe(["models", "show", "z-image/turbi"])
    assert done.returncode == 1
    assert "z-image/turbo" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_command_whose_output_is_closed_succeeds(closed: str) -> None:
    """As by a scheduler without a log: it ended with an AttributeError and the exit code of a failure."""
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", *RH, "models", "show", "z-image/turbo"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "unbuffered"), [(["models", "search", "image", "to", "video"], "1"), (["--version"], "")]
)
def test_output_to_a_full_disk_is_said(words: list[str], unbuffered: str) -> None:
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*RH, *words], env=env, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"rh-prefect: .*No space left on device.*What to do: .*\n", done.stderr), done.stderr


@pytest.mark.long
def test_sigterm_before_a_flow_runs_ends_the_server_that_was_started(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    env = {**kept, "PREFECT_HOME": str(tmp_path / "home"), "RH_STATE_DIR": str(tmp_path / "state")}
    env["RH_STORAGE_URL"] = str(tmp_path / "out")
    log = tmp_path / "home" / "server.log"
    command = [*RH, "run", "film", "--prompt", "x", "--credentials", "studio", "--dashboard"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not (log.exists() and children.read_text()):
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(0.5)
        [server] = children.read_text().split()
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=300)[1]
    assert (process.returncode, said) == (143, "")
    assert not Path(f"/proc/{server}").exists()


@pytest.mark.long
def test_a_terminal_without_the_marks_shows_them_in_ascii() -> None:
    """A latin-1 terminal cannot show a check mark, and the error of it ended a paid job."""
    script = (
        "import sys\nfrom rh_prefect import cli\nfrom rh_prefect.cli.run_display import Watch\n"
        "from rh_prefect.works.events import JobEvent\nfrom rh_prefect.flow_runs import progress_observer\n"
        "def show():\n"
        "    with Watch(command='rh-prefect run film'):\n"
        "        for state in ('succeeded', 'failed', 'submitted'):\n"
        "            for listener in progress_observer.listeners:\n"
        "                listener(JobEvent(state, 'run/job', '\u955c', message='\u2026'))\n"
        "    sys.exit(0)\n"
        "cli.main(show)\n"
    )
    env = os.environ | {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    said = done.stdout.decode("latin-1").splitlines()
    assert [line.partition(" s ")[2] for line in said] == ["+ ?: ...", "x ?: ...", "\u00b7 ?: ..."]

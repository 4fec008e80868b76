"""`rh-prefect run --new` that is killed or interrupted, and commands that write one takes file at once."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from rh_prefect.emulator import Emulator
from tests.support.processes.typed_commands import Terminal
from tests.support.processes.warm_process import RH, WarmProcess
from tests.support.samples.steps import CLIP, PICTURE, steps
from tests.support.servers.emulator_env import environment
from tests.support.servers.holding_proxy import Proxy
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
POST, QUERY = r"^POST /openapi/v2/rhart-image", r"^POST /openapi/v2/query"
CUP = "name: cup\n" + steps(picture=PICTURE % "a cup", clip=CLIP % "$(picture)") + "outputs: {clip: $(clip)}\n"


@dataclass
class Folder:
    """A folder with a pipeline, in which commands run: in this process, or in one that is killed.

    Attributes:
        path: The folder.
        env: Of other processes.
        rh: RunningHub.
        proxy: Between the other processes and RunningHub.
        call: Runs a command in this process; see `Terminal.call`.
    """

    path: Path
    env: dict[str, str]
    rh: Emulator
    proxy: Proxy
    call: Callable[..., str]

    @property
    def paid(self) -> int:
        return len(self.rh.recorder.paid)

    @property
    def takes(self) -> dict[str, int]:
        file = self.path / "cup.takes.yaml"
        found: dict[str, int] = yaml.safe_load(file.read_text())["takes"] if file.exists() else {}
        return found

    def started(self, command: str) -> WarmProcess:
        """Runs a command in a process of its own, to be used in a `with` statement."""
        return WarmProcess([*RH, *command.split()], env=self.env)

    @contextmanager
    def held(self, command: str, at: str, *, answer: bool = False) -> Iterator[WarmProcess]:
        """Runs a command in a process of its own until a request to RunningHub, which is held."""
        hold = self.proxy.hold(at, answer=answer)
        with self.started(command) as process:
            wait_until(lambda: hold.held or process.poll() is not None, seconds=600)
            assert hold.held, process.communicate()
            yield process

    def kill_at(self, request: str, command: str, *, answer: bool = False) -> None:
        """Kills a command at a request to RunningHub."""
        with self.held(command, request, answer=answer) as process:
            process.kill()
        self.proxy.drop()


@pytest.fixture
def cup(rh: Emulator, terminal: Terminal, tmp_path: Path) -> Iterator[Folder]:
    (tmp_path / "cup.yaml").write_text(CUP)
    with Proxy(rh.url) as proxy:
        env = {**os.environ, **environment(rh, tmp_path), "RH_BASE_URL": proxy.url}
        yield Folder(tmp_path, env, rh, proxy, terminal.call)


def test_a_plain_run_completes_the_new_results_of_a_killed_one(cup: Folder) -> None:
    cup.call("run cup.yaml")
    cup.kill_at(QUERY, "run cup.yaml --new")
    assert (cup.takes, cup.paid) == ({"picture": 2}, 3)
    assert "paid 1.75 CNY" in cup.call("run cup.yaml"), "the clip of the new picture"
    assert cup.paid == 4
    assert "Nothing new" in cup.call("run cup.yaml")


def test_a_submission_that_a_killed_run_left_open_is_not_paid_for_again(cup: Folder) -> None:
    cup.call("run cup.yaml")
    cup.kill_at(r"^POST /openapi/v2/kling", "run cup.yaml --new", answer=True)
    assert (cup.takes, cup.paid) == ({"picture": 2}, 4)
    said = cup.call("run cup.yaml", fails=True)
    (adopt,) = re.findall(r"rh-prefect (jobs adopt \S+)", said)
    adopted = cup.call(f"{adopt} {cup.rh.recorder.paid[-1].task_id}")
    request = r'image-to-video \(clip, prompt "slow", input files [0-9a-f]+….*\.png\)'
    for shown in (said, adopted):
        assert re.search(request, shown), "which of two tasks of the model it is"
    assert "run the pipeline again, or repeat the call" in adopted
    assert "jobs collect" not in adopted, "it does not take works"
    cup.call("run cup.yaml")
    assert cup.paid == 4


def test_a_repeated_new_run_is_a_further_take_and_the_killed_one_remains(cup: Folder) -> None:
    cup.call("run cup.yaml")
    cup.kill_at(QUERY, "run cup.yaml --new")
    cup.call("run cup.yaml --new")
    assert (cup.takes, cup.paid) == ({"picture": 3}, 5)
    (cup.path / "cup.takes.yaml").write_text("takes: {picture: 2}\n")
    cup.call("run cup.yaml")
    assert cup.paid == 6, "the clip of the second picture"


def test_ctrl_c_while_a_submission_is_on_its_way_keeps_the_take_names_its_task_and_says_how_to_continue(
    cup: Folder,
) -> None:
    cup.call("run cup.yaml")
    with cup.held("run cup.yaml --new", POST, answer=True) as process:
        process.send_signal(signal.SIGINT)
        said = next(line for line in process.stderr if "continue (" in line)
        cup.proxy.release()
        rest = process.communicate(timeout=600)[1]
    assert process.returncode == 130
    assert f"task {cup.rh.recorder.paid[-1].task_id}  picture" in rest
    assert re.search(r"cancel running tasks: +.*rh-prefect jobs cancel run-", rest)
    (again,) = re.findall(r"continue \(nothing is paid for twice\): rh-prefect (.+)", said)
    assert again == "run cup.yaml"
    assert cup.paid == 3
    cup.call(again)
    assert (cup.takes, cup.paid) == ({"picture": 2}, 4)


def test_new_results_in_a_folder_that_cannot_be_written_are_refused_before_payment(cup: Folder) -> None:
    own = cup.path / "own"
    own.mkdir()
    (cup.path / "cup.yaml").rename(own / "cup.yaml")
    cup.call("run own/cup.yaml")
    own.chmod(0o500)
    command = [sys.executable, *RH, "run", "own/cup.yaml", "--new"]
    env = {**cup.env, "PYTHONPATH": str(ROOT / "tests/support/processes/unprivileged")}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    said = done.stderr
    assert "own/cup.takes.yaml cannot be written: Permission denied" in said
    assert "What to do" in said
    assert cup.paid == 2


def test_a_run_whose_budget_is_too_small_records_no_take(cup: Folder) -> None:
    cup.call("run cup.yaml")
    assert "budget" in cup.call("run cup.yaml --new --budget 0.001", fails=True)
    assert cup.takes == {}
    assert "Nothing new" in cup.call("run cup.yaml")


def test_a_later_take_that_exists_is_used_again(cup: Folder) -> None:
    cup.call("run cup.yaml")
    cup.call("run cup.yaml --retake clip")
    (cup.path / "cup.takes.yaml").unlink()
    assert "Nothing new" in cup.call("run cup.yaml --retake clip")
    assert (cup.takes, cup.paid) == ({"clip": 2}, 3)


@pytest.mark.parametrize(
    ("before", "command", "takes", "paid"),
    [
        ("run cup.yaml --only picture", "run cup.yaml", {"clip": 2, "picture": 2}, 2),
        ("run cup.yaml", "run cup.yaml --new", {"picture": 2, "other": 5}, 4),
    ],
)
def test_a_run_keeps_the_takes_with_which_it_began_and_the_entries_of_others(
    cup: Folder, before: str, command: str, takes: dict[str, int], paid: int
) -> None:
    cup.call(before)
    with cup.held(command, QUERY) as process:
        (cup.path / "cup.takes.yaml").write_text(f"takes: {json.dumps(takes)}\n")
        cup.proxy.release()
        said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert (cup.takes, cup.paid) == (takes, paid)

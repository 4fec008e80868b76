"""Runs that are killed or interrupted, and commands that write one takes file at once."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import Here
from tests.support.processes.warm_process import RH, WarmProcess, run
from tests.support.samples.steps import CLIP, PICTURE, steps
from tests.support.servers.holding_proxy import Proxy
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
POST, QUERY = r"^POST /openapi/v2/rhart-image", r"^POST /openapi/v2/query"
CUP = "name: cup\n" + steps(picture=PICTURE % "a cup", clip=CLIP % "$(picture)") + "outputs: {clip: $(clip)}\n"


@pytest.fixture
def cup(here: Here) -> Here:
    here.write("cup.yaml", CUP)
    return here


@contextmanager
def held(cup: Here, command: str, at: str, *, answer: bool = False) -> Iterator[tuple[WarmProcess, Proxy]]:
    """Runs a command in a process of its own until a request to RunningHub, which is held."""
    with Proxy(cup.rh.url) as proxy:
        hold = proxy.hold(at, answer=answer)
        with WarmProcess([*RH, *command.split()], env={**os.environ, "RH_BASE_URL": proxy.url}) as process:
            wait_until(lambda: hold.held or process.poll() is not None, seconds=600)
            assert hold.held, process.communicate()
            yield process, proxy


def test_a_run_that_waited_for_the_task_of_another_run_says_what_it_took(cup: Here) -> None:
    cup.write("mug.yaml", "name: mug\n" + steps(picture=PICTURE % "a mug"))
    with held(cup, "run mug.yaml", QUERY):
        said = cup.call("run mug.yaml")
    assert "Waited for 1 task of another run, and took: picture. Steps: 1 reused; paid nothing." in said
    assert "Nothing new" not in said
    assert "Nothing new" in cup.call("run mug.yaml")
    assert cup.paid() == 1


def kill_at(cup: Here, request: str, command: str, *, answer: bool = False) -> None:
    with held(cup, command, request, answer=answer) as (process, _):
        process.kill()


def test_a_killed_run_is_listed_and_collected_and_the_next_one_pays_for_the_rest(cup: Here) -> None:
    kill_at(cup, QUERY, "run cup.yaml")
    run = cup.json("jobs list")["runs"][0]["name"]
    listed = cup.call("jobs list")
    assert re.search(rf"{run} +1 job\(s\)  Stopped +cup", listed)
    assert "continue a run: repeat its command, or its call in Python" in listed
    assert Path(cup.call(f"jobs collect {run}").strip().rpartition(": ")[2]).is_file()
    assert "least 1.75" in cup.call("plan cup.yaml"), "the clip"
    assert "paid 1.75" in cup.call("run cup.yaml")
    assert "Nothing new" in cup.call("run cup.yaml")
    assert cup.paid() == 2


def test_a_plain_run_completes_the_new_results_of_a_killed_one(cup: Here) -> None:
    cup.call("run cup.yaml")
    kill_at(cup, QUERY, "run cup.yaml --new")
    assert (cup.takes("cup"), cup.paid()) == ({"picture": 2}, 3)
    assert "paid 1.75 CNY" in cup.call("run cup.yaml"), "the clip of the new picture"
    assert cup.paid() == 4
    assert "Nothing new" in cup.call("run cup.yaml")


def test_a_submission_that_a_killed_run_left_open_is_not_paid_for_again(cup: Here) -> None:
    cup.call("run cup.yaml")
    kill_at(cup, r"^POST /openapi/v2/kling", "run cup.yaml --new", answer=True)
    assert (cup.takes("cup"), cup.paid()) == ({"picture": 2}, 4)
    said = cup.call("run cup.yaml", fails=True)
    (adopt,) = re.findall(r"rh-prefect (jobs adopt \S+)", said)
    adopted = cup.call(f"{adopt} {cup.rh.recorder.paid[-1].task_id}")
    request = r'image-to-video \(clip, prompt "slow", input files [0-9a-f]+….*\.png\)'
    for shown in (said, adopted):
        assert re.search(request, shown), "which of two tasks of the model it is"
    assert "run the pipeline again, or repeat the call" in adopted
    assert "jobs collect" not in adopted, "it does not take works"
    cup.call("run cup.yaml")
    assert cup.paid() == 4


def test_a_repeated_new_run_is_a_further_take_and_the_killed_one_remains(cup: Here) -> None:
    cup.call("run cup.yaml")
    kill_at(cup, QUERY, "run cup.yaml --new")
    cup.call("run cup.yaml --new")
    assert (cup.takes("cup"), cup.paid()) == ({"picture": 3}, 5)
    (cup.folder / "cup.takes.yaml").write_text("takes: {picture: 2}\n")
    cup.call("run cup.yaml")
    assert cup.paid() == 6, "the clip of the second picture"


def test_ctrl_c_during_a_submission_keeps_the_take_names_the_task_and_how_to_continue(cup: Here) -> None:
    cup.call("run cup.yaml")
    with held(cup, "run cup.yaml --new", POST, answer=True) as (process, proxy):
        process.send_signal(signal.SIGINT)
        said = next(line for line in process.stderr if "continue (" in line)
        proxy.release()
        rest = process.communicate(timeout=600)[1]
    assert process.returncode == 130
    assert f"task {cup.rh.recorder.paid[-1].task_id}  picture" in rest
    assert re.search(r"cancel running tasks: +.*rh-prefect jobs cancel run-", rest)
    (again,) = re.findall(r"continue \(nothing is paid for twice\): rh-prefect (.+)", said)
    assert again == "run cup.yaml"
    assert cup.paid() == 3
    cup.call(again)
    assert (cup.takes("cup"), cup.paid()) == ({"picture": 2}, 4)


def test_new_results_in_a_folder_that_cannot_be_written_are_refused_before_payment(cup: Here) -> None:
    own = cup.folder / "own"
    own.mkdir()
    (cup.folder / "cup.yaml").rename(own / "cup.yaml")
    cup.call("run own/cup.yaml")
    own.chmod(0o500)
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests/support/processes/unprivileged")}
    done = run([*RH, "run", "own/cup.yaml", "--new"], env=env)
    assert done.returncode == 1
    assert re.search("own/cup.takes.yaml cannot be written: Permission denied.*What to do", done.stderr)
    assert cup.paid() == 2


def test_a_run_whose_budget_is_too_small_records_no_take(cup: Here) -> None:
    cup.call("run cup.yaml")
    assert "budget" in cup.call("run cup.yaml --new --budget 0.001", fails=True)
    assert cup.takes("cup") == {}
    assert "Nothing new" in cup.call("run cup.yaml")


def test_a_later_take_that_exists_is_used_again(cup: Here) -> None:
    cup.call("run cup.yaml")
    cup.call("run cup.yaml --retake clip")
    (cup.folder / "cup.takes.yaml").unlink()
    assert "Nothing new" in cup.call("run cup.yaml --retake clip")
    assert (cup.takes("cup"), cup.paid()) == ({"clip": 2}, 3)


@pytest.mark.parametrize(
    ("before", "command", "takes", "paid"),
    [
        ("run cup.yaml --only picture", "run cup.yaml", {"clip": 2, "picture": 2}, 2),
        ("run cup.yaml", "run cup.yaml --new", {"picture": 2, "other": 5}, 4),
    ],
)
def test_a_run_keeps_the_takes_with_which_it_began_and_the_entries_of_others(
    cup: Here, before: str, command: str, takes: dict[str, int], paid: int
) -> None:
    cup.call(before)
    with held(cup, command, QUERY) as (process, proxy):
        (cup.folder / "cup.takes.yaml").write_text(f"takes: {json.dumps(takes)}\n")
        proxy.release()
        said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert (cup.takes("cup"), cup.paid()) == (takes, paid)

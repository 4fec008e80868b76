from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rh_prefect.works.journal import record_types as process_identity
from rh_prefect.works.journal.record_types import Owner, current_owner, is_surely_dead, uptime
from tests.support.world.job_records import dead_owner, owner_of, wait_until_dead


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        yield sleeper
        sleeper.kill()


def test_the_current_process_is_not_dead() -> None:
    assert not is_surely_dead(current_owner())


def test_another_running_process_is_not_dead(process: subprocess.Popen[bytes]) -> None:
    assert not is_surely_dead(owner_of(process.pid))


def test_a_killed_process_is_dead() -> None:
    assert is_surely_dead(dead_owner())


def test_a_zombie_is_dead(process: subprocess.Popen[bytes]) -> None:
    owner = owner_of(process.pid)
    process.kill()
    wait_until_dead(process.pid)
    assert Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "Z"
    assert is_surely_dead(owner)


def test_a_stopped_process_is_not_dead(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGSTOP)
    assert not is_surely_dead(owner_of(process.pid))


def test_a_process_whose_pid_was_reused_is_dead(process: subprocess.Popen[bytes]) -> None:
    older = owner_of(process.pid).model_copy(update={"started": "1"})
    assert is_surely_dead(older)


def test_a_command_name_with_brackets_and_blanks_is_parsed(tmp_path: Path) -> None:
    odd = tmp_path / "x) Z (y"
    shutil.copy(shutil.which("sleep") or "", odd)
    with subprocess.Popen([odd, "60"]) as process:
        assert not is_surely_dead(owner_of(process.pid))
        process.kill()


@pytest.mark.parametrize("elsewhere", [{"host": "another"}, {"boot": "another"}, {"boot": ""}, {"started": ""}])
def test_a_process_on_another_host_is_never_dead(elsewhere: dict[str, str]) -> None:
    assert not is_surely_dead(dead_owner().model_copy(update=elsewhere))


def test_an_owner_is_equal_after_json() -> None:
    owner = current_owner()
    assert Owner.model_validate_json(owner.model_dump_json()) == owner
    assert owner.boot
    assert owner.started


def test_a_forked_child_is_another_owner() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, current_owner().model_dump_json().encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        owner = Owner(**json.load(pipe))
    os.waitpid(child, 0)
    assert owner.pid == child
    assert is_surely_dead(owner)


def test_the_clock_is_monotonic() -> None:
    readings = [uptime() for _ in range(100)]
    assert readings == sorted(readings)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 warns where other tests left threads
def test_a_forked_process_reads_its_own_start() -> None:
    current_owner()
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(writer, str(process_identity._owner_of.cache_info().currsize).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reader, 10) == b"0"
    os.close(reader)
    os.close(writer)

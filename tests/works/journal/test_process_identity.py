from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rh_prefect.client.http_connections import uptime
from rh_prefect.works.journal.record_types import Owner, _owner_of, current_owner, is_surely_dead
from tests.support.processes.in_fork import in_fork
from tests.support.world.job_records import dead_owner, owner_of, wait_until_dead


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        yield sleeper
        sleeper.kill()


def test_a_process_that_runs_or_is_stopped_is_not_dead(process: subprocess.Popen[bytes]) -> None:
    assert not is_surely_dead(current_owner())
    assert not is_surely_dead(owner_of(process.pid))
    process.send_signal(signal.SIGSTOP)
    assert not is_surely_dead(owner_of(process.pid))


def test_a_process_that_has_ended_is_dead(process: subprocess.Popen[bytes]) -> None:
    assert is_surely_dead(dead_owner())
    owner = owner_of(process.pid)
    assert is_surely_dead(owner.model_copy(update={"started": "1"})), "a later process has its pid"
    process.kill()
    wait_until_dead(process.pid)
    assert Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "Z"
    assert is_surely_dead(owner)


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


def test_a_forked_child_is_another_owner_and_reads_its_own_start() -> None:
    current_owner()
    known, pid, owner = in_fork(lambda: (_owner_of.cache_info().currsize, os.getpid(), current_owner()))
    assert (known, owner.pid) == (0, pid)
    assert is_surely_dead(owner)


def test_the_clock_includes_the_sleep_of_a_system_that_measures_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "CLOCK_BOOTTIME", 77, raising=False)
    monkeypatch.setattr(time, "clock_gettime", {77: 5.0}.__getitem__)
    assert uptime() == 5.0
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    before = time.monotonic()
    assert before <= uptime() <= time.monotonic()


def test_the_clock_of_macos_is_the_one_that_includes_its_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    monkeypatch.setattr(time, "clock_gettime", {time.CLOCK_MONOTONIC: 5.0}.__getitem__)
    monkeypatch.setattr(time, "monotonic", lambda: 1.0)
    assert uptime() == 5.0


@pytest.mark.parametrize("is_another_user_s", [False, True])
def test_a_process_that_the_system_hides_is_not_dead_and_gets_no_signal(
    process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, is_another_user_s: bool
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError

    owner = owner_of(process.pid)
    monkeypatch.setattr(Path, "read_text", refuse)
    if is_another_user_s:
        monkeypatch.setattr(os, "kill", refuse)
    assert not is_surely_dead(owner)
    monkeypatch.undo()
    process.terminate()
    assert process.wait() == -signal.SIGTERM


def test_on_a_system_that_tells_no_boot_no_process_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    _owner_of.cache_clear()
    try:
        owner = current_owner()
        assert (owner.boot, owner.started) == ("", "")
        assert not is_surely_dead(owner)
    finally:
        _owner_of.cache_clear()

"""What `jobs list` shows of runs."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import pytest

from rh_prefect import generate
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.emulator.assumptions import DEFAULT
from rh_prefect.settings import get_settings
from rh_prefect.works.journal.record_types import End, Record
from rh_prefect.works.journal.shared_journal import default_works
from tests.support.processes.cli_process import run_each
from tests.support.processes.typed_commands import Terminal
from tests.support.servers.emulator_env import environment
from tests.support.world.job_records import intent, ticket, write


@pytest.fixture
def charging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """An emulator that charges failed tasks."""
    with Emulator(long_side=96, fps=6, assumptions=replace(DEFAULT, refund_failed_models=False)) as emulator:
        for name, value in environment(emulator, tmp_path).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(generate, "retry_delay_seconds", [0.0, 0.0])
        yield emulator


@pytest.mark.prefect
@pytest.mark.usefixtures("prefect_server")
def test_what_a_failed_task_cost_is_in_each_sum(
    charging: Emulator, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Only the last task of each job was counted."""
    charging.faults.add(Fault("submit", number=1, kind="fail", code="1006"))
    file = tmp_path / "pier.yaml"
    file.write_text("attempts: 2\nsteps: {picture: {model: z-image/turbo, with: {prompt: pier}}}\n")
    call = Terminal(capsys).call
    out = call(f"run {file}")
    assert charging.recorder.charged == Decimal("0.08")
    assert re.search(r"; paid 0\.08 CNY", out), out
    (run,) = set(re.findall(r"flow run ([0-9a-f-]{36})", out))
    assert call(f"jobs list {run}").count("0.04 CNY") == 2, "the failed task has a row"
    assert [job["costs"] for job in json.loads(call(f"jobs list {run} --json"))] == [{"CNY": "0.04"}] * 2


@pytest.mark.parametrize(
    ("records", "costs"),
    [
        ({"end-1": End(status="SUCCESS", task_id="1", coins=Decimal(25))}, {"coins": "25"}),
        (
            {
                "end-1": End(status="FAILED", task_id="1", cost=Decimal("0.50"), currency="USD"),
                "intent-2": intent(),
                "answer-2": ticket(),
            },
            {"USD": "0.50"},
        ),
    ],
)
def test_the_cost_of_a_job_is_listed_in_each_unit(
    records: dict[str, Record],
    costs: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Coins, and a failed task in another currency while the next one ran, had no cost in the JSON."""
    monkeypatch.setenv("RH_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("RH_STORAGE_URL", str(tmp_path / "out"))
    journal = default_works(get_settings()).notes_of("night")
    asyncio.run(write(journal, {"intent-1": intent(), "answer-1": ticket("1"), **records}))
    (job,) = json.loads(Terminal(capsys).call("jobs list night --json"))
    assert (job["costs"], job["unknown"]) == (costs, 0)


def test_jobs_are_listed_in_the_order_of_their_submissions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RH_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("RH_STORAGE_URL", str(tmp_path / "out"))
    journal = default_works(get_settings()).notes_of("night")
    for key, hour in (("b" * 24, 3), ("a" * 24, 5), ("c" * 24, 4)):
        job = intent(at=f"2026-11-29T0{hour}:00:00+00:00")
        asyncio.run(write(journal, {"intent-1": job, "answer-1": ticket("1")}, key=key))
    listed = json.loads(Terminal(capsys).call("jobs list night --json"))
    assert [one["job"][-1] for one in listed] == ["b", "c", "a"]


@pytest.mark.prefect
@pytest.mark.usefixtures("prefect_server")
def test_the_jobs_of_a_pipeline_run_have_a_step_a_state_a_task_and_a_cost(
    rh: Emulator, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "pier.yaml"
    file.write_text("name: pier\nsteps:\n  picture: {model: z-image/turbo, with: {prompt: a pier}}\n")
    call = Terminal(capsys).call
    call(f"run {file}")
    run = next(one["id"] for one in json.loads(call("jobs list --json"))["flow_runs"] if one["flow"] == "pier")
    (job,) = json.loads(call(f"jobs list {run} --json"))
    assert (job["state"], job["label"], job["model"]) == ("success", "picture", "z-image/turbo")
    assert (job["task_id"], job["costs"]) == (rh.recorder.paid[0].task_id, {"CNY": str(rh.recorder.charged)})
    out = call(f"jobs list {run}")
    assert job["task_id"] in out
    assert "picture: z-image/turbo" in out
    for record in (tmp_path / "out").rglob("end-1.json"):
        record.write_text("no record")
    out = call(f"jobs list {run}")
    assert "is not a JSON object" in out
    assert "empty" not in out


@pytest.mark.prefect
@pytest.mark.usefixtures("prefect_server")
def test_a_run_of_a_pipeline_counts_what_it_pays_for(
    rh: Emulator, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The journal of the run also holds the takes that it chose and the tasks of other runs that it waits for."""
    file = tmp_path / "harbour.yaml"
    file.write_text("name: harbour\nsteps:\n  picture: {model: z-image/turbo, with: {prompt: a harbour}}\n")
    call = Terminal(capsys).call
    for _ in range(2):
        call(f"run {file} --new")
    assert len(rh.recorder.paid) == 2
    listed = json.loads(call("jobs list --json"))["flow_runs"]
    assert [one["jobs"] for one in listed if one["flow"] == "harbour"] == [1, 1]


def test_the_jobs_of_a_flow_run_need_the_api_that_has_them(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    env |= {"PREFECT_HOME": str(tmp_path), "RH_STATE_DIR": str(tmp_path)}
    commands = [["jobs", what, str(uuid4())] for what in ("list", "collect", "cancel")]
    for done in run_each(commands, env=env, cwd=tmp_path):
        assert done.returncode == 1
        assert "but PREFECT_API_URL is not set" in done.stderr
        assert "export PREFECT_API_URL=" in done.stderr

"""What `jobs list` shows of runs."""

from __future__ import annotations

import asyncio
import os
import re
from decimal import Decimal
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from prefect.states import Running

from rh_prefect import generate
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.prefect_api import ask
from rh_prefect.settings import get_settings
from rh_prefect.works.journal.journal import Journal
from rh_prefect.works.journal.record_types import End, Lost, Record, Resolution
from rh_prefect.works.journal.scope import new_run
from rh_prefect.works.journal.spool import Spool, Spooled
from rh_prefect.works.journal.works_journal import default_works
from tests.support.processes.cli_process import run_each
from tests.support.processes.typed_commands import Terminal
from tests.support.samples.steps import PICTURE, steps
from tests.support.world.job_records import KEY, intent, refused, ticket, unknown, write, write_claimed


def write_pipeline(name: str, head: str = "") -> None:
    text = head + f"name: {name}\n" + steps(picture=PICTURE % f"a {name}")
    Path(f"{name}.yaml").write_text(text)


@pytest.mark.prefect
def test_what_a_failed_task_cost_is_in_each_sum(
    charging_rh: Emulator, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "retry_delay_seconds", [0.0, 0.0])
    charging_rh.faults.add(Fault("submit", number=1, kind="fail", code="1006"))
    write_pipeline("pier", "attempts: 2\n")
    out = terminal.call("run pier.yaml")
    assert charging_rh.recorder.charged == Decimal("0.08")
    assert re.search(r"; paid 0\.08 CNY", out), out
    (run,) = set(re.findall(r"flow run ([0-9a-f-]{36})", out))
    assert terminal.call(f"jobs list {run}").count("0.04 CNY") == 2, "the failed task has a row"
    assert [job["costs"] for job in terminal.json(f"jobs list {run}")] == [{"CNY": "0.04"}] * 2


@pytest.fixture
def night(terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    """The journal of a scope in an empty storage."""
    monkeypatch.setenv("RH_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("RH_STORAGE_URL", str(tmp_path / "out"))
    return default_works(get_settings()).notes_of("night")


@pytest.mark.parametrize(
    ("records", "costs"),
    [
        ({"end-1": End(status="SUCCESS", task_id="1", coins=Decimal(25))}, [{"coins": "25"}]),
        (
            {
                "end-1": End(status="FAILED", task_id="1", cost=Decimal("0.50"), currency="USD"),
                "intent-2": intent(flow_run="night", at="2999-01-01T00:00:00+00:00"),
                "answer-2": ticket(),
            },
            [{"USD": "0.50"}, {}],
        ),
    ],
)
def test_the_cost_of_a_job_is_listed_in_each_unit(
    night: Journal, terminal: Terminal, records: dict[str, Record], costs: list[dict[str, str]]
) -> None:
    asyncio.run(write_claimed(night.scope, {"intent-1": intent(flow_run="night"), "answer-1": ticket("1"), **records}))
    assert [(job["costs"], job["unknown"]) for job in terminal.json("jobs list night")] == [(one, 0) for one in costs]


def test_a_run_that_cannot_be_read_and_scopes_with_names_like_runs_are_listed(
    night: Journal, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One such run stopped the list, and 30 scopes named `run-…` hid all runs."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    works, made = default_works(get_settings()), Record().model_dump(mode="json")
    film, broken = new_run(works, "film").journal, works.notes_of("run-20260102-030405-0123abcd")

    async def prepare() -> None:
        for journal in (film, broken, works.notes_of("run-abc"), *(works.notes_of(f"run-x{n}") for n in range(30))):
            await journal.create(f"{KEY}-claim-1", made)
        await broken.create("attempt-1", made)

    asyncio.run(prepare())
    listed = terminal.json("jobs list")
    assert [(one["name"], one["state"]) for one in listed["runs"][:1]] == [(film.scope, "Running")]
    assert [one["name"] for one in listed["runs"]] == [film.scope, broken.scope]
    assert "attempt/1.json cannot be read (owner: Field required)" in listed["runs"][1]["state"]
    assert {"name": "run-abc"} in listed["scopes"]


def test_jobs_are_listed_in_the_order_of_their_submissions(night: Journal, terminal: Terminal) -> None:
    for key, hour in (("b" * 24, 3), ("a" * 24, 5), ("c" * 24, 4)):
        job = intent(at=f"2026-11-29T0{hour}:00:00+00:00", flow_run="night")
        asyncio.run(write_claimed(night.scope, {"intent-1": job, "answer-1": ticket("1")}, key=key))
    assert [one["job"][-1] for one in terminal.json("jobs list night")] == ["b", "c", "a"]


def test_a_job_is_shown_with_its_lost_and_late_tasks(night: Journal, terminal: Terminal) -> None:
    records = {"intent-1": intent(), "answer-1": ticket("1"), "lost-1": Lost(by="a person"), "late-1": ticket("2")}
    asyncio.run(write(night, records))
    (submit,) = terminal.json(f"jobs show night/{KEY}")["submits"]
    assert (submit["lost"]["by"], submit["late"]["task_id"]) == ("a person", "2")
    assert "  late: " in terminal.call(f"jobs show night/{KEY}")


def test_a_collection_without_a_task_fails(night: Journal, terminal: Terminal) -> None:
    asyncio.run(write(night, {"intent-1": intent(), "answer-1": refused("1007")}))
    assert "nothing was collected" in terminal.call("jobs collect night", fails=True)


def test_only_an_adopted_task_is_said_to_be_recorded_without_a_check(
    night: Journal, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RH_API_KEY", raising=False)
    for key, answer in (("a" * 24, ticket("1")), ("b" * 24, unknown())):
        asyncio.run(write(night, {"intent-1": intent(), "answer-1": answer}, key=key))
    terminal.call(f"jobs adopt night/{'a' * 24} 5", fails=True)
    assert "recorded without a check" not in terminal.said
    assert "task 5 could not be verified, and is recorded without a check" in terminal.call(
        f"jobs adopt night/{'b' * 24} 5"
    )


def test_a_spooled_task_is_recorded_although_those_of_other_scopes_cannot_be(
    night: Journal, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    paid, flow_run = intent(), "0" * 8 + "-0000-0000-0000-" + "0" * 12
    asyncio.run(write(night, {"intent-1": paid, "answer-1": unknown()}))
    spool = Spool(get_settings().state_dir / "spool")
    for scope, task_id in ((flow_run, "1"), ("another", "2"), ("night", "3")):
        spool.put(Spooled(scope, KEY, 1, paid.token, ticket(task_id)))
    failed = terminal.call("jobs adopt --spool", fails=True)
    assert f"NOT recorded: {flow_run}/{KEY}: task 1: The journal of flow run" in failed
    assert f"NOT recorded: another/{KEY}: task 2: the journal does not have its submission" in failed
    assert "night: task 3 is now recorded" in terminal.said
    assert [one.scope for one in spool.entries()] == [flow_run, "another"]


def test_a_spooled_task_whose_submission_a_person_has_resolved_is_named_as_paid(
    night: Journal, terminal: Terminal
) -> None:
    """The command printed nothing, exited with 0 and deleted the task id from this machine."""
    paid, resolved = intent(), Resolution(outcome="forgotten", by="a person")
    asyncio.run(write(night, {"intent-1": paid, "answer-1": unknown(), "resolution-1": resolved}))
    Spool(get_settings().state_dir / "spool").put(Spooled("night", KEY, 1, paid.token, ticket("3")))
    failed = terminal.call("jobs adopt --spool", fails=True)
    assert "NOT used: night: task 3 is paid, but its submission was already recorded with another outcome" in failed
    assert "is now recorded in its journal" not in terminal.said


def test_a_task_that_is_not_used_is_named_although_a_later_one_cannot_be_recorded(
    night: Journal, terminal: Terminal
) -> None:
    paid, spool = intent(), Spool(get_settings().state_dir / "spool")
    records = {"intent-1": paid, "answer-1": unknown(), "resolution-1": Resolution(outcome="forgotten", by="a person")}
    asyncio.run(write(night, records))
    asyncio.run(night.create(f"{'f' * 24}-intent-1", {"colour": "blue"}))
    for key, task_id in ((KEY, "3"), ("f" * 24, "4")):
        spool.put(Spooled("night", key, 1, paid.token, ticket(task_id)))
    failed = terminal.call("jobs adopt --spool", fails=True)
    assert "NOT used: night: task 3 is paid" in failed
    assert f"NOT recorded: night/{'f' * 24}: task 4" in failed


@pytest.mark.prefect
def test_each_job_of_a_run_has_a_step_state_task_and_cost(rh: Emulator, terminal: Terminal, tmp_path: Path) -> None:
    """The journal of the run also holds the takes that it chose and the tasks of other runs that it waits for."""
    write_pipeline("harbour")
    for _ in range(2):
        terminal.call("run harbour.yaml --new")
    runs = [one for one in terminal.json("jobs list")["flow_runs"] if one["flow"] == "harbour"]
    assert (len(rh.recorder.paid), [one["jobs"] for one in runs]) == (2, [1, 1])
    jobs = [terminal.json(f"jobs list {run['id']}") for run in runs]
    assert {job["task_id"] for (job,) in jobs} == {one.task_id for one in rh.recorder.paid}
    for run, (job,) in zip(runs, jobs):
        assert (job["state"], job["label"], job["model"]) == ("success", "picture", "z-image/turbo")
        assert job["costs"] == {"CNY": "0.04"}
        out = terminal.call(f"jobs list {run['id']}")
        assert job["task_id"] in out
        assert "picture: z-image/turbo" in out
        assert "nothing to cancel" in terminal.call(f"jobs cancel {run['id']}")
    asyncio.run(ask(lambda api: api.set_flow_run_state(UUID(runs[0]["id"]), Running(), force=True)))
    listed = terminal.call("jobs list")
    assert re.search(rf"{runs[0]['id']} +1 job\(s\)  Running  +20\S+  harbour", listed), listed
    for hint in ("with Retry in the dashboard", "rh_prefect.resume(your_flow", "a flow run stays Running in Prefect"):
        assert hint in listed
    assert "call in Python" not in listed, "there is no run outside of Prefect"
    for record in (tmp_path / "out").rglob("end-1.json"):
        record.write_text("no record")
    out = terminal.call(f"jobs list {runs[0]['id']}")
    assert "is not a JSON object" in out
    assert "empty" not in out


def test_the_jobs_of_a_flow_run_need_the_api_that_has_them(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    env |= {"PREFECT_HOME": str(tmp_path), "RH_STATE_DIR": str(tmp_path)}
    commands = [["jobs", what, str(uuid4())] for what in ("list", "collect", "cancel")]
    for done in run_each(commands, env=env, cwd=tmp_path):
        assert done.returncode == 1
        assert "but PREFECT_API_URL is not set" in done.stderr
        assert "export PREFECT_API_URL=" in done.stderr

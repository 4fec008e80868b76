"""`rh-prefect spend`: the tasks that it counts, and the table that it writes."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client

from rh_prefect import flow, generate, models
from rh_prefect.cli.spend import records, spend, table
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import JournalError
from rh_prefect.flow_runs.spending import TaskCharge, charges, once_each
from rh_prefect.jobs.journal.costs import COINS, Charge, Costs
from rh_prefect.jobs.journal.journal import FolderJournal
from rh_prefect.media.store import MediaStore


def task(costs: Costs, *, estimate: bool = False, **facts: Any) -> TaskCharge:
    known: dict[str, Any] = {
        "run": "night",
        "model": "some/model",
        "account": "main",
        "at": "2026-01-02T03:04:05+00:00",
        "site": "site",
        "task_id": "1",
        "store": "/out",
    }
    return TaskCharge(charge=Charge(costs, is_estimate=estimate), **(known | facts))


CNY = Costs({"CNY": Decimal("0.04")})
UNKNOWN = Costs(unknown=1)


def test_there_is_a_line_for_each_unit_and_one_for_what_is_not_known() -> None:
    """A21: units are never added, and an unknown cost is not 0."""
    both = Costs({"CNY": Decimal("3.85"), COINS: Decimal(7)})
    found = [task(CNY), task(CNY, estimate=True), task(both), task(UNKNOWN), task(UNKNOWN, model="other")]
    assert table(found, "model") == [
        "other            1 task(s)    unknown: 1",
        "some/model       3 task(s)          3.93 CNY  (0.04 of this is estimated)",
        "some/model       1 task(s)             7 coins",
        "some/model       1 task(s)    unknown: 1",
        "total            3 task(s)          3.93 CNY  (0.04 of this is estimated)",
        "total            1 task(s)             7 coins",
        "total            2 task(s)    unknown: 2",
    ]
    names = {by: table(found[:1], by)[0].split()[0] for by in ("day", "run", "account")}
    assert names == {"day": "2026-01-02", "run": "night", "account": "main"}


@pytest.mark.parametrize(
    ("recorded", "made", "stands"),
    [
        (task(CNY), task(CNY), CNY),
        (task(CNY, estimate=True), task(Costs({"CNY": Decimal("0.05")})), Costs({"CNY": Decimal("0.05")})),
        (task(UNKNOWN), task(CNY), CNY),
        (task(CNY), task(UNKNOWN), CNY),
        (task(CNY, estimate=True), task(UNKNOWN), CNY),
    ],
)
def test_a_task_with_a_record_and_a_manifest_counts_once(recorded: TaskCharge, made: TaskCharge, stands: Costs) -> None:
    """A21: by what is known best of it."""
    (one,) = once_each([recorded], [made])
    assert one.charge.costs == stands


def test_tasks_of_two_sites_and_submits_without_a_task_are_all_counted() -> None:
    """A21: a submit whose answer was lost has no task id, and two sites may use one id twice."""
    unnamed = task(CNY, estimate=True, task_id=None)
    assert len(once_each([unnamed, unnamed, task(CNY), task(CNY, site="other")], [])) == 4


@flow
async def pictures() -> None:
    for subject in ("a lighthouse", "a harbour", "doomed"):
        await generate(models.ZImageTurbo(prompt=subject))


@pytest.mark.prefect
@pytest.mark.usefixtures("prefect_server")
async def test_a_flow_run_counts_by_its_journal_and_when_it_is_deleted_by_its_manifests(
    rh: Emulator, tmp_path: Path
) -> None:
    """A21: a task that failed, or that no file is left of, is counted."""
    rh.faults.add(Fault("submit", prompt="doomed", kind="fail", code="1501"))
    await pictures(return_state=True)
    store, journal = MediaStore(str(tmp_path / "out")), str(tmp_path / "state" / "journal")

    async def here() -> list[TaskCharge]:
        found = await charges(store, with_prefect=True, journal_url=journal)
        return [one for one in found.tasks if one.store == store.url]

    found = await here()
    assert {one.task_id for one in found} == {one.task_id for one in rh.recorder.paid}
    assert Costs.total(one.charge.costs for one in found) == Costs({"CNY": rh.recorder.charged}, unknown=1)
    async with get_client() as client:
        await client.delete_flow_run(UUID(found[0].run))
    assert Costs.total(one.charge.costs for one in await here()) == Costs({"CNY": rh.recorder.charged})


@pytest.mark.usefixtures("rh")
def test_a_run_whose_records_cannot_be_read_is_named_and_the_others_are_summed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = str(tmp_path / "state" / "journal")
    asyncio.run(generate(models.ZImageTurbo(prompt="a lighthouse"), scope="old"))
    asyncio.run(FolderJournal(url, scope="new").create("0a1b-intent-1", {"token": "1", "colour": "blue"}))
    broken = FolderJournal(url, scope="broken")
    asyncio.run(broken.create("0a1b-intent-1", {"token": "1"}))
    (record,) = (one for one in Path(url).rglob("*intent-1*") if "broken" in str(one))
    record.write_text("no JSON")
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(JournalError) as failed:
        spend()
    assert "new: the record 0a1b-intent-1 has a form" in str(failed.value)
    assert "is not a JSON object" in str(failed.value)
    assert "0.04 CNY" in capsys.readouterr().out


def test_the_sums_are_data_on_request() -> None:
    both = Costs({"CNY": Decimal("3.85"), COINS: Decimal(7)})
    rows = records([task(CNY, estimate=True), task(both), task(UNKNOWN)], "model")
    assert rows == [
        {"name": "some/model", "unit": None, "tasks": 1, "amount": None, "estimated": None},
        {"name": "some/model", "unit": "CNY", "tasks": 2, "amount": "3.89", "estimated": "0.04"},
        {"name": "some/model", "unit": COINS, "tasks": 1, "amount": "7", "estimated": "0"},
    ]

"""`rh-prefect spend`: the tasks that it counts, and the table that it writes."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from rh_prefect import MediaStorage, flow, generate, models
from rh_prefect.cli.spend import chart, records, spend, table
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import JournalError
from rh_prefect.flow_runs.charge_reader import TaskCharge, charges, once_each
from rh_prefect.flow_runs.spend_sums import bars as spend_bars
from rh_prefect.flows.spend import picture
from rh_prefect.media.store import MediaStore
from rh_prefect.prefect_api import ask
from rh_prefect.settings import get_settings
from rh_prefect.works.journal.costs_and_budget import COINS, Charge, Costs
from rh_prefect.works.journal.job_records_and_state import JobRecords, jobs_of
from rh_prefect.works.journal.record_types import Answer
from rh_prefect.works.journal.works_journal import default_works
from tests.support.servers.scripted_server import Asked, WireServer, reply
from tests.support.world.job_records import intent, ticket, unknown, write_claimed


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
    return TaskCharge(charge=Charge(None, is_spent=not estimate, costs=costs, is_estimate=estimate), **(known | facts))


CNY = Costs({"CNY": Decimal("0.04")})
UNKNOWN = Costs(unknown=1)


def test_there_is_a_line_for_each_unit_and_one_for_what_is_not_known() -> None:
    """Units are never added, and an unknown cost is not 0."""
    both = Costs({"CNY": Decimal("3.85"), COINS: Decimal(7)})
    found = [task(CNY), task(CNY, estimate=True), task(both), task(UNKNOWN), task(UNKNOWN, model="other")]
    assert table(found, "model") == [
        "other            1 task(s)  unknown cost",
        "some/model       3 task(s)          3.93 CNY  (0.04 of this is estimated)",
        "some/model       1 task(s)             7 coins",
        "some/model       1 task(s)  unknown cost",
        "total            3 task(s)          3.93 CNY  (0.04 of this is estimated)",
        "total            1 task(s)             7 coins",
        "total            2 task(s)  unknown cost",
    ]
    by = {"day": "2026-01-02", "week": "2026-W01", "month": "2026-01", "run": "night", "account": "main"}
    by["flow"] = "no flow"
    assert {one: table(found[:1], one)[0].split("  ")[0] for one in by} == by
    assert table([task(CNY, label="kite", flow="film")], "label")[0].startswith("kite")


def test_a_name_that_is_total_is_not_the_total() -> None:
    lines = table([task(CNY, label="total"), task(CNY, label="kite")], "label")
    assert [line.split()[::3] for line in lines] == [["kite", "0.04"], ["total", "0.04"], ["total", "0.08"]]


def test_sums_are_drawn_as_bars() -> None:
    ends = [task(CNY, at=f"2026-01-0{day}T01:00:00+00:00") for day in (2, 2, 4)]
    bars = spend_bars([*ends, task(Costs({COINS: Decimal(7)})), task(UNKNOWN)], "day")
    assert list(chart(bars, by="day", width=40)) == [
        "CNY by day",
        "2026-01-02  0.08  " + "█" * 22,
        "2026-01-03  0.00",
        "2026-01-04  0.04  " + "█" * 11,
        "coins by day",
        "2026-01-02  7  " + "█" * 25,
    ]
    by_model = spend_bars([task(CNY), task(CNY, model="<b>ig", estimate=True), task(CNY, model="<b>ig")], "model")
    assert [name for name, _ in by_model["CNY"]] == ["<b>ig", "some/model"]
    drawn = picture(by_model, by="model", title="Spent in /out")
    assert drawn.getpixel((400, 13 + 3 * 26 + 8)) == (0x35, 0x69, 0xC4)


def test_an_item_is_named_by_its_whole_id() -> None:
    steps = ("each[a].clip", "each[a]b[c].clip", "each[a\x1b[2J].clip", "sheet")
    found = [task(CNY, pipeline="shots", step=step) for step in steps]
    names = [line.rpartition(" task(s)")[0].rpartition(" ")[0].strip() for line in table(found, "item")]
    assert names == ["shots: each[a\\x1b[2J]", "shots: each[a]", "shots: each[a]b[c]", "shots: no item", "total"]
    assert [line.split()[1] for line in table(found, "step")[:-1]] == ["each.clip", "sheet"]


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
def test_a_task_that_is_recorded_and_stored_counts_once(recorded: TaskCharge, made: TaskCharge, stands: Costs) -> None:
    """By what is known best of it."""
    (one,) = once_each([recorded], [made])
    assert one.charge.costs == stands


def test_tasks_of_two_sites_and_submits_without_a_task_are_all_counted() -> None:
    """A submit whose answer was lost has no task id, and two sites may use one id twice."""
    unnamed = task(CNY, estimate=True, task_id=None)
    assert len(once_each([unnamed, unnamed, task(CNY), task(CNY, site="other")], [])) == 4


@pytest.mark.usefixtures("rh")
async def test_a_task_whose_id_arrived_late_counts_beside_the_stored_result_of_the_adopted_task(tmp_path: Path) -> None:
    made = await generate.fn(models.ZImageTurbo(prompt="a lighthouse"), scope="night")
    works = default_works(get_settings())
    (view,) = [view async for view in jobs_of(works)]
    late = Answer(outcome="ticket", task_id="222")
    await JobRecords(works, view.key).create(1, late, kind="late")
    found = await charges(MediaStore(str(tmp_path / "out")), with_prefect=False)
    counted = {one.task_id: (one.charge.costs, one.charge.is_estimate) for one in found.tasks}
    assert counted == {made.task_id: (CNY, False), "222": (CNY, True)}


@pytest.mark.usefixtures("rh")
async def test_only_the_tasks_of_pipelines_have_a_pipeline_and_a_step(tmp_path: Path) -> None:
    """A call with a scope counted as the pipeline `call`, and an id with the words of a take was cut off."""
    await generate.fn(models.ZImageTurbo(prompt="a lighthouse"), scope="night", label="poster")
    label = "each[12A, take 3].clip, take 2"
    await write_claimed("run-1", {"intent-1": intent(pipeline="film", label=label), "answer-1": ticket()})
    found = await charges(MediaStore(str(tmp_path / "out")), with_prefect=False)
    places = {one.label: (one.pipeline, one.step) for one in found.tasks}
    assert places == {"poster": ("", ""), label: ("film", "each[12A, take 3].clip")}


@flow
async def pictures() -> None:
    for subject in ("a lighthouse", "a harbour", "doomed"):
        await generate(models.ZImageTurbo(prompt=subject))


@pytest.mark.prefect
@pytest.mark.usefixtures("no_earlier_flow_runs")
async def test_a_flow_run_counts_by_its_journal_or_once_deleted_by_its_results(rh: Emulator, tmp_path: Path) -> None:
    """A task that failed, or that no file is left of, is counted."""
    rh.faults.add(Fault("submit", prompt="doomed", kind="fail", code="1501"))
    await pictures(return_state=True)
    store = MediaStore(str(tmp_path / "out"))

    async def here() -> list[TaskCharge]:
        found = await charges(store, with_prefect=True)
        return [one for one in found.tasks if one.store == store.url]

    found = await here()
    assert {one.task_id for one in found} == {one.task_id for one in rh.recorder.paid}
    assert Costs.total(one.charge.costs for one in found) == Costs({"CNY": rh.recorder.charged}, unknown=1)
    await ask(lambda api: api.delete_flow_run(UUID(found[0].run)))
    assert Costs.total(one.charge.costs for one in await here()) == Costs({"CNY": rh.recorder.charged})


@pytest.mark.prefect
@pytest.mark.usefixtures("rh")
async def test_a_submission_without_a_task_id_counts_once_if_a_flow_run_names_its_place(tmp_path: Path) -> None:
    @flow
    async def ordered() -> None:
        await generate(models.ZImageTurbo(prompt="a lighthouse"), scope="night")

    await ordered()
    await write_claimed("night", {"intent-1": intent(), "answer-1": unknown()})
    store, works = MediaStore(str(tmp_path / "elsewhere")), default_works(get_settings())
    found = await charges(store, with_prefect=True, default=works)
    assert [one.task_id for one in found.tasks if one.run == works.scope] == [None]


@pytest.mark.prefect
@pytest.mark.usefixtures("rh")
@pytest.mark.parametrize("is_default", [True, False])
async def test_the_works_of_a_place_count_although_a_flow_run_names_a_deleted_block_for_it(
    tmp_path: Path, is_default: bool
) -> None:
    await MediaStorage(url=str(tmp_path / "out")).asave("deleted", overwrite=True)

    @flow
    async def ordered(storage: str | None) -> None:
        await generate(models.ZImageTurbo(prompt="a lighthouse"), scope="night", storage=storage)

    if not is_default:
        await ordered(None)
    await ordered("deleted")
    await MediaStorage.adelete("deleted")
    await write_claimed("night", {"intent-1": intent(), "answer-1": unknown()})
    store, works = MediaStore(str(tmp_path / "elsewhere")), default_works(get_settings())
    found = await charges(store, with_prefect=True, default=works if is_default else None)
    assert [one.task_id for one in found.tasks if one.run == works.scope] == [None]
    assert not any(works.url in place for place in found.unread)


@pytest.mark.usefixtures("rh")
@pytest.mark.parametrize(
    ("content", "said"),
    [('{"token": "1", "colour": "blue"}', "at: Field r"), ("no JSON", "is not a JSON object")],
)
def test_records_that_cannot_be_read_are_named_and_the_results_are_summed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str, said: str
) -> None:
    asyncio.run(generate.fn(models.ZImageTurbo(prompt="a lighthouse"), scope="night"))
    works = default_works(get_settings())
    asyncio.run(works.create("0a1b-intent-1", {"token": "1"}))
    (Path(works.url) / "works" / "0a1b" / "intent-1.json").write_text(content)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(JournalError, match=said):
        spend()
    assert "0.04 CNY" in capsys.readouterr().out


@pytest.mark.parametrize("place", ["works of pipelines", "flow runs"])
@pytest.mark.parametrize("form", ["text", "json", "csv"])
def test_a_place_that_cannot_be_read_is_named_and_the_sums_are_marked_incomplete(
    rh: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    closed_port: int,
    place: str,
    form: str,
) -> None:
    asyncio.run(generate.fn(models.ZImageTurbo(prompt="a lighthouse"), scope="night"))
    capsys.readouterr()
    settings: dict[Any, Any] = {}
    if place == "flow runs":
        settings = {PREFECT_API_URL: f"http://127.0.0.1:{closed_port}/api"}
    else:
        monkeypatch.setenv("RH_RECORDS", "nothing-reads-this://works")
    with temporary_settings(settings), pytest.raises(JournalError) as failed:
        spend(json_=form == "json", csv_=form == "csv")
    assert place in str(failed.value)
    out = capsys.readouterr().out
    if form == "json":
        *sums, missing = json.loads(out)
        assert [(one["amount"], one["complete"]) for one in sums] == [("0.04", False)]
        assert missing["name"].startswith("not read: ") and place in missing["name"]
        assert (missing["amount"], missing["tasks"], missing["complete"]) == (None, None, False)
    elif form == "csv":
        head, first, missing = out.splitlines()
        assert head == "name,unit,tasks,amount,estimated,complete"
        assert first.endswith(",CNY,1,0.04,0,false")
        assert missing.startswith(("not read: ", '"not read: ')) and missing.endswith(",,,,,false")
    else:
        for words in ("total, incomplete", "incomplete: 1 place could not be read", "0.04 CNY"):
            assert words in out


@pytest.mark.usefixtures("rh")
def test_a_damaged_stored_result_makes_the_sums_incomplete(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its journal may be deleted, so that only the stored result has the cost."""
    made = asyncio.run(generate.fn(models.ZImageTurbo(prompt="a lighthouse"), scope="night"))
    Path(made.record).write_bytes(Path(made.record).read_bytes()[:40])
    capsys.readouterr()
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(JournalError, match=f"{made.task_id}.json: the stored result is damaged"):
        spend(json_=True)
    assert json.loads(capsys.readouterr().out)[-1]["name"] == f"not read: {made.record}"


async def test_a_storage_that_cannot_be_read_keeps_no_journal_away(rh: Emulator, closed_port: int) -> None:
    await generate.fn(models.ZImageTurbo(prompt="a lighthouse"), scope="night")
    options: dict[str, Any] = {"endpoint_url": f"http://127.0.0.1:{closed_port}", "key": "k", "secret": "s"}
    options["config_kwargs"] = {"retries": {"max_attempts": 0}}
    store = MediaStore("s3://nobody/there", options=options)
    found = await charges(store, with_prefect=False, default=default_works(get_settings()))
    assert set(found.unread) == {"results in s3://nobody/there", "works of pipelines in s3://nobody/there"}
    assert [one.run for one in found.tasks] == ["night"]


async def test_flow_runs_are_read_together_and_not_asked_for_once_their_api_refuses(tmp_path: Path) -> None:
    """Each of thousands of runs would otherwise wait for the API in vain."""
    runs = [{"id": str(uuid4()), "name": "one", "flow_id": str(uuid4())} for _ in range(60)]
    answers = {"/flow_runs/filter": reply(json.dumps(runs)), "/input/filter": reply("no", status=401)}
    unreadable = reply([{"flow_run_id": runs[0]["id"], "key": "rh-log-00000001", "value": "[1"}])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Asked) -> bool:
        if runs[0]["id"] in request.path:
            await asyncio.sleep(0.5)  # the last answer: by then, the others are refused
            return await unreadable(reader, writer, request)
        fitting = (one for path, one in answers.items() if request.path.endswith(path))
        step = next(fitting, reply("CSRF protection is disabled.", status=422))
        return await step(reader, writer, request)

    store = MediaStore(str(tmp_path / "out"))
    async with WireServer(always=answer) as server:
        with temporary_settings({PREFECT_API_URL: f"{server.url}/api"}):
            found = await charges(store, with_prefect=True)
    asked = sum(path.endswith("/input/filter") for path in server.paths)
    assert 1 < asked < 30
    assert "401" in found.unread[f"{60 - asked} further flow runs"]
    assert len(found.unread) == asked + 1


def test_the_sums_are_data_on_request() -> None:
    both = Costs({"CNY": Decimal("3.85"), COINS: Decimal(7)})
    rows = records([task(CNY, estimate=True), task(both), task(UNKNOWN)], "model")
    assert rows == [
        {"name": "some/model", "unit": None, "tasks": 1, "amount": None, "estimated": None, "complete": True},
        {"name": "some/model", "unit": "CNY", "tasks": 2, "amount": "3.89", "estimated": "0.04", "complete": True},
        {"name": "some/model", "unit": COINS, "tasks": 1, "amount": "7", "estimated": "0", "complete": True},
    ]

"""Runs of pipelines while inputs, the storage or other runs change: no results are mixed, lost or paid for twice."""

from __future__ import annotations

import asyncio
import csv
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from PIL import Image
from prefect.states import Cancelled

from rh_prefect import flow
from rh_prefect.emulator import Emulator
from rh_prefect.errors import ConfigError, JournalError, PipelineIncomplete, RunningHubError, StoreError
from rh_prefect.flow_runs.leftover_jobs import reconcile_runs
from rh_prefect.flow_runs.resume_or_rerun import create, rerun
from rh_prefect.flows.pipeline import Pipeline, pipeline_flow
from rh_prefect.pipelines.plan.planned_steps import KnownWorks
from rh_prefect.pipelines.run.known_results import KnownResults
from rh_prefect.pipelines.run.result import PipelineResult, summary
from rh_prefect.pipelines.run.store_outages import while_store_is_away
from rh_prefect.works.journal.costs_and_budget import Costs
from rh_prefect.works.journal.journal import NotExclusive
from rh_prefect.works.loop_thread import LOOP
from tests.support.samples.steps import CLIP, PICTURE, RESIZE, steps
from tests.support.waiting import until
from tests.support.world.filesystems import TwoWriters
from tests.support.world.pipeline_flows import (
    PRODUCTS,
    complete,
    prompts,
    reasons,
    run,
    run_in_flow,
    states,
    table,
    until_paid,
)
from tests.support.world.prefect_runs import set_states
from tests.support.world.virtual_time import now

ONE = "name: mug\n" + steps(picture=PICTURE % "mug")


async def end_of(rh: Emulator, running: asyncio.Future[Any]) -> Any:
    while not running.done():
        rh.clock.advance(20)
        await asyncio.sleep(0.1)
    return await running


async def given_up(rh: Emulator, flow: Any, flow_run: UUID) -> None:
    """Runs a flow run until a task is paid for, and ends its process."""
    running = asyncio.ensure_future(rerun(flow, flow_run))
    await until_paid(rh, 1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_table_that_is_edited_during_a_run_counts_in_the_next_one(slow_rh: Emulator, tmp_path: Path) -> None:
    running = asyncio.ensure_future(run(PRODUCTS, products=table(tmp_path, a="mug", b="cup")))
    await until_paid(slow_rh, 2)
    table(tmp_path, c="bowl", a="MUG", b="cup")
    state, result = await end_of(slow_rh, running)
    assert not state.is_failed, state.message
    assert prompts(slow_rh) == ["Photo of cup", "Photo of mug", "a turn", "a turn"]
    assert [one.state for one in result.steps] == ["made"] * 5
    assert result.costs.amounts["CNY"] == slow_rh.recorder.charged


@pytest.mark.prefect
async def test_what_an_attempt_paid_for_a_row_that_is_gone_is_in_the_report(rh: Emulator, tmp_path: Path) -> None:
    products = pipeline_flow(Pipeline.from_text(PRODUCTS))
    flow_run = await create(products, {"products": table(tmp_path, a="mug", b="forbidden cup")})
    with pytest.raises(PipelineIncomplete):
        await rerun(products, flow_run)
    table(tmp_path, b="bowl")
    result: PipelineResult = await rerun(products, flow_run)
    assert states(result) == dict.fromkeys(("each[b].picture", "each[b].clip", "sheet"), "made")
    assert (result.costs.amounts["CNY"], rh.recorder.charged) == (Decimal("3.58"), Decimal("3.58"))
    assert summary(result) == "Steps: 3 made; paid 3.58 CNY, of which 1.79 CNY for steps that are not in its plan."
    assert summary(result.model_copy(update={"steps": (), "other_costs": Costs()})) == "Paid 3.58 CNY."
    rows = csv.DictReader(Path(result.report).read_text().splitlines())
    costs = [(row["state"], row["cost"]) for row in rows if row["cost"]]
    assert costs == [("made", "0.04 CNY"), ("made", "1.75 CNY"), ("not in the plan", "1.79 CNY")]


async def test_a_table_that_is_deleted_during_a_run_loses_nothing(slow_rh: Emulator, tmp_path: Path) -> None:
    path = table(tmp_path, a="mug")
    running = asyncio.ensure_future(run(PRODUCTS, products=path))
    await until_paid(slow_rh, 1)
    Path(path).unlink()
    _, result = await end_of(slow_rh, running)
    assert states(result) == dict.fromkeys(("each[a].picture", "each[a].clip", "sheet"), "made")


async def test_a_photo_that_is_edited_during_a_run_is_used_as_planned_or_not_at_all(
    slow_rh: Emulator, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.png"
    Image.new("RGB", (400, 300), "blue").save(photo)
    after = "when: {exists: $(picture)}, "
    text = "params: {photo: image}\n" + steps(
        picture=PICTURE % "a mug", clip=after + CLIP % "$(params.photo)", small=after + RESIZE % "$(params.photo)"
    )
    running = asyncio.ensure_future(run(text, photo=str(photo)))
    await until_paid(slow_rh, 1)
    Image.new("RGB", (400, 300), "red").save(photo)
    _, result = await end_of(slow_rh, running)
    assert prompts(slow_rh) == ["a mug"]
    assert ["was changed" in reasons(result)[step] for step in ("clip", "small")] == [True, True]


async def test_a_changed_stored_result_is_downloaded_again_before_it_is_used(rh: Emulator, tmp_path: Path) -> None:
    text = "params: {more: {type: boolean, default: false}}\n" + steps(
        picture=PICTURE % "a mug",
        copy="when: $(params.more), " + PICTURE % "a mug" + ", save_as: mug.png",
        small="when: $(params.more), " + RESIZE % "$(picture)" + ", save_as: small.png",
    )
    await run(text)
    (stored,) = (tmp_path / "out" / "pipelines").glob("*.png")
    good = stored.read_bytes()
    Image.new("RGB", (400, 300), "red").save(stored)
    await complete(text, more=True)
    assert stored.read_bytes() == (tmp_path / "out" / "mug.png").read_bytes() == good
    assert len(rh.recorder.paid) == 1


@pytest.mark.prefect
async def test_an_attempt_with_another_place_of_records_pays_nothing(
    slow_rh: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mug = pipeline_flow(Pipeline.from_text(ONE))
    flow_run: UUID = await create(mug, {"budget": 0.05})
    await given_up(slow_rh, mug, flow_run)
    monkeypatch.setenv("RH_STORAGE_URL", str(tmp_path / "other"))
    said = r"would store its records in .*/other, but an earlier call of the flow run used .*/out"
    with pytest.raises(ConfigError, match=said):
        await end_of(slow_rh, asyncio.ensure_future(rerun(mug, flow_run)))
    assert len(slow_rh.recorder.paid) == 1
    monkeypatch.setenv("RH_STORAGE_URL", str(tmp_path / "out"))
    result: PipelineResult = await end_of(slow_rh, asyncio.ensure_future(rerun(mug, flow_run)))
    assert (result.steps[0].state, len(slow_rh.recorder.paid)) == ("made", 1)


@pytest.mark.prefect
async def test_a_cancellation_finds_the_works_of_a_flow_that_runs_pipelines(slow_rh: Emulator) -> None:
    @flow
    async def outer() -> None:
        await Pipeline.from_text(ONE).run(budget=1)

    flow_run = await create(outer, {})
    await given_up(slow_rh, outer, flow_run)
    await set_states(flow_run, Cancelled())
    found = await LOOP.call(reconcile_runs(flow_run_id=flow_run))
    task = slow_rh.recorder.paid[0].task_id
    assert [one.task_id for one in found.findings if one.done == "cancelled"] == [task]
    assert slow_rh.recorder.cancelled == [task]


@pytest.mark.prefect
async def test_a_store_without_exclusive_creation_is_refused_before_a_payment(
    rh: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RH_STORAGE_URL", f"{TwoWriters.protocol}://{tmp_path}/store")
    state = await pipeline_flow(Pipeline.from_text(ONE))(return_state=True)
    with pytest.raises(NotExclusive, match=r"two processes could create the same record there.* set RH_RECORDS"):
        await state.aresult()
    assert rh.recorder.submissions == []
    # The records lie elsewhere then, the files in the store.
    monkeypatch.setenv("RH_RECORDS", str(tmp_path / "records"))
    text = steps(picture=PICTURE % "mug" + ", save_as: light.png")
    state, _ = await run_in_flow(text)
    assert state.is_completed(), state.message
    assert (tmp_path / "store" / "light.png").is_file()
    assert list((tmp_path / "records" / "works").glob("*/result.json"))
    state, _ = await run_in_flow(text)
    assert (state.name, len(rh.recorder.paid)) == ("Nothing new", 1)


AWAY = [StoreError("no answer"), JournalError("no answer")]


@pytest.mark.parametrize("error", AWAY, ids=["storage", "records"])
@pytest.mark.virtual_time
async def test_a_step_waits_half_a_minute_for_a_storage_that_does_not_respond(error: RunningHubError) -> None:
    async def make() -> str:
        if now() < 30:
            raise error
        return "made"

    assert await while_store_is_away(make, jitter=lambda: 0.0) == "made"
    assert now() == pytest.approx(35, abs=1)


@pytest.mark.virtual_time
async def test_a_step_does_not_wait_longer_nor_for_what_waiting_does_not_repair() -> None:
    tried: list[float] = []

    async def make() -> None:
        tried.append(now())
        raise StoreError("no right", is_permanent=len(tried) > 3)

    with pytest.raises(StoreError):
        await while_store_is_away(make, jitter=lambda: 0.0)
    assert tried == pytest.approx([0, 5, 35], abs=0.1)
    with pytest.raises(StoreError):
        await while_store_is_away(make)
    assert len(tried) == 4


@pytest.mark.parametrize("read", ["find", "new_take", "round", "takes_of"])
async def test_a_run_tries_each_read_of_the_records_again(read: str, caplog: pytest.LogCaptureFixture) -> None:
    async def away(*_: object) -> None:
        raise StoreError("no answer")

    records = KnownWorks()
    setattr(records, read, away)
    reading = asyncio.ensure_future(getattr(KnownResults(records), read)("x"))
    await until(lambda: reading.done() or "no answer Trying again" in caplog.text)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_a_run_whose_report_cannot_be_written_says_what_it_made_and_paid(
    slow_rh: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RH_RECORDS", str(tmp_path / "records"))
    pictures, out = steps(first=PICTURE % "a mug", second=CLIP % "$(first)"), tmp_path / "out"
    whole = asyncio.create_task(run(pictures, budget=9))
    await until_paid(slow_rh, 1)
    if out.exists():
        out.rename(tmp_path / "before")
    out.write_text("a file in place of the folder")
    slow_rh.clock.advance(1000)
    state, result = await whole
    message = state.message or ""
    assert state.is_failed
    assert message.startswith("first: ")
    assert "A task was paid for" in message
    assert "Steps: 1 failed, 1 not run; paid 0.04 CNY. The report could not be written: " in message
    assert states(result) == {"first": "failed", "second": "not run"}
    assert result.report == ""
    out.unlink()
    if (tmp_path / "before").exists():
        (tmp_path / "before").rename(out)
    again = asyncio.create_task(run(pictures, budget=9))
    await until_paid(slow_rh, 2)
    slow_rh.clock.advance(1000)
    state, result = await again
    assert not state.is_failed, state.message
    assert Path(result.report).is_file()
    assert Path(result.gallery).is_file()
    assert len(slow_rh.recorder.paid) == 2

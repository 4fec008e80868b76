"""What a pipeline run says that it paid: all that RunningHub charged, by the run, by its steps and in `spend`."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterTags
from prefect.client.schemas.objects import TaskRun, TaskRunResult

from rh_prefect.cli import spend
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.flow_runs.charge_reader import charges
from rh_prefect.media.store import MediaStore
from rh_prefect.settings import get_settings
from rh_prefect.works.journal.works_journal import default_works
from tests.support.samples.steps import CLIP, PICTURE, RESIZE, group, steps
from tests.support.world.pipeline_flows import run_in_flow


def pictures(name: str, *, attempts: int = 1, budget: str = "5", **following: str) -> str:
    each = group("foreach: [cup, mug], id: $(item)", picture=PICTURE % "Photo of $(item)", **following)
    return f"name: {name}\nattempts: {attempts}\nbudget: {budget}\n" + steps(each=each)


@pytest.fixture
def rh(charging_rh: Emulator) -> Emulator:
    return charging_rh


@pytest.mark.prefect
async def test_failed_tasks_count_in_the_run_the_report_and_spend_and_spend_counts_other_storages(
    rh: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RH_STORAGE_URL", str(tmp_path / "elsewhere"))
    await run_in_flow(pictures("far"))
    elsewhere, charged = {one.task_id for one in rh.recorder.paid}, rh.recorder.charged
    monkeypatch.setenv("RH_STORAGE_URL", str(tmp_path / "out"))
    rh.faults.add(Fault("submit", prompt="cup", kind="fail", code="1504", times=1))
    rh.faults.add(Fault("submit", prompt="mug", kind="fail", code="1504"))
    _, done = await run_in_flow(pictures("cups", attempts=2))
    assert [one.state for one in done.steps] == ["made", "failed"]
    paid = {one.task_id for one in rh.recorder.paid} - elsewhere
    assert (len(elsewhere), len(paid)) == (2, 4)
    charged = rh.recorder.charged - charged
    assert (done.costs.amounts["CNY"], done.costs.unknown) == (charged, 0)
    assert sum(Decimal(one.cost.split()[0]) for one in done.steps) == charged

    settings = get_settings()
    store, default = MediaStore(settings.storage_url), default_works(settings)
    found = await charges(store, with_prefect=True, default=default, records=settings.records)
    # Prefect's server has the runs of other tests, too.
    assert {one.task_id for one in found.tasks if one.store != store.url} >= elsewhere
    own = [one for one in found.tasks if one.task_id in paid]
    for by, names in {
        "pipeline": {"cups"},
        "step": {"cups: each.picture"},
        "item": {"cups: each[cup]", "cups: each[mug]"},
    }.items():
        rows = [row for row in spend.records(own, by) if row["unit"] == "CNY"]
        assert {row["name"] for row in rows} == names
        assert sum(Decimal(str(row["amount"])) for row in rows) == charged


async def events_of(pipeline: str, *, until: str) -> list[dict[str, Any]]:
    """The events of a pipeline on Prefect's server, once one of a kind is among them."""
    found: list[dict[str, Any]] = []
    async with get_client() as client:
        for _ in range(3000):
            wanted = {"resource": {"id": [f"runninghub.pipeline.{pipeline}"]}}
            answer = await client.request("POST", "/events/filter", json={"filter": wanted, "limit": 50})
            found = answer.json()["events"]
            if any(one["event"] == f"runninghub.pipeline.{until}" for one in found):
                return found
            await asyncio.sleep(0.2)
    raise AssertionError(f"no event {until}: {[one['event'] for one in found]}")


@pytest.mark.prefect
async def test_a_run_that_waits_for_a_review_emits_which(rh: Emulator) -> None:
    state, _ = await run_in_flow(pictures("asking", chosen="review: $(picture)", clip=CLIP % "$(chosen)"))
    flow_run = str(state.state_details.flow_run_id)
    found = await events_of("asking", until="done")
    (review,) = [one for one in found if one["event"] == "runninghub.pipeline.review"]
    assert review["payload"] == {
        "pipeline": "asking",
        "flow_run": flow_run,
        "reviews": ["each[cup].chosen", "each[mug].chosen"],
    }
    assert review["resource"]["prefect.resource.name"] == "asking"
    assert f"prefect.flow-run.{flow_run}" in [one["prefect.resource.id"] for one in review["related"]]
    (done,) = [one["payload"] for one in found if one["event"] == "runninghub.pipeline.done"]
    assert (done["state"], done["steps"]) == ("Waiting for review", {"made": 2, "waits for review": 4})


@pytest.mark.prefect
async def test_a_run_over_its_budget_emits_why(rh: Emulator) -> None:
    state, _ = await run_in_flow(pictures("short", budget="{amount: 0.04, whole_items: true}"))
    assert state.name == "Over budget", state.message
    found = await events_of("short", until="done")
    (event,) = [one for one in found if one["event"] == "runninghub.pipeline.over_budget"]
    assert event["payload"] == {
        "pipeline": "short",
        "flow_run": str(state.state_details.flow_run_id),
        "reason": state.message,
    }
    assert "item mug costs up to 0.04, but the budget of the run is 0.04" in event["payload"]["reason"]
    assert rh.recorder.charged == Decimal("0.04")


@pytest.mark.prefect
async def test_a_run_has_tags_connected_task_runs_and_events(rh: Emulator) -> None:
    tagged = "name: tagged\ntags: [spring]\n" + steps(picture=PICTURE % "a cup", small=RESIZE % "$(picture)")
    await run_in_flow(tagged, budget=1)
    tasks: list[TaskRun] = []
    async with get_client() as client:
        (flow_run,) = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=["pipeline:tagged", "spring"]))
        )
        of_run = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id]))
        while sum(one.state is not None and one.state.is_completed() for one in tasks) < 2:
            await asyncio.sleep(0.05)
            tasks = await client.read_task_runs(flow_run_filter=of_run)
    picture, small = sorted(tasks, key=lambda one: one.name)
    assert (picture.name, picture.tags, picture.task_inputs) == ("picture", ["model:z-image/turbo"], {"wait_for": []})
    assert (small.name, small.tags, small.task_inputs) == ("small", [], {"wait_for": [TaskRunResult(id=picture.id)]})
    found = await events_of("tagged", until="done")
    events = Counter(one["event"].removeprefix("runninghub.pipeline.") for one in found)
    assert events == {"planned": 1, "step": 2, "done": 1}
    (done,) = [one["payload"] for one in found if one["event"].endswith("done")]
    assert (done["flow_run"], done["new"]) == (str(flow_run.id), 2)
    assert Decimal(done["cost"].split()[0]) == rh.recorder.charged
    assert Path(done["link"].removeprefix("file://")).read_bytes().startswith(b"step,")

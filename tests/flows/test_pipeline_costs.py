"""What a pipeline run says that it paid: all that RunningHub charged, by the run, by its steps and in `spend`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags

from rh_prefect.cli import spend
from rh_prefect.emulator import Assumptions, Emulator, Fault
from rh_prefect.errors import PipelineIncomplete
from rh_prefect.flow_runs.spending import charges
from rh_prefect.flows.pipeline import pipeline_flow
from rh_prefect.flows.pipeline_report import PipelineResult
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.settings import get_settings
from tests.support.emulator_env import environment

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server")]

PICTURES = """
name: {name}
attempts: {attempts}
budget: 5
steps:
  each:
    foreach: [cup, mug]
    id: $(item)
    steps:
      picture: {{model: z-image/turbo, with: {{prompt: Photo of $(item)}}}}
outputs: {{pictures: $(each.picture)}}
"""


async def run(name: str, *, attempts: int) -> PipelineResult:
    flow = pipeline_flow(Pipeline.from_text(PICTURES.format(name=name, attempts=attempts)))
    data = await (await flow(return_state=True)).aresult(raise_on_failure=False)
    result = data.result if isinstance(data, PipelineIncomplete) else data
    assert isinstance(result, PipelineResult), data
    return result


@pytest.fixture
def rh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """An emulator that charges failed tasks."""
    with Emulator(long_side=96, fps=6, assumptions=Assumptions(refund_failed_models=False)) as emulator:
        for name, value in environment(emulator, tmp_path).items():
            monkeypatch.setenv(name, value)
        yield emulator


async def test_failed_tasks_count_in_the_run_the_report_and_spend(rh: Emulator) -> None:
    rh.faults.add(Fault("submit", prompt="cup", kind="fail", code="1504", times=1))
    rh.faults.add(Fault("submit", prompt="mug", kind="fail", code="1504"))
    done = await run("cups", attempts=2)
    assert [one.state for one in done.steps] == ["made", "failed"]
    assert len(rh.recorder.paid) == 4
    assert (done.costs.amounts["CNY"], done.costs.unknown) == (rh.recorder.charged, 0)
    assert sum(Decimal(one.cost.split()[0]) for one in done.steps) == rh.recorder.charged

    settings = get_settings()
    found = await charges(
        MediaStore(settings.storage_url), with_prefect=True, journal_url=settings.journal_url, records=settings.records
    )
    for by, names in {
        "pipeline": {"cups"},
        "step": {"cups: each.picture"},
        "item": {"cups: each[cup]", "cups: each[mug]"},
    }.items():
        rows = [row for row in spend.records(found.tasks, by) if row["unit"] == "CNY" and row["name"] != "no pipeline"]
        assert {row["name"] for row in rows} == names
        assert sum(Decimal(str(row["amount"])) for row in rows) == rh.recorder.charged


async def test_a_run_has_a_tag_and_emits_events(rh: Emulator) -> None:
    await run("tagged", attempts=1)
    async with get_client() as client:
        (flow_run,) = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=["pipeline:tagged"]))
        )
        found: list[dict[str, Any]] = []
        for _ in range(100):
            answer = await client.request(
                "POST",
                "/events/filter",
                json={"filter": {"resource": {"id": ["runninghub.pipeline.tagged"]}}, "limit": 50},
            )
            found = answer.json()["events"]
            if len(found) == 4:
                break
            await asyncio.sleep(0.2)
    events = Counter(one["event"].removeprefix("runninghub.pipeline.") for one in found)
    assert events == {"planned": 1, "step": 2, "done": 1}
    (done,) = [one["payload"] for one in found if one["event"].endswith("done")]
    assert (done["flow_run"], done["new"]) == (str(flow_run.id), 2)
    assert Decimal(done["cost"].split()[0]) == rh.recorder.charged

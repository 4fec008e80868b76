"""Flow runs of pipelines with `reuse: never`: which of them continue a round, and which begin another one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.states import Crashed, Pending, Running

from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import InputError, PipelineIncomplete
from rh_prefect.flow_runs.resume_or_rerun import create, rerun
from rh_prefect.flows.pipeline import Pipeline, pipeline_flow
from rh_prefect.settings import get_settings
from rh_prefect.works.journal.record_types import current_owner
from rh_prefect.works.journal.works_journal import ROUNDS
from tests.support.samples.steps import CLIP, PICTURE, steps
from tests.support.world.pipeline_flows import complete, planned, prompts, run, run_in_flow
from tests.support.world.prefect_runs import cancel, set_states

NEVER = ", reuse: never"
PAIR = "name: pair\n" + steps(first=PICTURE % "a mug" + NEVER, second=PICTURE % "a cup" + NEVER)


def fail(rh: Emulator, prompt: str) -> None:
    rh.faults.add(Fault("submit", prompt=prompt, kind="fail", code="1504", times=1))


async def test_a_selected_part_and_a_budget_that_was_too_small_leave_the_round_open(rh: Emulator) -> None:
    await run(PAIR, only=["first"])
    await run(PAIR, only=["second"], budget=0.05)
    result = await complete(PAIR)
    assert len(rh.recorder.paid) == 2
    assert {one.state for one in result.steps} == {"reused"}
    await run(PAIR)
    assert len(rh.recorder.paid) == 4


async def test_a_run_whose_report_cannot_be_written_leaves_the_round_open(rh: Emulator, tmp_path: Path) -> None:
    blocked = tmp_path / "out/runs"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file in place of the folder")
    state, _ = await run(PAIR)
    assert "The report could not be written" in state.message
    blocked.unlink()
    result = await complete(PAIR)
    assert (len(rh.recorder.paid), {one.state for one in result.steps}) == (2, {"reused"})


async def test_candidates_that_each_round_makes_can_be_reviewed(rh: Emulator) -> None:
    """A flow run has all parameters, and `choose` those that a person wrote: both mean the same candidates."""
    text = 'params: {prompt: string, size: {enum: ["1:1", "16:9"], default: "1:1"}}\n' + steps(
        a=PICTURE % '"$(params.prompt) $(params.size)"' + ", takes: 2" + NEVER,
        r="review: $(a)",
        b=CLIP % "$(r)" + NEVER,
    )
    written, all_of_them = {"prompt": "cat"}, {"prompt": "cat", "size": "1:1"}
    state, _ = await run(text, **all_of_them)
    assert state.name == "Waiting for review"
    plan = await planned(text, **written)
    review = next(one for one in plan.instances if one.model == "review")
    choices = {"r": {"of": review.request["of"], "take": 2}}
    state, _ = await run(text, choices=choices, **all_of_them)
    assert not state.is_failed and state.name != "Waiting for review", state.message
    assert len(rh.recorder.paid) == 3
    # The round is complete: the next run shows others.
    for params in (written, all_of_them):
        state, _ = await run(text, choices=choices, **params)
        assert state.name == "Waiting for review"
        assert len(rh.recorder.paid) == 5


async def hold(flow: Any, rh: Emulator) -> UUID:
    """Makes a flow run whose process, on another machine, has made the first step and is silent."""
    fail(rh, "a cup")
    run_id = await create(flow, {})
    with pytest.raises(PipelineIncomplete):
        await rerun(flow, run_id)
    rounds = Path(get_settings().storage_url) / ROUNDS
    (left,) = rounds.glob("*/1-left-1.json")
    left.unlink()
    (holder,) = rounds.glob("*/1-holder-1.json")
    holder.write_text(holder.read_text().replace(current_owner().host, "elsewhere"))
    await set_states(run_id, Running())
    return run_id


async def crash(run_id: UUID) -> None:
    await set_states(run_id, Crashed())


@pytest.mark.parametrize("end", [crash, pytest.param(cancel, marks=pytest.mark.long)])
@pytest.mark.prefect
async def test_a_run_on_another_machine_is_waited_for_until_prefect_says_that_it_ended(rh: Emulator, end: Any) -> None:
    flow = pipeline_flow(Pipeline.from_text(PAIR))
    run_id = await hold(flow, rh)
    with pytest.raises(InputError, match=rf"rh-prefect jobs cancel {run_id}"):
        await flow()
    assert len(rh.recorder.paid) == 2
    await end(run_id)
    await flow()
    assert len(rh.recorder.paid) == 3


@pytest.mark.prefect
async def test_a_schedule_begins_a_round_and_a_retry_of_it_keeps_it(rh: Emulator) -> None:
    fail(rh, "a cup")
    await run_in_flow(PAIR)
    flow = pipeline_flow(Pipeline.from_text(PAIR))
    async with get_client() as client:
        deployment = await client.create_deployment(
            flow_id=await client.create_flow(flow),
            name="nightly",
            schedules=[DeploymentScheduleCreate(schedule=IntervalSchedule(interval=timedelta(days=1)), active=True)],
        )
        since = datetime.now(UTC).isoformat()
        body = {"start_time": since, "min_runs": 2, "max_runs": 2}
        await client._client.post(f"/deployments/{deployment}/schedule", json=body)
        found = await client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
        )
        first, second = [one.id for one in found if one.deployment_id == deployment][:2]
    for run_id in (first, second):
        await set_states(run_id, Pending())  # its time has come
    fail(rh, "a cup")
    with pytest.raises(PipelineIncomplete):
        await rerun(flow, first)
    assert len(rh.recorder.paid) == 4
    await rerun(flow, second)
    assert len(rh.recorder.paid) == 6
    await rerun(flow, first)
    assert prompts(rh) == ["a cup"] * 4 + ["a mug"] * 3

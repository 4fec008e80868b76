"""Whatever is tried again, by whomever: no job is paid for twice."""

from __future__ import annotations

import asyncio

import pytest

from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import JobFailed, ModerationError
from rh_prefect.flow_runs.resume_or_rerun import rerun
from tests.e2e import flows
from tests.support.processes.film_run import FilmRun

pytestmark = pytest.mark.prefect

TAKES = ["a lighthouse"] * 4
"""One request with four takes."""


def test_two_processes_that_run_one_flow_run_share_its_jobs(stage: FilmRun) -> None:
    rh, prompts = stage.rh, [*TAKES, "a harbour", "a gull"]
    # Both have read that nobody has claimed anything, and claim in the same moment, with one entry of the log each;
    # then each job's loser meets an intent that stays open for a while.
    claims = stage.proxy.hold('"rh-log-[0-9]+".*[0-9a-f]-intent-', number=None)
    rh.faults.add(Fault("submit", kind="slow", seconds=0.4))
    stage.flow_processes.spare(2)
    run = asyncio.run(flows.begin(flows.many, prompts=prompts))
    both = [stage.flow_processes.run(f"{flows.MODULE}:many", run=run) for _ in range(2)]
    claims.wait(2)
    stage.proxy.release()
    for one in both:
        one.ended()
        one.wait_for("done")
    first, second = ([result["task_id"] for result in each.wait_for("done")["result"]] for each in both)
    assert sorted(first) == sorted(second) == sorted(each.task_id for each in rh.recorder.paid)
    assert sorted(str(each.payload["prompt"]) for each in rh.recorder.submissions) == sorted(prompts)


@pytest.mark.long
async def test_a_rerun_by_hand_pays_for_new_tasks_where_the_attempts_were_used_up(rh: Emulator) -> None:
    """Prefect's own retries of a flow and of its tasks count together; only a person's rerun has fresh attempts."""
    rh.faults.add(Fault("submit", kind="fail", code="1504", times=5))
    stubborn = flows.patient.with_options(retries=4)
    run = await flows.begin(stubborn, retries=3)
    with pytest.raises(JobFailed, match="attempts"):
        await rerun(stubborn, run)
    assert len(rh.recorder.paid) == 3
    result = await rerun(stubborn, run)
    assert [one.task_id for one in rh.recorder.paid][5:] == [result.task_id]


@pytest.mark.long
def test_a_child_flow_that_completed_is_run_anew_after_its_parent_was_killed(stage: FilmRun) -> None:
    rh = stage.rh
    # The child flow has ended, and three of the four takes; the fourth is paid for and runs.
    rh.faults.add(Fault("query", number=5, kind="hold", seconds=60))
    child = stage.begin(f"{flows.MODULE}:parent", {}, spares=1)
    assert rh.held.wait(seconds=300)
    child.wait_until_heard("job", 5, state="succeeded")
    assert not stage.kill(child)
    done = stage.finish(set(), f"{flows.MODULE}:parent")
    assert len(set(done["result"])) == 6
    assert set(done["result"]) == {one.task_id for one in rh.recorder.paid}
    assert len(rh.recorder.submissions) == 6


async def test_a_moderated_prompt_is_submitted_once_whatever_retries_are_asked_for(rh: Emulator) -> None:
    run = await flows.begin(flows.patient, prompt="a forbidden thing", retries=3)
    with pytest.raises(ModerationError, match="1501"):
        await rerun(flows.patient, run)
    assert [one.code for one in rh.recorder.submissions] == ["1501"]

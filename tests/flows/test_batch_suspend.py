"""A batch whose run rests while its tasks run: once for each step of its chain."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from rh_prefect.emulator import Fault
from rh_prefect.errors import BatchIncomplete
from rh_prefect.flow_runs.rerun import rerun
from rh_prefect.flows import batch
from tests.support.samples import media as samples
from tests.support.world.suspended_runs import SuspendedRuns

pytestmark = pytest.mark.prefect
KLING, UPSCALER, PICTURE = "kling-v2.6-pro-image-to-video", "rhart-video/video-upscaler", "z-image/turbo"


def steps(folder: Path) -> list[dict[str, str]]:
    """The report of the one run."""
    (report,) = (folder / "out").glob("runs/*/report.csv")
    return list(csv.DictReader(io.StringIO(report.read_text())))


@pytest.mark.long
async def test_a_chain_rests_once_for_each_step(with_webhooks: SuspendedRuns, tmp_path: Path) -> None:
    photo = str(samples.png(tmp_path / "photo.png"))
    rows = [{"image_url": photo, "prompt": f"waves {n}"} for n in range(3)]
    run = await with_webhooks.begin(batch, rows=rows, model=KLING, chain=[UPSCALER], wait="suspend")
    for step in (1, 2):
        await with_webhooks.run_until_suspended(batch, run, 3 * step)
        waiting = [one for one in steps(tmp_path) if one["state"] == "unfinished" and one["tasks"]]
        assert len(waiting) == 3
        assert {one["tasks"] for one in waiting} <= set(with_webhooks.paid)
        await with_webhooks.end_and_wake(run)
    account = await rerun(batch, run)
    assert account.is_complete
    assert len(with_webhooks.paid) == 6
    assert {task for row in account.rows for task in row.tasks} == set(with_webhooks.paid)
    # Each job: the receiver's question, and that of the resumed run.
    assert with_webhooks.calls["query"] <= 2 * 6 + 2


async def test_rows_that_fail_are_paid_for_once_and_the_others_go_on(
    with_webhooks: SuspendedRuns, tmp_path: Path
) -> None:
    with_webhooks.rh.faults.add(Fault("submit", prompt="bad", kind="fail", code="805", message="no such face"))
    rows = [{"prompt": "good"}, {"prompt": "bad"}, {"prompt": "", "aspect_ratio": "no such"}]
    run = await with_webhooks.begin(batch, rows=rows, model=PICTURE, wait="suspend")
    await with_webhooks.run_until_suspended(batch, run, 2)
    await with_webhooks.end_and_wake(run)
    with pytest.raises(BatchIncomplete) as caught:
        await rerun(batch, run)
    rows = caught.value.report.rows
    assert [row.state for row in rows] == ["done", "failed", "failed"]
    assert "no such face" in rows[1].reason
    assert len(with_webhooks.paid) == 2


async def test_a_row_that_the_budget_had_too_little_left_for_is_tried_again_after_the_rest(
    without_webhooks: SuspendedRuns, tmp_path: Path
) -> None:
    rows = [{"prompt": f"number {n}"} for n in range(3)]
    run = await without_webhooks.begin(batch, rows=rows, model=PICTURE, wait="suspend", budget=0.1)
    await without_webhooks.run_until_suspended(batch, run, 2)
    await without_webhooks.wake(run)
    with pytest.raises(BatchIncomplete) as caught:
        await rerun(batch, run)
    assert sorted(row.state for row in caught.value.report.rows) == ["done", "done", "not started"]
    assert len(without_webhooks.paid) == 2

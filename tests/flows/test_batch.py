"""Runs of batches: each row is reported, and run again they pay for what is missing and for nothing else."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import State

from rh_prefect import batch as batch_in_a_flow
from rh_prefect import catalog, flow
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import BatchIncomplete
from rh_prefect.flow_runs.resume_or_rerun import create, rerun
from rh_prefect.flows import batch
from rh_prefect.flows.batch import BatchReport
from rh_prefect.media.media import Media
from rh_prefect.works.journal.costs_and_budget import Costs
from tests.support.samples import media as samples
from tests.support.samples.pipeline_assets import csv_file
from tests.support.servers.link_server import LinkHost, picture
from tests.support.world.pipeline_flows import prompts as paid
from tests.support.world.prefect_runs import artifacts_of
from tests.support.world.suspended_runs import SuspendedRuns

KLING, UPSCALER, PICTURE = "kling-v2.6-pro-image-to-video", "rhart-video/video-upscaler", "z-image/turbo"
ENLARGER = "hypir-ultra"


async def run(rows: Any, **options: Any) -> BatchReport:
    """A batch; its report, whether or not all is done."""
    try:
        report: BatchReport = await batch(rows, **{"model": PICTURE} | options)
    except BatchIncomplete as error:
        report = error.report
        assert report.csv_uri in str(error)
    return report


def states(report: BatchReport) -> list[str]:
    return [row.state for row in report.rows]


def prompts(*subjects: str) -> list[dict[str, str]]:
    return [{"prompt": subject} for subject in subjects]


async def test_a_mixed_batch_run_again_pays_exactly_for_what_is_missing(rh: Emulator, tmp_path: Path) -> None:
    fails, moderated, corrected = "this one fails", "a forbidden thing", "a boat"
    rows = prompts("a lighthouse", fails, "a harbour", moderated, "a gull", corrected, "a tower")
    rh.faults.add(Fault("submit", prompt=fails, number=1, kind="fail", code="805"))
    source = csv_file(tmp_path / "rows.csv", rows[:2])
    began = await run(source)
    assert states(began) == ["done", "failed"]
    assert f"task {began.rows[1].tasks[0]}" in began.rows[1].reason

    # More rows, one of them bad, and money for two more; the failed row comes after those that were never tried.
    bad = {"prompt": corrected, "aspect_ratio": "nonsense"}
    csv_file(tmp_path / "rows.csv", [bad if row["prompt"] == corrected else row for row in rows])
    before = rh.recorder.charged
    short = await run(source, budget=0.17)
    found = {rows[row.row - 1]["prompt"]: row for row in short.rows}
    assert (short.batch, short.total) == (began.batch, 7)
    assert "aspect_ratio takes" in found[corrected].reason
    assert (short.done, found[fails].state) == (3, "not started")
    assert short.not_started + (found[moderated].state == "failed") == 3
    assert short.costs == Costs({"CNY": rh.recorder.charged - before})
    assert float(rh.recorder.charged) <= 0.17

    # Money for all, and the bad row is corrected.
    csv_file(tmp_path / "rows.csv", rows)
    whole = await run(source, budget=1.0)
    assert (whole.done, whole.failed) == (6, 1)
    assert "content check" in found[moderated].reason or "content check" in whole.rows[3].reason
    made = Counter({row["prompt"]: 1 for row in rows if row["prompt"] != moderated} | {fails: 2})
    assert Counter(paid(rh)) == made
    submissions = len(rh.recorder.submissions)
    assert states(await run(source, budget=1.0)) == states(whole)
    assert [one.code for one in rh.recorder.submissions[submissions:]] == ["1501"]


async def test_the_report_has_each_step_and_results_are_in_the_order_of_the_rows(rh: Emulator) -> None:
    report = await run(prompts("a lighthouse", "a forbidden thing", "a harbour"))
    table = list(csv.DictReader(io.StringIO(Path(report.csv_uri).read_text())))
    assert [(row["number"], row["state"]) for row in table] == [("1", "made"), ("2", "failed"), ("3", "made")]
    assert [row["subject"] for row in table] == ["a lighthouse", "a forbidden thing", "a harbour"]
    assert table[0]["tasks"] == next(one.task_id for one in rh.recorder.paid if one.payload["prompt"] == "a lighthouse")
    assert table[0]["cost"] == "0.04 CNY"
    first, second, third = report.results
    assert isinstance(first, Media)
    assert isinstance(third, Media)
    assert (Path(first.uri).is_file(), second, first.uri) == (True, None, table[0]["files"])
    assert str(report) == "2 of 3 rows done, 1 failed; 0.08 CNY"
    assert "<p>row 1: a lighthouse</p>" in report._repr_html_()


async def test_a_chain_pays_each_step_once_and_goes_on_at_the_step_that_failed(rh: Emulator, tmp_path: Path) -> None:
    photo = str(samples.png(tmp_path / "photo.png"))
    rows = [{"image_url": photo, "prompt": f"waves {n}", "name": f"clip {n}"} for n in range(4)]
    rh.faults.add(Fault("submit", endpoint=UPSCALER, number=2, kind="fail", code="805"))
    options: dict[str, Any] = {
        "model": KLING,
        "chain": [{"model": UPSCALER, "target_resolution": "720p"}],
        "values": {"sound": "false"},
        "label_column": "name",
    }
    report = await run(rows, **options)
    assert (report.done, report.failed) == (3, 1)
    assert "step 2 of 2" in next(row.reason for row in report.rows if row.state == "failed")
    again = await run(rows, **options)
    assert again.is_complete
    assert Counter(one.endpoint for one in rh.recorder.paid) == {"kling-v2.6-pro/image-to-video": 4, UPSCALER: 5}
    assert [Path(file.uri).name for file in again.results] == [f"clip {n}.mp4" for n in range(4)]


async def test_an_unknown_submit_is_named_and_never_paid_for_again(rh: Emulator) -> None:
    rh.faults.add(Fault("submit", prompt="a harbour", number=1, kind="cut"))
    report = await run(prompts("a lighthouse", "a harbour"))
    assert states(report) == ["done", "unknown"]
    assert f"jobs adopt {report.rows[1].jobs[0]} TASK_ID" in report.rows[1].reason
    assert states(await run(prompts("a lighthouse", "a harbour"))) == ["done", "unknown"]
    assert len(rh.recorder.submissions) == 2


@flow
async def nightly(subjects: list[str]) -> str:
    report = await batch_in_a_flow(prompts(*subjects), model=PICTURE)
    return report.csv_uri


@pytest.mark.prefect
async def test_a_batch_in_a_flow_is_continued_by_a_batch_in_another_one(rh: Emulator) -> None:
    run_id = str(await create(nightly, {"subjects": ["a lighthouse", "a lighthouse"]}))
    uri = await rerun(nightly, run_id)
    assert await rerun(nightly, run_id) == uri
    assert (await run(prompts("a lighthouse", "a lighthouse"))).is_complete
    assert len(rh.recorder.paid) == 2, "two equal rows, paid once each, whichever flow runs them"


@pytest.mark.prefect
async def test_the_report_of_a_batch_says_what_its_state_says_and_names_rows(rh: Emulator) -> None:
    state: State[Any] = await batch(prompts("a lighthouse", "a forbidden thing"), model=PICTURE, return_state=True)
    report = (await artifacts_of(state))["batch-report"]
    assert report.description == state.message
    assert str(state.message).startswith("1 of 2 rows done, 1 failed; 0.04 CNY. Each row and its reason")
    assert "[row 1: a lighthouse](<file://" in str(report.data)


async def test_a_file_that_was_changed_under_its_name_is_another_job(rh: Emulator, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    photo = samples.png(folder / "a.png")
    samples.png(folder / "b.png", text="another")
    first = await run(str(folder), model=ENLARGER)
    samples.png(photo, text="changed")
    changed = await run(str(folder), model=ENLARGER)
    assert (changed.done, len(rh.recorder.paid)) == (2, 3)
    assert changed.results[1] == first.results[1]
    assert changed.results[0].sha256 != first.results[0].sha256
    assert str(await run(str(folder), model=ENLARGER)) == "2 of 2 rows done; paid nothing"


async def test_rows_whose_links_differ_in_a_parameter_are_pictures_of_their_own(rh: Emulator, links: LinkHost) -> None:
    rows = [{"image_url": links.put(f"photo?token={n}", picture(n))} for n in "123"]
    assert (await run(rows, model=ENLARGER)).done == 3
    assert len({one.sha256 for one in rh.recorder.uploads}) == len(rh.recorder.paid) == 3


async def test_a_part_of_a_batch_can_be_run_first(rh: Emulator) -> None:
    rows = prompts("a", "b", "c")
    assert states(await run(rows, sample=1)) == ["done", "unfinished", "unfinished"]
    assert states(await run(rows, items=["3"])) == ["done", "unfinished", "done"]
    assert paid(rh) == ["a", "c"]


async def test_without_a_budget_rows_without_a_known_price_are_made(rh: Emulator) -> None:
    texts = [one for one in catalog.models() if not one.media_params and one.find_param("prompt")]
    unpriced = next(one for one in texts if one.price is None)
    assert (await run(prompts("a lighthouse"), model=unpriced.name)).done == 1


async def test_outside_of_a_flow_the_function_reports_without_an_error(rh: Emulator) -> None:
    report = await batch_in_a_flow([*prompts("a lighthouse"), {"prompt": "x", "aspect_ratio": "none"}], model=PICTURE)
    assert states(report) == ["done", "failed"]


@pytest.mark.prefect
async def test_a_row_over_the_budget_is_tried_again_after_the_rest(without_webhooks: SuspendedRuns) -> None:
    run_id = await without_webhooks.begin(batch, rows=prompts(*"abc"), model=PICTURE, wait="suspend", budget=0.1)
    await without_webhooks.run_until_suspended(batch, run_id, 2)
    await without_webhooks.wake(run_id)
    with pytest.raises(BatchIncomplete) as caught:
        await rerun(batch, run_id)
    assert sorted(states(caught.value.report)) == ["done", "done", "not started"]
    assert len(without_webhooks.paid) == 2

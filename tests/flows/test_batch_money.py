"""What a batch pays for when things go wrong around it: failures, changed files, other runs of it, and who watches."""

from __future__ import annotations

import asyncio
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rh_prefect import batch as batch_in_a_flow
from rh_prefect import flow
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import BatchIncomplete, InputError, JournalError, StoreError
from rh_prefect.flow_runs.cancellation import cancel_run
from rh_prefect.flow_runs.queries import recorded_scope
from rh_prefect.flow_runs.resume import create, rerun
from rh_prefect.flows import batch
from rh_prefect.flows.batch import BatchReport
from rh_prefect.flows.batch import executor as batches
from rh_prefect.flows.batch.report import RowResult
from rh_prefect.works.journal.costs import Costs
from rh_prefect.works.loop_thread import LOOP
from tests.support.samples import media as samples
from tests.support.servers.emulator_env import environment
from tests.support.servers.link_server import LinkHost

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server")]

PICTURE, ENLARGER = "z-image/turbo", "hypir-ultra"


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """One whose tasks run until they are cancelled, or the clock is moved on."""
    with Emulator(clock="real", factor=0, long_side=96, fps=6) as emulator:
        for name, value in environment(emulator, tmp_path).items():
            monkeypatch.setenv(name, value)
        yield emulator


async def run(rows: Any, **options: Any) -> BatchReport:
    """A batch in a new flow run; its report, whether or not all is done."""
    try:
        report: BatchReport = await batch(rows, **{"model": PICTURE} | options)
    except BatchIncomplete as error:
        report = error.report
    return report


def items(report: BatchReport) -> list[dict[str, Any]]:
    return list(json.loads(Path(report.json_uri).read_text())["rows"])


def prompts(*subjects: str) -> list[dict[str, str]]:
    return [{"prompt": subject} for subject in subjects]


def paid(rh: Emulator) -> list[str]:
    return sorted(str(one.payload["prompt"]) for one in rh.recorder.paid)


async def test_a_row_that_fails_is_paid_for_once_a_run_whatever_its_code(rh: Emulator) -> None:
    rh.faults.add(Fault("submit", prompt="doomed", kind="fail"))
    rows = prompts("doomed", "a harbour")
    assert [item["state"] for item in items(await run(rows))] == ["failed", "done"]
    assert paid(rh) == ["a harbour", "doomed"]
    assert (await run(rows)).failed == 1
    assert paid(rh) == ["a harbour", "doomed", "doomed"]


async def test_a_failed_row_that_the_budget_allows_no_other_try_is_failed_and_says_why(rh: Emulator) -> None:
    rh.faults.add(Fault("submit", prompt="doomed", kind="fail"))
    rows = prompts("doomed", "a harbour")
    await run(rows, budget=0.05)
    report = await run(rows, budget=0.08)
    failed, done = items(report)
    assert (failed["state"], done["state"]) == ("failed", "done")
    assert failed["tasks"] == [next(one.task_id for one in rh.recorder.paid if one.payload["prompt"] == "doomed")]
    assert "has failed" in failed["reason"]
    assert "not started" in failed["reason"]
    assert report.costs == Costs({"CNY": rh.recorder.charged}, unknown=1)
    assert paid(rh) == ["a harbour", "doomed"]


@pytest.mark.parametrize("strict", [False, True])
async def test_a_row_that_is_done_stays_so_without_its_file_and_another_is_bad_and_shows_its_cost(
    rh: Emulator, tmp_path: Path, strict: bool
) -> None:
    """The next run reported it as failed, without its outputs and its cost."""
    files = [samples.png(tmp_path / f"{name}.png", text=name) for name in "ab"]
    table = tmp_path / "rows.csv"
    table.write_text("image_url\na.png\nb.png\na.png\n")
    first = await run(str(table), model=ENLARGER)
    files[0].unlink()
    again = await run(str(table), model=ENLARGER, strict=strict)
    assert (again.done, again.costs) == (3, Costs({"CNY": rh.recorder.charged}))
    assert items(again) == items(first) == items(await run(str(table), model=ENLARGER))
    assert len(rh.recorder.paid) == 3
    for item in items(first):
        Path(item["record"]).unlink()
    if strict:
        with pytest.raises(InputError, match=r"2 of 3 rows are invalid[^\0]*there is no file .*a\.png"):
            await run(str(table), model=ENLARGER, strict=True)
    else:
        gone = items(await run(str(table), model=ENLARGER))
        assert [item["state"] for item in gone] == ["failed", "done", "failed"]
        assert "there is no file" in gone[0]["reason"]
        assert [len(item["tasks"]) for item in gone] == [1, 1, 1]
        assert [item["costs"] for item in gone] == [item["costs"] for item in items(first)]
    assert len(rh.recorder.paid) == 3


async def test_paid_jobs_that_no_row_has_any_more_are_named_with_their_cost(
    rh: Emulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They were neither mentioned nor counted once a row, or its file, was corrected."""
    table, photo = tmp_path / "rows.csv", samples.png(tmp_path / "a.png")
    table.write_text("image_url,seed\na.png,1\na.png,2\n")
    before = items(await run(str(table), model=ENLARGER, ignore_columns=["seed"]))
    table.write_text("image_url,seed\na.png,1\n")
    each = rh.recorder.charged / 2
    for _ in range(2):
        report = await run(str(table), model=ENLARGER, ignore_columns=["seed"])
        assert (report.is_complete, report.costs) == (True, Costs({"CNY": each}))
        assert (report.left_out, report.left_out_costs) == (tuple(before[1]["jobs"]), Costs({"CNY": each}))
        assert str(report).endswith("; left out: 1 job(s) of no row, 0.10 CNY")
        assert f"rh-prefect jobs collect {before[1]['jobs'][0].partition('/')[0]}" in caplog.text
    samples.png(photo, text="another")
    table.write_text("image_url,seed\na.png,1\na.png,2\n")
    report = await run(str(table), model=ENLARGER, ignore_columns=["seed"])
    assert report.left_out == tuple(sorted(job for item in before for job in item["jobs"]))
    assert report.costs + report.left_out_costs == Costs({"CNY": rh.recorder.charged})


async def test_paid_jobs_of_a_run_that_was_killed_are_named_where_no_row_has_them(rh: Emulator, tmp_path: Path) -> None:
    """They were in no report at all: a killed run writes none, and the next run looked at reports only."""
    table = tmp_path / "rows.csv"
    table.write_text("prompt\na lighthouse\na harbour\n")
    killed = await run(str(table))
    jobs = items(killed)[1]["jobs"]
    for uri in (killed.json_uri, killed.csv_uri):  # as if the run had not reached them
        Path(uri).unlink()
    table.write_text("prompt\na lighthouse\na gull\n")
    for _ in range(2):
        report = await run(str(table))
        assert (report.is_complete, report.left_out) == (True, tuple(jobs))
        assert report.costs + report.left_out_costs == Costs({"CNY": rh.recorder.charged})


async def test_a_later_step_that_an_earlier_run_has_paid_for_stays_the_row_s(rh: Emulator, tmp_path: Path) -> None:
    """A run that failed at an earlier step said that the later one belonged to no row, and left its cost out."""
    rows, chain = prompts("a lighthouse"), [ENLARGER]
    rh.faults.add(Fault("submit", endpoint="*hypir*", kind="fail"))
    first = await run(rows, chain=chain)
    for file in (tmp_path / "out" / "batch").rglob("*step-1*"):
        file.unlink()
    rh.faults.add(Fault("download", kind="expired"))
    for _ in range(2):
        again = await run(rows, chain=chain)
        assert "could not be downloaded" in items(again)[0]["reason"]
        assert items(again)[0]["jobs"] == items(first)[0]["jobs"]
        assert (again.costs, again.left_out) == (first.costs, ())
    rh.faults.clear()
    last = await run(rows, chain=chain)
    assert (last.is_complete, last.left_out, len(rh.recorder.paid)) == (True, (), 3)
    assert last.costs == first.costs + Costs({"CNY": rh.recorder.paid[-1].charged})


async def test_a_file_that_was_changed_under_its_name_is_another_job_and_one_that_was_touched_is_done(
    rh: Emulator, tmp_path: Path
) -> None:
    """The content of a row's files decides the job: a changed file is paid for, and the first one is kept."""
    folder = tmp_path / "in"
    folder.mkdir()
    photo = samples.png(folder / "a.png")
    samples.png(folder / "b.png", text="another")
    first = items(await run(str(folder), model=ENLARGER))
    assert [item["state"] for item in first] == ["done", "done"]
    os.utime(photo, (1, 1))
    assert (await run(str(folder), model=ENLARGER)).done == 2
    assert len(rh.recorder.paid) == 2
    before = photo.read_bytes()
    samples.png(photo, text="changed")
    changed, same = items(await run(str(folder), model=ENLARGER))
    assert (changed["state"], same["outputs"]) == ("done", first[1]["outputs"])
    assert changed["outputs"] != first[0]["outputs"]
    assert len(rh.recorder.paid) == 3
    photo.write_bytes(before)
    assert [item["outputs"] for item in items(await run(str(folder), model=ENLARGER))] == [
        item["outputs"] for item in first
    ]
    assert len(rh.recorder.paid) == 3


async def test_rows_whose_links_differ_in_a_parameter_are_pictures_of_their_own(rh: Emulator, links: LinkHost) -> None:
    """Three rows with links that differ only in `token=` are three pictures, each of its own file."""
    rows = [{"image_url": links.put(f"photo?token={n}", picture(n))} for n in "123"]
    report = await run(rows, model=ENLARGER)
    assert (report.done, len(rh.recorder.paid), len(rh.recorder.uploads)) == (3, 3, 3)
    assert len({one.sha256 for one in rh.recorder.uploads}) == 3


async def test_a_changed_table_is_seen(rh: Emulator, links: LinkHost, tmp_path: Path) -> None:
    """A table whose link now has another `token=` has another row, and that one is made."""
    table = tmp_path / "rows.csv"
    for n in "12":
        link = links.put(f"photo?token={n}", picture(n))
        table.write_text(f"image_url\n{link}\n")
        assert (await run(str(table), model=ENLARGER)).done == 1
    assert len({one.sha256 for one in rh.recorder.uploads}) == len(rh.recorder.paid) == 2


async def test_a_link_that_is_signed_again_is_not_paid_for_again(rh: Emulator, links: LinkHost, tmp_path: Path) -> None:
    """The content of a row's file decides the job, not how its link is written today."""
    table = tmp_path / "rows.csv"
    for n in "12":
        link = links.put(f"photo?token={n}", picture("x"), etag=f'"{n}"')
        table.write_text(f"image_url\n{link}\n")
        assert (await run(str(table), model=ENLARGER)).done == 1
    assert len(rh.recorder.paid) == 1


async def test_a_link_whose_file_was_overwritten_is_looked_at_again(rh: Emulator, links: LinkHost) -> None:
    """A row that is done is looked at again where its place says that the file has changed."""
    for n in "12":
        link = links.put("photo", picture(n), etag=f'"{n}"')
        assert (await run([{"image_url": link}], model=ENLARGER)).done == 1
    assert len({one.sha256 for one in rh.recorder.uploads}) == len(rh.recorder.paid) == 2
    assert (await run([{"image_url": link}], model=ENLARGER)).done == 1
    assert len(rh.recorder.paid) == 2


async def test_a_batch_that_reuses_results_counts_the_costs_of_what_it_makes(rh: Emulator) -> None:
    """Its own jobs belonged to no row of its report, and its costs were 0."""
    first = await run(prompts("a lighthouse", "a harbour", "a harbour"), reuse="always")
    assert (first.costs, first.left_out) == (Costs({"CNY": rh.recorder.charged}), ())
    before = rh.recorder.charged
    second = await run(prompts("a gull", "a lighthouse"), reuse="always")
    assert (second.costs, second.left_out) == (Costs({"CNY": rh.recorder.charged - before}), ())
    assert paid(rh) == ["a gull", "a harbour", "a harbour", "a lighthouse"]


async def test_the_first_row_of_a_batch_takes_a_stored_result(rh: Emulator) -> None:
    """The jobs of an empty journal were not read, so that the result which a row had taken was paid for again."""
    assert (await run(prompts("a lighthouse"))).done == 1
    assert (await run(prompts("a lighthouse", "a gull"), reuse="always")).done == 2
    assert paid(rh) == ["a gull", "a lighthouse"]


async def test_two_rows_with_equal_files_are_two_jobs_in_every_run(rh: Emulator, links: LinkHost) -> None:
    rows = [{"image_url": links.put(name, picture("x"), etag='"1"')} for name in ("a", "b")]
    rh.faults.add(Fault("submit", number=2, kind="fail"))
    assert (await run(rows, model=ENLARGER)).done == 1
    assert (await run(rows, model=ENLARGER)).done == 2
    assert (await run(rows, model=ENLARGER)).done == 2
    assert len(rh.recorder.paid) == 3, "each once, and what failed once more"


def picture(text: str) -> bytes:
    """A picture of which there is no other with this text."""
    body = b"tEXtComment\0" + text.encode()
    chunk = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    png = samples.picture("PNG")
    return png[:-12] + chunk + png[-12:]


async def test_whoever_watches_and_breaks_stops_nothing(rh: Emulator) -> None:
    def broken(progress: batches.Progress, item: RowResult | None) -> None:
        raise BrokenPipeError("nobody reads this")

    batches.listeners.append(broken)
    assert (await run(prompts("a lighthouse", "a harbour"))).is_complete
    assert broken not in batches.listeners
    assert len(rh.recorder.paid) == 2


def begun(tmp_path: Path) -> list[str]:
    """The flow runs that have run the batch, in order."""
    files = sorted((tmp_path / "out").glob("batches/*/state/[!.]*"), key=lambda path: int(path.stem.rpartition("-")[2]))
    return [json.loads(path.read_text())["flow_run"] for path in files]


async def test_an_earlier_run_s_cancellation_leaves_a_later_run_s_tasks_alone(slow: Emulator, tmp_path: Path) -> None:
    slow.faults.add(Fault("submit", number=1, kind="code", code="416"))
    assert (await run(prompts("a lighthouse"))).failed == 1
    later = asyncio.create_task(run(prompts("a lighthouse")))
    assert await asyncio.to_thread(slow.recorder.wait, lambda recorder: len(recorder.paid) == 1)
    report = await LOOP.call(cancel_run(await recorded_scope(begun(tmp_path)[0]), by="a test"))
    assert (report.cancelled, report.failed) == ([], {})
    slow.clock.advance(600)
    assert (await later).is_complete
    assert not slow.recorder.cancelled


async def test_a_later_run_s_cancellation_ends_an_earlier_one_that_lives(slow: Emulator, tmp_path: Path) -> None:
    slow.keys.add("main", limit=1, secret=slow.key)
    rows = prompts("a lighthouse", "a harbour", "a gull")
    first = asyncio.create_task(run(rows))
    assert await asyncio.to_thread(slow.recorder.wait, lambda recorder: len(recorder.paid) == 1)
    second = asyncio.create_task(run(rows))
    while len(begun(tmp_path)) < 2:  # noqa: ASYNC110, it is a file that is waited for
        await asyncio.sleep(0.05)
    await LOOP.call(cancel_run(await recorded_scope(begun(tmp_path)[1]), by="a test"))
    reports = await asyncio.gather(first, second)
    assert [report.done for report in reports] == [0, 0]
    # One that was just being submitted is cancelled right after.
    assert sorted(one.task_id for one in slow.recorder.paid) == sorted(slow.recorder.cancelled)
    assert len(slow.recorder.paid) < len(rows)


@flow
async def two_batches(first: str, second: str) -> list[BatchReport]:
    return [await batch_in_a_flow(rows, model=PICTURE) for rows in (first, second)]


def append(table: Path, row: str) -> None:
    with table.open("a") as file:
        file.write(f"{row}\n")


async def paid_jobs(rh: Emulator, number: int) -> None:
    assert await asyncio.to_thread(rh.recorder.wait, lambda recorder: len(recorder.paid) == number, seconds=60)


async def test_a_cancellation_leaves_another_batch_of_the_same_flow_run_alone(slow: Emulator, tmp_path: Path) -> None:
    """Both batches write into the journal of the flow run that began them."""
    gulls, ships = tmp_path / "gulls.csv", tmp_path / "ships.csv"
    for table in (gulls, ships):
        table.write_text("prompt\n")
        append(table, f"{table.stem} 1")
    begin = asyncio.create_task(two_batches(str(gulls), str(ships)))
    for n in (1, 2):
        await paid_jobs(slow, n)
        slow.clock.advance(600)
    assert [report.is_complete for report in await begin] == [True, True]
    for table in (gulls, ships):
        append(table, f"{table.stem} 2")
    stopped = await create(batch, {"rows": str(gulls), "model": PICTURE})
    others = [asyncio.create_task(rerun(batch, stopped)), asyncio.create_task(run(str(ships)))]
    await paid_jobs(slow, 4)
    report = await LOOP.call(cancel_run(await recorded_scope(str(stopped)), by="a test"))
    (cancelled,) = [one.task_id for one in slow.recorder.paid if one.payload["prompt"] == "gulls 2"]
    # The batch's own process may notice the cancellation first, and cancel its task itself.
    assert set(report.cancelled) <= {cancelled}
    assert set(slow.recorder.cancelled) == {cancelled}
    slow.clock.advance(600)
    done = await asyncio.gather(*others, return_exceptions=True)
    assert isinstance(done[0], BatchIncomplete)
    assert [item["state"] for item in items(done[0].report)] == ["done", "cancelled"]
    assert isinstance(done[1], BatchReport)
    assert done[1].is_complete, "the other batch is not affected"
    append(ships, "ships 3")
    later = asyncio.create_task(run(str(ships)))
    await paid_jobs(slow, 5)
    slow.clock.advance(600)
    assert (await later).is_complete


async def test_a_place_that_cannot_be_written_is_said_before_anything_is_begun(
    rh: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RH_STORAGE_URL", "/dev/null/films")
    with pytest.raises(StoreError, match=r"not paid for anything\..*/dev/null/films.*What to do: choose a folder"):
        await run(prompts("a lighthouse"))
    assert not rh.recorder.requests


async def test_nothing_more_is_paid_for_while_the_storage_refuses_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that was full, with room for a check, at the first row of a night took the money for all the others."""
    with Emulator(limit=1, long_side=96) as rh:
        for name, value in environment(rh, tmp_path).items():
            monkeypatch.setenv(name, value)
        blocked = tmp_path / "out" / "batch"  # where the outputs go; a small file beside it can be written
        blocked.parent.mkdir()
        blocked.touch()
        report = await run(prompts(*"abcdefghijkl"))
        assert report.failed == 12
        reasons = [str(item["reason"]) for item in items(report)]
        assert 3 <= len(rh.recorder.paid) < 8, "three refused outputs, and those of which a task ran then"
        unpaid = sum("Not submitted, so that nothing was paid" in reason for reason in reasons)
        assert unpaid + len(rh.recorder.paid) == 12
        assert all("a part of the path is a file" in reason for reason in reasons)
        blocked.unlink()
        assert (await run(prompts(*"abcdefghijkl"))).done == 12
        assert len(rh.recorder.paid) == 12


async def test_a_state_that_another_version_wrote_is_said_and_nothing_is_paid(rh: Emulator, tmp_path: Path) -> None:
    await run(prompts("a forbidden thing"))
    (state,) = (tmp_path / "out").glob("batches/*/state/[!.]*")
    state.write_text('{"version": 9}')
    with pytest.raises(JournalError, match=r"its format is not the one of this version.*What to do"):
        await run(prompts("a forbidden thing"))
    assert len(rh.recorder.submissions) == 1

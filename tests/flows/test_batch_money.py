"""What a batch pays for when things go wrong around it: failures, changed files, other runs of it, and who watches."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import BatchUnfinished, JournalError, StoreError
from rh_prefect.flows import batch
from rh_prefect.flows.batch import BatchAccount
from rh_prefect.flows.batch import progress as batches
from rh_prefect.flows.batch.account import Item
from rh_prefect.jobs.ledger.costs import Costs
from rh_prefect.jobs.thread import LOOP
from rh_prefect.runs.cancel import cancel_run
from rh_prefect.runs.past import past_scope
from tests.support import samples
from tests.support.rh import environment

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server")]

PICTURE, ENLARGER = "z-image/turbo", "hypir-ultra"


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """One whose tasks run until they are cancelled, or the clock is moved on."""
    with Emulator(clock="real", factor=0, long_side=96, fps=6) as emulator:
        for name, value in environment(emulator, tmp_path).items():
            monkeypatch.setenv(name, value)
        yield emulator


async def run(rows: Any, **options: Any) -> BatchAccount:
    """A batch in a new flow run; its account, whether or not all is done."""
    try:
        account: BatchAccount = await batch(rows, **{"model": PICTURE} | options)
    except BatchUnfinished as error:
        account = error.account
    return account


def items(account: BatchAccount) -> list[dict[str, Any]]:
    return list(json.loads(Path(account.json_uri).read_text())["items"])


def prompts(*subjects: str) -> list[dict[str, str]]:
    return [{"prompt": subject} for subject in subjects]


def paid(rh: Emulator) -> list[str]:
    return sorted(str(one.payload["prompt"]) for one in rh.books.paid)


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
    account = await run(rows, budget=0.08)
    failed, done = items(account)
    assert (failed["state"], done["state"]) == ("failed", "done")
    assert failed["tasks"] == [next(one.task_id for one in rh.books.paid if one.payload["prompt"] == "doomed")]
    assert "has failed" in failed["why"]
    assert "not started" in failed["why"]
    assert account.costs == Costs({"CNY": rh.books.charged}, unknown=1)
    assert paid(rh) == ["a harbour", "doomed"]


async def test_a_file_that_was_changed_under_its_name_is_said_and_one_that_was_touched_is_done(
    rh: Emulator, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    photo = samples.png(folder / "a.png")
    samples.png(folder / "b.png", text="another")
    first = await run(str(folder), model=ENLARGER)
    assert (first.done, len(rh.books.paid)) == (2, 2)
    os.utime(photo, (1, 1))
    assert (await run(str(folder), model=ENLARGER)).done == 2
    assert len(rh.books.paid) == 2
    before = photo.read_bytes()
    samples.png(photo, text="changed")
    changed, same = items(await run(str(folder), model=ENLARGER))
    assert (changed["state"], same["state"]) == ("failed", "done")
    assert "a name of its own" in changed["why"]
    photo.write_bytes(before)
    assert items(await run(str(folder), model=ENLARGER)) == items(first)
    assert len(rh.books.paid) == 2


async def test_whoever_watches_and_breaks_stops_nothing(rh: Emulator) -> None:
    def broken(progress: batches.Progress, item: Item | None) -> None:
        raise BrokenPipeError("nobody reads this")

    batches.listeners.append(broken)
    assert (await run(prompts("a lighthouse", "a harbour"))).is_complete
    assert broken not in batches.listeners
    assert len(rh.books.paid) == 2


def begun(tmp_path: Path) -> list[str]:
    """The flow runs that have run the batch, in order."""
    files = sorted((tmp_path / "out").glob("batches/*/state/*"), key=lambda path: int(path.stem.rpartition("-")[2]))
    return [json.loads(path.read_text())["flow_run"] for path in files]


async def test_an_earlier_run_s_cancellation_leaves_a_later_run_s_tasks_alone(slow: Emulator, tmp_path: Path) -> None:
    slow.faults.add(Fault("submit", number=1, kind="code", code="416"))
    assert (await run(prompts("a lighthouse"))).failed == 1
    later = asyncio.create_task(run(prompts("a lighthouse")))
    assert await asyncio.to_thread(slow.books.wait, lambda books: len(books.paid) == 1)
    report = await LOOP.call(cancel_run(await past_scope(begun(tmp_path)[0]), by="a test"))
    assert (report.cancelled, report.failed) == ((), {})
    slow.clock.advance(600)
    assert (await later).is_complete
    assert not slow.books.cancelled


async def test_a_later_run_s_cancellation_ends_an_earlier_one_that_lives(slow: Emulator, tmp_path: Path) -> None:
    slow.keys.add("main", limit=1, secret=slow.key)
    rows = prompts("a lighthouse", "a harbour", "a gull")
    first = asyncio.create_task(run(rows))
    assert await asyncio.to_thread(slow.books.wait, lambda books: len(books.paid) == 1)
    second = asyncio.create_task(run(rows))
    while len(begun(tmp_path)) < 2:  # noqa: ASYNC110, it is a file that is waited for
        await asyncio.sleep(0.05)
    await LOOP.call(cancel_run(await past_scope(begun(tmp_path)[1]), by="a test"))
    accounts = await asyncio.gather(first, second)
    assert [account.done for account in accounts] == [0, 0]
    # One that was just being submitted is cancelled right after.
    assert sorted(one.task_id for one in slow.books.paid) == sorted(slow.books.cancelled)
    assert len(slow.books.paid) < len(rows)


async def test_a_place_that_cannot_be_written_is_said_before_anything_is_begun(
    rh: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RH_OUT", "/dev/null/films")
    with pytest.raises(StoreError, match=r"paid for nothing\..*/dev/null/films.*What to do: choose a folder"):
        await run(prompts("a lighthouse"))
    assert not rh.books.requests


async def test_a_state_that_another_version_wrote_is_said_and_nothing_is_paid(rh: Emulator, tmp_path: Path) -> None:
    await run(prompts("a forbidden thing"))
    (state,) = (tmp_path / "out").glob("batches/*/state/*")
    state.write_text('{"version": 9}')
    with pytest.raises(JournalError, match=r"not what this version writes.*What to do"):
        await run(prompts("a forbidden thing"))
    assert len(rh.books.submissions) == 1

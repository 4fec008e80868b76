"""Works on the emulator: paid once by all runs, whatever happens to them."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias, cast

import httpx
import pytest

from rh_prefect import models
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.emulator.comfy.workflows import TEXT_TO_IMAGE
from rh_prefect.errors import (
    AccountError,
    BudgetExceeded,
    ConfigError,
    JobCancelled,
    JobFailed,
    JobTimeout,
    JournalError,
    NotPlanned,
    OutputsExpired,
    OutputsPending,
    SubmissionUnknown,
)
from rh_prefect.media.store import MediaStore
from rh_prefect.workflow_inputs import WorkflowInput
from rh_prefect.works.checked_request import JobRequest
from rh_prefect.works.job_options import Options
from rh_prefect.works.journal import works_journal
from rh_prefect.works.journal.costs_and_budget import Costs
from rh_prefect.works.journal.job_records_and_state import JobRecords
from rh_prefect.works.journal.journal import JSON, FolderJournal
from rh_prefect.works.journal.record_types import End, Link, Record
from rh_prefect.works.journal.scope import FolderScope
from rh_prefect.works.lifecycle_steps import Steps
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.result import Result
from rh_prefect.works.result_delivery import Delivered
from rh_prefect.works.run_cancellation import cancel_scope
from rh_prefect.works.run_ledger import Notes
from rh_prefect.works.stored_result import read_all
from rh_prefect.works.work_runner import FoundWork, RunningWork, WorkCall, WorkRunner
from tests.support.processes.forkserver import FORKS
from tests.support.servers.s3 import S3Server
from tests.support.waiting import until
from tests.support.world import pipeline_runs
from tests.support.world.call_log import settle
from tests.support.world.job_records import KEY, TASK, failed, intent, refused, ticket, unknown, view_of, write
from tests.support.world.pipeline_runs import PipelineRun, bury, picture, run_and_be_killed

Stopped: TypeAlias = tuple[Emulator, PipelineRun]


@pytest.fixture
def stopped(run: PipelineRun) -> Iterator[Stopped]:
    """An emulator whose tasks run until a test moves its clock, and a run on it."""
    with Emulator(clock="real", factor=0, long_side=96) as rh:
        yield rh, run.another(url=rh.url, key=rh.key)


def words(text: str = "one", **more: Any) -> WorkCall:
    return WorkCall(models.RhartTextG3FlashPreviewTextToText(prompt=text), "words", **more)


async def test_ended_works_and_their_requests_are_freed_without_the_garbage_collector(
    rh: Emulator, run: PipelineRun
) -> None:
    def alive() -> set[str]:
        objects = [one for one in gc.get_objects() if isinstance(one, (RunningWork, Steps, httpx.Request, JobFailed))]
        # What looks after a flow run of an earlier test sends requests to Prefect's server meanwhile
        return {f"{one!r} {id(one)}" for one in objects if not isinstance(one, httpx.Request) or is_own(one)}

    def is_own(request: httpx.Request) -> bool:
        return str(request.url).startswith(rh.url)

    rh.faults.add(Fault("submit", prompt="a text that fails", kind="fail", code="1504"))
    await run.one(words("opens the connections"))
    gc.collect()
    gc.disable()
    try:
        before = alive()
        await run.make(*(words(f"text {n}") for n in range(5)), words("a text that fails"))
        # On a busy machine a request that reads the last states may still be on its way
        await until(lambda: not alive() - before, said=lambda: f"kept: {alive() - before}")
    finally:
        gc.enable()


async def test_what_a_plan_does_not_name_is_used_if_it_exists_and_never_paid(rh: Emulator, run: PipelineRun) -> None:
    with pytest.raises(NotPlanned, match="not in the plan"):
        await run.one(picture(forbidden="this step is not in the plan"))
    assert not rh.recorder.paid
    await run.another().one(picture())
    found = await run.another(name="two").one(picture(forbidden="this step is not in the plan"))
    assert (found.result.reused, len(rh.recorder.paid)) == (True, 1)


async def test_accounts_that_accept_nothing_are_the_cause_and_not_the_graph(tmp_path: Path) -> None:
    with Emulator(long_side=96, money=0) as rh:
        other = rh.keys.add("other", money=0).secret
        run = PipelineRun(rh.url, rh.key, tmp_path, str(tmp_path / "store"), other_keys=(other,))
        with pytest.raises(AccountError, match="no account of pool 'accounts' accepts"):
            await run.one(picture())
        ink = WorkflowInput(id=rh.workflows.add(dict(TEXT_TO_IMAGE)), nodes={"6.text": "a pier"})
        with pytest.raises(AccountError, match=r"^workflow/\d+: no account of pool 'accounts' accepts"):
            await run.one(WorkCall(ink, "ink", saved_graph="as planned"))


async def test_runs_at_once_share_every_equal_work(rh: Emulator, run: PipelineRun, s3: S3Server) -> None:
    on_s3 = run.another(store_url=s3.url("works"), store_options=s3.options)
    rh.faults.add(Fault("submit", every=1, kind="slow", seconds=0.5))
    asked = [picture(f"ship {number}") for number in range(4)]
    runs = [on_s3.another(name=name, machine=name) for name in ("a", "b", "c")]
    done = await asyncio.gather(*(run.make(*asked) for run in runs))
    assert len(rh.recorder.paid) == 4
    for same in zip(*done):
        assert len({one.record.task_id for one in same if isinstance(one, Delivered)}) == 1
        assert sum(not one.result.reused for one in same if isinstance(one, Delivered)) == 1


async def test_another_default_label_or_place_of_a_file_is_the_same_work(
    rh: Emulator, run: PipelineRun, tmp_path: Path
) -> None:
    (made,) = (await run.one(picture())).result.outputs
    video: dict[str, Any] = {"prompt": "waves", "duration": "5", "sound": False}
    copy = tmp_path / "copy.png"
    copy.write_bytes(Path(made.uri).read_bytes())
    clips = [models.KlingV26ProImageToVideo(image_url=image, **video) for image in (made, str(copy))]
    done = await run.make(*(WorkCall(clip, f"clip {n}") for n, clip in enumerate(clips)))
    assert len({one.result.key for one in done if isinstance(one, Delivered)}) == 1
    assert len(rh.recorder.paid) == 2


async def test_what_stands_for_a_text_counts_in_its_place(run: PipelineRun) -> None:
    sessions = [picture(f"session {n}", stands_for={f"session {n}": "work ab"}) for n in range(2)]
    done = [await run.one(one) for one in sessions]
    assert done[0].result.key == done[1].result.key
    assert not {one.result.key for one in done} & {(await run.one(picture("session 0"))).result.key}


async def test_an_invalid_answer_is_asked_for_again_and_kept_for_another_shape(rh: Emulator, run: PipelineRun) -> None:
    def refuse(_: str) -> Any:
        raise ValueError("it has no list")

    strict = words(parse=refuse, shape="aa", attempts=2)
    with pytest.raises(JobFailed, match=r"does not match `parse`: it has no list\. The answer was paid for"):
        await run.one(strict)
    assert len(rh.recorder.paid) == 2
    free = await run.another(name="two").one(words(parse=str.upper, shape="bb"))
    assert len(rh.recorder.paid) == 2
    assert (free.record.n, free.record.value) == (1, "\n\n".join(free.record.texts).upper())


async def test_a_resumed_run_shows_all_that_it_paid_for_a_result(run: PipelineRun) -> None:
    """It showed the cost of the last task alone; then it read all records of the run for each result."""
    answers = []

    def read(text: str) -> Any:
        answers.append(text)
        if len(answers) == 1:
            raise ValueError("it has no list")
        return text

    asked = words(parse=read, shape="aa", attempts=2)
    await run.one(asked)
    await run.scope.journal.create(f"{KEY}-claim-1", {})
    (unreadable := Path(run.store_url) / "works" / KEY / "intent-1.json").parent.mkdir()
    unreadable.write_text("")
    resumed = run.another(attempt=2)
    await resumed.one(asked)
    first, again = run.heard[-1], resumed.heard[-1]
    assert first.costs == again.costs == Costs.of(first.cost, first.currency) + Costs.of(first.cost, first.currency)


async def test_after_a_failed_task_the_error_of_a_claim_does_not_say_that_its_task_is_used(
    rh: Emulator, run: PipelineRun
) -> None:
    def operation(name: str) -> None:
        if "-intent-2" in name:
            raise JournalError("The records cannot be written. Nothing was paid.")

    rh.faults.add(Fault("submit", kind="fail", code="1504", times=1))
    with pytest.raises(JournalError) as caught:
        await run.another(operation=operation).one(words(attempts=2))
    assert "A task was paid for" not in caught.value.message
    await run.another(attempt=2).one(words(attempts=2))
    assert len(rh.recorder.paid) == 2


async def test_only_the_claimer_counts_a_work_in_its_budget(rh: Emulator, run: PipelineRun) -> None:
    price = (await run.one(picture("the price"))).record.cost
    assert price is not None
    asked = [picture(f"ship {number}") for number in range(4)]
    await run.another(name="rich").make(*asked)
    poor = run.another(name="poor")
    # Works of earlier runs cost this one nothing: P1.
    assert all(isinstance(one, Delivered) for one in await poor.make(*asked, budget=price))
    done = await poor.make(picture("new 1"), picture("new 2"), picture("new 3"), budget=price * 2)
    assert [type(one) for one in done].count(BudgetExceeded) == 1
    # A new process of the run counts what its journal says.
    again = await run.another(name="poor", machine="there").make(picture("new 4"), budget=price * 2)
    assert isinstance(again[0], BudgetExceeded)
    assert len(rh.recorder.paid) == 7


async def paying(run: PipelineRun) -> asyncio.Task[Delivered]:
    """A run whose task is paid for and runs."""
    running = asyncio.create_task(run.one(picture()))
    await until(lambda: run.said("submitted"))
    return running


async def end(*running: asyncio.Future[Any]) -> None:
    for one in running:
        one.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def cancelled(run: PipelineRun) -> list[str]:
    """Cancels a run as its hook does, and returns the tasks that were cancelled."""
    report = await LOOP.call(cancel_scope(run.scope, run.engine.pool.provider_of, by="a test"))
    return report.cancelled


@pytest.mark.parametrize(
    ("waits", "has_ended", "is_cancelled"), [(False, False, True), (True, False, False), (True, True, True)]
)
async def test_the_task_of_a_cancelled_run_is_cancelled_unless_a_run_that_counts_waits_for_it(
    stopped: Stopped, *, waits: bool, has_ended: bool, is_cancelled: bool
) -> None:
    """Which run counts is in test_works_journal."""

    async def ended(_: str) -> bool:
        return has_ended

    rh, run = stopped
    other = run.another(name="two")
    running, client_for = await paying(run), run.engine.pool.provider_of
    ((work, _),) = (await Notes.of(run.scope)).claims
    if waits:
        await (await other.works()).add_waiter(work, other.name)
    report = await LOOP.call(cancel_scope(run.scope, client_for, by="a test", has_ended=ended))
    task = rh.recorder.paid[0].task_id
    assert (report.cancelled, report.continued) == (([task], []) if is_cancelled else ([], [task]))
    await end(running)


async def test_a_run_that_failed_keeps_no_task_of_a_later_run_from_its_cancellation(stopped: Stopped) -> None:
    rh, run = stopped
    rh.faults.add(Fault("submit", number=1, kind="fail", code="1504"))
    old = asyncio.create_task(run.another(name="old").one(picture()))
    await asyncio.to_thread(rh.recorder.wait, lambda recorder: len(recorder.paid) == 1)
    rh.clock.advance(1000)
    with pytest.raises(JobFailed):
        await old
    new = run.another(name="new")
    running = asyncio.create_task(new.one(picture()))
    await until(lambda: new.said("submitted"))
    assert await cancelled(new) == [rh.recorder.paid[1].task_id]
    with pytest.raises(JobCancelled):
        await running


async def test_a_task_of_a_crashed_run_is_cancelled_with_the_run_that_waits_for_it(stopped: Stopped) -> None:
    rh, run = stopped
    process = pipeline_runs.Stopped(100)
    crashed = await paying(run.another(name="crashed", operation=process))
    process.left = 0
    await end(crashed)
    bury(run.folder)
    again, third = run.another(name="again"), run.another(name="third")
    waiting = [asyncio.create_task(one.make(picture())) for one in (again, third)]
    await until(lambda: again.said("adopted") and third.said("adopted"))
    assert await cancelled(again) == []  # the third one waits for it, too
    assert await cancelled(third) == [rh.recorder.paid[0].task_id]
    await end(*waiting)


async def test_a_cancelled_caller_keeps_the_task_for_another_caller_of_its_run(stopped: Stopped) -> None:
    rh, run = stopped
    owner, other = (run.another(name=name) for name in ("owner", "waiting"))
    task, runner = await paying(owner), await other.runner()
    first, second = (asyncio.ensure_future(LOOP.call(runner.make(picture()))) for _ in range(2))
    await until(lambda: other.said("adopted") and _callers(runner) == 2)
    await end(first)
    assert await cancelled(owner) == []
    second.cancel()
    works = await owner.works()

    async def both_are_released() -> bool:
        return len([key async for _, records in works.jobs() for key in records if "-released-" in key]) == 2

    await until(both_are_released)
    assert await cancelled(owner) == [rh.recorder.paid[0].task_id]
    await end(task, second)


def _callers(runner: WorkRunner) -> int:
    """How many callers of an attempt of a run wait for its work."""
    running = dict(runner.shared.running)
    works = (work for name, same in running.items() for work in same.values() if name[1] == runner.scope.calls.number)
    return sum(work.callers for work in works)


async def test_a_success_without_files_says_how_to_get_them(rh: Emulator, run: PipelineRun) -> None:
    rh.faults.add(Fault("query", kind="no-results"))
    with pytest.raises(OutputsPending, match="run again later") as failed:
        await run.one(picture())
    assert "jobs collect" not in failed.value.message, "which takes no works"
    assert failed.value.task_id == rh.recorder.paid[0].task_id
    rh.faults.clear()
    assert len((await run.another().one(picture())).result.outputs) == 1
    assert len(rh.recorder.paid) == 1


@pytest.mark.parametrize("machine", [pytest.param("here", marks=pytest.mark.long), "there"])
async def test_a_run_killed_before_any_operation_is_continued_by_a_new_one(
    rh: Emulator, run: PipelineRun, machine: str
) -> None:
    settled = 0
    for number in range(1, 100):
        places = {"folder": run.folder, "store_url": f"{run.store_url}-{number}", "machine": f"here-{number}"}
        # Each number has another run: a run does not pay again for what its journal says was paid.
        here: dict[str, Any] = {"url": run.url, "key": run.key, "name": f"run-{number}", **places}
        process = FORKS.Process(target=run_and_be_killed, args=(here, number))
        paid = len(rh.recorder.paid)
        process.start()
        await asyncio.to_thread(process.join)
        assert process.exitcode in (0, 9), f"killed before operation {number}"
        later = PipelineRun(**{**here, "name": f"later-{number}", "machine": f"{machine}-{number}"})
        (done,) = await later.make(picture())
        if isinstance(done, SubmissionUnknown):
            settled += await settle(rh, await later.works())
            (done,) = await later.make(picture())
        assert isinstance(done, Delivered), f"killed before operation {number}: {done}"
        assert len(rh.recorder.paid) == paid + 1, f"killed before operation {number}"
        assert later.store.exists(done.record.outputs[0].uri)
        if process.exitcode == 0:
            break
    assert 8 < number < 20
    # Only between the claim and the recorded answer, and only where this machine's spool does not know the ticket.
    assert settled == (1 if machine == "there" else 0)
    assert sum(one.charged for one in rh.recorder.paid) > Decimal(0)


async def test_a_file_that_stays_missing_is_no_result_and_the_error_says_how_to_get_a_new_one(
    rh: Emulator, run: PipelineRun
) -> None:
    rh.faults.add(Fault("download", kind="expired"))
    with pytest.raises(OutputsExpired, match=r"If a file stays missing, run with --retake for this step") as caught:
        await run.one(picture())
    assert "jobs collect" not in str(caught.value), "it is for flows only"
    with pytest.raises(OutputsExpired):
        await run.another(name="two").one(picture())
    rh.faults.clear()
    assert isinstance((await run.another(name="three").make(picture(take=2)))[0], Delivered)
    assert len(rh.recorder.paid) == 2


@pytest.mark.parametrize("payer", ["one", "two"])
async def test_a_run_that_is_continued_on_another_disk_does_not_pay_again(stopped: Stopped, payer: str) -> None:
    rh, run = stopped
    for name in dict.fromkeys((payer, "one")):
        with pytest.raises(JobTimeout):
            await run.another(name=name).one(picture(), deadline=0.1)
    disk, first = Path(run.store_url), run.folder / "the disk of the first machine"
    disk.rename(first)
    for work in (picture(), picture("another work")):
        with pytest.raises(ConfigError, match=r"tasks.* another machine, or were deleted\. Nothing was paid"):
            await run.another(attempt=2).one(work, deadline=0.1)
    shutil.rmtree(disk)
    first.rename(disk)
    rh.clock.advance(600)
    # In the same attempt: a share may be mounted after the first call was refused.
    await run.another(attempt=2).one(picture())
    assert len(rh.recorder.paid) == 1


@pytest.mark.parametrize("number", [1, 2], ids=["of the first submission", "after a task of another run"])
async def test_a_run_that_is_continued_with_an_older_copy_of_its_records_does_not_pay_again(
    rh: Emulator, run: PipelineRun, number: int
) -> None:
    """The copy of a disk, or a backup, has the id of the place, and its numbers begin again."""
    await run.one(picture("another work"))
    records, copy = Path(run.store_url), run.folder / "backup"
    shutil.copytree(records, copy)
    if number == 2:
        rh.faults.add(Fault("submit", kind="fail", code="1504", times=1))
        with pytest.raises(JobFailed):
            await run.another(name="two").one(picture())
    await run.another(attempt=number).one(picture())
    shutil.rmtree(records)
    copy.rename(records)
    with pytest.raises(ConfigError, match=rf"has paid for submission {number} .*older copy\. Nothing was sent"):
        await run.another(attempt=number + 1).one(picture())
    assert len(rh.recorder.paid) == number + 1


async def test_a_run_that_has_submitted_nothing_may_begin_on_another_disk(rh: Emulator, run: PipelineRun) -> None:
    with pytest.raises(NotPlanned):
        await run.one(picture(forbidden="it is not in the plan"))
    disk, first = Path(run.store_url), run.folder / "the disk of the first machine"
    disk.rename(first)
    await run.another(attempt=2).one(picture())
    disk.rename(run.folder / "the disk of the second machine")
    first.rename(disk)
    with pytest.raises(ConfigError, match="another machine"):
        await run.another(attempt=3).one(picture())
    assert len(rh.recorder.paid) == 1


async def test_a_result_in_another_storage_is_copied_and_nothing_is_asked_for(run: PipelineRun, tmp_path: Path) -> None:
    """Links to its files live for a day; the storage in which they lie may be another one of the same scope."""
    stores = [MediaStore(str(tmp_path / name)) for name in ("first", "second")]
    asked = WorkCall(models.ZImageTurbo(prompt="a lighthouse"), scope="order-17")

    async def ask(run: PipelineRun, store: MediaStore) -> Result:
        return (await replace(await run.runner(), store=store).complete(asked)).result

    with Emulator(factor=1000, long_side=96) as rh:
        run = run.another(url=rh.url, key=rh.key)
        first = await LOOP.call(ask(run, stores[0]))
    second = await LOOP.call(ask(run, stores[1]))
    files = [one.first_output for one in (first, second)]
    assert files[0].sha256 == files[1].sha256
    assert [Path(file.uri).is_relative_to(store.url) for file, store in zip(files, stores, strict=True)] == [True, True]
    assert stores[1].digest(stores[1].name_of(files[1].uri) or "") == files[1].sha256
    assert len(list(read_all(stores[1]))) == 1


class RecordedJournal(FolderJournal):
    """A run's journal, with the operations on its jobs in order."""

    did: list[str]

    async def create(self, key: str, record: Mapping[str, Any]) -> bool:
        self.did.append(key.partition("-")[2])
        return await super().create(key, record)

    async def job(self, job_key: str) -> dict[str, JSON]:
        self.did.append("read")
        return await super().job(job_key)


async def test_a_job_of_a_run_is_read_once(run: PipelineRun) -> None:
    # A process keeps the works that were requested in a scope by its name: another test's must have another one.
    journal = RecordedJournal(str(run.folder / "runs"), scope=f"one-{uuid.uuid4().hex}")
    first, later = (WorkRunner(run.engine, FolderScope(journal), run.store) for _ in range(2))

    async def made(by: WorkRunner) -> Result:
        journal.did = []
        return (await LOOP.call(by.complete(WorkCall(models.ZImageTurbo(prompt="a lighthouse"))))).result

    done = await made(first)
    assert journal.did[: journal.did.index("intent-1")].count("read") == 1
    for again in (first, later):
        assert await made(again) == done
        assert journal.did == ["read"]
    assert not first.shared.running, "no work is kept that no caller waits for"


async def test_each_refusal_of_a_shared_work_costs_the_same_number_of_reads(rh: Emulator, run: PipelineRun) -> None:
    """Each read all earlier ones again."""
    operations, counts = list[str](), list[int]()

    async def sleep(_: float) -> None:
        counts.append(len([one for one in operations if one.startswith("read ")]))
        await asyncio.sleep(0)

    rh.faults.add(Fault("submit", kind="code", code="1011", times=20))
    await run.another(operation=operations.append, sleep=sleep).one(picture())
    assert len(counts) == 20
    assert {after - before for before, after in pairwise(counts)} == {counts[-1] - counts[-2]}


async def test_what_an_earlier_process_has_paid_for_is_collected(run: PipelineRun) -> None:
    journal = FolderJournal(str(run.folder / "runs"), scope=f"one-{uuid.uuid4().hex}")
    end = End(status="SUCCESS", task_id=TASK, links=(Link(text="done"),))
    await write(journal, {"intent-1": intent(), "answer-1": ticket(), "end-1": end})
    collected = await LOOP.call(WorkRunner(run.engine, FolderScope(journal), run.store).collect(intent(), KEY))
    assert collected is not None
    assert collected.result.texts == ("done",)


@asynccontextmanager
async def collection(stopped: Stopped) -> AsyncIterator[tuple[PipelineRun, asyncio.Future[Any], WorkRunner]]:
    """A run, which has paid for a task, and the collection of the task by another run, which has a slot."""
    _, run = stopped
    other = run.another(name="two", machine="there")
    running = await paying(run)
    ((work, _),) = (await Notes.of(run.scope)).claims
    runner = await other.runner()
    submit = await JobRecords(await other.works(), work).submission(1)
    assert submit is not None
    collecting = asyncio.ensure_future(LOOP.call(runner.collect(submit.intent, work)))
    await until(lambda: runner.shared.pool.accounts[0].limiter.held == 1)
    yield run, collecting, runner
    await end(running, collecting)


async def test_a_collection_that_is_cancelled_frees_its_slot_and_no_longer_waits_for_the_task(stopped: Stopped) -> None:
    async with collection(stopped) as (payer, collecting, runner):
        collecting.cancel()
        await until(lambda: runner.shared.pool.accounts[0].limiter.held == 0)
        works = await payer.works()

        async def is_released() -> bool:
            return [key async for key in works.names() if "-released-" in key] != []

        await until(is_released)


async def test_a_collection_gives_no_sign_of_life_of_the_run_that_has_paid(
    stopped: Stopped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That run may have ended, and the next run would wait for it."""
    monkeypatch.setattr(works_journal, "EVERY", 0.01)
    async with collection(stopped) as (payer, _, runner):
        works = await payer.works()
        for _ in range(2):  # signs of the run that pays, in whose time a collection would give one, too
            last = await works.alive_at(payer.scope.journal.scope)

            async def is_newer() -> bool:
                return await works.alive_at(payer.scope.journal.scope) != last  # noqa: B023 - awaited at once

            await until(is_newer)
        assert await works.alive_at(runner.scope.journal.scope) is None


TICKET: Mapping[str, Record] = {"intent-1": intent(), "answer-1": ticket()}


@pytest.mark.parametrize(
    ("records", "is_in_progress"),
    [
        ({}, False),
        ({"intent-1": intent()}, True),
        ({"intent-1": intent(), "answer-1": unknown()}, True),
        ({"intent-1": intent(), "answer-1": refused("421")}, False),
        (TICKET, True),
        ({**TICKET, "end-1": failed("1504")}, False),
        ({**TICKET, "end-1": End(status="SUCCESS", task_id=TASK)}, True),
    ],
)
def test_a_work_is_in_progress_while_a_task_of_it_may_give_its_result(
    records: Mapping[str, Record], *, is_in_progress: bool
) -> None:
    found = [FoundWork(KEY, cast(JobRequest, None), view_of(records), is_done) for is_done in (False, True)]
    assert [one.is_in_progress for one in found] == [is_in_progress, False]


async def test_a_look_at_a_work_finds_its_result_or_a_stored_one_that_it_may_reuse(run: PipelineRun) -> None:
    own = await run.runner()

    async def looked(runner: WorkRunner, **asked: Any) -> tuple[bool, bool]:
        found = await LOOP.call(runner.look_up(picture(**asked)))
        return found.is_done, found.is_in_progress

    assert await looked(own) == (False, False)
    await run.one(picture())
    reuse = replace(own, options=Options(reuse="always"))
    assert [await looked(one) for one in (own, reuse)] == [(True, False)] * 2
    assert [await looked(one, scope="another") for one in (own, reuse)] == [(False, False), (True, False)]
    assert await looked(reuse, scope="another", take=2) == (False, False)


async def test_an_adopted_result_costs_nothing_even_if_its_file_has_another_time(run: PipelineRun) -> None:
    paid = await run.one(picture(scope="a"))
    for _ in range(2):
        adopted = await run.another(attempt=2).one(picture(), reuse="always")
        assert (adopted.result.reused, adopted.result.cost) == (True, Decimal(0))
        assert adopted.result.outputs == paid.result.outputs
        os.utime(paid.result.first_output.uri.removeprefix("file://"), (1, 1))


async def test_works_that_wait_get_slots_in_the_order_of_their_steps(run: PipelineRun) -> None:
    with Emulator(clock="real", factor=0, limit=1, long_side=48) as rh:
        run = run.another(url=rh.url, key=rh.key)
        making = asyncio.ensure_future(run.make(*(picture(f"{n}", position=(n,)) for n in (5, 4, 3, 2, 1))))
        await until(lambda: len(run.said("queued")) == 4)
        rh.clock.factor = 1000
        await making
        _, *later = [str(one.payload["prompt"]) for one in rh.recorder.paid]
        assert later == sorted(later)

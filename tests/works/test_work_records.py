"""What the runs of a work record, in which order, and what they hold, pay and cancel when something goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest

from rh_prefect import models
from rh_prefect.emulator import DEFAULT, Emulator, Fault
from rh_prefect.emulator.comfy.workflows import TEXT_TO_IMAGE
from rh_prefect.errors import ApiError, BudgetExceeded, JobError, JobFailed, JournalError, MediaError
from rh_prefect.workflow_inputs import WorkflowInput
from rh_prefect.works.job_options import Options
from rh_prefect.works.journal.costs_and_budget import Costs
from rh_prefect.works.journal.journal import FolderJournal, UnreadableRecord
from rh_prefect.works.journal.record_types import FORMAT, FORMAT_KEY, End, Format, Link
from rh_prefect.works.journal.scope import Scope
from rh_prefect.works.journal.works_journal import FOLDER, WorksJournal, no_evidence
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.pool_services import PoolServices
from rh_prefect.works.run_ledger import Notes, SharedRecords, spending_of
from rh_prefect.works.work_runner import WorkCall
from tests.support.world.job_records import TASK, intent, ticket, write
from tests.support.world.pipeline_runs import PipelineRun, bury, picture

PRICE = Decimal("0.04")


@pytest.fixture
def rh() -> Iterator[Emulator]:
    with Emulator(clock="polls", polls=2, long_side=48) as emulator:
        yield emulator


HELPED, HOPELESS = "1504", "1505"
"""Failures after which a new task may succeed, and will not."""


async def test_a_graph_that_is_reported_as_broken_is_cancelled_and_not_waited_for(
    rh: Emulator, run: PipelineRun
) -> None:
    rh.clock.polls = 10**6
    rh.faults.add(Fault("submit", number=1, kind="node-errors"))
    graph = WorkflowInput(id=rh.workflows.add(dict(TEXT_TO_IMAGE)), nodes={"6.text": "a pier"})
    with pytest.raises(JobFailed, match=r"failed: node \d+: .+ What to do: repair the nodes"):
        await run.one(WorkCall(graph, "ink"))
    assert rh.recorder.cancelled == [rh.recorder.paid[0].task_id]


UNPRICED = "dola-Seedream-5.0-pro/text-to-image"


async def test_an_assumed_price_counts_where_no_other_is_known(rh: Emulator, run: PipelineRun) -> None:
    asked = WorkCall(models.input_for(UNPRICED)(prompt="a pier"), "new", price=Decimal("0.5"))
    with pytest.raises(BudgetExceeded):
        await run.one(asked, budget=0.4)
    assert rh.recorder.submissions == []
    await run.one(asked, budget=0.6)
    await run.another(name="two").one(picture(price=Decimal(5)), budget=0.05)
    with pytest.raises(BudgetExceeded, match="neither the catalogue nor RunningHub's price preview"):
        await run.another(name="three").one(replace(asked, price=None, take=2), budget=9)
    assert len(rh.recorder.paid) == 2


async def test_a_budget_counts_the_quoted_price_and_not_the_assumed_one(tmp_path: Path) -> None:
    quoting = replace(DEFAULT, preview_unpriced=None, unpriced=Decimal(3))
    with Emulator(assumptions=quoting, long_side=48) as rh:
        run = PipelineRun(rh.url, rh.key, tmp_path, str(tmp_path / "store"))
        asked = WorkCall(models.input_for(UNPRICED)(prompt="a pier"), "new", price=Decimal("0.5"))
        with pytest.raises(BudgetExceeded, match=r"3\.00 CNY"):
            await run.one(asked, budget=1)
        assert rh.recorder.submissions == []


async def test_a_result_is_recorded_with_its_place_its_names_and_its_cost(rh: Emulator, run: PipelineRun) -> None:
    asked = picture()
    done = await run.one(asked)
    (file,) = done.record.outputs
    assert done.record.store == run.store.url
    assert not file.uri.startswith(run.store.url)
    assert [one.uri for one in done.result.outputs] == [run.store.uri(file.uri)]
    assert run.store.exists(file.uri)
    assert (done.record.task_id, done.record.flow_run) == (rh.recorder.paid[0].task_id, "one")
    assert (done.record.cost, done.record.currency, done.record.coins) == (PRICE, "CNY", None)
    assert (done.record.texts, done.record.value) == ((), None)
    assert list((run.settings.state_dir / "parts").iterdir()) == [], "the download is published"
    end = next(event for event in run.heard if event.state == "succeeded")
    assert (end.task_id, end.cost, end.currency) == (done.record.task_id, PRICE, "CNY")
    assert {(one.label, str(one.estimate)) for one in run.heard if one is not end} == {(asked.step, "0.04 CNY")}
    assert (end.output, end.job.rpartition("/")[2]) == (done.result.outputs[0].uri, done.result.key)
    assert end.message == f"done: {done.result.outputs[0].uri}; 0.04 CNY"
    assert [event.state for event in run.heard if not event.is_step][-2:] == ["collecting", "succeeded"]
    other = run.another(name="two")
    await other.one(picture())
    (reused,) = other.heard
    assert (reused.state, reused.cost, reused.output) == ("reused", Decimal(0), done.result.outputs[0].uri)
    assert reused.message == f"run one has made it: {done.result.outputs[0].uri}; nothing was paid"


async def test_an_answer_is_recorded_as_it_was_read(rh: Emulator, run: PipelineRun) -> None:
    words = models.RhartTextG3FlashPreviewTextToText(prompt="one")
    done = await run.one(WorkCall(words, "words", parse=len, shape="length"))
    (text,) = done.record.texts
    assert (done.record.value, done.record.outputs, done.result.outputs) == (len(text), (), ())
    end = next(event for event in run.heard if event.state == "succeeded")
    assert end.message.startswith(f"done: {len(text)} characters of text; ")
    assert end.output is not None and end.output.endswith(f"/{done.record.task_id}.json")


async def test_the_costs_of_a_run_hold_its_failed_tasks_and_none_of_another_run(
    run: PipelineRun, tmp_path: Path
) -> None:
    charged = replace(DEFAULT, refund_failed_models=False)
    with Emulator(clock="polls", polls=2, long_side=48, assumptions=charged) as rh:
        rh.faults.add(Fault("submit", number=1, kind="fail", code=HELPED))
        rh.faults.add(Fault("submit", prompt="refused", kind="code", code="301"))
        rh.faults.add(Fault("submit", prompt="fails", kind="fail", code=HOPELESS))
        run, other, third = (run.another(url=rh.url, key=rh.key, name=name) for name in ("one", "two", "three"))
        first = await run.one(picture(attempts=2))
        await other.make(picture(), picture("refused"))
        second = await other.one(picture("its own"))
        (error,) = await third.make(picture("fails"))
        assert [str(event.costs) for event in run.heard if event.state == "submitted"] == ["0", "0.04 CNY"]
        assert isinstance(error, JobFailed)
        failed = [(event.message, str(event.costs)) for event in third.heard if event.state == "failed"]
        assert failed == [(error.message, "0.04 CNY")]

        async def costs(of: PipelineRun) -> dict[str, str]:
            runner = await of.runner()

            async def look() -> dict[str, str]:
                spent = spending_of(of.scope).spent_on(first.result.key) or Costs()
                found = {work: str(cost) for work, cost in (await runner.costs()).items()}
                assert str(spent) == found.get(first.result.key, "0")
                assert await runner.shared.pool.currency() == "CNY"
                number, open_costs = spending_of(of.scope).open_costs()
                assert (number, str(open_costs)) == (0, "0")
                return found

            return await LOOP.call(look())

        assert await costs(run) == {first.result.key: "0.08 CNY"}
        assert await costs(other) == {second.result.key: "0.04 CNY"}


async def test_a_work_that_its_plan_does_not_name_is_a_defect_and_not_paid(rh: Emulator, run: PipelineRun) -> None:
    with pytest.raises(JobError, match=r"the planned request \(abab.* This is a defect in rh-prefect"):
        await run.one(picture(planned="ab" * 20))
    work = (await run.another().one(picture())).result.key
    assert (await run.another().one(picture(planned=work))).result.key == work
    assert len(rh.recorder.paid) == 1


async def test_a_graph_is_the_work_that_its_plan_names_unless_it_was_edited_since(
    rh: Emulator, run: PipelineRun
) -> None:
    graph = WorkflowInput(id=rh.workflows.add(dict(TEXT_TO_IMAGE)), nodes={"6.text": "a pier"})
    with pytest.raises(JobError, match="was edited on the site after this run was planned"):
        await run.one(WorkCall(graph, "ink", planned="ab" * 20, saved_graph="of yesterday"))
    assert rh.recorder.submissions == []

    _, request = await LOOP.call((await run.runner()).prepare(WorkCall(graph, "ink")))
    done = await run.one(WorkCall(graph, "ink", planned="ab" * 20, saved_graph=request.graph))
    assert done.result.key == "ab" * 20


async def test_a_graph_that_cannot_be_read_after_its_plan_is_said_and_not_paid(rh: Emulator, run: PipelineRun) -> None:
    rh.faults.add(Fault("workflow", every=1, kind="code", code="380"))
    graph = WorkflowInput(id="2031112223334445057", nodes={"6.text": "a pier"})
    with pytest.raises(JobError, match=r"ink: .* Nothing was paid for this step"):
        await run.one(WorkCall(graph, "ink", planned="ab" * 20, saved_graph="known"))
    with pytest.raises(ApiError):
        await run.another().one(WorkCall(graph, "ink"))


async def test_a_damaged_file_is_no_result_and_is_fetched_again_at_no_cost(rh: Emulator, run: PipelineRun) -> None:
    async def at_once(seconds: float) -> None:
        await asyncio.sleep(seconds / 100)

    run = run.another(sleep=at_once)
    rh.faults.add(Fault("download", every=1, kind="short"))
    with pytest.raises(MediaError, match=r"was paid for, but each download of .* was damaged"):
        await run.one(picture())
    with pytest.raises(MediaError):
        await run.another(name="two").one(picture())
    rh.faults.clear()
    done = await run.another(name="two").one(picture())
    assert done.result.outputs[0].defect is None
    assert (done.record.n, len(rh.recorder.paid)) == (1, 1)


@pytest.mark.parametrize("budget", [None, 1])
@pytest.mark.parametrize(
    ("record", "paid", "amount"), [("-claim-1", 0, 0), ("-intent-1", 0, 0), ("-answer-1", 1, PRICE)]
)
async def test_an_error_of_the_records_says_whether_a_task_may_have_been_paid_for(
    rh: Emulator, run: PipelineRun, record: str, paid: int, amount: Decimal, budget: Any
) -> None:
    def fails(operation: str) -> None:
        if operation.startswith("create ") and operation.endswith(record):
            raise JournalError("the records are away.")

    run = run.another(operation=fails)
    with pytest.raises(JournalError, match=r"the records are away\.") as caught:
        await run.one(picture(), budget=budget)
    assert len(rh.recorder.paid) == paid
    assert caught.value.message.endswith("uses the result of this task and submits no other task.") == (paid == 1)
    assert spending_of(run.scope).reserved() == amount, "what may have been paid for counts"
    await run.another(name="two").one(picture())
    assert len(rh.recorder.paid) == 1


async def test_a_run_whose_result_cannot_be_recorded_uses_it_and_the_next_one_pays_nothing(
    rh: Emulator, run: PipelineRun
) -> None:
    def fails(operation: str) -> None:
        if operation.startswith("create ") and operation.endswith("-result"):
            raise JournalError("the records are away.")

    done = await run.another(operation=fails).one(picture())
    again = await run.another(name="two").one(picture())
    assert [one.sha256 for one in done.result.outputs] == [one.sha256 for one in again.result.outputs]
    assert len(rh.recorder.paid) == 1


async def test_a_result_without_its_files_and_its_submission_is_an_error_and_not_paid_for_again(
    rh: Emulator, run: PipelineRun
) -> None:
    done = await run.one(picture())
    Path(done.result.outputs[0].uri).unlink()
    for record in Path(run.store_url).glob("works/*/*-1.json"):
        record.unlink()
    with pytest.raises(JournalError, match=r"the result was paid for.*put the files back, or for a new task"):
        await run.another(name="two").one(picture())
    assert len(rh.recorder.paid) == 1


async def test_an_adopted_result_without_its_files_names_the_job_that_paid(rh: Emulator, run: PipelineRun) -> None:
    done = await run.one(picture())
    for is_whole in (True, False):
        runner = replace(await run.runner(), options=Options(reuse="always"))
        making = LOOP.call(runner.make(picture(scope="a round")))
        if is_whole:
            await making
            Path(done.result.outputs[0].uri).unlink()
            continue
        with pytest.raises(
            JournalError, match=rf"no submission of its own: .* job \S+/{done.result.key}\. No new task"
        ):
            await making
    assert len(rh.recorder.paid) == 1


async def test_a_suspended_run_waits_without_a_process(run: PipelineRun, tmp_path: Path) -> None:
    works = await run.works()

    async def waits(work: str) -> bool:
        bury(tmp_path)
        return await works.has_other_waiter(work, "another")

    suspended, ended = (SharedRecords(works, work, run.scope, has_ended=no_evidence) for work in ("ab", "cd"))
    await suspended.note_waiter(suspended=3600)
    await ended.note_waiter()
    assert await waits("ab")
    assert not await waits("cd")


async def test_a_runner_listens_for_the_ends_of_tasks_before_it_submits_one(run: PipelineRun) -> None:
    did = list[str]()

    class Engine:
        async def listen_for_ends(self, scope: Scope) -> None:
            did.append("listen")

        async def prepare(self, *_: object) -> None:
            did.append("prepare")
            raise JobError("invalid")

    runner = replace(await run.runner(), shared=cast(PoolServices, Engine()))
    with pytest.raises(JobError):
        await runner.complete(picture())
    assert did == ["listen", "prepare"]


async def test_coins_that_a_task_has_cost_beside_money_are_recorded(rh: Emulator, run: PipelineRun) -> None:
    runner = await run.runner()
    asked = WorkCall(models.RhartTextG3FlashPreviewTextToText(prompt="one"), "words")
    work, _ = await LOOP.call(runner.prepare(asked))
    end = End(
        status="SUCCESS",
        task_id=TASK,
        links=(Link(text="done"),),
        cost=Decimal("3.85"),
        currency="CNY",
        coins=Decimal(7),
    )
    await write(await run.works(), {"intent-1": intent(flow_run="one"), "answer-1": ticket(), "end-1": end}, key=work)
    record = (await run.one(asked)).record
    assert (record.texts, record.cost, record.currency, record.coins) == (("done",), Decimal("3.85"), "CNY", Decimal(7))
    assert rh.recorder.submissions == []
    await LOOP.settle(60)
    assert list((await Notes.of(run.scope)).settled) == [(work, 1)], "an earlier process has not noted it"


async def test_a_place_with_records_of_another_format_is_refused(tmp_path: Path) -> None:
    older = FolderJournal(str(tmp_path / "older"), scope=FOLDER)
    await older.create(FORMAT_KEY, Format(format=FORMAT - 1).model_dump(mode="json"))
    with pytest.raises(UnreadableRecord, match=rf"have the format {FORMAT - 1}.*Nothing was paid"):
        await WorksJournal(str(tmp_path / "older")).check()
    new = WorksJournal(str(tmp_path / "new"))
    await new.check()
    assert await new.read(FORMAT_KEY) is None, "a plan writes nothing"

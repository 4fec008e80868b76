"""What a flow run has noted of its works: where their records are, what it has claimed, and what it can cancel."""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from rh_prefect.emulator import Emulator, Fault
from rh_prefect.emulator.comfy.workflows import TEXT_TO_IMAGE
from rh_prefect.errors import ConfigError, RequestRejected
from rh_prefect.pipelines.rounds_across_runs import NotedRound, leave_rounds
from rh_prefect.workflow_inputs import WorkflowInput
from rh_prefect.works.journal.costs_and_budget import Charge, Costs, SpendTracker, charges_of
from rh_prefect.works.journal.job_records_and_state import Submit
from rh_prefect.works.journal.journal import FolderJournal, UnreadableRecord, check_key
from rh_prefect.works.journal.record_types import Answer, End, Lost, Record, Resolution
from rh_prefect.works.journal.scope import FolderScope
from rh_prefect.works.journal.works_journal import no_evidence, run_name
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.result_delivery import Delivered
from rh_prefect.works.run_cancellation import cancel_scope
from rh_prefect.works.run_ledger import (
    Notes,
    RecordsLocation,
    SharedRecords,
    all_charges,
    is_settled,
    note_location,
    read_location,
    settled_name,
    spending_of,
)
from rh_prefect.works.work_runner import WorkCall
from tests.support.hypothesis_settings import search
from tests.support.processes.in_fork import in_fork
from tests.support.waiting import until
from tests.support.world.job_records import TASK, intent, ticket, unknown, write
from tests.support.world.memory_journal import MemoryJournal, MemoryPlace
from tests.support.world.pipeline_runs import PipelineRun, picture

HERE, THERE = RecordsLocation(url="/here", storage="disk"), RecordsLocation(url="/there")


async def notes_of(run: PipelineRun, work: str) -> SharedRecords:
    return SharedRecords(await run.works(), work, run.scope, has_ended=no_evidence)


async def test_a_flow_run_has_one_place_for_its_works_in_all_of_its_attempts(journal: FolderJournal) -> None:
    assert await read_location(journal) is None
    assert [view async for view in (await Notes.of(FolderScope(journal))).jobs()] == []
    for _attempt in (1, 2):
        await note_location(journal, HERE)
    with pytest.raises(ConfigError, match=r"store its records in /there, but an earlier call of the flow run used"):
        await note_location(journal, THERE)
    assert await read_location(journal) == HERE


async def test_a_wait_counts_for_the_attempts_whose_payments_count_together(run: PipelineRun) -> None:
    works = await run.works()

    def notes(attempt: int, *, work: str = "ab") -> SharedRecords:
        return SharedRecords(works, work, FolderScope(run.scope.journal, attempt=attempt), has_ended=no_evidence)

    await notes(2).note_wait(3)
    assert await notes(2).has_waited(3, since=2)
    assert await notes(3).has_waited(3, since=2)
    assert await notes(2).has_waited(3, since=1)
    assert not await notes(3).has_waited(3, since=3)
    assert not await notes(1).has_waited(3, since=1)
    assert not await notes(2).has_waited(2, since=2)
    assert not await notes(2, work="cd").has_waited(3, since=2)


@pytest.mark.parametrize(
    ("payer", "earlier", "is_noted"),
    [
        ("one", "", True),  # by an earlier process of the run
        ("one", "claim", True),
        ("two", "", False),
        ("two", "claim", True),  # which came too late
        ("two", "wait", True),
    ],
)
async def test_the_outcome_of_a_submission_is_noted_once_by_a_run_that_has_paid_for_it_or_waited_for_it(
    run: PipelineRun, payer: str, earlier: str, is_noted: bool
) -> None:
    operations = list[str]()
    run = run.another(operation=operations.append)
    records = await notes_of(run, "ab")
    if earlier:
        await (records.note_claim if earlier == "claim" else records.note_wait)(1)
    for _ in range(2):
        records.note_settled(Submit(1, intent(flow_run=payer), answer=ticket(), end=ENDED))
        await LOOP.settle(60)
    assert list((await Notes.of(run.scope)).settled) == [("ab", 1)] * is_noted
    assert sum("-settled-" in one for one in operations) == is_noted


async def test_a_claim_is_refused_if_the_records_of_a_payment_of_this_attempt_are_gone(run: PipelineRun) -> None:
    records = await notes_of(run, "ab")
    await records.note_claim(1)
    records.note_settled(Submit(1, intent(flow_run="one"), answer=ticket(), end=ENDED))
    await LOOP.settle(60)
    with pytest.raises(ConfigError, match=r"has paid for submission 1 \(0\.04 CNY\).* Nothing was sent"):
        await records.note_claim(1)


def test_a_forked_process_counts_the_costs_of_a_run_again(journal: FolderJournal) -> None:
    scope = FolderScope(journal)
    tracker = spending_of(scope)
    assert spending_of(scope) is tracker
    assert in_fork(lambda: spending_of(scope) is not tracker)


def test_the_costs_of_a_run_are_counted_once_while_a_job_uses_them(tmp_path: Path) -> None:
    run, *others = (FolderScope(FolderJournal(str(tmp_path), scope=f"run-{number}")) for number in range(300))
    used = spending_of(run)
    for other in others:
        spending_of(other)
    assert spending_of(run) is used, "another tracker would not know what the waiting jobs have reserved"


async def test_claims_are_listed_once_and_in_order(run: PipelineRun) -> None:
    for work, n in (("cd", 2), ("ab", 10), ("ab", 2), ("ab", 2)):
        await (await notes_of(run, work)).note_claim(n)
    await (await notes_of(run, "ef")).note_wait(1)
    notes = await Notes.of(run.scope)
    assert notes.claims == {("ab", 2), ("ab", 10), ("cd", 2)}
    assert notes.unsettled == [("ab", 2), ("ab", 10), ("cd", 2), ("ef", 1)]
    assert not any([view.submits async for view in notes.jobs()]), "a claim without an intent cost nothing"


async def test_a_damaged_work_hides_no_other_work_of_the_run(run: PipelineRun) -> None:
    works = await run.works()
    for work in ("ab", "cd", "ef"):
        await (await notes_of(run, work)).note_claim(1)
        await write(works, {"intent-1": intent(flow_run=run.scope.journal.scope)}, key=work)
    await works.create("cd-answer-1", {"token": "of a record without a time"})
    notes, read = await Notes.of(run.scope), list[str]()
    with pytest.raises(UnreadableRecord) as error:
        async for view in notes.jobs():
            read.append(view.key)
    assert (sorted(read), error.value.job_key) == (["ab", "ef"], "cd")
    with pytest.raises(UnreadableRecord):  # a sum without that work would be too small
        await notes.charges()


WORKS, OPEN = 40, 3


async def seed(run: PipelineRun) -> None:
    """Records works that a run has claimed and paid for; the last ones still run."""
    works = await run.works()
    for number in range(1, WORKS + 1):
        work = f"{number:040x}"
        paid = Submit(1, intent(flow_run="one", estimate="0.04"), answer=ticket(str(number)), end=ENDED)
        records: dict[str, Record] = {"intent-1": paid.intent, "answer-1": ticket(str(number)), "end-1": ENDED}
        if is_open := number > WORKS - OPEN:
            del records["end-1"]
        await write(works, records, key=work)
        notes = await notes_of(run, work)
        await notes.note_claim(1)
        if not is_open:
            notes.note_settled(paid)
    await LOOP.settle(60)


async def test_a_budget_and_a_cancellation_read_the_records_of_open_works_only(run: PipelineRun) -> None:
    operations: list[str] = []
    run = run.another(operation=operations.append)
    await seed(run)

    def read() -> int:
        works = {what.removeprefix("read ").partition("-")[0] for what in operations if what.startswith("read ")}
        operations.clear()
        return len(works)

    read()
    tracker = SpendTracker(partial(all_charges, run.scope))
    await tracker.complete()
    assert (tracker.spent(), tracker.reserved()) == (Decimal("0.04") * (WORKS - OPEN), Decimal("0.04") * OPEN)
    assert read() == OPEN
    await LOOP.call(cancel_scope(run.scope, run.engine.pool.provider_of, by="a test"))
    assert read() == OPEN
    for note in (run.folder / "runs").rglob("settled-*"):
        note.unlink()
    tracker = SpendTracker(partial(all_charges, run.scope))
    await tracker.complete()
    assert tracker.spent() == Decimal("0.04") * (WORKS - OPEN), "a crash before a note loses nothing"


async def test_the_notes_of_a_run_outside_of_flows_are_listed_and_not_read(run: PipelineRun) -> None:
    await seed(run)
    await run.scope.journal.create("ab-round-1", NotedRound(n=1).model_dump(mode="json"))
    for note in (run.folder / "runs").rglob("*.json"):
        if note.parent.name != "ab":
            note.write_text("a reading of this note would fail")
    tracker = spending_of(run.scope)
    await tracker.complete()
    assert (tracker.spent(), tracker.reserved()) == (Decimal("0.04") * (WORKS - OPEN), Decimal("0.04") * OPEN)
    report = await LOOP.call(cancel_scope(run.scope, run.engine.pool.provider_of, by="a test"))
    assert len(report.failed) == OPEN, "the emulator has none of these tasks"
    await leave_rounds(run.scope.journal, (await run.works()).rounds)


async def test_the_notes_of_a_run_say_what_the_records_of_its_works_say(rh: Emulator, run: PipelineRun) -> None:
    rh.faults.add(Fault("submit", prompt="refused once", times=1, kind="code", code="421"))
    rh.faults.add(Fault("submit", prompt="fails once", times=1, kind="fail", code="1504"))
    other = run.another(name="two")
    ink = WorkflowInput(id=rh.workflows.add(dict(TEXT_TO_IMAGE)), nodes={"6.text": "a pier"})
    await other.one(picture("of another run"))
    rh.faults.add(Fault("submit", prompt="wrong", kind="code", code="301"))
    words = ("refused once", "fails once", "of another run", "wrong")
    made = await run.make(WorkCall(ink, "ink"), *(picture(one, attempts=2) for one in words))
    assert [type(one) for one in made] == [*[Delivered] * 4, RequestRejected]
    recorded = {view.key: charges_of(view) async for view in (await Notes.of(run.scope)).jobs() if view.submits}

    async def is_settled() -> bool:
        return not [view async for view in (await Notes.of(run.scope)).open_jobs()]

    await until(is_settled)
    noted = {work: charges async for work, charges in all_charges(run.scope)}
    assert noted == recorded
    assert sorted(map(len, noted.values())) == [1, 1, 2, 2]


ENDED = End(status="SUCCESS", task_id=TASK, cost=Decimal("0.04"), currency="CNY")
REFUSED = Answer(outcome="refused", code="301")
ADOPTED = Resolution(outcome="adopted", task_id=TASK)
FORGOTTEN = Resolution(outcome="forgotten")


@pytest.mark.parametrize(
    ("submit", "settled"),
    [
        (Submit(1, intent()), False),
        (Submit(1, intent(), answer=ticket()), False),
        (Submit(1, intent(), answer=unknown()), False),
        (Submit(1, intent(), answer=REFUSED), True),
        (Submit(1, intent(), answer=ticket(), end=ENDED), True),
        # The ticket of a late owner may still come, and counts.
        (Submit(1, intent(), answer=unknown(), resolution=ADOPTED, end=ENDED), False),
        (Submit(1, intent(), answer=unknown(), resolution=FORGOTTEN), False),
        (Submit(1, intent(), answer=unknown(), resolution=FORGOTTEN, late=ticket()), False),
        (Submit(1, intent(), answer=ticket(), lost=Lost(by="a person")), False),
    ],
)
def test_a_submission_is_settled_once_no_record_can_change_its_cost(submit: Submit, settled: bool) -> None:
    assert is_settled(submit) is settled


AMOUNTS = st.none() | st.decimals(allow_nan=False, allow_infinity=False)
UNITS = st.sampled_from(["CNY", "USD", "coins", "Taler", "unknown", "", "¥"]) | st.text(max_size=5)


@search(100)
@hypothesis.given(
    st.lists(st.tuples(UNITS, st.decimals(allow_nan=False, allow_infinity=False)), max_size=3), UNITS, AMOUNTS
)
def test_a_note_holds_an_amount_exactly_or_is_not_written(
    costs: list[tuple[str, Decimal]], currency: str, amount: Decimal | None
) -> None:
    charge = Charge(amount, is_spent=True, currency=currency, costs=Costs(dict(costs)))
    notes, name = Notes(FolderScope(MemoryJournal(MemoryPlace(), "run"))), settled_name("ab", 7, charge)
    if name is not None:
        notes.add(check_key(name))
        assert notes.settled == {("ab", 7): charge}


def test_a_note_has_at_most_200_characters() -> None:
    assert [len(settled_name("a" * length, 7, None) or "") for length in (181, 182)] == [200, 0]


@pytest.mark.parametrize("name", ["one", "a-1", "0b1c-2d", "One", "a--b", "-a", "a-", "é", "a/b", ""])
def test_only_a_plain_name_of_a_run_stays(name: str) -> None:
    assert (run_name(name) == name) == (name in ("one", "a-1", "0b1c-2d"))
    assert run_name(name) == name or len(run_name(name)) == 24
    assert run_name(run_name(name)) == run_name(name)
    assert len({run_name(one) for one in (name, f"{name}x")}) == 2

"""The budget of a run: the step of the lifecycle, the ledger over a journal, and jobs against the emulator."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rh_prefect import catalog, models
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import BudgetExceeded, JobFailed
from rh_prefect.flows import image_to_video
from rh_prefect.jobs.ledger.budget import Entry, Ledger, Money, Shortfall, entry_of
from rh_prefect.jobs.ledger.journal import FolderJournal
from rh_prefect.jobs.ledger.records import RESUBMITTED, Answer, End, JobView, Record, Resolution, Submit
from rh_prefect.jobs.lifecycle import Policy, lifecycle
from rh_prefect.jobs.outputs.result import Result
from rh_prefect.jobs.steps import (
    AwaitEnd,
    AwaitSlot,
    CheckCancel,
    Claim,
    FreeSlot,
    Pause,
    Post,
    Prepare,
    ReadJob,
    RecordAnswer,
    Release,
    Reserve,
)
from rh_prefect.tasks import generate
from tests.support import samples
from tests.support.job_records import TASK, intent, ticket, unknown, write

BUDGET = Decimal("1.00")
INTENT = intent(estimate=Decimal("0.40"), currency="CNY")
BUSY = Answer(outcome="refused", code="421", reason="full", retry="pace")
POLICY = Policy(job="run/key", endpoint="some/model", budget=BUDGET)


def end(cost: str | None = None, *, status: Any = "SUCCESS", currency: str = "CNY") -> End:
    return End(status=status, task_id=TASK, cost=None if cost is None else Decimal(cost), currency=currency)


def drive(policy: Policy, *pairs: tuple[object, object]) -> Any:
    """Drives a life through these steps; what it yields then."""
    life = lifecycle(policy)
    step: Any = next(life)
    for expected, came in pairs:
        assert step == expected
        step = life.send(came)
    return step


UP_TO_THE_BUDGET = [(ReadJob(), JobView("key")), (Prepare(), None), (AwaitSlot(), None), (Prepare(), None)]


def test_the_price_is_set_aside_between_the_slot_and_the_claim() -> None:
    step = drive(POLICY, *UP_TO_THE_BUDGET, (Reserve(1, BUDGET), None), (CheckCancel(fresh=False), False))
    assert step == Claim(1)


def test_a_job_that_would_break_the_budget_is_not_claimed_and_says_the_sums() -> None:
    short = Shortfall(Money(Decimal("0.40"), "CNY"), spent=Decimal("0.50"), reserved=Decimal("0.25"))
    with pytest.raises(
        BudgetExceeded, match=r"cost 0\.4 CNY; of the budget of 1 CNY, 0\.5 .* 0\.25 reserved"
    ) as caught:
        drive(POLICY, *UP_TO_THE_BUDGET, (Reserve(1, BUDGET), short))
    assert (caught.value.job, caught.value.price, caught.value.budget) == ("run/key", Decimal("0.40"), BUDGET)


def test_a_job_without_a_price_says_so() -> None:
    with pytest.raises(BudgetExceeded, match="knows its price"):
        drive(POLICY, *UP_TO_THE_BUDGET, (Reserve(1, BUDGET), Shortfall(None, Decimal(0), Decimal(0))))


def test_a_refused_submit_gives_back_what_was_set_aside() -> None:
    submit = Submit(1, INTENT, BUSY)
    step = drive(
        POLICY,
        *UP_TO_THE_BUDGET,
        (Reserve(1, BUDGET), None),
        (CheckCancel(fresh=False), False),
        (Claim(1), INTENT),
        (Post(INTENT, 1), BUSY),
        (RecordAnswer(INTENT, 1, BUSY), submit),
        (FreeSlot(full=True), None),
        (Release(1), None),
    )
    assert isinstance(step, Pause)


def test_a_claim_that_another_process_has_gives_back_what_was_set_aside() -> None:
    step = drive(
        POLICY,
        *UP_TO_THE_BUDGET,
        (Reserve(1, BUDGET), None),
        (CheckCancel(fresh=False), False),
        (Claim(1), None),
        (FreeSlot(), None),
        (Release(1), None),
    )
    assert step == ReadJob()


def test_a_job_that_has_a_ticket_is_never_refused() -> None:
    submit = Submit(1, INTENT, ticket())
    step = drive(POLICY, (ReadJob(), JobView("key", (submit,))), (CheckCancel(fresh=True), False))
    assert step == AwaitEnd(submit, adopted=True)


@pytest.mark.parametrize(
    ("submit", "counts"),
    [
        (Submit(1, INTENT), Entry(Decimal("0.40"), is_spent=False)),
        (Submit(1, INTENT, ticket()), Entry(Decimal("0.40"), is_spent=False)),
        (Submit(1, INTENT, unknown()), Entry(Decimal("0.40"), is_spent=False)),
        (Submit(1, INTENT, BUSY), None),
        (Submit(1, INTENT, ticket(), end=end("0.30")), Entry(Decimal("0.30"), is_spent=True)),
        (Submit(1, INTENT, ticket(), end=end("0", status="FAILED")), Entry(Decimal(0), is_spent=True)),
        (Submit(1, INTENT, ticket(), end=end()), Entry(Decimal("0.40"), is_spent=True)),
        (Submit(1, INTENT, ticket(), end=end("250", currency="coins")), Entry(Decimal("0.40"), is_spent=True)),
        (Submit(1, INTENT, unknown(), Resolution(outcome="forgotten", by="a person")), None),
        (
            Submit(1, INTENT, unknown(), Resolution(outcome="forgotten", by=RESUBMITTED)),
            Entry(Decimal("0.40"), is_spent=False),
        ),
    ],
    ids=["open", "ticket", "unknown", "refused", "ended", "failed", "unpriced", "coins", "forgotten", "resubmitted"],
)
def test_what_a_submit_counts_for(submit: Submit, counts: Entry | None) -> None:
    assert entry_of(submit) == counts


def journal(folder: Path) -> FolderJournal:
    return FolderJournal(str(folder), scope="run")


async def test_a_ledger_is_rebuilt_from_the_journal(tmp_path: Path) -> None:
    records = journal(tmp_path)
    jobs: list[dict[str, Record]] = [
        {"intent-1": INTENT, "answer-1": ticket(), "end-1": end("0.35")},
        {"intent-1": INTENT, "answer-1": ticket()},
        {"intent-1": INTENT, "answer-1": BUSY},
    ]
    for number, job in enumerate(jobs):
        await write(records, job, key=f"{number:024d}")
    ledger = Ledger(records)
    short = await ledger.reserve("f" * 24, 1, Money(Decimal("0.26"), "CNY"), budget=BUDGET)
    assert short == Shortfall(Money(Decimal("0.26"), "CNY"), spent=Decimal("0.35"), reserved=Decimal("0.40"))
    assert await ledger.reserve("f" * 24, 1, Money(Decimal("0.25"), "CNY"), budget=BUDGET) is None
    assert (ledger.spent, ledger.reserved) == (Decimal("0.35"), Decimal("0.65"))


async def test_what_was_set_aside_is_settled_with_the_cost_or_given_back(tmp_path: Path) -> None:
    ledger, price = Ledger(journal(tmp_path)), Money(Decimal("0.40"), "CNY")
    assert await ledger.reserve("a", 1, price, budget=BUDGET) is None
    assert await ledger.reserve("b", 1, price, budget=BUDGET) is None
    assert await ledger.reserve("c", 1, price, budget=BUDGET) is not None
    ledger.release("b", 1)
    assert await ledger.reserve("c", 1, price, budget=BUDGET) is None
    ledger.note("a", Submit(1, INTENT, ticket(), end=end("0.05")))
    assert (ledger.spent, ledger.reserved) == (Decimal("0.05"), Decimal("0.40"))
    ledger.take(JobView("c", (Submit(1, INTENT, BUSY),)))
    assert ledger.reserved == 0


async def test_jobs_that_ask_together_cannot_overshoot(tmp_path: Path) -> None:
    ledger = Ledger(journal(tmp_path))
    asked = [ledger.reserve(f"{n:024d}", 1, Money(Decimal("0.30"), "CNY"), budget=BUDGET) for n in range(20)]
    assert sum(short is None for short in await asyncio.gather(*asked)) == 3


# Against the emulator.

PICTURE = Decimal("0.04")


async def run(asked: models.ModelInput, **options: object) -> Result:
    result: Result = await generate.fn(asked, **({"scope": "test"} | options))
    return result


async def run_many(count: int, budget: float, **options: object) -> list[Result | BaseException]:
    asked = (run(models.ZImageTurbo(prompt=f"picture {n}"), budget=budget, **options) for n in range(count))
    return list(await asyncio.gather(*asked, return_exceptions=True))


async def test_no_job_starts_that_would_break_the_budget(rh: Emulator) -> None:
    done = await run_many(8, 0.13)
    refused = [one for one in done if isinstance(one, BudgetExceeded)]
    assert (len(rh.books.submissions), len(refused)) == (3, 5)
    assert sum(one.charged for one in rh.books.paid) == 3 * PICTURE
    assert "of the budget of 0.13 CNY" in str(refused[0])


async def test_what_was_paid_is_found_again_whatever_the_budget(rh: Emulator) -> None:
    asked = models.ZImageTurbo(prompt="a lighthouse")
    first = await run(asked, key="mine")
    assert await run(asked, key="mine", budget=0.01) == first
    with pytest.raises(BudgetExceeded, match=r"0\.04 are spent"):
        await run(models.ZImageTurbo(prompt="a harbour"), budget=0.07)


async def test_a_refused_submit_costs_the_budget_nothing(rh: Emulator) -> None:
    rh.faults.add(Fault("submit", number=1, kind="code", code="421"))
    done = await run_many(1, 0.04)
    assert isinstance(done[0], Result)


async def test_a_failed_task_counts_with_what_it_cost(rh: Emulator) -> None:
    rh.faults.add(Fault("submit", number=1, kind="fail"))
    with pytest.raises(JobFailed):
        await run(models.ZImageTurbo(prompt="a lighthouse"), budget=0.05)
    (failed,) = rh.books.paid
    done = await run_many(1, float(failed.charged + PICTURE))
    assert isinstance(done[0], Result)
    assert isinstance((await run_many(2, float(failed.charged + PICTURE)))[1], BudgetExceeded)


UNPRICED = next(
    model
    for model in catalog.models()
    if model.price is None and {param.name for param in model.params if param.required} == {"prompt"}
)


async def test_a_model_without_a_price_is_priced_by_runninghub(rh: Emulator) -> None:
    asked = models.input_for(UNPRICED)(prompt="a lighthouse")
    result = await run(asked, budget=1000)
    assert result.cost is not None
    assert len([one for one in rh.books.requests if "price-preview" in one.path]) == 1
    with pytest.raises(BudgetExceeded, match=f"{result.cost.normalize():f} are spent"):
        await run(models.input_for(UNPRICED)(prompt="another"), budget=float(result.cost))


async def test_where_nobody_knows_the_price_no_budget_allows_it(rh: Emulator) -> None:
    rh.faults.add(Fault("price", every=1, kind="code", code="1007"))
    with pytest.raises(BudgetExceeded, match="knows its price"):
        await run(models.input_for(UNPRICED)(prompt="a lighthouse"), budget=1000)
    assert not rh.books.submissions
    await run(models.input_for(UNPRICED)(prompt="a lighthouse"))


@pytest.mark.prefect
@pytest.mark.usefixtures("prefect_server")
async def test_a_composed_flow_keeps_to_its_budget(rh: Emulator, tmp_path: Path) -> None:
    photo = str(samples.png(tmp_path / "photo.png"))
    with pytest.raises(BudgetExceeded, match=r"budget of 2 CNY, 1\.75 are spent"):
        await image_to_video(photo, "waves", resolution="4k", budget=2.0)
    assert [one.charged for one in rh.books.paid] == [Decimal("1.75")]

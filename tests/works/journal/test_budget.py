"""The budget of a run: the step of the lifecycle, the ledger over a journal, and jobs against the emulator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rh_prefect import catalog, models
from rh_prefect.client import PricePreview
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import BudgetExceeded, ConnectFailed, JobFailed, PriceUnknown, ResponseLost, api_error
from rh_prefect.works.accounts.account import Prices
from rh_prefect.works.journal.costs_and_budget import (
    COINS,
    Charge,
    Costs,
    Money,
    Shortfall,
    SpendTracker,
    amount_text,
    charges_in,
    exceeded,
)
from rh_prefect.works.journal.job_records_and_state import JobView, Submit
from rh_prefect.works.journal.journal import FolderJournal
from rh_prefect.works.journal.record_types import End
from rh_prefect.works.journal.scope import FolderScope
from rh_prefect.works.lifecycle import Policy
from rh_prefect.works.result import Result
from rh_prefect.works.run_ledger import spending_of
from tests.support.hypothesis_settings import search
from tests.support.processes.pooled_run import PooledRun
from tests.support.world.as_task import make
from tests.support.world.asked_steps import lifecycle
from tests.support.world.job_records import TASK, intent, refused, ticket, write
from tests.support.world.memory_journal import MemoryJournal, MemoryPlace

BUDGET = Decimal("1.00")
INTENT = intent(estimate=Decimal("0.40"), currency="CNY")
BUSY = refused("421", "TASK_QUEUE_MAXED")
POLICY = Policy(job="run/key", endpoint="some/model", budget=BUDGET)


def end(cost: str | None = None) -> End:
    return End(status="SUCCESS", task_id=TASK, cost=None if cost is None else Decimal(cost), currency="CNY")


@pytest.fixture
def ledger(journal: FolderJournal) -> SpendTracker:
    return SpendTracker(partial(charges_in, FolderScope(journal)))


def money(amount: str, currency: str = "CNY") -> Money:
    return Money(Decimal(amount), currency)


PRICE = money("0.40")


def drive(policy: Policy, *pairs: tuple[object, object]) -> Any:
    """Drives a lifecycle through these steps and returns its next step."""
    life = lifecycle(policy)
    step: Any = next(life)
    for expected, came in pairs:
        assert step == expected
        step = life.send(came)
    return step


UP_TO_THE_BUDGET = [(("read_submission", 1), None), (("prepare",), None), (("await_slot",), None), (("prepare",), None)]


def test_the_price_is_reserved_between_the_slot_and_the_claim() -> None:
    step = drive(POLICY, *UP_TO_THE_BUDGET, (("reserve", 1, BUDGET), None), (("is_cancelled", False), False))
    assert step == ("claim", 1)


def test_a_job_beyond_the_budget_is_not_claimed_and_the_error_has_the_sums() -> None:
    short = Shortfall(money("0.40"), spent=Decimal("0.50"), reserved=Decimal("0.25"))
    with pytest.raises(
        BudgetExceeded, match=r"cost 0\.40 CNY; of the budget of 1\.00 CNY, 0\.50 .* 0\.25 reserved"
    ) as caught:
        drive(POLICY, *UP_TO_THE_BUDGET, (("reserve", 1, BUDGET), short))
    assert (caught.value.job, caught.value.price, caught.value.budget) == ("run/key", Decimal("0.40"), BUDGET)


async def test_a_submission_of_another_call_stays_counted_when_it_is_reserved_again(ledger: SpendTracker) -> None:
    ledger.claim("a", 1, PRICE)
    assert await ledger.reserve("a", 1, PRICE, budget=Decimal(0)) is None
    assert ledger.all_counted == PRICE.amount


async def test_each_call_for_one_submission_has_its_own_budget(ledger: SpendTracker) -> None:
    assert await ledger.reserve("a", 1, PRICE, budget=BUDGET) is None
    short = await ledger.reserve("a", 1, PRICE, budget=Decimal("0.39"))
    assert short == Shortfall(PRICE, spent=Decimal(0), reserved=Decimal(0))
    assert await ledger.reserve("a", 1, PRICE, budget=Decimal("0.40")) is None
    for reserved in (PRICE.amount, 0):
        ledger.unreserve("a", 1)
        assert ledger.reserved() == reserved


async def test_the_spending_is_rebuilt_from_the_journal(ledger: SpendTracker, journal: FolderJournal) -> None:
    await write(journal, {"intent-1": INTENT, "answer-1": ticket(), "end-1": end("0.35")}, key="0" * 24)
    await write(journal, {"intent-1": INTENT, "answer-1": ticket()}, key="1" * 24)
    await write(journal, {"intent-1": INTENT, "answer-1": BUSY}, key="2" * 24)
    short = await ledger.reserve("f" * 24, 1, money("0.26"), budget=BUDGET)
    assert short == Shortfall(money("0.26"), spent=Decimal("0.35"), reserved=Decimal("0.40"))
    assert await ledger.reserve("f" * 24, 1, money("0.25"), budget=BUDGET) is None
    assert (ledger.spent(), ledger.reserved()) == (Decimal("0.35"), Decimal("0.65"))
    assert ledger.open_amounts == {"1" * 24: Decimal("0.40"), "f" * 24: Decimal("0.25")}
    paid = {"0" * 24: Costs({"CNY": Decimal("0.35")})}
    assert await SpendTracker(partial(charges_in, FolderScope(journal))).costs() == paid


async def test_a_later_attempt_counts_what_another_process_has_paid(journal: FolderJournal) -> None:
    """A process that keeps running is followed by others, and goes on after them."""
    price, (mine, theirs, new) = money("0.30"), (letter * 24 for letter in "abc")
    first, second = (spending_of(FolderScope(journal, attempt=attempt)) for attempt in (1, 2))
    assert await first.reserve(mine, 1, price, budget=BUDGET) is None
    # Its own claims are in the journal too.
    await write(journal, {"intent-1": INTENT.model_copy(update={"estimate": price.amount})}, key=mine)
    await write(journal, {"intent-1": INTENT, "answer-1": ticket(), "end-1": end("0.55")}, key=theirs)
    assert await first.reserve(new, 1, price, budget=BUDGET) is None, "one attempt reads the journal once"
    short = await second.reserve(new, 1, price, budget=BUDGET)
    assert short == Shortfall(price, spent=Decimal("0.55"), reserved=Decimal("0.30"))


async def test_concurrent_reservations_stay_within_the_budget(ledger: SpendTracker) -> None:
    requested = [ledger.reserve(f"{n:024d}", 1, money("0.30"), budget=BUDGET) for n in range(20)]
    assert sum(short is None for short in await asyncio.gather(*requested)) == 3


async def test_a_call_without_a_budget_counts_from_its_claim(ledger: SpendTracker) -> None:
    ledger.claim("a", 1, PRICE)
    ledger.claim("b", 1, PRICE)
    short = await ledger.reserve("c", 1, PRICE, budget=BUDGET)
    assert short == Shortfall(PRICE, spent=Decimal(0), reserved=Decimal("0.80"))
    ledger.note("a", Submit(1, INTENT, BUSY))
    assert await ledger.reserve("c", 1, PRICE, budget=BUDGET) is None


async def test_an_unknown_price_is_requested_if_a_budget_needs_it(ledger: SpendTracker, journal: FolderJournal) -> None:
    """Two submissions without a budget and without a listed price; one of them ends meanwhile.

    Reading the journal for the first budget keeps the request.
    """
    requests = []
    await write(journal, {"intent-1": intent()}, key="a" * 24)

    async def ask() -> Money:
        requests.append("price")
        await asyncio.sleep(0)
        ledger.note("b", Submit(1, INTENT, BUSY))
        return money("0.70")

    for key in ("a" * 24, "b"):
        ledger.claim(key, 1, None, ask)
    ledger.claim("d", 1, money("0"), ask)  # its price is known
    assert ledger.reserved() == 0
    for _ in range(2):
        short = await ledger.reserve("c", 1, PRICE, budget=BUDGET)
        assert short == Shortfall(PRICE, spent=Decimal(0), reserved=Decimal("0.70"))
    assert requests == ["price"]


async def test_a_requested_price_in_another_currency_replaces_a_guess(ledger: SpendTracker) -> None:
    """The guess counted as a cost in another currency, with which no budget can be compared: the job was refused."""
    dollars = money("0.40", "USD")

    async def ask() -> Money:
        return dollars

    ledger.claim("a", 1, None, ask)
    ledger.note("a", Submit(1, INTENT, ticket()))
    assert await ledger.reserve("b", 1, dollars, budget=BUDGET) is None
    assert ledger.reserved("USD") == Decimal("0.80")


async def test_a_requested_price_counts_until_the_job_has_ended(ledger: SpendTracker) -> None:
    """The records of the submission do not contain it; the request may come before or after the answer."""
    accepted = Submit(1, intent(), ticket())

    async def ask() -> Money:
        return money("0.70")

    for key in "ab":
        ledger.claim(key, 1, None, ask)
    ledger.note("a", accepted)
    ledger.replace_job(JobView("a", (accepted,)))
    short = await ledger.reserve("c", 1, PRICE, budget=BUDGET)
    assert short == Shortfall(PRICE, spent=Decimal(0), reserved=Decimal("1.40"))
    for key in "ab":
        ledger.replace_job(JobView(key, (accepted,)))
    assert ledger.reserved() == Decimal("1.40")
    ledger.note("a", replace(accepted, end=end("0.10")))
    ledger.replace_job(JobView("b"))  # another process's claim was first
    assert (ledger.spent(), ledger.reserved()) == (Decimal("0.10"), Decimal(0))


async def test_what_a_call_claims_or_notes_while_the_records_are_read_is_newer_than_they_are() -> None:
    async def read() -> AsyncIterator[tuple[str, dict[int, Charge | None]]]:
        tracker.claim("a", 1, PRICE)
        tracker.note("b", Submit(1, INTENT, BUSY))
        for key in "ab":
            yield key, {1: Charge(Decimal(9), is_spent=False)}

    tracker = SpendTracker(read)
    await tracker.complete()
    assert tracker.reserved() == PRICE.amount
    assert [tracker.newest_submit(key) for key in "ab"] == [1, 0]


async def test_the_records_of_a_job_replace_its_earlier_entries(ledger: SpendTracker) -> None:
    for n in (1, 2):
        ledger.claim("a", n, PRICE)
    ledger.claim("b", 1, PRICE)
    ledger.replace_job(JobView("a", (Submit(1, INTENT, BUSY),)))
    assert (ledger.spent(), ledger.reserved()) == (Decimal(0), PRICE.amount)
    ledger.replace_job(JobView("b", (Submit(1, INTENT, ticket(), end=end("0.05")),)))
    assert (ledger.spent(), ledger.reserved()) == (Decimal("0.05"), Decimal(0))


async def test_the_highest_price_of_the_calls_that_may_pay_counts(ledger: SpendTracker) -> None:
    """The first holder's price counted, although another one paid."""
    low, high, budget = money("0.10"), money("0.90"), Decimal(1)
    assert await ledger.reserve("a", 1, low, budget=budget) is None
    assert await ledger.reserve("a", 1, high, budget=budget) is None
    ledger.claim("a", 1, high)
    assert ledger.reserved() == high.amount
    assert await ledger.reserve("b", 1, money("0.50"), budget=budget) is not None


async def test_an_unknown_price_is_asked_for_although_another_call_has_reserved_the_submission(
    ledger: SpendTracker,
) -> None:
    async def ask() -> Money:
        return money("1")

    budget = Decimal("1.5")
    assert await ledger.reserve("a", 1, money("1"), budget=budget) is None
    ledger.claim("a", 1, None, ask)  # by a call without a budget
    ledger.note("a", Submit(1, intent(), ticket()))  # which has no estimate
    assert await ledger.reserve("b", 1, money("1"), budget=budget) is not None


@pytest.mark.parametrize("is_asked_first", [True, False])
async def test_an_answered_price_does_not_replace_a_higher_one_of_another_call(
    ledger: SpendTracker, is_asked_first: bool
) -> None:
    """A call of another account, which may not be the one that pays, had asked for its price."""

    async def ask() -> Money:
        return money("0.10")

    high, budget = money("0.90"), Decimal(1)
    if not is_asked_first:
        assert await ledger.reserve("a", 1, high, budget=budget) is None
    ledger.hold("a", 1, None, ask)
    assert await ledger.reserve("b", 1, money("2"), budget=budget) is not None  # asks for the price
    if is_asked_first:
        assert await ledger.reserve("a", 1, high, budget=budget) is None
    ledger.claim("a", 1, high)
    assert ledger.reserved() == high.amount
    assert await ledger.reserve("c", 1, money("0.50"), budget=budget) is not None


async def test_each_currency_has_its_own_sums(ledger: SpendTracker) -> None:
    dollars = money("0.90", "USD")
    ledger.claim("a", 1, dollars)
    ledger.claim("b", 1, PRICE)
    ended = End(status="SUCCESS", task_id=TASK, cost=Decimal("0.30"), currency="CNY", coins=Decimal(7))
    ledger.note("b", Submit(1, INTENT, ticket(), end=ended))
    assert [ledger.spent(), ledger.spent("USD"), ledger.reserved("USD")] == [Decimal("0.30"), 0, Decimal("0.90")]
    assert str(ledger.spent_on("b")) == "0.30 CNY, 7 coins"
    assert ledger.all_spent == ledger.amount_of("b") == Decimal("0.30")
    assert ledger.amount_of("a") == 0
    ledger.note("unpriced", Submit(1, intent(), ticket(), end=end()))
    assert ledger.amount_of("unpriced") == 0
    assert ledger.open_costs() == (1, Costs.of(Decimal("0.90"), "USD"))
    assert await ledger.costs() == {name: ledger.spent_on(name) for name in ("b", "unpriced")}


async def test_a_budget_is_not_compared_with_costs_in_another_currency(ledger: SpendTracker) -> None:
    """As in a run that is continued with another account; the whole budget would be spent in each currency."""
    in_coins = End(status="SUCCESS", task_id=TASK, cost=Decimal(250), currency=COINS)
    ledger.note("coins", Submit(1, intent(), ticket(), end=in_coins))
    dollars = money("0.90", "USD")
    assert await ledger.reserve("a", 1, dollars, budget=BUDGET) is None, "coins are no currency"
    ledger.note("a", Submit(1, intent(), ticket(), end=end("0.90").model_copy(update={"currency": "USD"})))
    short = await ledger.reserve("b", 1, PRICE, budget=BUDGET)
    assert short == Shortfall(PRICE, spent=Decimal(0), reserved=Decimal(0), others=Costs.of(Decimal("0.90"), "USD"))
    error = exceeded("job", budget=BUDGET, short=short)
    assert "would cost 0.40 CNY, but other jobs of this run cost 0.90 USD" in error.message
    assert "without a budget" in error.message


CALLS = st.tuples(st.integers(0, 5), st.sampled_from([None, "0.10", "0.40"]), st.booleans())


@search(200)
@given(st.lists(st.tuples(CALLS, st.sampled_from(["start", "refuse", "end", "rest", "read"])), max_size=40))
def test_a_job_with_a_budget_starts_only_within_it(moves: list[tuple[tuple[int, str | None, bool], str]]) -> None:
    asyncio.run(play(moves))


async def play(moves: list[tuple[tuple[int, str | None, bool], str]]) -> None:
    ledger = SpendTracker(partial(charges_in, FolderScope(MemoryJournal(MemoryPlace(), "run"))))
    reserved, spent = dict[str, Decimal](), dict[str, Decimal]()
    for (number, amount, is_limited), move in moves:
        key, price = f"job{number}", None if amount is None else Money(Decimal(amount), "CNY")
        priced = INTENT.model_copy(update={"estimate": price and price.amount})
        match move:
            case "start" if key in reserved or key in spent:
                pass
            case "start" if is_limited:
                short = await ledger.reserve(key, 1, price, budget=BUDGET)
                counted = sum([*reserved.values(), *spent.values()])
                within = price is not None and counted + price.amount <= BUDGET
                assert (short is None) == within
                if price is not None and short is None:
                    reserved[key] = price.amount
                    ledger.claim(key, 1, price)
            case "start":
                ledger.claim(key, 1, price)
                reserved[key] = price.amount if price else Decimal(0)
            case "refuse" if key in reserved:
                ledger.note(key, Submit(1, INTENT, BUSY))
                del reserved[key]
            case "end" if key in reserved:
                ledger.note(key, Submit(1, priced, ticket(), end=end(amount)))
                del reserved[key]
                spent[key] = Decimal(amount or 0)
            case "read" if key in reserved:
                ledger.replace_job(JobView(key, (Submit(1, priced, ticket()),)))
                reserved[key] = Decimal(amount or 0)
        assert (ledger.spent(), ledger.reserved()) == (sum(spent.values()), sum(reserved.values()))


def prices_of(account: Any, **options: Any) -> Prices:
    """`account` answers the calls of `Prices`."""
    return Prices(account, **options)


class Account:
    """An account for `Prices`; each answer is returned once, the last one always."""

    def __init__(self, *answers: str | Exception | None, preview: PricePreview | Exception | None = None) -> None:
        self.answers, self.preview, self.requests = list(answers), preview, 0
        self.paces: list[float | None] = []
        self.is_silent = False

    async def currency(self, *, pace_seconds: float | None = None) -> str | None:
        self.requests += 1
        self.paces.append(pace_seconds)
        if self.is_silent:
            await asyncio.Event().wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def price(self, endpoint: str, payload: object) -> PricePreview | None:
        if isinstance(self.preview, Exception):
            raise self.preview
        return self.preview


async def test_a_price_without_a_currency_is_in_that_of_the_account() -> None:
    account = Account("USD")
    prices = prices_of(account)
    assert prices.guess(PRICE) == PRICE, "the account's currency is not known yet"
    assert await prices.listed(Money(Decimal(1), None)) == money("1", "USD")
    assert account.paces == [2.0], "a label is not waited for"


@pytest.mark.parametrize(
    ("reported", "priced_in", "found"),
    [(None, None, None), (None, "CNY", "CNY"), ("USD", None, "USD"), ("USD", "USD", "USD"), ("USD", "CNY", "none")],
)
async def test_a_price_in_another_currency_than_the_account_s_is_none(
    reported: str | None, priced_in: str | None, found: str | None
) -> None:
    account = Account(reported)
    prices = prices_of(account)
    for currency in (prices.certain_currency, prices.certain_currency, prices.currency):
        assert await currency() == reported
    assert prices.guess(Money(Decimal(1), priced_in)) == (None if found == "none" else Money(Decimal(1), found))
    assert account.paces == [None], "what decides about a budget is waited for"


async def test_a_price_that_names_its_currency_needs_no_other_answer_of_the_account() -> None:
    silence = ResponseLost("HTTP 502")
    named = prices_of(Account(silence, preview=PricePreview(amount=Decimal(2), currency="USD", free=False)))
    assert await named.of("some/model", {}, PRICE) == money("2", "USD")
    unnamed = prices_of(Account(silence, preview=PricePreview(amount=Decimal(2), currency=None, free=False)))
    with pytest.raises(ResponseLost, match="HTTP 502"):
        await unnamed.of("some/model", {}, PRICE)
    hidden = prices_of(Account(api_error("412", doing="account")))
    assert await hidden.certain_currency() is None, "the key may not read its account"
    assert await prices_of(Account("CNY")).of("some/model", {}, PRICE) == PRICE


async def test_a_currency_is_requested_again_after_a_cancelled_request() -> None:
    """A cancelled request has no exception."""
    account = Account("USD")
    account.is_silent = True
    prices = prices_of(account)
    waiting = asyncio.ensure_future(prices.currency())
    await asyncio.sleep(0)
    (request,) = [task for task in asyncio.all_tasks() if task not in (waiting, asyncio.current_task())]
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    account.is_silent = False
    assert set(await asyncio.gather(prices.currency(), prices.certain_currency())) == {"USD"}
    assert account.paces == [2.0, None], "what must be known does not depend on a request for a label"


@pytest.mark.parametrize("seconds", [0, 60])
async def test_an_account_without_a_response_is_queried_again_later(seconds: int) -> None:
    """Even if its request takes long to fail."""
    now = [1000.0]

    class Slow(Account):
        async def currency(self, *, pace_seconds: float | None = None) -> str | None:
            now[0] += seconds
            return await super().currency(pace_seconds=pace_seconds)

    account = Slow(ResponseLost("silence"), "USD")
    prices = prices_of(account, clock=lambda: now[0])
    assert [await prices.currency(), await prices.currency(), account.requests] == [None, None, 1]
    now[0] += 4.5
    assert await prices.currency() is None
    now[0] += 1
    assert await prices.currency() == "USD"


@pytest.mark.parametrize(
    ("amount", "free", "price"),
    [
        ("0.00", False, None),
        ("9999", False, None),
        ("-1", False, None),
        ("0", True, money("0", "USD")),
        ("9999", True, money("0", "USD")),
        ("0.50", True, money("0.50", "USD")),
        ("0.50", False, money("0.50", "USD")),
    ],
)
async def test_a_previewed_placeholder_is_an_unknown_price(amount: str, free: bool, price: Money | None) -> None:
    """RunningHub's preview shows 0 or 9,999 where it has no price.

    Only the next calls may be free, while many are sent at once.
    """
    preview = PricePreview(amount=Decimal(amount), currency=None, free=free)
    prices = prices_of(Account("USD", preview=preview))
    assert await prices.of("some/model", {}, None) == price
    assert await prices.listed(Money(Decimal(amount), "USD")) == (money("0.50", "USD") if amount == "0.50" else None)


async def test_a_failed_price_request_is_an_error_and_a_missing_price_is_not() -> None:
    """Without the error, a call would start that no budget counts."""
    # A gateway's 502, and a code of RunningHub about itself, were "neither the catalogue nor RunningHub's price
    # preview has its price", which no retry repeats.
    for error in (ConnectFailed("refused"), ResponseLost("HTTP 502"), api_error("1000", doing="price")):
        with pytest.raises(type(error)):
            await prices_of(Account("USD", preview=error)).of("some/model", {}, None)
    for no_price in (api_error("1007", doing="price"), PriceUnknown("no price")):
        assert await prices_of(Account("USD", preview=no_price)).of("some/model", {}, None) is None


# Against the emulator.

PICTURE = Decimal("0.04")


async def test_calls_with_and_without_a_budget_stay_within_the_budget(rh: Emulator) -> None:
    rh.faults.add(Fault("submit", every=1, kind="slow", seconds=1.0))  # until then no answer is recorded
    begun = [asyncio.ensure_future(make(models.ZImageTurbo(prompt=f"picture {n}"))) for n in range(3)]
    while len(rh.recorder.submissions) < 3:  # noqa: ASYNC110 - nothing else tells it
        await asyncio.sleep(0.01)
    limited = [make(models.ZImageTurbo(prompt=f"picture {n}"), budget=0.24) for n in range(3, 9)]
    done = await asyncio.gather(*begun, *limited, return_exceptions=True)
    assert [isinstance(one, Result) for one in done].count(True) == 6
    assert all(isinstance(one, Result) for one in done[:3])
    assert rh.recorder.charged == Decimal("0.24")


async def test_a_price_is_requested_only_when_a_call_with_a_budget_needs_it(rh: Emulator) -> None:
    rh.faults.add(Fault("submit", number=1, kind="hold"))
    begun = asyncio.ensure_future(make(models.input_for(UNPRICED)(prompt="a lighthouse")))
    assert await asyncio.to_thread(rh.held.wait)
    assert not [one for one in rh.recorder.requests if "price-preview" in one.path]
    with pytest.raises(BudgetExceeded, match=r"0\.00 is spent and 1\.00 reserved"):
        await make(models.ZImageTurbo(prompt="a lighthouse"), budget=float(PICTURE))
    rh.held.release()
    await begun
    assert len(rh.recorder.submissions) == 1


async def test_a_failed_task_counts_with_its_cost(rh: Emulator) -> None:
    rh.faults.add(Fault("submit", number=1, kind="fail", code="1000"))
    with pytest.raises(JobFailed):
        await make(models.ZImageTurbo(prompt="a lighthouse"), budget=0.05)
    (failed,) = rh.recorder.paid
    budget = float(failed.charged + PICTURE)
    await make(models.ZImageTurbo(prompt="picture 0"), budget=budget)
    with pytest.raises(BudgetExceeded):
        await make(models.ZImageTurbo(prompt="picture 1"), budget=budget)


async def test_the_result_of_a_job_has_the_costs_of_all_its_tasks(rh: Emulator, tmp_path: Path) -> None:
    """The table of steps leaves out neither a failed task nor one of an earlier attempt."""
    rh.faults.add(Fault("submit", number=1, kind="fail", code="805"))
    run = PooledRun(rh, tmp_path, members=("main",))
    requested: list[models.ModelInput] = [models.ZImageTurbo(prompt="a lighthouse")]
    await run.all(requested)
    assert [event.costs for event in run.heard if event.state == "failed"] == [Costs(unknown=1)]
    again = replace(run, attempt=2)
    await again.all(requested)
    assert again.heard[-1].costs == Costs({"CNY": PICTURE}, unknown=1)
    assert rh.recorder.charged == PICTURE


UNPRICED = next(
    model
    for model in catalog.models()
    if model.price is None and {param.name for param in model.params if param.required} == {"prompt"}
)


async def test_a_model_without_a_price_is_priced_by_runninghub(rh: Emulator) -> None:
    result = await make(models.input_for(UNPRICED)(prompt="a lighthouse"), budget=1000)
    assert result.cost is not None
    assert len([one for one in rh.recorder.requests if "price-preview" in one.path]) == 1
    with pytest.raises(BudgetExceeded, match=f"{amount_text(result.cost)} is spent"):
        await make(models.input_for(UNPRICED)(prompt="another"), budget=float(result.cost))


@pytest.mark.parametrize(("code", "words"), [("1007", ""), ("1501", "PRICE_CONFIG_NOT_FOUND"), ("301", "")])
async def test_a_job_with_an_unknown_price_is_refused_with_a_budget(rh: Emulator, code: str, words: str) -> None:
    rh.faults.add(Fault("price", every=1, kind="code", code=code, message=words))
    with pytest.raises(BudgetExceeded, match="neither the catalogue nor RunningHub's price preview has its price"):
        await make(models.input_for(UNPRICED)(prompt="a lighthouse"), budget=1000)
    assert not rh.recorder.submissions
    await make(models.input_for(UNPRICED)(prompt="a lighthouse"))

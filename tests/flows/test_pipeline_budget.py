"""Which steps of a pipeline run may start within its budget, without a run."""

from __future__ import annotations

import sys
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from rh_prefect.errors import BudgetExceeded
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan import Plan, ReviewedPlan
from rh_prefect.pipelines.plan.planned_steps import KnownWork
from rh_prefect.pipelines.run.run_budget import RunBudget, run_limit
from rh_prefect.works.journal.costs_and_budget import COINS, Money, SpendTracker, charges_in
from rh_prefect.works.journal.journal import FolderJournal
from rh_prefect.works.journal.scope import FolderScope
from tests.support.samples.steps import PICTURE, of_rows, rows
from tests.support.world.call_count import calls_of

THREE = {name: PICTURE % f"{name} $(item.title)" for name in "abc"}
ITEMS = of_rows("title: string", **THREE, shared=PICTURE % "the same" + ", same: true")


def plan_of(items: int, budget: str) -> Plan:
    titles = rows(*(f"title {n}" for n in range(items)))
    plan = Pipeline.from_text(f"budget: {budget}\n{ITEMS}").plan_now(rows=titles)
    assert not plan.problems
    return plan


def begun_by(budget: RunBudget, plan: Plan) -> list[str]:
    """Returns the addresses of the steps that may start, all at once and the first items first."""
    budget.consider(plan.budget, {("each", 0): plan.instances})
    steps = sorted(plan.instances, key=lambda one: one.numbers)
    return [one.address for one in steps if budget.refusal(one) is None]


@pytest.fixture
def spending(tmp_path: Path) -> SpendTracker:
    return SpendTracker(partial(charges_in, FolderScope(FolderJournal(str(tmp_path), scope="run"))))


def test_only_items_that_fit_into_the_budget_are_begun(spending: SpendTracker) -> None:
    # Three pictures of 0.04 of each item, and one that all share.
    plan = plan_of(9, "{amount: 99, whole_items: true}")
    begun = begun_by(RunBudget(spending, Decimal("0.30")), plan)
    assert begun == [f"each[{n}].{step}" for n in (1, 2) for step in ("a", "b", "c", "shared")]


def test_a_work_that_items_share_counts_for_none_of_them(spending: SpendTracker) -> None:
    plan = plan_of(3, "{amount: 99, item: 0.12}")
    assert len(begun_by(RunBudget(spending, Decimal(99)), plan)) == 12


def test_the_price_of_a_shared_work_may_change_after_its_items_have_begun(spending: SpendTracker) -> None:
    plan = plan_of(3, "{amount: 99, whole_items: true}")
    one, two, last = ([step for step in plan.instances if step.numbers[0] == number] for number in (1, 2, 3))
    budget = RunBudget(spending, Decimal("0.30"))
    budget.consider(plan.budget, {("each", 1): one, ("each", 2): two, ("each", 3): last})
    assert [budget.refusal(first) is None for first, *_ in (one, two, last)] == [True, True, False]
    (shared,) = one[-1].works
    shared.price = replace(shared.price, most=Decimal("0.12"))
    budget.consider(plan.budget, {("each", 1): one})
    budget.consider(plan.budget, {("each", 2): []})
    assert budget.refusal(last[0]) is not None, "the first item still costs up to 0.24, and the third 0.12"
    budget.consider(plan.budget, {("each", 1): []})
    budget.limit = Decimal("0.15")
    assert budget.refusal(last[0]) is not None, "the third item costs 0.16, when the others have nothing to pay"
    budget.limit = Decimal("0.16")
    assert budget.refusal(last[0]) is None


@pytest.mark.parametrize("options", ["whole_items: true", "item: 0.12", "whole_items: true, item: 0.12"])
def test_an_unknown_submission_counts_although_its_step_has_failed(spending: SpendTracker, options: str) -> None:
    plan = plan_of(2, f"{{amount: 99, {options}}}")
    items = [[step for step in plan.instances if step.numbers[0] == number] for number in (1, 2)]
    budget = RunBudget(spending, Decimal("0.24"))
    budget.consider(plan.budget, {("each", 1): items[0], ("each", 2): items[1]})
    lost, *others = items[0]
    assert budget.refusal(lost) is None
    spending.claim(lost.works[0].key, 1, Money(Decimal("0.09"), "CNY"))
    budget.ended(lost)
    budget.consider(plan.budget, {("each", 1): items[0]}, is_lost=lambda one: one is lost)
    refused = others[0] if "item:" in options else items[1][0]
    assert budget.refusal(refused) is not None, "0.09 may be paid"
    spending.release(lost.works[0].key, 1)
    assert budget.refusal(refused) is None


def test_jobs_may_start_and_end_while_the_budget_is_asked(spending: SpendTracker) -> None:
    """The flow asks in its own thread."""
    plan = plan_of(1, "{amount: 99, whole_items: true}")
    budget, price = RunBudget(spending, Decimal("0.01")), Money(Decimal("0.04"), "CNY")
    budget.consider(plan.budget, {("each", 1): plan.instances})
    for n in range(500):
        spending.claim(f"{n}", 1, price)
    has_ended, interval = Event(), sys.getswitchinterval()

    def jobs() -> None:
        while not has_ended.is_set():
            spending.claim("new", 1, price)
            spending.release("new", 1)

    thread = Thread(target=jobs)
    thread.start()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(300):
            assert budget.refusal(plan.instances[0]) is not None
    finally:
        sys.setswitchinterval(interval)
        has_ended.set()
        thread.join()


@pytest.mark.parametrize("budget", ["{amount: 99, whole_items: true}", "{amount: 99, whole_items: true, item: 0.12}"])
def test_the_work_of_a_budget_grows_linearly_with_the_items(spending: SpendTracker, budget: str) -> None:
    few, many = (plan_of(number, budget) for number in (100, 200))

    def calls(plan: Plan) -> int:
        return calls_of(lambda: begun_by(RunBudget(spending, Decimal(99)), plan))

    calls(few)  # what is imported once
    assert calls(many) < 2.4 * calls(few)


@pytest.mark.parametrize(
    ("budget", "earlier", "limit"),
    [
        ("{amount: 0.5, whole_items: true, all_runs: true}", "0", "0.50"),
        ("{amount: 0.5, whole_items: true, all_runs: true}", "0.08", "0.42"),
        ("{amount: 0.5, whole_items: true, all_runs: true}", "9", "0"),
        ("0.5", "9", "0.5"),
    ],
)
def test_what_earlier_runs_have_paid_counts_in_a_budget_of_all_runs(budget: str, earlier: str, limit: str) -> None:
    plan = plan_of(1, budget)
    found = run_limit(plan, plan.price, budget=None, counted=Decimal(0), earlier=Decimal(earlier))
    assert found == Decimal(limit)


@pytest.mark.parametrize("paid", [{"cost": Decimal(250), "currency": COINS}, {}], ids=["coins", "not reported"])
def test_the_price_of_earlier_runs_counts_in_a_budget_of_all_runs_if_no_money_is_known(paid: dict[str, Any]) -> None:
    plan = plan_of(1, "{amount: 0.5, all_runs: true}")
    first, second, *_ = (work for step in plan.instances for work in step.works)
    first.known = KnownWork("=", **paid)
    second.known = KnownWork("=", cost=Decimal("0.30"), currency="CNY")
    assert plan.paid_before() == Decimal("0.34")


def test_what_an_ended_pipeline_of_a_flow_run_has_left_is_not_for_the_next_one(spending: SpendTracker) -> None:
    first, second, third = (RunBudget(spending) for _ in range(3))
    first.begin(Decimal("0.12"))
    spending.claim("a", 1, Money(Decimal("0.04"), "CNY"))
    assert second.others == Decimal("0.08")
    second.begin(Decimal("0.20"))
    assert spending.planned == Decimal("0.32")
    first.leave()
    second.leave()
    assert third.others == 0
    third.begin(Decimal("0.20"))
    assert spending.planned == Decimal("0.24")


def test_an_unlimited_run_pays_for_what_has_no_known_price(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "budget: unlimited\nsteps: {a: {workflow: '1', assume: {kind: image}}}"
    plan = Pipeline.from_text(text).plan_now()
    assert (plan.price.is_open, plan.budget) == (True, None)
    assert run_limit(plan, plan.price, budget=None, counted=Decimal(0)) is None
    assert run_limit(plan, plan.price, budget=2.0, counted=Decimal(0)) == Decimal(2)
    monkeypatch.setenv("RH_MAX_BUDGET", "5")
    assert run_limit(plan, plan.price, budget=None, counted=Decimal(0)) == Decimal(5)
    reviewed = ReviewedPlan(plan.as_json())
    assert run_limit(plan, plan.price, budget=None, counted=Decimal(0), reviewed=reviewed) == Decimal(5)
    monkeypatch.delenv("RH_MAX_BUDGET")
    assert run_limit(plan, plan.price, budget=None, counted=Decimal(0), reviewed=reviewed) is None
    with pytest.raises(BudgetExceeded, match="needs a budget"):
        run_limit(Pipeline.from_text(text.partition("\n")[2]).plan_now(), plan.price, budget=None, counted=Decimal(0))

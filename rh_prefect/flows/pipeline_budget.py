"""Decides which steps of a pipeline run may start within its budget.

`lifecycle` limits what is submitted (`lifecycle_step_types.Reserve`). This module decides before that, from the
prices of the plan and from what the flow run's ledger says was spent, failed tasks and earlier attempts of the run
included.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from rh_prefect.errors import BudgetExceeded
from rh_prefect.jobs.journal.budget import SpendTracker
from rh_prefect.pipelines.file_model import Budget
from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.plan.planned_steps import PAYING, Instance, Money
from rh_prefect.pipelines.plan.reviewed_plan import ReviewedPlan
from rh_prefect.settings import get_settings


def run_limit(
    plan: Plan,
    price: Money,
    *,
    budget: float | None,
    counted: Decimal,
    reviewed: ReviewedPlan | None = None,
    currency: str | None = None,
    attempt: int = 1,
) -> Decimal:
    """Returns the maximum total cost of a flow run, including its earlier attempts.

    It is the given budget, else the file's, else the highest price of what is left. With a reviewed plan it is at most
    the plan's highest price, and at most that of what is left of the plan: a part may exist already or not be selected.
    If a price of the plan is not known, it is at most the budget of the reviewed file. Prices in another currency than
    the account's are not known either.

    Args:
        plan: The first plan of this attempt.
        price: The price of what is left and is selected.
        budget: The budget that was given to the run.
        counted: What earlier attempts and other pipelines of the flow run have spent, and what their running tasks may
            cost.
        reviewed: The plan that was reviewed.
        currency: The account's; None if it reports none.
        attempt: Of the flow run. A retry makes what still fits, since an earlier one may have tasks in progress.

    Raises:
        BudgetExceeded: The limit is below what the run costs at least, or no limit can be determined.
    """
    whole_items = plan.budget is not None and plan.budget.whole_items
    is_foreign = currency not in (None, plan.currency)
    foreign = f"the account pays in {currency}, and the prices of the plan are in {plan.currency}, so"
    if is_foreign and plan.budget is not None and (whole_items or plan.budget.item is not None):
        raise BudgetExceeded(
            f"{plan.pipeline}: {foreign} the run cannot follow the file's budget of items. Nothing was paid. What "
            f"to do: write `budget` as an amount in {currency}, without whole_items and item."
        )
    is_open = price.is_open or is_foreign
    written = budget if budget is not None else plan.budget.amount if plan.budget is not None else None
    if written is None and is_open:
        cause = f"{foreign} the run needs a budget in {currency}"
        if not is_foreign:
            cause = "the price of a step is not known, or assumed, so the run needs a budget"
        raise BudgetExceeded(
            f"{plan.pipeline}: {cause}. Nothing was paid. What to do: write `budget` into the file, or give one. A "
            "step whose price neither the catalogue nor RunningHub has also needs a price in the file, as in "
            "`assume: {price: 0.50}`."
        )
    limits = [counted + price.most if written is None else Decimal(f"{written:.12g}"), get_settings().max_budget]
    if reviewed is not None:
        limits += [reviewed.budget] if reviewed.is_open or is_open else [reviewed.most, counted + price.most]
    limit = min(one for one in limits if one is not None)
    before = counted if attempt == 1 else Decimal(0)
    if before + price.least > limit and not whole_items and not is_foreign:
        spent = f", {before} were spent before in this flow run" if before else ""
        raise BudgetExceeded(
            f"{plan.pipeline}: the run costs at least {price.least} {plan.currency}{spent}, and its budget is "
            f"{limit}. Nothing was paid. What to do: raise the budget, or run only a part with `only`, "
            "`items` or `sample`."
        )
    return limit


@dataclass(slots=True)
class RunBudget:
    """A check of whether a step may start within the budget."""

    spending: SpendTracker
    limit: Decimal | None = None
    _items: set[str] = field(default_factory=set)
    """Items that were begun."""

    def refusal(
        self, instance: Instance, plan: Plan, *, running: Collection[Instance], lost: Collection[str]
    ) -> BudgetExceeded | None:
        """Returns why a step cannot start now; if it can, records that its item has started.

        Args:
            instance: The step.
            plan: The latest plan.
            running: The steps that have started and not ended.
            lost: Addresses of the steps that this run does not make.

        Returns:
            None where it may begin. A refused step may fit later, when others cost less than their highest price.
        """
        budget, item = plan.budget, top_item(instance)
        if budget is None or not item or not instance.is_paid:
            return None
        remaining = [one for one in plan.instances if one.address not in lost]
        short = self._item_refusal(instance, plan, remaining, running) or self._run_refusal(instance, budget, remaining)
        if short is None:
            self._items.add(item)
        return short

    def _run_refusal(self, instance: Instance, budget: Budget, remaining: Iterable[Instance]) -> BudgetExceeded | None:
        """Checks `whole_items`: the rest of the item and of all started items must fit into the run's budget."""
        item = top_item(instance)
        if not budget.whole_items or self.limit is None or item in self._items:
            return None
        begun = self._items | {item}
        remaining = [one for one in remaining if top_item(one) in begun or not one.item]
        if self.spending.all_spent + _most(remaining) <= self.limit:
            return None
        price = _most(one for one in remaining if top_item(one) == item)
        return BudgetExceeded(
            f"{instance.address}: the rest of item {item} costs up to {price}, and {self.limit} is the budget of the "
            "run. It was not started. What to do: raise the budget and run again; existing results cost nothing."
        )

    def _item_refusal(
        self, instance: Instance, plan: Plan, remaining: Iterable[Instance], running: Collection[Instance]
    ) -> BudgetExceeded | None:
        """Checks `item`: the works that no other item shares must fit into the item's budget."""
        budget, item = plan.budget, top_item(instance)
        if budget is None or budget.item is None:
            return None
        own = _own_works(plan, item)
        now = remaining if budget.whole_items and item not in self._items else [*running, instance]
        spent = sum(map(self.spending.amount_of, own), Decimal(0))
        price = _most((one for one in now if top_item(one) == item), own)
        if spent + price <= Decimal(str(budget.item)):
            return None
        return BudgetExceeded(
            f"{instance.address}: it costs up to {price}, item {item} has cost {spent}, and {budget.item:g} is the "
            "budget of an item. It was not submitted. What to do: raise budget.item and run again; existing results "
            "cost nothing."
        )


def top_item(instance: Instance) -> str:
    """Returns the item of the outermost fan-out that a step belongs to; empty outside of fan-outs."""
    return instance.item.partition("/")[0]


def _own_works(plan: Plan, item: str) -> set[str]:
    """Returns the works that only steps of one item need."""
    own = {work.key for one in plan.instances if top_item(one) == item for work in one.works}
    return own - {work.key for one in plan.instances if top_item(one) != item for work in one.works}


def _most(instances: Iterable[Instance], among: Collection[str] | None = None) -> Decimal:
    """Returns the highest price of the works that the steps have not paid for yet, each work once.

    A task of another run counts, too: if it fails, this run pays for the next one.
    """
    works = {work.key: work for one in instances for work in one.works if one.is_paid and work.is_needed}
    prices = [
        work.price.most
        for key, work in works.items()
        if (work.state in PAYING or work.state == "…") and (among is None or key in among)
    ]
    return sum(prices, Decimal(0))

"""Decides which steps of a pipeline run may start within its budget.

`lifecycle_steps.Steps.reserve` applies the budget at each submission. This module decides before that, from the prices
of the plan and the costs in the flow run's ledger, which include failed tasks and earlier attempts of the run.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from rh_prefect.errors import BudgetExceeded
from rh_prefect.pipelines.file_model import Budget
from rh_prefect.pipelines.plan.incremental_planner import PartKey
from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.plan.planned_steps import PAYING, PlannedStep, PriceRange
from rh_prefect.pipelines.plan.reviewed_plan import ReviewedPlan
from rh_prefect.settings import get_settings
from rh_prefect.works.journal.costs_and_budget import SpendTracker, amount_text


def run_limit(
    plan: Plan,
    price: PriceRange,
    *,
    budget: float | None,
    counted: Decimal,
    others: Decimal = Decimal(0),
    in_progress: Decimal = Decimal(0),
    reviewed: ReviewedPlan | None = None,
    currency: str | None = None,
    attempt: int = 1,
    earlier: Decimal = Decimal(0),
) -> Decimal | None:
    """Returns the maximum total cost of a flow run, including its earlier attempts.

    The limit is the given budget, else the file's, else the maximum total price of the remaining steps, with the price
    of the steps `in_progress`, whose tasks may fail, and of `others`, the pipelines that the flow run makes at the same
    time. With a reviewed plan, the limit is at most the maximum total price of the plan's remaining steps or, if a
    price of the plan is not known, the budget of the reviewed file. A price in a currency other than the account's
    counts as unknown.
    """
    whole_items = plan.budget is not None and plan.budget.whole_items
    is_foreign = currency not in (None, plan.currency)
    foreign = f"the account pays in {currency}, but the prices of the plan are in {plan.currency}, so"
    if is_foreign and plan.budget is not None and (whole_items or plan.budget.item is not None):
        raise BudgetExceeded(
            f"{plan.pipeline}: {foreign} the run cannot apply `whole_items` or `item` of the budget. Nothing was paid. "
            f"What to do: write `budget` as an amount in {currency}, without `whole_items` and `item`."
        )
    given, of_all = _given(plan, budget, earlier)
    is_open = price.is_open or is_foreign
    # RunningHub has quoted what the catalogue lacks, and is asked again before each payment.
    is_quoted = reviewed is not None and not reviewed.is_open and price.is_open and not is_foreign
    if given is None and is_open and not (is_quoted or plan.is_unlimited):
        raise _needs_budget(plan, f"{foreign} the run needs a budget in {currency}" if is_foreign else "")
    is_planned = given is None and not (is_quoted or plan.is_unlimited)
    planned = counted + others + price.most + in_progress if is_planned else None
    limits = [given, planned, get_settings().max_budget]
    if reviewed is not None and is_quoted:
        limits += [reviewed.budget, reviewed.most]
    elif reviewed is not None:
        limits += [reviewed.budget] if reviewed.is_open or is_open else [reviewed.most, counted + price.most]
    limit = min((one for one in limits if one is not None), default=None)
    before = counted if attempt == 1 else Decimal(0)
    if limit is not None and before + price.least > limit and not whole_items and not is_foreign:
        spent = f", {before} were already spent in this flow run" if before else ""
        raise BudgetExceeded(
            f"{plan.pipeline}: the run costs at least {price.least} {plan.currency}{spent}, and its budget is "
            f"{_limit_words(limit, of_all)}. Nothing was paid. What to do: raise the budget, or run only a part with "
            "`only`, `items` or `sample`."
        )
    return limit


def _limit_words(limit: Decimal, of_all: str = "") -> str:
    """Returns the limit of a run for a message, with RH_MAX_BUDGET if this setting is the limit."""
    return f"{limit} (RH_MAX_BUDGET)" if limit == get_settings().max_budget else f"{limit}{of_all}"


def _given(plan: Plan, budget: float | None, earlier: Decimal) -> tuple[Decimal | None, str]:
    """Returns the given budget, else the file's. For a budget of all runs, returns the rest, and a clause about it."""
    amount = budget if budget is not None else plan.budget.amount if plan.budget is not None else None
    if amount is None:
        return None, ""
    of_all = ""
    if plan.budget is not None and plan.budget.all_runs:
        of_all = f" ({earlier} of {amount:.12g} have been or may be spent by other runs)" if earlier else ""
        amount = max(0.0, float(Decimal(f"{amount:.12g}") - earlier))
    return Decimal(f"{amount:.12g}"), of_all


def _needs_budget(plan: Plan, cause: str) -> BudgetExceeded:
    cause = cause or "the price of a step is not known or only assumed, so the run needs a budget"
    return BudgetExceeded(
        f"{plan.pipeline}: {cause}. Nothing was paid. What to do: write `budget` into the file, or pass it to the "
        "run. If neither the catalogue nor RunningHub has the price of a step, also write its price into the file, "
        "as in `assume: {price: 0.50}`."
    )


def shortage(plan: Plan, price: PriceRange, *, left: Decimal | None) -> str:
    """Returns a sentence if the rest of a run's budget is below the expected price; empty otherwise."""
    if left is None or price.expected <= left:
        return ""
    what = "items" if plan.budget is not None and plan.budget.whole_items else "steps"
    expected, rest = amount_text(price.expected), amount_text(max(Decimal(0), left))
    return (
        f"The expected price is {expected} {plan.currency}, and {rest} of the budget is left: {what} that do not fit "
        "will not be made."
    )


@dataclass(slots=True)
class RunBudget:
    """Decides which steps may start within the budget.

    Call `consider` with the changed parts of a plan first; each decision then has to look at one item only.
    """

    spending: SpendTracker
    limit: Decimal | None = None
    _has_begun: bool = False
    _budget: Budget | None = None
    _items: set[str] = field(default_factory=lambda: {""})
    """Started items, and "" for steps outside of items."""
    _parts: dict[PartKey, Sequence[_Share]] = field(default_factory=dict)
    _shares: dict[str, set[_Share]] = field(default_factory=lambda: defaultdict(set))
    """The data of all parts of the plan, by item."""
    _owners: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """The items that need a work, by its key."""
    _running: dict[str, list[PlannedStep]] = field(default_factory=lambda: defaultdict(list))
    _users: Counter[str] = field(default_factory=Counter)
    """In how many shares of started items a work is unpaid, by the work's key."""
    _counted: dict[str, Decimal] = field(default_factory=dict)
    """The highest price of each of these works, as the newest share says; another share may still have an older one."""
    _begun_most: Decimal = Decimal(0)
    """The sum of these prices."""

    def consider(
        self,
        budget: Budget | None,
        parts: Mapping[PartKey, Sequence[PlannedStep]],
        *,
        is_lost: Callable[[PlannedStep], bool] = lambda _: False,
    ) -> None:
        """Updates the unpaid works of each item from new or changed parts of the plan."""
        if budget is None or not (budget.whole_items or budget.item is not None):
            return  # nothing counts by items
        self._budget = budget
        for key, steps in parts.items():
            for share in self._parts.get(key, ()):
                self._update(share, -1)
            self._parts[key] = self._shares_of(steps, is_lost)
            for share in self._parts[key]:
                self._update(share, 1)

    def _shares_of(self, steps: Sequence[PlannedStep], is_lost: Callable[[PlannedStep], bool]) -> Sequence[_Share]:
        found: dict[str, _Share] = {}
        for one in steps:
            share = found.setdefault(one.top_item, _Share(one.top_item))
            share.works.update(work.key for work in one.works)
            share.unpaid.update({} if is_lost(one) else self._prices((one,)))
        return tuple(found.values())

    def _update(self, share: _Share, sign: Literal[1, -1]) -> None:
        if sign > 0:
            self._shares[share.item].add(share)
        else:
            self._shares[share.item].remove(share)
        for work in share.works:
            self._owners[work][share.item] += sign
        if share.item in self._items:
            self._count(share, sign)

    def refusal(self, instance: PlannedStep) -> BudgetExceeded | None:
        """Returns why a step cannot start now; if the step can, records that the step and its item start."""
        budget, item = self._budget, instance.top_item
        # A result that exists is only copied to its names.
        is_free = not instance.is_paid or all(work.state == "=" for work in instance.works)
        if budget is None or not item or is_free:
            return None
        short = self._item_refusal(instance, budget) or self._run_refusal(instance, budget)
        if short is None:
            self._running[item].append(instance)
            if item not in self._items:
                self._items.add(item)
                for share in self._shares[item]:
                    self._count(share, 1)
        return short

    def ended(self, instance: PlannedStep) -> None:
        """Records that a step has ended."""
        if instance in (running := self._running.get(instance.top_item, [])):
            running.remove(instance)

    def _count(self, share: _Share, sign: Literal[1, -1]) -> None:
        """Adds the unpaid works of a share of a started item to the works of all started items, or removes them."""
        for key, most in share.unpaid.items():
            self._users[key] += sign
            before = self._counted.pop(key, Decimal(0))
            if self._users[key]:
                self._counted[key] = most if sign > 0 else before
            self._begun_most += self._counted.get(key, Decimal(0)) - before

    def _unpaid(self, item: str) -> dict[str, Decimal]:
        """Returns the works that an item may still pay for, with the maximum price of each."""
        return {key: most for share in self._shares[item] for key, most in share.unpaid.items()}

    def _own(self, item: str) -> list[str]:
        """Returns the works of an item that no other item needs."""
        works = dict.fromkeys(key for share in self._shares[item] for key in share.works)
        return [key for key in works if all(one == item or not users for one, users in self._owners[key].items())]

    def _run_refusal(self, instance: PlannedStep, budget: Budget) -> BudgetExceeded | None:
        """Returns the error if, with `whole_items`, this item and the started items together may exceed the budget."""
        item = instance.top_item
        if not budget.whole_items or self.limit is None or item in self._items:
            return None
        rest = self._unpaid(item)
        most = self._begun_most + sum((rest[key] for key in rest if not self._users[key]), Decimal(0))
        # Such as an unknown submission, whose step has failed. Copied, because the loop thread changes the amounts.
        works = tuple(self.spending.open_amounts)
        may_cost = self._may_cost(key for key in works if key not in rest and not self._users[key])
        if self.spending.all_spent + may_cost + most <= self.limit:
            return None
        price = sum(rest.values(), Decimal(0))
        return BudgetExceeded(
            f"{instance.address}: the rest of item {item} costs up to {price}, but the budget of the run is "
            f"{_limit_words(self.limit)}. The item was not started. What to do: raise the budget and run again; "
            "existing results cost nothing."
        )

    def _item_refusal(self, instance: PlannedStep, budget: Budget) -> BudgetExceeded | None:
        """Returns the error if a step does not fit into `budget.item`, the budget of each item; None if it fits."""
        item = instance.top_item
        if budget.item is None:
            return None
        own, is_whole = self._own(item), budget.whole_items and item not in self._items
        now = self._unpaid(item) if is_whole else self._prices([*self._running[item], instance])
        spent = sum((self.spending.amount_of(key) for key in own), Decimal(0))
        spent += self._may_cost(key for key in own if key not in now)
        price = sum((now[key] for key in own if key in now), Decimal(0))
        if spent + price <= Decimal(str(budget.item)):
            return None
        return BudgetExceeded(
            f"{instance.address}: the step costs up to {price}, item {item} has cost up to {spent}, and the budget of "
            f"an item is {budget.item:.12g}. The step was not submitted. What to do: raise `budget.item` and run "
            "again; existing results cost nothing."
        )

    def _may_cost(self, works: Iterable[str]) -> Decimal:
        """Returns what the submissions of works may cost that have no known end."""
        return sum((self.spending.open_amounts.get(key, Decimal(0)) for key in works), Decimal(0))

    @property
    def others(self) -> Decimal:
        """What other pipelines that the flow run makes now may still cost, by their highest prices."""
        rest = self.spending.planned - self.spending.all_counted
        return max(rest, Decimal(0)) if self.spending.pipelines else Decimal(0)

    def begin(self, most: Decimal) -> None:
        """Adds the highest price of this run to what all pipelines of the flow run may cost, until `leave`."""
        planned, limit = self.spending.all_counted + self.others + most, get_settings().max_budget
        self.spending.planned = planned if limit is None else min(planned, limit)
        self.spending.pipelines += 1
        self._has_begun = True

    def leave(self) -> None:
        """Records that this run has ended."""
        if self._has_begun:
            self.spending.pipelines -= 1
        self._has_begun = False

    def in_progress(self, plan: Plan) -> Decimal:
        """Returns what the selected steps in progress may cost in addition: the run pays again if their tasks fail."""
        steps = (one for one in plan.instances if one.is_paid and plan.selection.has(one))
        works = {work.key: work for one in steps for work in one.works if work.state == "…" and work.is_needed}
        rest = (
            work.price.most - self.spending.amount_of(key) - self.spending.open_amounts.get(key, Decimal(0))
            for key, work in works.items()
        )
        return sum((one for one in rest if one > 0), Decimal(0))

    def _prices(self, instances: Iterable[PlannedStep]) -> dict[str, Decimal]:
        """Returns the unpaid works of steps, each once, with the maximum price of each.

        A task of another run is included, because this run pays for the next task if that task fails. A task that this
        run has paid for, for example before a suspension, is in the run's spent amount.
        """
        works = (work for one in instances if one.is_paid for work in one.works if work.is_needed)
        # With a budget for all runs, the limit excludes the tasks of other runs already.
        is_shared = self._budget is not None and self._budget.all_runs
        return {
            work.key: work.price.most
            for work in works
            if work.state in PAYING
            or (
                work.state == "…" and not self.spending.amount_of(work.key) and (not is_shared or self.is_own(work.key))
            )
        }

    def is_own(self, work: str) -> bool:
        """Returns whether this run has submitted a work; the run's spent amount then includes the work."""
        return bool(self.spending.newest_submit(work))


@dataclass(slots=True, eq=False)
class _Share:
    """The data of a part of a plan about one item: its works, and the unpaid works with their maximum prices."""

    item: str
    works: set[str] = field(default_factory=set)
    unpaid: dict[str, Decimal] = field(default_factory=dict)

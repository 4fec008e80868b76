"""The costs of a submission: by unit, and costs that RunningHub does not report."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from rh_prefect.client import TaskView, Usage
from rh_prefect.works.journal.costs_and_budget import (
    COINS,
    Charge,
    Costs,
    SpendTracker,
    charge_of,
    charges_in,
    charges_of,
    costs_of,
)
from rh_prefect.works.journal.job_records_and_state import RESUBMITTED, JobView, Submit
from rh_prefect.works.journal.record_types import Answer, End, Lost, Resolution
from rh_prefect.works.journal.scope import FolderScope
from rh_prefect.works.result import end_of
from tests.support.world.job_records import TASK, intent, ticket, unknown
from tests.support.world.memory_journal import MemoryJournal, MemoryPlace

INTENT = intent(estimate=Decimal("0.40"), currency="USD")
OPEN = Charge(Decimal("0.40"), False, "USD", Costs({"USD": Decimal("0.40")}), is_estimate=True)
LATE = ticket("2031112223334445058")


def end(**facts: Any) -> End:
    return End(**({"status": "SUCCESS", "task_id": TASK, "currency": "USD"} | facts))


def test_units_are_never_added() -> None:
    parts = [Costs.of(Decimal("0.10"), "CNY"), Costs.of(Decimal(2), "USD"), Costs.of(Decimal(25), COINS)]
    total = Costs.total([*parts, *parts, Costs.of(None, "CNY")])
    assert total.amounts == {"CNY": Decimal("0.20"), "USD": Decimal(4), COINS: Decimal(50)}
    assert str(total) == "0.20 CNY, 4.00 USD, 50 coins, 1 task of unknown cost"
    assert (str(Costs()), bool(Costs()), bool(Costs(unknown=1))) == ("0", False, True)


RESOLVED = Resolution(outcome="forgotten", by="a person")
AGAIN = Resolution(outcome="forgotten", by=RESUBMITTED)
ADOPTED = Resolution(outcome="adopted", task_id=TASK)
PAID = end(cost=Decimal("0.30"))


def costs(amount: str) -> Costs:
    return Costs({"USD": Decimal(amount)})


def charge(amount: str, parts: Costs | None = None, *, is_spent: bool = True, is_estimate: bool = False) -> Charge:
    return Charge(Decimal(amount), is_spent, "USD", parts or costs(amount), is_estimate=is_estimate)


@pytest.mark.parametrize(
    ("submit", "found"),
    [
        pytest.param(Submit(1, INTENT), OPEN, id="open"),
        pytest.param(Submit(1, INTENT, ticket()), OPEN, id="ticket"),
        pytest.param(Submit(1, INTENT, unknown()), OPEN, id="unknown"),
        pytest.param(Submit(1, intent()), Charge(None, False, costs=Costs(unknown=1), is_estimate=True), id="no price"),
        pytest.param(Submit(1, INTENT, Answer(outcome="refused", code="421")), None, id="refused"),
        pytest.param(Submit(1, INTENT, unknown(), RESOLVED), None, id="forgotten"),
        pytest.param(Submit(1, INTENT, unknown(), AGAIN), OPEN, id="resubmitted"),
        pytest.param(Submit(1, INTENT, ticket(), lost=Lost(by="a person")), OPEN, id="lost"),
        pytest.param(Submit(1, INTENT, unknown(), RESOLVED, late=LATE), OPEN, id="late after forgotten"),
        pytest.param(Submit(1, INTENT, unknown(), AGAIN, late=LATE), OPEN, id="late after resubmitted"),
        pytest.param(
            Submit(1, INTENT, unknown(), ADOPTED, late=LATE),
            charge("0.80", is_spent=False, is_estimate=True),
            id="late beside another task",
        ),
        pytest.param(Submit(1, INTENT, ticket(), end=PAID), charge("0.30"), id="ended"),
        pytest.param(
            Submit(1, INTENT, ticket(), end=end(status="FAILED", cost=Decimal(0))),
            charge("0"),
            id="failed",
        ),
        pytest.param(
            Submit(1, INTENT, ticket(), end=end(status="FAILED")),
            charge("0.40", Costs(unknown=1)),
            id="unreported",
        ),
        pytest.param(
            Submit(1, INTENT, ticket(), end=end(cost=Decimal(250), currency=COINS)),
            charge("0.40", Costs({COINS: Decimal(250)})),
            id="coins",
        ),
        pytest.param(
            Submit(1, INTENT, ticket(), end=PAID, late=LATE),
            charge("0.70", is_estimate=True),
            id="late beside an ended task",
        ),
    ],
)
def test_the_costs_of_a_submission(submit: Submit, found: Charge | None) -> None:
    """Cancelled, failed, lost and earlier submissions count with their costs, in a budget at least with their price."""
    assert charge_of(submit) == found


@pytest.mark.parametrize("resolution", [RESOLVED, AGAIN])
def test_a_late_task_that_the_next_submission_has_adopted_counts_once(resolution: Resolution) -> None:
    first, adopted = Submit(1, INTENT, unknown(), resolution, late=ticket()), Submit(2, INTENT, unknown(), ADOPTED)
    spending = SpendTracker(partial(charges_in, FolderScope(MemoryJournal(MemoryPlace(), "run"))))
    for submit, counted in ((adopted, OPEN), (replace(adopted, end=PAID), charge("0.30"))):
        view = JobView("a", (first, submit))
        assert charges_of(view) == {1: None, 2: counted}
        spending.replace_job(view)
        assert spending.all_counted == counted.amount
    beside = replace(first, answer=ticket("7"), resolution=None)
    assert charges_of(JobView("a", (beside, adopted))) == {1: OPEN, 2: OPEN}, "the first one has a task of its own"


def test_a_graph_with_paid_nodes_costs_coins_and_money() -> None:
    for money, parts in ((Decimal("3.85"), {COINS: Decimal(7), "USD": Decimal("3.85")}), (None, {COINS: Decimal(7)})):
        view = TaskView(task_id=TASK, status="SUCCESS", usage=Usage(third_party_money=money, coins=Decimal(7)))
        assert costs_of(end_of(Submit(1, INTENT, ticket()), view, attempt=1)) == Costs(parts)

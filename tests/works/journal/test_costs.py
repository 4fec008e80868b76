"""The costs of a submission: by unit, and costs that RunningHub does not report."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from rh_prefect.client import TaskView, Usage
from rh_prefect.works.journal.costs_and_budget import COINS, Charge, Costs, charge_of, costs_of
from rh_prefect.works.journal.job_records import RESUBMITTED, Submit
from rh_prefect.works.journal.record_types import Answer, End, Lost, Resolution
from rh_prefect.works.result import end_of
from tests.support.world.job_records import TASK, intent, ticket, unknown

INTENT = intent(estimate=Decimal("0.40"), currency="USD")
ESTIMATE = Charge(Costs({"USD": Decimal("0.40")}), is_estimate=True)
LATE = ticket("2031112223334445058")


def end(**facts: Any) -> End:
    return End(**({"status": "SUCCESS", "task_id": TASK, "currency": "USD"} | facts))


def test_units_are_never_added() -> None:
    """Coins and two currencies are three sums."""
    parts = [Costs.of(Decimal("0.10"), "CNY"), Costs.of(Decimal(2), "USD"), Costs.of(Decimal(25), COINS)]
    total = Costs.total([*parts, *parts, Costs.of(None, "CNY")])
    assert total.amounts == {"CNY": Decimal("0.20"), "USD": Decimal(4), COINS: Decimal(50)}
    assert str(total) == "0.20 CNY, 4.00 USD, 50 coins, 1 task of unknown cost"
    assert (str(Costs()), bool(Costs()), bool(Costs(unknown=1))) == ("0", False, True)


@pytest.mark.parametrize(
    ("submit", "charge"),
    [
        (Submit(1, INTENT), ESTIMATE),
        (Submit(1, INTENT, ticket()), ESTIMATE),
        (Submit(1, INTENT, unknown()), ESTIMATE),
        (Submit(1, intent()), Charge(Costs(unknown=1), is_estimate=True)),
        (Submit(1, INTENT, Answer(outcome="refused", code="421")), None),
        (Submit(1, INTENT, unknown(), Resolution(outcome="forgotten", by="a person")), None),
        (Submit(1, INTENT, unknown(), Resolution(outcome="forgotten", by=RESUBMITTED)), ESTIMATE),
        (Submit(1, INTENT, ticket(), lost=Lost(by="a person")), ESTIMATE),
        (Submit(1, INTENT, unknown(), Resolution(outcome="forgotten", by="a person"), late=LATE), ESTIMATE),
        (Submit(1, INTENT, unknown(), Resolution(outcome="forgotten", by=RESUBMITTED), late=LATE), ESTIMATE),
        (
            Submit(1, INTENT, unknown(), Resolution(outcome="adopted", task_id=TASK), late=LATE),
            Charge(Costs({"USD": Decimal("0.80")}), is_estimate=True),
        ),
        (Submit(1, INTENT, ticket(), end=end(cost=Decimal("0.30"))), Charge(Costs({"USD": Decimal("0.30")}))),
        (Submit(1, INTENT, ticket(), end=end(status="FAILED")), Charge(Costs(unknown=1))),
        (
            Submit(1, INTENT, ticket(), end=end(cost=Decimal("0.30")), late=LATE),
            Charge(Costs({"USD": Decimal("0.70")}), is_estimate=True),
        ),
    ],
    ids=[
        *("open", "ticket", "unknown", "without a price", "refused", "forgotten", "resubmitted", "lost"),
        *("late after forgotten", "late after resubmitted", "late beside another task", "ended", "unreported"),
        "late beside an ended task",
    ],
)
def test_the_costs_of_a_submission(submit: Submit, charge: Charge | None) -> None:
    """Cancelled, failed, lost and earlier submissions count with their costs."""
    assert charge_of(submit) == charge


def test_a_graph_with_paid_nodes_costs_coins_and_money() -> None:
    """Both are recorded, each in its unit."""
    for money, costs in ((Decimal("3.85"), {COINS: Decimal(7), "USD": Decimal("3.85")}), (None, {COINS: Decimal(7)})):
        view = TaskView(task_id=TASK, status="SUCCESS", usage=Usage(third_party_money=money, coins=Decimal(7)))
        assert costs_of(end_of(Submit(1, INTENT, ticket()), view, attempt=1)) == Costs(costs)

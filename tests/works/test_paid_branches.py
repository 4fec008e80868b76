"""Programs with branches that are interrupted and resumed: the invariants, and that the search finds faults.

A longer search is in `tests/long/test_paid_branches.py`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis.stateful import run_state_machine_as_test

from rh_prefect.works.journal.call_assignment import Caller, CallJob, CallRegistry
from rh_prefect.works.journal.identity import Address, Place
from rh_prefect.works.journal.journal import Journal
from tests.support.hypothesis_settings import first_finding, search
from tests.support.samples.branch_programs import PaidBranches


def test_each_branch_keeps_its_results_and_each_call_is_paid_once() -> None:
    run_state_machine_as_test(PaidBranches, settings=search(80))


class CountsAlike(CallRegistry):
    """The rule of 0.1.0: equal requests are numbered in the order of their calls."""

    def __init__(self) -> None:
        super().__init__()
        self._asked: Counter[str] = Counter()

    async def find(self, request: str, caller: Caller, *, journal: Journal, attempt: int, is_empty: bool) -> CallJob:
        self._asked[request] += 1
        place = Address(place=Place(in_order=True, number=self._asked[request]))
        caller = replace(caller, address=place)
        return await super().find(request, caller, journal=journal, attempt=attempt, is_empty=is_empty)


class ForgetsPlaces(CallRegistry):
    """Identifies each run by its name and its arguments only."""

    async def find(self, request: str, caller: Caller, *, journal: Journal, attempt: int, is_empty: bool) -> CallJob:
        steps = [step.model_copy(update={"place": Place()}) for step in caller.address.steps]
        caller = replace(caller, address=Address(steps=tuple(steps), place=caller.address.place))
        return await super().find(request, caller, journal=journal, attempt=attempt, is_empty=is_empty)


@pytest.mark.parametrize(
    ("registry", "finding"),
    [
        pytest.param(CountsAlike, "the result|was given what", id="counted in order"),
        pytest.param(
            ForgetsPlaces,
            "no other call is like it|is given the result",
            id="places are forgotten",
            marks=pytest.mark.long,
        ),
    ],
)
def test_the_search_finds_calls_that_are_not_distinguished(registry: type[CallRegistry], finding: str) -> None:
    class WithAnotherRegistry(PaidBranches):
        def new_registry(self) -> CallRegistry:
            return registry()

    with pytest.raises(AssertionError, match=finding):
        run_state_machine_as_test(WithAnotherRegistry, settings=first_finding(1000))

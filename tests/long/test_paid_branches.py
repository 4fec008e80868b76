"""The search of `tests/jobs/test_paid_branches.py`, longer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support.memory_journal import MemoryPlace
from tests.support.paid_branches import PaidBranches
from tests.support.searching import first_finding, search

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

COURSES = 250


@pytest.mark.parametrize("number", range(3))
def test_every_branch_keeps_its_own_results_and_every_call_is_paid_for_once(number: int) -> None:
    @seed(number)
    class Seeded(PaidBranches):
        pass

    run_state_machine_as_test(Seeded, settings=settings(search(COURSES), derandomize=False))


class LosesCalls(MemoryPlace):
    """Confirms the records of equal calls and does not keep them."""

    def create(self, scope: str, key: str, record: Mapping[str, Any]) -> bool:
        return key.endswith("-call-1") or super().create(scope, key, record)


def test_where_records_of_calls_are_lost_the_search_finds_it() -> None:
    class InAFaultyPlace(PaidBranches):
        def new_place(self) -> MemoryPlace:
            return LosesCalls()

    with pytest.raises(AssertionError, match="the result"):
        run_state_machine_as_test(InAFaultyPlace, settings=first_finding(1000))

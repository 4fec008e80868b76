"""The search of `tests/works/test_paid_branches.py`, longer."""

from __future__ import annotations

import pytest
from hypothesis import seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support.hypothesis_settings import search
from tests.support.samples.branch_programs import PaidBranches

pytestmark = [pytest.mark.long]

COURSES = 200


@pytest.mark.parametrize("number", range(2))
def test_every_branch_keeps_its_own_results_and_every_call_is_paid_for_once(number: int) -> None:
    @seed(number)
    class Seeded(PaidBranches):
        pass

    run_state_machine_as_test(Seeded, settings=settings(search(COURSES), derandomize=False))

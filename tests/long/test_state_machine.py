"""The search of `tests/works/test_state_machine.py`, longer."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support.hypothesis_settings import first_finding, search
from tests.support.world.job_state_machine import PaidJobs
from tests.support.world.simulated_process import Body, Machine, machines, seen

pytestmark = [pytest.mark.long]

COURSES = 250


@pytest.mark.parametrize("number", range(3))
def test_whatever_happens_nothing_is_paid_for_twice_and_nothing_is_lost(number: int) -> None:
    @seed(number)
    class Seeded(PaidJobs):
        pass

    run_state_machine_as_test(Seeded, settings=settings(search(COURSES), derandomize=False))


def looks_dead(name: str) -> Body:
    """A body that everybody takes for dead while its process goes on."""
    body = seen(name)
    body.end()
    return body


class WhereTheLivingLookDead(PaidJobs):
    def new_machines(self, folder: Path) -> list[Machine]:
        return [Machine(one.name, one.spool, looks_dead) for one in machines(folder)]


def test_where_the_living_look_dead_something_is_paid_for_twice() -> None:
    with pytest.raises(AssertionError, match=r"once more|breaks the budget|more often|is not on record|nobody says so"):
        run_state_machine_as_test(WhereTheLivingLookDead, settings=first_finding(2000))

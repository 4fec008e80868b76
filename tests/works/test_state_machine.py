"""Jobs of one run in several processes, killed between any two steps: the invariants, and that the search finds faults.

A longer search is in `tests/long/test_state_machine.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis.stateful import run_state_machine_as_test

from rh_prefect.works.journal.journal import JSON
from tests.support.hypothesis_settings import first_finding, search
from tests.support.world.job_state_machine import PaidJobs
from tests.support.world.memory_journal import MemoryPlace


def test_no_job_is_paid_twice_or_lost_in_any_order_of_events() -> None:
    run_state_machine_as_test(PaidJobs, settings=search(50))


class SaysYes(MemoryPlace):
    """Reports every creation as the first."""

    def create(self, scope: str, key: str, record: Mapping[str, Any]) -> bool:
        super().create(scope, key, record)
        return True


class Replaces(MemoryPlace):
    """Keeps the last record, like a store without conditional puts."""

    def create(self, scope: str, key: str, record: Mapping[str, Any]) -> bool:
        self._scopes.get(scope, {}).pop(key, None)
        return super().create(scope, key, record)


class LosesClaims(MemoryPlace):
    """Confirms claims that it does not keep."""

    def create(self, scope: str, key: str, record: Mapping[str, Any]) -> bool:
        return "-intent-" in key or super().create(scope, key, record)


class ListsNothing(MemoryPlace):
    """Reads its records by name and lists none, so that no process knows what was spent."""

    def keys(self, scope: str) -> list[str]:
        return []


class HidesCancellations(MemoryPlace):
    """Hides the cancellation of the run."""

    def read(self, scope: str, key: str) -> JSON | None:
        return None if key.startswith("cancel-") else super().read(scope, key)


@pytest.mark.parametrize(
    ("place", "finding"),
    [
        pytest.param(SaysYes, "a second time|is lost", id="every creation is first", marks=pytest.mark.long),
        pytest.param(Replaces, "was changed", id="records are replaced"),
        pytest.param(LosesClaims, "is lost|is not on record", id="claims are lost"),
        pytest.param(
            ListsNothing, "breaks the budget|nobody says so|never end", id="nothing is listed", marks=pytest.mark.long
        ),
        pytest.param(HidesCancellations, "nobody says so|never end", id="cancellations are not seen"),
    ],
)
def test_the_search_finds_a_fault(place: type[MemoryPlace], finding: str) -> None:
    class InAFaultyPlace(PaidJobs):
        def new_place(self) -> MemoryPlace:
            return place()

    with pytest.raises(AssertionError, match=finding):
        run_state_machine_as_test(InAFaultyPlace, settings=first_finding(1000))

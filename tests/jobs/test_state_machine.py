"""Jobs of one run in several processes, killed between any two steps: what must hold, and that the search finds flaws.

A longer search is in `tests/long/test_state_machine.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from rh_prefect.jobs.journal import JSON
from tests.support.memory_journal import MemoryPlace
from tests.support.paid_jobs import PaidJobs
from tests.support.stepped import Body, Machine, machines, seen

SEARCH = settings(
    max_examples=150,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """What is tried here is logged by the thousand."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_whatever_happens_nothing_is_paid_for_twice_and_nothing_is_lost() -> None:
    run_state_machine_as_test(PaidJobs, settings=SEARCH)


class SaysYes(MemoryPlace):
    """Tells everybody that his record was the first."""

    def create(self, scope: str, key: str, record: Mapping[str, Any]) -> bool:
        super().create(scope, key, record)
        return True


class Replaces(MemoryPlace):
    """The last one wins, as in a store without conditional puts."""

    def create(self, scope: str, key: str, record: Mapping[str, Any]) -> bool:
        self._scopes.get(scope, {}).pop(key, None)
        return super().create(scope, key, record)


class LosesClaims(MemoryPlace):
    """Confirms claims that it does not keep."""

    def create(self, scope: str, key: str, record: Mapping[str, Any]) -> bool:
        return "-intent-" in key or super().create(scope, key, record)


class ListsNothing(MemoryPlace):
    """Knows its records by name, and cannot list them: nobody sees what was spent."""

    def keys(self, scope: str) -> list[str]:
        return []


class HidesCancellations(MemoryPlace):
    """Shows nobody that the run was cancelled."""

    def read(self, scope: str, key: str) -> JSON | None:
        return None if key.startswith("cancel-") else super().read(scope, key)


def looks_dead(name: str) -> Body:
    """A body that everybody takes for dead while its process goes on."""
    body = seen(name)
    body.end()
    return body


class WhereTheLivingLookDead(PaidJobs):
    def new_machines(self, folder: Path) -> list[Machine]:
        return [Machine(one.name, one.spool, looks_dead) for one in machines(folder)]


def in_a(place: type[MemoryPlace]) -> type[PaidJobs]:
    class InAFaultyPlace(PaidJobs):
        def new_place(self) -> MemoryPlace:
            return place()

    return InAFaultyPlace


@pytest.mark.parametrize(
    ("world", "finding"),
    [
        pytest.param(in_a(SaysYes), "a second time", id="everybody is first"),
        pytest.param(in_a(Replaces), "and is", id="records are replaced"),
        pytest.param(in_a(LosesClaims), "is lost", id="claims are lost"),
        pytest.param(in_a(ListsNothing), "breaks the budget", id="what was spent is not seen"),
        pytest.param(in_a(HidesCancellations), "go on, and nobody says so", id="cancellations are not seen"),
        pytest.param(WhereTheLivingLookDead, "once more, beside", id="the living look dead"),
    ],
)
def test_in_a_faulty_world_the_search_finds_the_fault(world: type[PaidJobs], finding: str) -> None:
    # What is found need not be made small: it is what was looked for.
    search = settings(SEARCH, max_examples=1000, phases=[Phase.generate], report_multiple_bugs=False)
    with pytest.raises(AssertionError, match=finding):
        run_state_machine_as_test(world, settings=search)

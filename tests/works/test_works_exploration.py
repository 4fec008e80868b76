"""All courses of a work: two runs at once, each killed before any operation, a person, and a later run."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.world.works_world import Actor, Explorer, Faults, Violation

A, B = Actor("a", "A"), Actor("b", "B", machine="two")
BESIDE = Actor("b", "B")  # on the machine of A, whose spool it reads
LATER = Actor("c", "C", may_die=False, begins="later")
RESUMED = Actor("c", "A", may_die=False, begins="later")
CANCELLING = Actor("hook", "A", begins="cancel")
NONE = Faults(lost=0, refused=0, failed=0, invalid=0, late=0)


def twice(*actors: Actor) -> tuple[Actor, ...]:
    return tuple(Actor(**{**vars(one), "attempts": 2}) for one in actors)


COURSES = {
    "lost answers": ((A, B, LATER), Faults(lost=1, refused=0, failed=0, late=1)),
    "lost answers on one machine": ((A, BESIDE, LATER), Faults(lost=1, refused=0, failed=0, late=1)),
    "two cancelled runs on one machine": ((A, BESIDE), Faults(lost=0, refused=0, failed=0, late=0, cancelled=2)),
    "a refusal": ((A, B, LATER), Faults(lost=0, refused=1, failed=0, late=0)),
    "a failed task": ((A, B, LATER), Faults(lost=0, refused=0, failed=1, late=0)),
    "two attempts": (twice(A, LATER), Faults(lost=1, refused=1, failed=2, late=0)),
    "two attempts of two runs": (twice(A, B), Faults(lost=0, refused=0, failed=2, late=0)),
    "a resumed run with two attempts": (twice(A, RESUMED), Faults(lost=1, refused=0, failed=2, late=1)),
    "an invalid answer": (twice(A, B), Faults(lost=0, refused=0, failed=0, invalid=1, late=0)),
    "a cancelled run": ((A, B, CANCELLING), NONE),
    "a cancelled run that lives on": ((A, B), Faults(lost=0, refused=0, failed=0, late=0, cancelled=1)),
    "two cancelled runs that live on": ((A, B), Faults(lost=0, refused=0, failed=0, late=0, cancelled=2)),
    "a cancelled run with a second task": (
        twice(A, CANCELLING),
        Faults(lost=0, refused=1, failed=1, late=0, cancelled=1),
    ),
    "a run without the key": (
        (A, Actor("b", "B", machine="two", has_key=False), LATER),
        Faults(lost=0, refused=0, failed=1, late=0),
    ),
}


@pytest.mark.parametrize("course", COURSES)
def test_a_work_is_paid_once_and_has_one_result(course: str) -> None:
    actors, faults = COURSES[course]
    explorer = Explorer(actors, faults)
    assert explorer.explore() > 400
    # Each process reaches the result in some course, so that the walk did not end early.
    for index, actor in enumerate(actors):
        if actor.begins != "cancel":
            assert any(outcome[index].startswith("result-") for outcome in explorer.outcomes)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("later", [LATER, RESUMED])
def test_all_faults_together(later: Actor) -> None:
    assert Explorer((A, B, later), Faults()).explore() > 400_000


@pytest.mark.parametrize(
    ("defect", "said"),
    [
        ({"exclusive": False}, "a second payment"),
        ({"dead_are_unpaid": True}, "a second payment"),
        ({"waiters_end": False}, "no run that lives waits for it"),
    ],
    ids=["intents that are not exclusive", "dead submissions taken for unpaid", "waiters that never end"],
)
def test_a_defect_of_the_protocol_is_found_out(defect: dict[str, Any], said: str) -> None:
    with pytest.raises(Violation, match=said):
        Explorer((A, B, CANCELLING), NONE, **defect).explore()


def test_a_cancelled_run_leaves_a_task_that_another_run_wants() -> None:
    explorer = Explorer((A, B, CANCELLING), NONE)
    explorer.explore()
    hooks = {outcome[2] for outcome in explorer.outcomes}
    assert {"cancelled: True", "cancelled: False"} <= hooks
    # A run whose interest came too late claims the next number.
    assert ("dead", "result-2", "cancelled: True") in explorer.outcomes

"""A work's whole life in the scope of one run, without the steps that do nothing there."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from rh_prefect.works.lifecycle import Policy
from tests.support.world.asked_steps import Step, life_of

SHARED = (
    "read_result",
    "note_waiter",
    "note_claim",
    "note_wait",
    "has_waited",
    "has_other_waiters",
    "release_waiter",
    "report_failure",
    "accepted",
    "ended",
)
"""Steps that do nothing in the scope of one run, or tell something to others."""


def lifecycle(policy: Policy) -> Generator[Step, Any, Any]:
    """Runs a work in the scope of one run; its result is the submission with its end."""
    life = life_of(policy)
    came: Any = None
    try:
        while True:
            step = life.send(came)
            match step:
                case ("publish", submit, end):
                    came = (submit, end)
                case ("record_result", result):
                    came = result
                case (name, *_) if name in SHARED:
                    came = None
                case _:
                    came = yield step
    except StopIteration as over:
        return over.value

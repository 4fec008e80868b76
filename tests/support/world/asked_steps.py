"""Steps of the lifecycle whose results a test sends: the test drives `run_work` without I/O."""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from decimal import Decimal
from typing import Any, TypeAlias, cast

from rh_prefect.works.lifecycle import Policy, run_work
from rh_prefect.works.lifecycle_steps import Steps

Step: TypeAlias = tuple[Any, ...]
"""The name of a step, and its arguments."""

Life: TypeAlias = Coroutine[Step, Any, Any]


class AskedSteps:
    """Each step suspends the lifecycle, which gives the test the step and gets the result."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    @property
    def budget(self) -> Decimal | None:
        return self.policy.budget

    @property
    def records(self) -> AskedSteps:
        """The steps that are about the records alone."""
        return self

    def __repr__(self) -> str:
        return "AskedSteps()"  # equal for equal places of two lifecycles

    def uninterrupted(self, steps: Life) -> Life:
        return steps

    def __getattr__(self, name: str) -> Callable[..., Any]:
        @types.coroutine
        def asked(*args: Any, **options: Any) -> Generator[Step, Any, Any]:
            return (yield (name, *args, *options.values()))

        return asked


def life_of(policy: Policy) -> Life:
    """The life of a work, which `send(None)` begins."""
    return run_work(cast(Steps, AskedSteps(policy)))


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

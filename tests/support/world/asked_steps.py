"""Steps of the lifecycle whose results a test sends: the test drives `run_work` without I/O."""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
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

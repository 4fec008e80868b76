from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from rh_prefect.emulator import Emulator
from tests.support.servers.caller import Caller

Emulate = Callable[..., Caller]


def lasting(queued: float, runs: float) -> Callable[[object, object], tuple[float, float]]:
    """The option `durations`: each task is in the queue and runs for so many seconds."""
    return lambda model, payload: (queued, runs)


@pytest.fixture
def emulate() -> Iterator[Emulate]:
    """Starts emulators with options of the test's own."""
    with ExitStack() as stack:

        def start(**options: Any) -> Caller:
            options = {"long_side": 64, "fps": 6, "max_seconds": 1.0} | options
            caller = Caller(stack.enter_context(Emulator(**options)))
            stack.callback(caller.http.close)
            return caller

        yield start


@pytest.fixture
def rh(emulate: Emulate) -> Caller:
    """A caller of an emulator as it comes."""
    return emulate()

"""The emulator's clock: determines the progress of tasks, the expiry of links, and the default length of tasks."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, assert_never

from rh_prefect.catalog.model import Model, Output

Mode = Literal["instant", "polls", "real"]
"""How tasks progress: they are done at the first poll, at the n-th poll, or after some time."""

Stage = Literal["QUEUED", "RUNNING", "DONE"]


@dataclass(frozen=True, slots=True)
class Timing:
    """The duration of a task, in seconds of the emulator's clock."""

    accepted: float
    queued: float
    running: float


class Clock:
    """The emulator's clock.

    Args:
        mode: How tasks progress.
        factor: Emulator seconds per real second; 0 stops the clock until `advance`. Only in the mode
            `real`.
        polls: The poll at which a task is done, in the mode `polls`.
    """

    def __init__(self, mode: Mode = "instant", *, factor: float = 1.0, polls: int = 2) -> None:
        self.mode = mode
        self.polls = polls
        self._factor = factor if mode == "real" else 1.0
        self._lock = threading.Lock()
        self._start = time.time()
        self._mark = time.monotonic()
        self._ahead = 0.0

    @property
    def factor(self) -> float:
        """Emulator seconds per real second; changing this value does not move the time."""
        return self._factor

    @factor.setter
    def factor(self, factor: float) -> None:
        with self._lock:
            mark = time.monotonic()
            self._ahead += (mark - self._mark) * self._factor
            self._mark, self._factor = mark, factor

    def now(self) -> float:
        """Returns the time in Unix seconds."""
        with self._lock:
            return self._start + self._ahead + (time.monotonic() - self._mark) * self._factor

    def advance(self, seconds: float) -> None:
        """Advances the clock: tasks progress and links expire."""
        with self._lock:
            self._ahead += seconds

    def stage(self, timing: Timing, *, polls: int) -> Stage:
        """Returns whether a task is queued, running or done, after so many polls."""
        match self.mode:
            case "instant":
                return "DONE"
            case "polls":
                return self._by_polls(polls)
            case "real":
                return self._by_time(timing)
            case _ as other:
                assert_never(other)

    def share(self, timing: Timing, *, polls: int) -> float:
        """Returns the progress of a running task, from 0 to 1."""
        if self.mode == "real":
            ran = self.now() - timing.accepted - timing.queued
            return min(1.0, max(0.0, ran / timing.running)) if timing.running > 0 else 1.0
        return 1.0 if self.mode == "instant" else min(1.0, polls / self.polls)

    def _by_polls(self, polls: int) -> Stage:
        if polls >= self.polls:
            return "DONE"
        early = polls == 0 or (polls == 1 and self.polls > 2)
        return "QUEUED" if early else "RUNNING"

    def _by_time(self, timing: Timing) -> Stage:
        age = self.now() - timing.accepted
        if age < timing.queued:
            return "QUEUED"
        return "RUNNING" if age < timing.queued + timing.running else "DONE"


Durations = Callable[[Model, Mapping[str, object]], tuple[float, float]]
"""Returns for how many seconds a request is queued, and for how many seconds it runs."""

_QUEUED: Final = (0.5, 3.0)
_RUNNING: Final[dict[Output, tuple[float, float]]] = {
    "image": (3.0, 8.0),
    "video": (30.0, 90.0),
    "audio": (5.0, 20.0),
    "3d": (40.0, 120.0),
    "text": (1.0, 4.0),
}


def typical(model: Model, payload: Mapping[str, object]) -> tuple[float, float]:
    """Draws typical durations for a model; equal requests get equal durations."""
    drawn = random.Random(json.dumps([model.endpoint, payload], sort_keys=True, default=str))
    return drawn.uniform(*_QUEUED), drawn.uniform(*_RUNNING[model.output])

"""The emulator's clock: how far a task has come, when a link expires, and how long tasks take by default."""

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
"""How tasks move: done at the first look, done at the n-th look, or by time."""

Stage = Literal["QUEUED", "RUNNING", "DONE"]


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a task takes, in seconds of the emulator's clock.

    Attributes:
        accepted: When it was accepted.
        queued: How long it waits for a machine.
        running: How long it runs then.
    """

    accepted: float
    queued: float
    running: float


class Clock:
    """Tells the emulator's time.

    Args:
        mode: How tasks move.
        factor: How many of the emulator's seconds pass in one real second; 0 stands still until `advance`. Only in
            the mode `real`.
        polls: The look at which a task is done, in the mode `polls`.
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
        """How many of its seconds pass in one real second; a new one holds from now on, and the time does not jump."""
        return self._factor

    @factor.setter
    def factor(self, factor: float) -> None:
        with self._lock:
            mark = time.monotonic()
            self._ahead += (mark - self._mark) * self._factor
            self._mark, self._factor = mark, factor

    def now(self) -> float:
        """Tells the time as Unix seconds."""
        with self._lock:
            return self._start + self._ahead + (time.monotonic() - self._mark) * self._factor

    def advance(self, seconds: float) -> None:
        """Moves the clock on: tasks come nearer to their end and links to their death."""
        with self._lock:
            self._ahead += seconds

    def stage(self, timing: Timing, *, looks: int) -> Stage:
        """Says how far a task has come.

        Args:
            timing: The task's own times.
            looks: How often it was queried.
        """
        match self.mode:
            case "instant":
                return "DONE"
            case "polls":
                return self._by_looks(looks)
            case "real":
                return self._by_time(timing)
            case _ as other:
                assert_never(other)

    def share(self, timing: Timing, *, looks: int) -> float:
        """Says which part of its run a running task has behind it, from 0 to 1."""
        if self.mode == "real":
            ran = self.now() - timing.accepted - timing.queued
            return min(1.0, max(0.0, ran / timing.running)) if timing.running > 0 else 1.0
        return 1.0 if self.mode == "instant" else min(1.0, looks / self.polls)

    def _by_looks(self, looks: int) -> Stage:
        if looks >= self.polls:
            return "DONE"
        early = looks == 0 or (looks == 1 and self.polls > 2)
        return "QUEUED" if early else "RUNNING"

    def _by_time(self, timing: Timing) -> Stage:
        age = self.now() - timing.accepted
        if age < timing.queued:
            return "QUEUED"
        return "RUNNING" if age < timing.queued + timing.running else "DONE"


Durations = Callable[[Model, Mapping[str, object]], tuple[float, float]]
"""Tells the seconds that a request is queued and then runs."""

_QUEUED: Final = (0.5, 3.0)
_RUNNING: Final[dict[Output, tuple[float, float]]] = {
    "image": (3.0, 8.0),
    "video": (30.0, 90.0),
    "audio": (5.0, 20.0),
    "3d": (40.0, 120.0),
    "text": (1.0, 4.0),
}


def typical(model: Model, payload: Mapping[str, object]) -> tuple[float, float]:
    """Draws times as such models take them; the same request takes the same time.

    Args:
        model: The model.
        payload: The request.
    """
    drawn = random.Random(json.dumps([model.endpoint, payload], sort_keys=True, default=str))
    return drawn.uniform(*_QUEUED), drawn.uniform(*_RUNNING[model.output])

"""Estimates which tasks of an account have ended, from the number of its tasks."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Sequence

REMEMBERED = 200
"""Number of recent durations that are stored: the speed of models and of RunningHub changes."""

MIN_DURATIONS = 5
"""Minimum number of stored durations for an estimate."""

MARGIN = 1.008
"""Factor by which a poll is later than the estimated end."""

POLLS_PER_END = 2
"""Number of tasks that are polled for each ended task. If no end is found, the number is squared, then cubed, and so
on.
"""

FAILED_SEARCHES = 5
"""Number of consecutive counts without a found end after which counts start no polls. They start again when no ended
task is missing, or more than twice as many are.
"""

COUNTS_PER_JOB = 4.0
"""Approximate number of counts per job if many tasks run, independent of their durations."""

MAX_GAP_PER_AGE = 0.03
"""Maximum gap between two counts, as a fraction of the youngest task's age."""

COUNTS_PER_GAP = 12
"""Maximum number of counts in the shortest gap between two polls of a task; one count covers all tasks."""

QUICK_COUNTS_PER_GAP = 30
"""The same maximum while an ended task is searched."""

QUICK_FACTOR = 4
"""Factor by which the gap is shorter during such a search."""


def counting_gap(ages: Sequence[float], *, shortest: float, is_missing: bool = False) -> float:
    """Returns the time until the next count.

    A few counts between two ends cost each job a few requests. The more slots there are, the shorter a slot is idle. If
    few tasks run, the age of the youngest task limits the gap. `shortest` is the shortest gap between two polls of one
    task; `is_missing` says that an ended task is not found yet.
    """
    mean = sum(ages) / len(ages)
    between_ends = 2 * mean / len(ages)
    longest = max(shortest, MAX_GAP_PER_AGE * min(ages))
    gap = min(longest, max(shortest / COUNTS_PER_GAP, between_ends / COUNTS_PER_JOB))
    return min(gap, max(shortest / QUICK_COUNTS_PER_GAP, gap / QUICK_FACTOR)) if is_missing else gap


class DurationHistory:
    """The durations of an account's recent tasks."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque()
        self._sorted: list[float] = []

    def note(self, seconds: float) -> None:
        """Records one duration."""
        self._latest.append(seconds)
        insort(self._sorted, seconds)
        if len(self._latest) > REMEMBERED:
            self._sorted.remove(self._latest.popleft())

    def end_probability(self, last_running: float, age: float) -> float:
        """Returns the probability that a task has ended at an age, if it was last seen running at `last_running`.

        It is the fraction of the durations longer than `last_running` that are at most `age`. Without durations, it is
        the fraction of the age since `last_running`.
        """
        first = bisect_right(self._sorted, last_running)
        ended = bisect_right(self._sorted, age) - first
        unpolled = 1 - last_running / age if age > 0 else 0.0
        return (ended + unpolled) / (len(self._sorted) - first + 1)

    @property
    def is_known(self) -> bool:
        """Whether enough durations are recorded for an estimate."""
        return len(self._sorted) >= MIN_DURATIONS

    def estimate(self, age: float) -> float | None:
        """Estimates the age at which a running task of this age ends.

        It is the median of the longer durations, times `MARGIN`; None if there are fewer than `MIN_DURATIONS`.
        """
        first = bisect_right(self._sorted, age)
        longer = len(self._sorted) - first
        return MARGIN * self._sorted[first + longer // 2] if longer >= MIN_DURATIONS else None

    def overdue(self, age: float) -> float | None:
        """Returns the seconds since a running task had its last estimate; None if it has one, or never had."""
        if not self.is_known:
            return None
        longest = self._sorted[-MIN_DURATIONS]
        return age - longest if age >= longest else None


class Search:
    """A policy for how many tasks to query when a count shows that some have ended."""

    def __init__(self) -> None:
        self._failed = 0
        self._ends = 0
        self._distrusted = 0

    @property
    def is_trusted(self) -> bool:
        """Whether the searches have so far found the tasks that counts showed as ended."""
        return self._failed < FAILED_SEARCHES

    def polls(self, missing: int, *, ends: int) -> int:
        """Returns the number of tasks to query now, by the latest count of ended tasks and all ends that were found."""
        if not missing or (not self.is_trusted and missing > 2 * self._distrusted):
            self._failed = 0
        elif self.is_trusted:
            self._distrusted = missing
            self._failed = self._failed + 1 if ends == self._ends else 0
        self._ends = ends
        return missing * POLLS_PER_END ** max(1, self._failed) if self.is_trusted else 0

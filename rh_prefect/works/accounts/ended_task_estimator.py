"""Estimates which tasks of an account have ended, from the number of its tasks, and schedules the counts."""

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
"""Number of tasks that are polled for each ended task; its power after further counts without a found end."""

FAILED_SEARCHES = 5
"""Number of consecutive counts without a found end after which counts start no polls, until none is missing, or more
than twice as many."""

COUNTS_PER_JOB = 4.0
"""Approximate number of counts per job if many tasks run, independent of their durations."""

MAX_GAP_PER_AGE = 0.03
"""Maximum gap between two counts, as a fraction of the youngest task's age."""

COUNTS_PER_GAP = 12
"""Maximum number of counts in the shortest gap between two polls of one task: one count is for all tasks."""

QUICK_COUNTS_PER_GAP = 30
"""The same while ends are expected."""

QUICK_GAP_PER_AGE = 0.012
"""Minimum gap between counts while no durations are known, as a fraction of the youngest task's age."""

INITIAL_CREDIT = 100.0
"""Number of quick counts that are allowed at the start, when the durations of the tasks are not known."""

MAX_CREDIT = 200.0
QUIET_FACTOR = 2.0
"""Factor for the gap between counts while no end is expected."""

LIKELY_ENDS = 0.5
"""Expected number of ends before the next usual count from which counts are quick."""


def counting_gap(ages: Sequence[float], *, shortest: float) -> float:
    """Returns the time until the next count, independent of earlier durations.

    A few counts between two ends cost each job the same few requests, and the more slots there are, the shorter a slot
    is idle. If few tasks run, the gap is limited by the age of the youngest task. `shortest` is the shortest gap
    between two polls of one task.
    """
    mean = sum(ages) / len(ages)
    between_ends = 2 * mean / len(ages)
    longest = max(shortest, MAX_GAP_PER_AGE * min(ages))
    return min(longest, max(shortest / COUNTS_PER_GAP, between_ends / COUNTS_PER_JOB))


class CountPacer:
    """A schedule for counting: rare while no task is expected to end, frequent when ends are expected."""

    def __init__(self) -> None:
        """Starts with `INITIAL_CREDIT`."""
        self._credit = INITIAL_CREDIT

    def gap(
        self, tasks: Sequence[tuple[float, float]], *, shortest: float, durations: DurationHistory, is_missing: bool
    ) -> float:
        """Returns the time until the next count; `is_missing` if a task has ended that is not found yet.

        Each of the tasks, at least one, is its age when it was last known to run, and its current age.
        """
        ages = [age for _, age in tasks]
        usual = counting_gap(ages, shortest=shortest)
        quick = shortest / QUICK_COUNTS_PER_GAP
        if not durations.is_known:
            quick = max(quick, QUICK_GAP_PER_AGE * min(ages))
        expected_ends = sum(durations.hazard(last_running, age + usual) for last_running, age in tasks)
        is_likely = not durations.is_known or expected_ends >= LIKELY_ENDS
        gap = min(usual, quick) if (is_likely or is_missing) and self._credit >= 1 else usual
        if not is_likely and not is_missing:
            until = min(durations.until_next(age) for age in ages)
            gap = min(QUIET_FACTOR * usual, max(usual, until))
        self._credit = min(MAX_CREDIT, self._credit + gap / usual - 1)
        return gap


class DurationHistory:
    """The durations of an account's recent tasks."""

    def __init__(self) -> None:
        """Starts without durations."""
        self._latest: deque[float] = deque()
        self._sorted: list[float] = []

    def note(self, seconds: float) -> None:
        """Records one duration."""
        self._latest.append(seconds)
        insort(self._sorted, seconds)
        if len(self._latest) > REMEMBERED:
            self._sorted.remove(self._latest.popleft())

    def end_probability(self, last_running: float, age: float) -> float:
        """Estimates the probability that a task that was last known to run at one age has ended at another.

        It is the fraction of the durations longer than `last_running` that are at most `age`; without durations, the
        fraction of the age since `last_running`.
        """
        first = bisect_right(self._sorted, last_running)
        ended = bisect_right(self._sorted, age) - first
        unpolled = 1 - last_running / age if age > 0 else 0.0
        return (ended + unpolled) / (len(self._sorted) - first + 1)

    def hazard(self, last_running: float, until: float) -> float:
        """Returns the fraction of the durations longer than `last_running` that are at most `until`."""
        first = bisect_right(self._sorted, last_running)
        longer = len(self._sorted) - first
        return (bisect_right(self._sorted, until) - first) / longer if longer else 0.0

    def until_next(self, age: float) -> float:
        """Returns the time until a task of this age reaches the next recorded duration."""
        first = bisect_right(self._sorted, age)
        return self._sorted[first] - age if first < len(self._sorted) else float("inf")

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
        """Returns for how long a task of this age has had no estimate; None if it has one, or if none is possible."""
        if not self.is_known:
            return None
        longest = self._sorted[-MIN_DURATIONS]
        return age - longest if age >= longest else None


class Search:
    """A policy for how many tasks to query when a count shows that some have ended."""

    def __init__(self) -> None:
        """Starts with trusted counts."""
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

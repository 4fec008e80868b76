"""Estimates which tasks of an account have ended if only their number is known, and sets how often to count."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Sequence

REMEMBERED = 200
"""How many of the latest ends are remembered: models change, and so does RunningHub's speed."""

FEWEST = 5
"""How many must be remembered before a guess is made from them."""

MARGIN = 1.008
"""By how much a poll comes later than the estimated end."""

POLLS_FOR_EACH = 2
"""How many tasks are polled for each one that has ended; so many times as many after each further count in a row
that found none."""

FAILED_SEARCHES = 5
"""After so many counts in a row without a found end, counts start no polls any more."""

COUNTS_A_JOB = 4.0
"""About how many counts one job costs where many run, however long they take."""

GAP_OF_AGE = 0.03
"""The longest gap between two counts, as a part of the youngest task's age."""

COUNTS_IN_A_GAP = 12
"""How many counts there may be in the shortest gap between two polls of one task: one count is for all tasks."""

QUICK_COUNTS_IN_A_GAP = 30
"""The same while ends are expected."""

QUICK_PART_OF_AGE = 0.012
"""The shortest gap between counts as a part of the youngest task's age, while no durations are known."""

SAVED_AT_FIRST = 100.0
"""Quick counts that an account may make before it has saved any: the durations of the first tasks are not known."""

MOST_SAVED = 200.0
QUIET_FACTOR = 2.0
"""How many times as long as usual the gap between counts is while no end is expected."""


def counting_gap(ages: Sequence[float], *, shortest: float) -> float:
    """How long to wait before the tasks are counted again.

    A few counts between two ends cost each job the same few requests, and keep a slot idle for a part of a job's time
    that is the smaller, the more slots there are. Where few tasks run, no end may go unnoticed for long.

    Args:
        ages: The ages of the tasks that run, in seconds; at least one.
        shortest: The shortest gap between two polls of one task.
    """
    mean = sum(ages) / len(ages)
    between_ends = 2 * mean / len(ages)
    longest = max(shortest, GAP_OF_AGE * min(ages))
    return min(longest, max(shortest / COUNTS_IN_A_GAP, between_ends / COUNTS_A_JOB))


class CountPacer:
    """A schedule for counting: rare while no task is expected to end, frequent when ends are expected."""

    def __init__(self) -> None:
        """Starts with some saved."""
        self._saved = SAVED_AT_FIRST

    def gap(
        self, tasks: Sequence[tuple[float, float]], *, shortest: float, lengths: DurationHistory, is_missing: bool
    ) -> float:
        """How long to wait before the tasks are counted again.

        Args:
            tasks: Of each task that runs its age when it was last known to run, and its age now; at least one.
            shortest: The shortest gap between two polls of one task.
            lengths: How long tasks lately ran.
            is_missing: Whether one has ended and is not found yet.
        """
        ages = [age for _, age in tasks]
        usual = counting_gap(ages, shortest=shortest)
        quick = shortest / QUICK_COUNTS_IN_A_GAP
        if not lengths.is_known:
            quick = max(quick, QUICK_PART_OF_AGE * min(ages))
        is_likely = not lengths.is_known or sum(lengths.hazard(seen, age + usual) for seen, age in tasks) >= LIKELY
        gap = min(usual, quick) if (is_likely or is_missing) and self._saved >= 1 else usual
        if not is_likely and not is_missing:
            until = min(lengths.until_next(age) for age in ages)
            gap = min(QUIET_FACTOR * usual, max(usual, until))
        self._saved = min(MOST_SAVED, self._saved + gap / usual - 1)
        return gap


LIKELY = 0.5
"""How many ends must be expected until the next usual count, so that counts are quick."""


class DurationHistory:
    """The durations of an account's recent tasks."""

    def __init__(self) -> None:
        """Starts with none."""
        self._latest: deque[float] = deque()
        self._sorted: list[float] = []

    def note(self, seconds: float) -> None:
        """Records one duration."""
        self._latest.append(seconds)
        insort(self._sorted, seconds)
        if len(self._latest) > REMEMBERED:
            self._sorted.remove(self._latest.popleft())

    def odds(self, *, seen: float, age: float) -> float:
        """How likely a task has ended.

        Args:
            seen: Its age when it was last seen running.
            age: Its age now.

        Returns:
            The part of the remembered ones longer than `seen` that were over at `age`; where nothing is remembered,
            the part of its age in which it was not polled.
        """
        longer = len(self._sorted) - bisect_right(self._sorted, seen)
        over = longer - (len(self._sorted) - bisect_right(self._sorted, age))
        unseen = 1 - seen / age if age > 0 else 0.0
        return (over + unseen) / (longer + 1)

    def hazard(self, seen: float, until: float) -> float:
        """Returns the fraction of recorded durations longer than `seen` that are at most `until`."""
        first = bisect_right(self._sorted, seen)
        longer = len(self._sorted) - first
        return (bisect_right(self._sorted, until) - first) / longer if longer else 0.0

    def until_next(self, age: float) -> float:
        """Returns the time until the next recorded duration is reached."""
        first = bisect_right(self._sorted, age)
        return self._sorted[first] - age if first < len(self._sorted) else float("inf")

    @property
    def is_known(self) -> bool:
        """Whether enough durations are recorded for an estimate."""
        return len(self._sorted) >= FEWEST

    def guess(self, *, seen: float) -> float | None:
        """Returns the age at which to query a task that was seen running at the age `seen`.

        Returns:
            When half of the remembered ones that were longer were over, and a little more; None where there were few.
        """
        first = bisect_right(self._sorted, seen)
        longer = len(self._sorted) - first
        return MARGIN * self._sorted[first + longer // 2] if longer >= FEWEST else None


class Search:
    """A policy for how many tasks to query when a count shows that some have ended."""

    def __init__(self) -> None:
        """Starts with trust in the counts."""
        self._failed = 0
        self._ends = 0

    @property
    def is_trusted(self) -> bool:
        """Whether the searches have so far found the tasks that counts showed as ended."""
        return self._failed < FAILED_SEARCHES

    def polls(self, missing: int, *, ends: int) -> int:
        """Returns the number of tasks to query now.

        Args:
            missing: How many the latest count misses.
            ends: How many ends were ever found.
        """
        if not missing:
            self._failed = 0
        elif self.is_trusted:
            self._failed = self._failed + 1 if ends == self._ends else 0
        self._ends = ends
        return missing * POLLS_FOR_EACH ** max(1, self._failed) if self.is_trusted else 0

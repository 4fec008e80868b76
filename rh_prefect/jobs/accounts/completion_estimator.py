"""Which of an account's tasks have ended, where only their number is known; and how often to count them."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Sequence

REMEMBERED = 200
"""How many of the latest ends are remembered: models change, and so does RunningHub's speed."""

FEWEST = 5
"""How many must be remembered before a guess is made from them."""

MARGIN = 1.03
"""By how much a look comes later than the end that is guessed."""

LOOKS_FOR_EACH = 3
"""How many tasks are looked at for each one that has ended; so many times as many after each further count in a row
that found none."""

VAIN_COUNTS = 5
"""After so many counts in a row of which no end was found, what they say is not believed."""

COUNTS_A_JOB = 4.0
"""About how many counts one job costs where many run, however long they take."""

GAP_OF_AGE = 0.03
"""The longest gap between two counts, as a part of the youngest task's age."""

COUNTS_IN_A_GAP = 12
"""How many counts there may be in the shortest gap between two looks at one task: one count is for all tasks."""


def counting_gap(ages: Sequence[float], *, shortest: float) -> float:
    """How long to wait before the tasks are counted again.

    A few counts between two ends cost each job the same few requests, and keep a slot idle for a part of a job's time
    that is the smaller, the more slots there are. Where few tasks run, no end may go unnoticed for long.

    Args:
        ages: The ages of the tasks that run, in seconds; at least one.
        shortest: The shortest gap between two looks at one task.
    """
    mean = sum(ages) / len(ages)
    between_ends = 2 * mean / len(ages)
    longest = max(shortest, GAP_OF_AGE * min(ages))
    return min(longest, max(shortest / COUNTS_IN_A_GAP, between_ends / COUNTS_A_JOB))


class DurationHistory:
    """How long an account's tasks lately ran."""

    def __init__(self) -> None:
        """Starts with none."""
        self._latest: deque[float] = deque()
        self._sorted: list[float] = []

    def note(self, seconds: float) -> None:
        """Remembers one."""
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
            the part of its age in which nobody looked.
        """
        longer = len(self._sorted) - bisect_right(self._sorted, seen)
        over = longer - (len(self._sorted) - bisect_right(self._sorted, age))
        unseen = 1 - seen / age if age > 0 else 0.0
        return (over + unseen) / (longer + 1)

    @property
    def is_known(self) -> bool:
        """Whether enough are remembered to say something."""
        return len(self._sorted) >= FEWEST

    def guess(self, *, seen: float) -> float | None:
        """At which age to look at a task that was seen running at the age `seen`.

        Returns:
            When half of the remembered ones that were longer were over, and a little more; None where there were few.
        """
        first = bisect_right(self._sorted, seen)
        longer = len(self._sorted) - first
        return MARGIN * self._sorted[first + longer // 2] if longer >= FEWEST else None


class Search:
    """Decides how many tasks to look at for those that a count misses."""

    def __init__(self) -> None:
        """Starts with trust in the counts."""
        self._vain = 0
        self._ends = 0

    @property
    def is_trusted(self) -> bool:
        """Whether what counts miss was found so far."""
        return self._vain < VAIN_COUNTS

    def looks(self, missing: int, *, ends: int) -> int:
        """How many tasks to look at now.

        Args:
            missing: How many the latest count misses.
            ends: How many ends were ever found.
        """
        if not missing:
            self._vain = 0
        elif self.is_trusted:
            self._vain = self._vain + 1 if ends == self._ends else 0
        self._ends = ends
        return missing * LOOKS_FOR_EACH ** max(1, self._vain) if self.is_trusted else 0

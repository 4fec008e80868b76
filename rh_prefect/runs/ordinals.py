"""Counts equal calls, so that whatever is tried again is handed the numbers that it had.

Knows nothing of Prefect: a unit is anything that can be tried again (a task run, a flow run inside the tree), and each
try is some object.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

_V = TypeVar("_V")


class PerObject(Generic[_V]):
    """A value for each object, found by identity and dropped with the object; it need not be hashable."""

    def __init__(self, make: Callable[[], _V]) -> None:
        self._make = make
        self._values: dict[int, _V] = {}
        self._lock = threading.Lock()

    def __getitem__(self, owner: object) -> _V:
        with self._lock:
            if id(owner) not in self._values:
                self._values[id(owner)] = self._make()
                # Runs before the id can be given to another object.
                weakref.finalize(owner, self._values.pop, id(owner), None).atexit = False
            return self._values[id(owner)]

    def __len__(self) -> int:
        return len(self._values)


@dataclass(frozen=True, slots=True)
class Unit:
    """One try of something that can be tried again.

    Attributes:
        id: The same in every try.
        attempt: An object that is another one in every try.
    """

    id: str
    attempt: object


class Ordinals:
    """The numbers of one attempt of a run.

    A unit asks its outer unit for numbers and keeps a list of what it was given; each new try of it reads that list
    from the start, and asks again only when it has made more equal calls than any try before.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total: Counter[str] = Counter()
        self._given: dict[tuple[str, str], list[int]] = {}
        self._asked: PerObject[Counter[str]] = PerObject(Counter)

    def next(self, base: str, units: Sequence[Unit]) -> int:
        """Gives the number of a call.

        Args:
            base: What makes two calls equal.
            units: Where the call is made, innermost first; empty right in the run itself.
        """
        with self._lock:
            return self._next(base, units)

    def _next(self, base: str, units: Sequence[Unit]) -> int:
        if not units:
            self._total[base] += 1
            return self._total[base]
        unit, *outer = units
        asked, given = self._asked[unit.attempt], self._given.setdefault((unit.id, base), [])
        if asked[base] == len(given):
            given.append(self._next(base, outer))
        asked[base] += 1
        return given[asked[base] - 1]

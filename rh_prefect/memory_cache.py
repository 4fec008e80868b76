"""Caches of a long-lived process: each keeps a limited number of entries, and none keeps the task that filled it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable, Iterable, Iterator, MutableMapping, MutableSet
from contextlib import suppress
from typing import Any, Generic, TypeVar, overload

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
D = TypeVar("D")


class LruCache(MutableMapping[K, V]):
    """A mapping that drops the entry that was used least recently when it is full.

    Use it as `LruCache[str, asyncio.Lock](1000, make=asyncio.Lock)`. It is safe on several threads for keys that are
    text, numbers, or tuples of these. It has no lock, which a forked child could inherit locked.
    """

    def __init__(self, most: int, *, make: Callable[[], V] | None = None) -> None:
        """Starts empty.

        Args:
            most: How many entries it keeps.
            make: Makes the value of a key that is missing, as in `collections.defaultdict`.
        """
        self._most = most
        self._make = make
        self._entries: OrderedDict[K, V] = OrderedDict()

    def __repr__(self) -> str:
        return f"LruCache({self._most}, {dict(self._entries)!r})"

    def __getitem__(self, key: K) -> V:
        if self._make is not None and key not in self._entries:
            self.setdefault(key, self._make())
        value = self._entries[key]
        with suppress(KeyError):  # another thread has dropped it
            self._entries.move_to_end(key)
        return value

    def __setitem__(self, key: K, value: V) -> None:
        self._entries[key] = value
        self._drop_oldest(but=key)

    def __delitem__(self, key: K) -> None:
        del self._entries[key]

    def __contains__(self, key: object) -> bool:
        # The mixins' own methods, here and below, ask and then act, and would make a missing value.
        return key in self._entries

    def __iter__(self) -> Iterator[K]:
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def get(self, key: K, /) -> V | None: ...
    @overload
    def get(self, key: K, /, default: V) -> V: ...
    @overload
    def get(self, key: K, /, default: D) -> V | D: ...
    def get(self, key: K, /, default: Any = None) -> Any:
        """Gives the value of a key, or the default where there is none."""
        value = self._entries.get(key, default)
        with suppress(KeyError):
            self._entries.move_to_end(key)
        return value

    def pop(self, key: K, default: Any = None) -> Any:
        """Drops a key; gives its value, or the default where there was none."""
        return self._entries.pop(key, default)

    def setdefault(self, key: K, default: Any = None) -> V:
        """Gives the value of a key, which becomes the default where there was none."""
        value: V = self._entries.setdefault(key, default)
        self._drop_oldest(but=key)
        return value

    def _drop_oldest(self, *, but: K) -> None:
        with suppress(KeyError):
            self._entries.move_to_end(but)
            while len(self._entries) > self._most:
                self._entries.popitem(last=False)


class LruSet(MutableSet[K]):
    """A set that drops the element that was added least recently when it is full; safe on several threads."""

    def __init__(self, most: int) -> None:
        """Starts empty.

        Args:
            most: How many elements it keeps.
        """
        self._elements: LruCache[K, None] = LruCache(most)

    def __contains__(self, element: object) -> bool:
        return element in self._elements

    def __iter__(self) -> Iterator[K]:
        return iter(self._elements)

    def __len__(self) -> int:
        return len(self._elements)

    def add(self, value: K) -> None:
        """Adds an element."""
        self._elements[value] = None

    def discard(self, value: K) -> None:
        """Removes an element, if it is there."""
        self._elements.pop(value, None)

    def update(self, values: Iterable[K]) -> None:
        """Adds elements."""
        for value in values:
            self.add(value)


class SingleFlight(Generic[K, V]):
    """Answers to questions: each is asked once for all who wait for it, and again after a failure.

    Only the answers are kept. A task would keep the context in which it was made: the whole flow run of the first
    caller.
    """

    def __init__(self, most: int) -> None:
        """Starts with nothing known.

        Args:
            most: How many answers it keeps.
        """
        self._answers: LruCache[K, V] = LruCache(most)
        self._asking: dict[K, asyncio.Task[V]] = {}

    def __len__(self) -> int:
        return len(self._answers)

    async def get(self, key: K, ask: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """Gives the answer, for which the first caller asks; a caller that is cancelled leaves the others theirs.

        Args:
            key: The question.
            ask: Asks it.
        """
        if key in self._answers:
            return self._answers[key]
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.ensure_future(ask())
            task.add_done_callback(lambda done: self._keep(key, done))
        return await asyncio.shield(task)

    def _keep(self, key: K, done: asyncio.Task[V]) -> None:
        del self._asking[key]
        if not done.cancelled() and done.exception() is None:
            self._answers[key] = done.result()

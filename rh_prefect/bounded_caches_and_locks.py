"""Caches, shared tasks and locks for long-lived processes; their memory use is limited."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine, Hashable, Iterator, MutableMapping
from contextlib import suppress
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LruCache(MutableMapping[K, V]):
    """A mapping that drops the least recently used entry when the mapping is full.

    Several threads may use a mapping, with keys that are strings, numbers or tuples of these. The mapping has no lock,
    because a forked child could inherit the lock while another thread of the parent holds it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: OrderedDict[K, V] = OrderedDict()

    def __getitem__(self, key: K) -> V:
        value = self._entries[key]
        with suppress(KeyError):  # another thread has dropped it
            self._entries.move_to_end(key)
        return value

    def __setitem__(self, key: K, value: V) -> None:
        self._entries[key] = value
        self._drop_oldest(but=key)

    def __delitem__(self, key: K) -> None:
        del self._entries[key]

    def __iter__(self) -> Iterator[K]:
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    # The mixins' own methods, here and below, ask and then act; another thread may come between.
    def pop(self, key: K, default: Any = None) -> Any:
        """Removes a key and returns its value, or the default."""
        return self._entries.pop(key, default)

    def setdefault(self, key: K, default: Any = None) -> V:
        """Returns the value of a key; if the key is missing, its value is set to the default first."""
        value: V = self._entries.setdefault(key, default)
        self._drop_oldest(but=key)
        return value

    def _drop_oldest(self, *, but: K) -> None:
        with suppress(KeyError):
            self._entries.move_to_end(but)
            while len(self._entries) > self._most:
                self._entries.popitem(last=False)


class UsedObjects(LruCache[K, V]):
    """A cache of objects that finds a dropped object for as long as someone else uses it.

    So all users of a key have the same object.
    """

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self._used: WeakValueDictionary[K, V] = WeakValueDictionary()

    def __getitem__(self, key: K) -> V:
        if key not in self._entries and (used := self._used.get(key)) is not None:
            return self.setdefault(key, used)
        return super().__getitem__(key)

    def __setitem__(self, key: K, value: V) -> None:
        self._used[key] = value
        super().__setitem__(key, value)

    def setdefault(self, key: K, default: Any = None) -> V:
        """Returns the object of a key; if no one uses one, the default."""
        return super().setdefault(key, self._used.setdefault(key, default))

    def clear(self) -> None:
        """Removes all objects, even those in use; for a forked child."""
        super().clear()
        self._used.clear()


class LruSet(LruCache[K, None]):
    """A set that drops the oldest element when the set is full; several threads may use one set."""

    def add(self, element: K) -> None:
        """Adds an element as the most recently used one."""
        self[element] = None


class SingleFlight(Generic[K, V]):
    """A cache of the results of coroutines: concurrent callers share a computation, which is repeated after a failure.

    Only results are stored. A stored task would keep its context, which contains the flow run of the first caller.
    """

    def __init__(
        self, most: int = 1, *, seconds: float = math.inf, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Stores at most `most` results; each is valid for `seconds` after the start of its computation."""
        self._seconds = seconds
        self._clock = clock
        self._answers: LruCache[K, tuple[float, V]] = LruCache(most)
        self._asking: dict[K, asyncio.Task[V]] = {}

    def __len__(self) -> int:
        return len(self._answers)

    def clear(self) -> None:
        """Removes all results and pending calls; for a forked child, which lacks the parent's event loop."""
        self._answers.clear()
        self._asking = {}

    async def get(self, key: K, ask: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """Returns the result, computed by the first caller; cancelling one caller does not cancel the computation."""
        known = self._answers.get(key)
        if known is not None and self._clock() - known[0] < self._seconds:
            return known[1]
        task = self._asking.get(key)
        if task is None:
            requested_at, task = self._clock(), asyncio.ensure_future(ask())
            self._asking[key] = task
            task.add_done_callback(lambda done: self._keep(key, requested_at, done))
        return await asyncio.shield(task)

    def _keep(self, key: K, requested_at: float, done: asyncio.Task[V]) -> None:
        if self._asking.get(key) is done:
            del self._asking[key]
        if not done.cancelled() and done.exception() is None:
            self._answers[key] = (requested_at, done.result())


class SharedTasks(Generic[K, V]):
    """Tasks by key that concurrent callers share; a task is cancelled when no caller waits for it."""

    def __init__(self) -> None:
        self._running: dict[K, asyncio.Task[V]] = {}
        self._waiting: Counter[asyncio.Task[V]] = Counter()

    async def run(self, key: K, begin: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """Waits for the task of a key, and starts one if none is running."""
        task = self._running.get(key)
        if task is None or task.done() or task.cancelling():
            task = self._running[key] = asyncio.ensure_future(begin())
            task.add_done_callback(lambda done: self._forget(key, done))
        self._waiting[task] += 1
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if self._waiting[task] == 1:
                task.cancel()
            raise
        finally:
            self._waiting[task] -= 1
            if not self._waiting[task]:
                del self._waiting[task]

    def _forget(self, key: K, task: asyncio.Task[V]) -> None:
        if self._running.get(key) is task:
            del self._running[key]


class NamedLocks:
    """Locks for asyncio tasks, by name; a lock that no caller uses takes no memory."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def of(self, name: str) -> asyncio.Lock:
        """Returns the lock of a name; all callers that use a name at the same time get the same lock."""
        return self._locks.setdefault(name, asyncio.Lock())

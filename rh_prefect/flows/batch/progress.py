"""How far a batch is, for whoever watches in this process."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from decimal import Decimal

from rh_prefect.flows.batch.account import Item, ItemState
from rh_prefect.jobs.events import JobEvent, JobEventState

_RUNNING: frozenset[JobEventState] = frozenset({"submitted", "adopted", "running", "collecting"})


@dataclass(slots=True)
class Progress:
    """The counts of one batch; written on several threads, each count by one of them.

    Attributes:
        batch: Its id.
        total: How many items it has.
        ended: Items by how they stand at their end.
        earlier: How many of these an earlier run had done.
        at_start: How many had ended before this run began with any: those, and bad ones.
        spent: What items have cost, those of earlier runs included.
        currency: Of the cost.
    """

    batch: str
    total: int
    scope: str
    ended: Counter[ItemState] = field(default_factory=Counter)
    earlier: int = 0
    spent: Decimal = Decimal(0)
    currency: str | None = None
    began: float = field(default_factory=time.monotonic)
    at_start: int = 0
    _running: set[str] = field(default_factory=set)

    @property
    def done(self) -> int:
        """How many items are done."""
        return self.ended["done"]

    @property
    def running(self) -> int:
        """How many jobs run at RunningHub."""
        return len(self._running)

    @property
    def failed(self) -> int:
        """How many items have ended without being done."""
        return sum(self.ended.values()) - self.done

    @property
    def queued(self) -> int:
        """How many items wait."""
        return max(0, self.total - sum(self.ended.values()) - self.running)

    @property
    def seconds_left(self) -> float | None:
        """How long it will take at the pace so far; None while there is no pace."""
        now = sum(self.ended.values()) - self.at_start
        if now <= 0:
            return None
        return (time.monotonic() - self.began) / now * (self.total - sum(self.ended.values()))

    def hear(self, event: JobEvent) -> None:
        """Takes note of a job's change."""
        if not event.job.startswith(f"{self.scope}/"):
            return
        if event.state in _RUNNING:
            self._running.add(event.job)
        else:
            self._running.discard(event.job)

    def end(self, item: Item) -> None:
        """Takes note of an item's end."""
        self._count(item)
        self._say(item)

    def start(self, ended: Collection[Item]) -> None:
        """Begins, with what an earlier run has done and what cannot be done: bad rows."""
        for item in ended:
            self._count(item)
        self.at_start = len(ended)
        self.earlier = sum(item.state == "done" for item in ended)
        self._say(None)
        for item in ended:
            if item.state != "done":
                self._say(item)

    def _count(self, item: Item) -> None:
        self.ended[item.state] += 1
        self.spent += item.cost or Decimal(0)
        self.currency = self.currency or item.currency

    def _say(self, item: Item | None) -> None:
        for listener in tuple(listeners):
            try:
                listener(self, item)
            except Exception as error:  # whoever watches, as through a pipe that was closed, stops no paid work
                _log.warning("a batch's progress is no longer shown: %s", error)
                listeners.remove(listener)


_log = logging.getLogger("rh_prefect")
listeners: list[Callable[[Progress, Item | None], None]] = []
"""Called in this process with every item that has ended, and once at the start without one."""

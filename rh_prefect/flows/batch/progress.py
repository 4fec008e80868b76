"""How far a batch is, for whoever watches in this process."""

from __future__ import annotations

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
        now = sum(self.ended.values()) - self.earlier
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

    def end(self, item: Item, *, is_earlier: bool = False) -> None:
        """Takes note of an item's end."""
        self.ended[item.state] += 1
        self.earlier += is_earlier
        self.spent += item.cost or Decimal(0)
        self.currency = self.currency or item.currency
        for listener in tuple(listeners):
            listener(self, None if is_earlier else item)

    def start(self, earlier: Collection[Item]) -> None:
        """Begins, with what an earlier run has done."""
        for item in earlier:
            self.end(item, is_earlier=True)
        for listener in tuple(listeners):
            listener(self, None)


listeners: list[Callable[[Progress, Item | None], None]] = []
"""Called in this process with every item that has ended, and once at the start without one."""

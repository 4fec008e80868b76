"""How far a batch is, for whoever watches in this process."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from decimal import Decimal

from rh_prefect.flows.batch.report import Item, ItemState
from rh_prefect.jobs.events import JobEvent, JobEventState
from rh_prefect.jobs.journal.costs import Costs

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
        budget: What they may cost; None for no limit.
        set_aside: How many the budget has too little left for as it stands; some of them may be tried again.
    """

    batch: str
    total: int
    scope: str
    ended: Counter[ItemState] = field(default_factory=Counter)
    earlier: int = 0
    spent: Costs = field(default_factory=Costs)
    budget: Decimal | None = None
    set_aside: int = 0
    began: float = field(default_factory=time.monotonic)
    at_start: int = 0
    _spent_at_start: Costs = field(default_factory=Costs)
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
        """How many items have failed."""
        return self.ended["failed"]

    @property
    def not_started(self) -> int:
        """How many items the budget has too little left for."""
        return self.ended["not started"] + self.set_aside

    @property
    def queued(self) -> int:
        """How many items wait."""
        return max(0, self._open - self.running)

    @property
    def seconds_left(self) -> float | None:
        """How long it will take at the pace so far; None while there is no pace."""
        # What is not started takes no time, so it says nothing of the pace.
        now = sum(self.ended.values()) - self.ended["not started"] - self.at_start
        if now <= 0:
            return None
        left = min(self._open, self._affordable(now))
        return (time.monotonic() - self.began) / now * left

    @property
    def _open(self) -> int:
        """How many items have not ended and may still be started."""
        return self.total - sum(self.ended.values()) - self.set_aside

    def _affordable(self, now: int) -> int:
        """For how many more items the budget suffices, if they cost as much as those of this run on average."""
        if self.budget is None or len(self.spent.amounts) != 1:
            return self._open
        ((currency, spent),) = self.spent.amounts.items()
        each = (spent - self._spent_at_start.amounts.get(currency, Decimal(0))) / now
        return self._open if each <= 0 else max(0, math.ceil((self.budget - spent) / each))

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
        self.at_start, self._spent_at_start = len(ended), self.spent
        self.earlier = sum(item.state == "done" for item in ended)
        self._say(None)
        for item in ended:
            if item.state != "done":
                self._say(item)

    def _count(self, item: Item) -> None:
        self.ended[item.state] += 1
        self.spent += item.costs

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

"""Tasks: accepted, charged, moved on by the clock, ended, cancelled."""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Literal

from rh_prefect.catalog import Model
from rh_prefect.emulator import assumptions
from rh_prefect.emulator.answers import Refused
from rh_prefect.emulator.books import TaskRow
from rh_prefect.emulator.clock import Clock, Timing
from rh_prefect.emulator.keys import ApiKey

Status = Literal["QUEUED", "RUNNING", "SUCCESS", "FAILED", "CANCEL"]


@dataclass(frozen=True, slots=True)
class Order:
    """What a valid request asks for.

    Attributes:
        key: Whose request it is.
        model: The model.
        payload: The wire parameters.
        inputs: Local files by wire key.
        price: What it costs.
    """

    key: ApiKey
    model: Model
    payload: Mapping[str, object]
    inputs: Mapping[str, list[Path]]
    price: Decimal


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Why a task fails; `reason` is RunningHub's `failedReason`, empty where it gives none."""

    code: str
    words: str
    reason: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Output:
    """One result as the query names it."""

    url: str | None
    text: str | None
    extension: str


@dataclass(slots=True)
class Task:
    """One task; its fields are read and written under the lock of `Tasks`.

    Attributes:
        id: 19 digits.
        order: What was asked for.
        timing: How long it takes.
        breakdown: Why it will fail, where that is scripted or came to light.
        outputs: Its results, once they are rendered.
        looks: How often it was queried.
        hurried: Whether it is done whatever the clock says.
        ended: Its final status.
        refunded: What was paid back.
    """

    id: str
    order: Order
    timing: Timing
    client_id: str
    breakdown: Breakdown | None = None
    outputs: Future[list[Output]] = field(default_factory=Future)
    looks: int = 0
    hurried: bool = False
    ended: Status | None = None
    refunded: Decimal = Decimal(0)

    @property
    def endpoint(self) -> str:
        """The model's endpoint."""
        return self.order.model.endpoint

    @property
    def cost(self) -> Decimal | None:
        """What the query says that it cost: nothing before the end, nothing where it was paid back."""
        net = self.order.price - self.refunded
        return net if self.ended and net else None


class Tasks:
    """All tasks of one emulator.

    Args:
        clock: Moves them.
        lock: Guards them, and the accounts' wallets.
    """

    def __init__(self, clock: Clock, *, lock: threading.RLock) -> None:
        self._clock = clock
        self._lock = lock
        self._tasks: dict[str, Task] = {}
        start = 2_000_000_000_000_000_000 + secrets.randbelow(10**17) * 2 + 1
        self._ids = itertools.count(start, 1_234_567_890_122)

    def accept(self, order: Order, *, queued: float, running: float, breakdown: Breakdown | None = None) -> Task:
        """Takes a task on and charges for it.

        Raises:
            Refused: The wallet is empty, or the key has as many tasks as it may.
        """
        account = order.key.account
        with self._lock:
            if account.money < order.price or account.money <= 0:
                raise Refused(*assumptions.EMPTY_WALLET)
            if sum(self.counts(order.key).values()) >= order.key.limit:
                raise Refused(*assumptions.QUEUE_FULL)
            account.money -= order.price
            timing = Timing(self._clock.now(), queued, running)
            task = Task(str(next(self._ids)), order, timing, secrets.token_hex(16), breakdown)
            self._tasks[task.id] = task
            return task

    def find(self, task_id: object, *, key: ApiKey | None = None) -> Task | None:
        """Finds a task; with a key only one of the key's own account."""
        task = self._tasks.get(task_id) if isinstance(task_id, str) else None
        if task is None or (key is not None and task.order.key.account is not key.account):
            return None
        return task

    def look(self, task: Task) -> Status:
        """Counts one look of a client and tells the status."""
        with self._lock:
            task.looks += 1
            return self.status(task)

    def status(self, task: Task) -> Status:
        """Tells how a task stands now; what has ended stays as it is."""
        with self._lock:
            status = task.ended or self._status(task)
            if status == "FAILED" and task.ended is None and assumptions.REFUND_FAILED:
                self._refund(task)
            if status not in assumptions.COUNTED:
                task.ended = status
            return status

    def _status(self, task: Task) -> Status:
        stage = "DONE" if task.hurried else self._clock.stage(task.timing, looks=task.looks)
        if stage != "DONE":
            return stage
        if task.breakdown is not None:
            return "FAILED"
        return "SUCCESS" if task.outputs.done() else "RUNNING"

    def is_due(self, task: Task) -> bool:
        """Tells whether nothing but its rendering keeps a task from its end."""
        with self._lock:
            if task.ended or task.breakdown or task.outputs.done():
                return False
            return task.hurried or self._clock.stage(task.timing, looks=task.looks) == "DONE"

    def cancel(self, task: Task) -> bool:
        """Ends a task that is queued or running.

        Returns:
            Whether there was something to end.
        """
        with self._lock:
            status = self.status(task)
            if status not in ("QUEUED", "RUNNING"):
                return False
            task.ended = "CANCEL"
            if assumptions.REFUND_CANCELLED[status]:
                self._refund(task)
            return True

    def _refund(self, task: Task) -> None:
        task.refunded = task.order.price
        task.order.key.account.money += task.order.price

    def counts(self, key: ApiKey) -> dict[str, int]:
        """Counts a key's tasks that are queued and running."""
        return self._count([task for task in self._tasks.values() if task.order.key.name == key.name])

    def counts_of_account(self, key: ApiKey) -> dict[str, int]:
        """Counts the tasks of all keys of the key's account."""
        return self._count([task for task in self._tasks.values() if task.order.key.account is key.account])

    def _count(self, tasks: list[Task]) -> dict[str, int]:
        with self._lock:
            found = [self.status(task) for task in tasks if task.ended is None]
            return {status: found.count(status) for status in assumptions.COUNTED}

    def rows(self) -> list[TaskRow]:
        """Lists all tasks as they stand now."""
        with self._lock:
            return [
                TaskRow(task.id, task.endpoint, self.status(task), task.order.price, task.refunded)
                for task in self._tasks.values()
            ]

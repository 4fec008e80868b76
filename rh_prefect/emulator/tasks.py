"""Tasks: accepted, charged, moved on by the clock, ended, cancelled."""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Final, Literal

from rh_prefect.catalog.model import Model
from rh_prefect.emulator.accounts import ApiKey, Charge
from rh_prefect.emulator.assumptions import Assumptions, Refusal
from rh_prefect.emulator.clock import Clock, Timing
from rh_prefect.emulator.recorder import TaskRow
from rh_prefect.emulator.responses import Refused

Status = Literal["QUEUED", "RUNNING", "SUCCESS", "FAILED", "CANCELLED"]
"""The emulator's own words; `views` puts the last one into RunningHub's."""

ACTIVE: Final = ("QUEUED", "RUNNING")
"""The states of a task that has not ended."""


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """One thing to be made.

    Attributes:
        model: What makes it.
        payload: The wire parameters.
        inputs: Local files by wire key.
        node_id: The node of a graph that saves it.
        metadata: What is written into pictures beside the pixels.
    """

    model: Model
    payload: Mapping[str, object]
    inputs: Mapping[str, list[Path]]
    node_id: str | None = None
    metadata: str = ""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What a valid request asks for.

    Attributes:
        key: Whose request it is.
        endpoint: What was asked: a model's endpoint, `run/workflow/…`, or the whole path of a v1 start.
        payload: The request's body.
        outputs: What is to be made, in the order of the results.
        charge: What it costs.
        seconds: How long it runs on a clock that runs.
        queued: How long it waits for a machine there.
        webhook: Where the end is told.
        is_v1: Whether it was started by a v1 path.
        graph: The graph that runs; None for models.
        inputs: The SHA-256 of the files that a model is given, by wire key.
    """

    key: ApiKey
    endpoint: str
    payload: Mapping[str, object]
    outputs: tuple[OutputSpec, ...]
    charge: Charge
    seconds: float = 0.0
    queued: float = 0.0
    webhook: str = ""
    is_v1: bool = False
    graph: Mapping[str, object] | None = None
    inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
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
    node_id: str | None = None


@dataclass(slots=True)
class Task:
    """One task; its fields are read and written under the lock of `Tasks`.

    Attributes:
        id: 19 digits.
        spec: What was asked for.
        timing: How long it takes.
        failure: Why it will fail, where that is scripted or came to light.
        outputs: Its results, once they are rendered.
        looks: How often it was queried.
        done_at_submit: Whether it is done whatever the clock says.
        ended: Its final status.
        refunded: What was paid back.
        is_waiting: Whether it waits in a personal queue, for a task of its key to end.
    """

    id: str
    spec: TaskSpec
    timing: Timing
    client_id: str
    failure: Failure | None = None
    outputs: Future[list[Output]] = field(default_factory=Future)
    looks: int = 0
    done_at_submit: bool = False
    ended: Status | None = None
    refunded: Charge = field(default_factory=Charge)
    is_waiting: bool = False

    @property
    def endpoint(self) -> str:
        """What was asked for; see `TaskSpec`."""
        return self.spec.endpoint

    @property
    def cost(self) -> Charge:
        """What the query says that it cost: nothing before the end, nothing where it was paid back."""
        return self.spec.charge - self.refunded if self.ended else Charge()


class Tasks:
    """All tasks of one emulator.

    Args:
        clock: Moves them.
        lock: Guards them, and the accounts' wallets.
        assumptions: What is counted, charged and paid back.
    """

    def __init__(self, clock: Clock, *, lock: threading.RLock, assumptions: Assumptions) -> None:
        self._assumptions = assumptions
        self._clock = clock
        self._lock = lock
        self._tasks: dict[str, Task] = {}
        self._repeatable: dict[tuple[str, str], Task] = {}
        start = 2_000_000_000_000_000_000 + secrets.randbelow(10**17) * 2 + 1
        self._ids = itertools.count(start, 1_234_567_890_122)

    def accept(self, spec: TaskSpec, *, failure: Failure | None = None, may_wait: bool = False) -> Task:
        """Takes a task on and charges for it.

        Args:
            spec: What is asked for.
            failure: Why it will fail.
            may_wait: Whether it waits where the key has as many tasks as it may.

        Raises:
            Refused: The account cannot pay, or the key has as many tasks as it may.
        """
        key = spec.key
        with self._lock:
            is_waiting = self._is_full(key, may_wait=may_wait, is_v1=spec.is_v1)
            key.account.pay(spec.charge, tier=key.tier, assumptions=self._assumptions)
            timing = Timing(self._clock.now(), spec.queued, spec.seconds)
            task = Task(str(next(self._ids)), spec, timing, secrets.token_hex(16), failure, is_waiting=is_waiting)
            self._tasks[task.id] = task
            return task

    def _is_full(self, key: ApiKey, *, may_wait: bool, is_v1: bool) -> bool:
        counts = self.counts(key)
        if sum(counts[status] for status in self._assumptions.counted) < key.limit:
            return False
        if not may_wait:
            raise Refused(*self._full(key, is_v1=is_v1))
        if sum(task.is_waiting and not task.ended for task in self._of(key)) >= key.queue:
            raise Refused("814")
        return True

    def _full(self, key: ApiKey, *, is_v1: bool) -> Refusal:
        if key.tier == "EXCLUSIVE":
            return self._assumptions.machines_full
        return ("421", "") if is_v1 else self._assumptions.queue_full_v2

    def find(self, task_id: object, *, key: ApiKey | None = None) -> Task | None:
        """Finds a task; with a key only one of the key's own account."""
        task = self._tasks.get(task_id) if isinstance(task_id, str) else None
        if task is None or (key is not None and task.spec.key.account is not key.account):
            return None
        return task

    def remember(self, task: Task, name: str) -> None:
        """Remembers a task by the name that its submit gave it, if it gave one."""
        if name:
            self._repeatable[(task.spec.key.account.name, name)] = task

    def remembered(self, key: ApiKey, name: str) -> Task | None:
        """Finds the account's task of that name."""
        return self._repeatable.get((key.account.name, name))

    def look(self, task: Task) -> Status:
        """Counts one look of a client and tells the status."""
        with self._lock:
            self._let_in(task)
            task.looks += not task.is_waiting
            return self.status(task)

    def status(self, task: Task) -> Status:
        """Tells how a task stands now; what has ended stays as it is."""
        with self._lock:
            self._let_in(task)
            status = task.ended or self._status(task)
            if status == "FAILED" and task.ended is None and self._is_free(task):
                self._refund(task, task.spec.charge)
            if status not in ACTIVE:
                task.ended = status
            return status

    def _is_free(self, failed: Task) -> bool:
        known = self._assumptions
        return known.refund_failed_models if failed.spec.graph is None else known.refund_failed_runs

    def _let_in(self, task: Task) -> None:
        """Begins tasks of the personal queue in which a task waits, as far as there is room."""
        if not task.is_waiting or task.ended:
            return
        mine = [other for other in self._of(task.spec.key) if not other.ended]
        active = sum(self.status(other) in ACTIVE for other in mine if not other.is_waiting)
        for first in [other for other in mine if other.is_waiting][: max(0, task.spec.key.limit - active)]:
            first.is_waiting = False
            first.timing = replace(first.timing, accepted=self._clock.now())

    def _of(self, key: ApiKey) -> list[Task]:
        return [task for task in self._tasks.values() if task.spec.key.name == key.name]

    def _status(self, task: Task) -> Status:
        if task.is_waiting:
            return "QUEUED"
        stage = "DONE" if task.done_at_submit else self._clock.stage(task.timing, looks=task.looks)
        if stage != "DONE":
            return stage
        if task.failure is not None:
            return "FAILED"
        return "SUCCESS" if task.outputs.done() else "RUNNING"

    def is_due(self, task: Task) -> bool:
        """Tells whether nothing but its rendering keeps a task from its end."""
        with self._lock:
            if task.ended or task.failure or task.outputs.done():
                return False
            return task.done_at_submit or self._clock.stage(task.timing, looks=task.looks) == "DONE"

    def cancel(self, task: Task) -> bool:
        """Ends a task that is queued or running.

        Returns:
            Whether there was something to end.
        """
        with self._lock:
            status = self.status(task)
            if status not in ACTIVE:
                return False
            task.ended = "CANCELLED"
            self._refund(task, self._unused(task, status))
            return True

    def _unused(self, task: Task, status: Literal["QUEUED", "RUNNING"]) -> Charge:
        """What a cancel pays back: of a graph the seconds that it did not run."""
        charge = task.spec.charge
        if task.spec.graph is None or status == "QUEUED":
            return charge if self._assumptions.refund_cancelled[status] else Charge()
        if self._clock.mode != "real" or not self._assumptions.cancel_stops_charging:
            return Charge()
        ran = self._clock.now() - task.timing.accepted - task.timing.queued
        share = Decimal(str(min(1.0, ran / task.timing.running)))
        return charge - charge.part(share, step=self._assumptions.money_step)

    def progress(self, task: Task) -> float:
        """Tells which share of its way a task has come, without counting as a look."""
        with self._lock:
            status = self.status(task)
            if status not in ACTIVE:
                return 1.0
            return 0.0 if status == "QUEUED" else self._clock.share(task.timing, looks=task.looks)

    def _refund(self, task: Task, charge: Charge) -> None:
        task.refunded = charge
        task.spec.key.account.give_back(charge)

    def counts(self, key: ApiKey) -> dict[str, int]:
        """Counts a key's tasks that are queued and running."""
        return self._count(self._of(key))

    def counts_of_account(self, key: ApiKey) -> dict[str, int]:
        """Counts the tasks of all keys of the key's account."""
        return self._count([task for task in self._tasks.values() if task.spec.key.account is key.account])

    def _count(self, tasks: list[Task]) -> dict[str, int]:
        with self._lock:
            running = [task for task in tasks if task.ended is None]
            for first in [task for task in running if task.is_waiting][:1]:
                self._let_in(first)
            # What still waits is not asked again: each would count all others.
            found: list[Status] = ["QUEUED" if task.is_waiting else self.status(task) for task in running]
            return {status: found.count(status) for status in ACTIVE}

    def rows(self) -> list[TaskRow]:
        """Lists all tasks as they stand now."""
        with self._lock:
            return [
                TaskRow(
                    task.id,
                    task.endpoint,
                    self.status(task),
                    task.spec.charge.wallet,
                    task.refunded.wallet,
                    (task.spec.charge - task.refunded).coins,
                )
                for task in self._tasks.values()
            ]

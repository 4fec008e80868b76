"""Tasks: acceptance, charges, progress by the clock, end and cancellation."""

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
"""The emulator's statuses; `task_formats` converts CANCELLED to RunningHub's word."""

ACTIVE: Final = ("QUEUED", "RUNNING")
"""The states of a task that has not ended."""

NATIVE_MACHINES: Final[dict[str, str]] = {"/proxy": "default", "/proxy-plus": "plus"}
"""The machine type of each native proxy."""


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """The description of an output that the renderer makes."""

    model: Model
    payload: Mapping[str, object]
    inputs: Mapping[str, list[Path]]
    node_id: str | None = None
    metadata: str = ""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """The content of a valid request.

    Attributes:
        key: The key of the request.
        endpoint: A model's endpoint, `run/workflow/…`, or the full path of a v1 start request.
        payload: The request's body.
        outputs: The outputs to make, in the order of the results.
        charge: The cost.
        seconds: Seconds of run time.
        queued: Seconds in the queue.
        webhook: The webhook URL.
        is_v1: Whether the task was started through a v1 path.
        graph: The graph that runs; None for models.
        inputs: The SHA-256 of the model's input files, by wire key.
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

    @property
    def place(self) -> tuple[str, ...]:
        """What runs the task: the account's native machine, which runs one graph at a time, or the slots of the key."""
        return (self.key.account.name, self.endpoint) if self.endpoint in NATIVE_MACHINES else (self.key.name,)

    @property
    def slots(self) -> int:
        """The number of tasks that can run at the same place at once."""
        return 1 if self.endpoint in NATIVE_MACHINES else self.key.limit


@dataclass(frozen=True, slots=True)
class Failure:
    """The failure of a task; `reason` is RunningHub's `failedReason`, or empty."""

    code: str
    words: str
    reason: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Output:
    """A result of a task: a link, or text; `node_id` is the saving node of a graph."""

    url: str | None
    text: str | None
    extension: str
    node_id: str | None = None


@dataclass(slots=True)
class Task:
    """A task in its current state; its fields are read and written under the lock of `Tasks`.

    Attributes:
        id: The id of the task: 19 digits.
        spec: The request.
        timing: The durations of the task.
        failure: The failure that the task will report, if any.
        outputs: The results, as soon as they are rendered.
        polls: Number of polls so far.
        done_at_submit: Whether the task is done at once, independently of the clock.
        ended: The final status.
        refunded: The refund.
        is_waiting: Whether the task waits for a free slot, in a personal queue or in the queue of a native machine.
    """

    id: str
    spec: TaskSpec
    timing: Timing
    client_id: str
    failure: Failure | None = None
    outputs: Future[list[Output]] = field(default_factory=Future)
    polls: int = 0
    done_at_submit: bool = False
    ended: Status | None = None
    refunded: Charge = field(default_factory=Charge)
    is_waiting: bool = False

    @property
    def endpoint(self) -> str:
        """The endpoint of the request; see `TaskSpec`."""
        return self.spec.endpoint

    @property
    def cost(self) -> Charge:
        """The cost as a query shows it, less refunds; zero before the end."""
        return self.spec.charge - self.refunded if self.ended else Charge()


class Tasks:
    """All tasks of one emulator."""

    def __init__(self, clock: Clock, *, lock: threading.RLock, assumptions: Assumptions) -> None:
        self._assumptions = assumptions
        self._clock = clock
        self._lock = lock
        self._tasks: dict[str, Task] = {}
        start = 2_000_000_000_000_000_000 + secrets.randbelow(10**17) * 2 + 1
        self._ids = itertools.count(start, 1_234_567_890_122)

    def accept(self, spec: TaskSpec, *, failure: Failure | None = None, may_wait: bool = False) -> Task:
        """Creates and charges a task.

        Args:
            spec: The request.
            failure: The failure that the task will report, if any.
            may_wait: Whether the task may wait in the personal queue if no slot is free.

        Raises:
            Refused: The account cannot pay, or no slot is free.
        """
        key = spec.key
        with self._lock:
            is_waiting = self._is_full(spec, may_wait=may_wait)
            key.account.pay(spec.charge, tier=key.tier, assumptions=self._assumptions)
            timing = Timing(self._clock.now(), spec.queued, spec.seconds)
            task = Task(str(next(self._ids)), spec, timing, secrets.token_hex(16), failure, is_waiting=is_waiting)
            self._tasks[task.id] = task
            return task

    def _is_full(self, spec: TaskSpec, *, may_wait: bool) -> bool:
        key, others = spec.key, self._at(spec.place)
        counts = self._count(others)
        if sum(counts[status] for status in self._assumptions.counted) < spec.slots:
            return False
        if not may_wait:
            raise Refused(*self._full(key, is_v1=spec.is_v1))
        if sum(task.is_waiting and not task.ended for task in others) >= key.queue:
            raise Refused("814")
        return True

    def _full(self, key: ApiKey, *, is_v1: bool) -> Refusal:
        if key.tier == "EXCLUSIVE":
            return self._assumptions.machines_full
        return ("421", "") if is_v1 else self._assumptions.queue_full_v2

    def find(self, task_id: object, *, key: ApiKey | None = None) -> Task | None:
        """Finds a task; with a key, only a task of the key's account."""
        task = self._tasks.get(task_id) if isinstance(task_id, str) else None
        if task is None or (key is not None and task.spec.key.account is not key.account):
            return None
        return task

    def poll(self, task: Task) -> Status:
        """Counts one poll by a client and returns the status.

        A poll of a graph that waits for a native machine counts for the graph that runs there, so that a graph
        without polls of its own does not block the machine.
        """
        with self._lock:
            self._let_in(task)
            is_behind = task.is_waiting and not task.ended and task.endpoint in NATIVE_MACHINES
            for polled in self._at(task.spec.place) if is_behind else [task]:
                polled.polls += not polled.is_waiting
            return self.status(task)

    def status(self, task: Task) -> Status:
        """Returns the current status of a task; a final status does not change."""
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
        """Starts the first waiting tasks of the queue in which a task waits, one for each free slot."""
        if not task.is_waiting or task.ended:
            return
        mine = [other for other in self._at(task.spec.place) if not other.ended]
        active = sum(self.status(other) in ACTIVE for other in mine if not other.is_waiting)
        for first in [other for other in mine if other.is_waiting][: max(0, task.spec.slots - active)]:
            first.is_waiting = False
            first.timing = replace(first.timing, accepted=self._clock.now())

    def _at(self, place: tuple[str, ...]) -> list[Task]:
        return [task for task in self._tasks.values() if task.spec.place == place]

    def _status(self, task: Task) -> Status:
        if task.is_waiting:
            return "QUEUED"
        stage = "DONE" if task.done_at_submit else self._clock.stage(task.timing, polls=task.polls)
        if stage != "DONE":
            return stage
        if task.failure is not None:
            return "FAILED"
        return "SUCCESS" if task.outputs.done() else "RUNNING"

    def is_due(self, task: Task) -> bool:
        """Returns whether a task waits only for its rendering."""
        with self._lock:
            if task.ended or task.failure or task.outputs.done():
                return False
            return task.done_at_submit or self._clock.stage(task.timing, polls=task.polls) == "DONE"

    def cancel(self, task: Task) -> bool:
        """Cancels a task that is queued or running.

        Returns:
            Whether the task was active.
        """
        with self._lock:
            status = self.status(task)
            if status not in ACTIVE:
                return False
            task.ended = "CANCELLED"
            self._refund(task, self._unused(task, status))
            return True

    def _unused(self, task: Task, status: Literal["QUEUED", "RUNNING"]) -> Charge:
        """Returns the refund for a cancellation: for a graph that was running, the price of the seconds not used."""
        charge = task.spec.charge
        if task.spec.graph is None or status == "QUEUED":
            return charge if self._assumptions.refund_cancelled[status] else Charge()
        if self._clock.mode != "real" or not self._assumptions.cancel_stops_charging:
            return Charge()
        share = Decimal(str(self._clock.share(task.timing, polls=task.polls)))
        return charge - charge.part(share, step=self._assumptions.money_step)

    def progress(self, task: Task) -> float:
        """Returns the progress of a task, without counting a poll."""
        with self._lock:
            status = self.status(task)
            if status not in ACTIVE:
                return 1.0
            return 0.0 if status == "QUEUED" else self._clock.share(task.timing, polls=task.polls)

    def _refund(self, task: Task, charge: Charge) -> None:
        task.refunded = charge
        task.spec.key.account.give_back(charge)

    def spent(self, key: ApiKey) -> Decimal:
        """Returns the money that a key has spent, less refunds."""
        with self._lock:
            mine = [task for task in self._tasks.values() if task.spec.key.name == key.name]
            return sum(((task.spec.charge - task.refunded).wallet for task in mine), Decimal(0))

    def counts(self, key: ApiKey) -> dict[str, int]:
        """Counts a key's queued and running tasks, by status, without graphs on native machines."""
        return self._count(self._at((key.name,)))

    def counts_of_account(self, key: ApiKey) -> dict[str, int]:
        """Counts the queued and running tasks of all keys of the key's account."""
        return self._count([task for task in self._tasks.values() if task.spec.key.account is key.account])

    def _count(self, tasks: list[Task]) -> dict[str, int]:
        with self._lock:
            running = [task for task in tasks if task.ended is None]
            for first in {task.spec.place: task for task in running if task.is_waiting}.values():
                self._let_in(first)
            # Waiting tasks are not checked again: each check would count all others.
            found: list[Status] = ["QUEUED" if task.is_waiting else self.status(task) for task in running]
            return {status: found.count(status) for status in ACTIVE}

    def rows(self) -> list[TaskRow]:
        """Lists all tasks in their current state."""
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

"""Simulated processes: a test decides how each I/O operation ends: done, half done, failed, or never.

The package's own runner, lifecycle, desk, ledger, spool and cancellation run in them, in virtual time. What a process
has asked for and nobody has let happen yet is an `Operation`. Killed, it simply never hears of it again; stopped, it
hears late.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

from pydantic import SecretStr

from rh_prefect.bounded_caches import SingleFlight
from rh_prefect.client.wire.task import TaskView
from rh_prefect.errors import ConnectFailed, JournalError, ResponseLost, RunningHubError
from rh_prefect.works.accounts.poller import is_settled
from rh_prefect.works.events import Silent
from rh_prefect.works.journal.budget import Money, SpendTracker, entries_in
from rh_prefect.works.journal.job_records import JobRecords, Submit
from rh_prefect.works.journal.journal import JSON, Journal
from rh_prefect.works.journal.process_identity import Owner, is_surely_dead
from rh_prefect.works.journal.record_types import Intent
from rh_prefect.works.journal.scope import Scope, is_empty
from rh_prefect.works.journal.spool import Spool, Spooled
from rh_prefect.works.lifecycle import Policy
from rh_prefect.works.lifecycle_steps import UNPOSTED
from rh_prefect.works.manual_repair import replay_spool
from rh_prefect.works.options import Options
from rh_prefect.works.requests.request_preparation import JobRequest
from rh_prefect.works.run_cancellation import CancelReport, CancelWatch, cancel_scope
from rh_prefect.works.work import Callback, Services, Work
from rh_prefect.works.work_runner import RunningWork
from tests.support.samples.contexts import no_progress
from tests.support.servers.minimal_api import PRICE, MinimalApi, MinimalTask
from tests.support.world.job_records import SOMEWHERE_ELSE, intent, owner_of
from tests.support.world.memory_journal import MemoryPlace
from tests.support.world.simulated_io import Operation
from tests.support.world.virtual_time import VirtualLoop, now

SCOPE = "run"
SUBMIT_TIMEOUT = 60.0
Outcome: TypeAlias = Submit | CancelReport | list[str] | None
"""What a process's work may end with, if not with an error: of a job, of a cancellation, of a spool's replay."""

CALLBACK = Callback("https://receiver", SecretStr("0123456789abcdef"))
"""Its address tells the model which submit it is asked for."""


@dataclass(frozen=True)
class Body:
    """What others can find out about a process."""

    owner: Owner
    end: Callable[[], None]


def seen(name: str) -> Body:
    """A body that everybody here can see die: a thread, which has its lines in /proc as any process has."""
    is_over = threading.Event()
    thread = threading.Thread(target=is_over.wait, name=name, daemon=True)
    thread.start()
    owner = owner_of(thread.native_id or 0)

    def end() -> None:
        is_over.set()
        thread.join()
        # To Python it is over a moment before the kernel has forgotten it.
        while not is_surely_dead(owner):
            time.sleep(0)

    return Body(owner, end)


def unseen(name: str) -> Body:
    """A body on another host, of which nothing can be proved from here."""
    return Body(SOMEWHERE_ELSE.model_copy(update={"started": name}), lambda: None)


class ImmediateSpool(Spool):
    """One that writes at once: in virtual time nothing waits for a thread."""

    async def save(self, entry: Spooled) -> None:
        self.put(entry)


@dataclass
class Machine:
    """A host: its spool, and what can be seen of its processes."""

    name: str
    spool: Spool
    embody: Callable[[str], Body]


@dataclass(frozen=True)
class _Work(Work):
    """A job in one of several processes, each with a separate owner.

    Args:
        owner: The process.
    """

    owner: Owner = SOMEWHERE_ELSE

    def intent(self, account: object) -> Intent:
        facts = {"owner": self.owner, "submit_timeout": SUBMIT_TIMEOUT, "attempt": self.scope.attempt}
        return intent(base=self.request.base, take=self.options.take, **facts)


class Process:
    """One process of the run, or one that looks after it.

    Args:
        name: For people.
        machine: Where it runs.
        attempt: Which attempt of the run it believes to be in.
        loop: Runs it.
        place: Where the journal lies.
        hub: RunningHub.
        submits: Told before a POST is accepted: who posts what.
    """

    def __init__(
        self,
        name: str,
        machine: Machine,
        attempt: int,
        *,
        loop: VirtualLoop,
        place: MemoryPlace,
        hub: MinimalApi,
        submits: Callable[[Process, str, int], None],
    ) -> None:
        self.name, self.machine, self.attempt = name, machine, attempt
        self.place, self.hub, self._submits = place, hub, submits
        self._loop = loop
        self.claims_before_it = place.claims(SCOPE)
        self.operations: list[Operation] = []
        self.is_dead = False
        self.has_seen_cancel = False
        self.wrongs: list[str] = []
        self.called: set[str] = set()
        self.outcomes: dict[str, Outcome | RunningHubError] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._unposted: set[str] = set()
        self._body = machine.embody(name)
        self.journal = _Journal(self)
        self._line = _Line(self)
        self._ledger = SpendTracker(partial(entries_in, self.journal))
        self._were_empty: SingleFlight[str, bool] = SingleFlight(100)
        self._world = Services(
            spool=machine.spool,
            cancels=CancelWatch(clock=now),
            # No store is ever asked for a file.
            stores=SimpleNamespace(check=_nothing, refuse_payment=lambda *_: None),  # type: ignore[arg-type]
            sleep=asyncio.sleep,
            jitter=lambda: 0.5,
            clock=now,
        )

    def __repr__(self) -> str:
        return f"{self.name} (attempt {self.attempt})"

    @property
    def is_over(self) -> bool:
        """Whether all its calls have ended."""
        return all(task.done() for task in self._tasks)

    def call(self, job: str, policy: Policy) -> None:
        """Begins a call for a job, or makes it again; nothing while one is under way."""
        if self.is_dead or (job in self.called and job not in self.outcomes):
            return
        may_be_new = job not in self.called
        self.called.add(job)
        self.outcomes.pop(job, None)
        self._start(job, self._work(job, policy, may_be_new=may_be_new))

    def cancel(self) -> None:
        """Cancels the run, as the cancellation hook does."""
        self._start("cancel", self._cancel())

    def replay_spool(self) -> None:
        """Brings this machine's tickets into the journal, as `rh-prefect jobs adopt --spool` does."""
        self._start("replay", replay_spool(self.machine.spool, self.journal))

    def release(self, operation: Operation, how: Callable[[], None]) -> None:
        """Lets an I/O end; `how` is one of the operation's methods."""
        with self._at_work():
            self.operations.remove(operation)
            how()

    def crash(self) -> None:
        """Kills it: whatever was under way, it learns nothing more and does nothing more."""
        self.is_dead = True
        self.operations.clear()
        self._body.end()

    async def io(self, name: str, effect: Callable[[], Any], **kinds: Any) -> Any:
        """Waits for the test; for ever if the process is dead."""
        operation = Operation(name, effect, **kinds)
        if not self.is_dead:
            self.operations.append(operation)
        return await operation.answer

    def post(self, job: str, n: int) -> MinimalTask:
        self._submits(self, job, n)
        return self.hub.accept(job, n)

    def _start(self, what: str, work: Coroutine[Any, Any, Outcome]) -> None:
        """Begins some work, whose end will be one of `outcomes`."""
        with self._at_work():
            self._tasks.append(self._loop.create_task(self._note(what, work)))

    async def _note(self, what: str, work: Coroutine[Any, Any, Outcome]) -> None:
        try:
            self.outcomes[what] = await work
        except RunningHubError as error:
            self.outcomes[what] = error
        except Exception as error:
            self.wrongs.append(f"{self}: {what} ended with {error!r}")

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        # What one process remembers for itself must not be another's knowledge.
        UNPOSTED.clear()
        UNPOSTED.update(self._unposted)
        yield
        self._loop.run_ready()
        self._unposted = set(UNPOSTED)
        UNPOSTED.clear()

    async def _work(self, job: str, policy: Policy, *, may_be_new: bool) -> Outcome:
        request, take = work_of(job)
        # What is downloaded is other tests' business, so no store is ever asked for a file.
        work = _Work(
            request=request,
            records=JobRecords(self.journal, job),
            scope=Scope(self.journal, SCOPE, "flow", self.attempt),
            store=None,  # type: ignore[arg-type]  # as above
            observer=Silent(),
            policy=policy,
            lease=_Seat(self._line),  # type: ignore[arg-type]  # slots and accounts are other tests' business
            services=self._world,
            spending=self._ledger,
            delivery=_Undelivered(),  # type: ignore[arg-type]  # downloads are other tests' business
            options=Options(take=take),
            callback=CALLBACK,
            is_new=may_be_new and await self._was_empty(),
            owner=self._body.owner,
        )
        ended: Outcome = await RunningWork(work).complete()  # type: ignore[assignment]  # see `_Undelivered`
        return ended

    async def _was_empty(self) -> bool:
        """Whether the scope had no job when this process came to it."""
        return await self._were_empty.get(SCOPE, lambda: is_empty(self.journal))

    async def _cancel(self) -> CancelReport:
        async def client_for(_: Intent) -> _Line:
            return self._line

        return await cancel_scope(
            Scope(self.journal, SCOPE, "flow", self.attempt), client_for, by="a person", clock=now
        )


def work_of(job: str) -> tuple[JobRequest, int]:
    """The request and the take that a key stands for, which is a readable one here: `lighthouse2`."""
    prompt, take = job[:-1], int(job[-1])
    request = JobRequest(
        model="m", endpoint="m", site="s", payload={"prompt": prompt}, base=prompt, estimate=PRICE, currency="CNY"
    )
    return request, take


class _Journal(Journal):
    """The journal as one process reaches it."""

    def __init__(self, process: Process) -> None:
        self.scope = SCOPE
        self._process = process

    async def create(self, key: str, record: Mapping[str, Any]) -> bool:
        if "-intent-" in key and self._process.has_seen_cancel:
            self._process.wrongs.append(f"{self._process}: claims {key} after it has seen the cancellation")
        done = await self._ask(f"create {key}", lambda: self._process.place.create(SCOPE, key, record))
        return bool(done)

    async def read(self, key: str) -> JSON | None:
        found: JSON | None = await self._ask(f"read {key}", lambda: self._process.place.read(SCOPE, key))
        if key == f"cancel-{self._process.attempt}" and found is not None:
            self._process.has_seen_cancel = True
        return found

    async def job(self, job_key: str) -> dict[str, JSON]:
        found: dict[str, JSON] = await self._ask(f"job {job_key}", lambda: self._process.place.job(SCOPE, job_key))
        return found

    async def keys(self) -> AsyncIterator[str]:
        for key in await self._ask("keys", lambda: self._process.place.keys(SCOPE)):
            yield key

    async def names(self) -> AsyncIterator[str]:
        async for _, records in self.jobs():
            for name in records:
                yield name

    async def jobs(self) -> AsyncIterator[tuple[str, dict[str, JSON]]]:
        async for key in self.keys():
            yield key, await self.job(key)

    async def _ask(self, name: str, effect: Callable[[], Any]) -> Any:
        return await self._process.io(name, effect, lost=lambda: JournalError(f"{name}: the journal is away"))


class _Line:
    """RunningHub as one process reaches it."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def submit(self, endpoint: str, payload: Mapping[str, object], *, webhook_url: str) -> TaskView:
        job, n = webhook_url.split("/")[-2:]
        task: MinimalTask = await self._process.io(
            f"submit {job} {n}",
            lambda: self._process.post(job, int(n)),
            lost=lambda: ResponseLost("no answer"),
            unsent=lambda: ConnectFailed("no connection"),
            expires=now() + SUBMIT_TIMEOUT,
        )
        return TaskView(task_id=task.task_id, status="QUEUED")

    async def query(self, task_id: str) -> TaskView:
        hub, lost = self._process.hub, lambda: ResponseLost("no answer")
        view: TaskView = await self._process.io(f"query {task_id}", lambda: hub.query(task_id), lost=lost)
        return view

    is_bare = False
    progress = staticmethod(no_progress)

    async def cancel(self, task_id: str) -> None:
        hub, lost = self._process.hub, lambda: ResponseLost("no answer")
        await self._process.io(f"cancel {task_id}", lambda: hub.cancel(task_id), lost=lost)


class _Undelivered:
    """Takes the submission itself, with its end, for the result: downloads are other tests' business."""

    shape, recorded = "", None

    async def publish(self, work: Work, submit: Submit, *, first_time: bool) -> Submit:
        return submit

    async def record(self, work: Work, result: Submit) -> Submit:
        return result


class _Looks:
    def __init__(self, line: _Line) -> None:
        self._line = line

    async def wait(self, task_id: str, *, on_change: Callable[[TaskView], None], **_: object) -> TaskView:
        while True:
            try:
                view = await self._line.query(task_id)
            except ResponseLost:
                view = TaskView(task_id=task_id, status="RUNNING")
            on_change(view)
            if is_settled(view):
                return view
            await asyncio.sleep(5)


class _Seat:
    """One account with as many slots as anybody wants."""

    def __init__(self, line: _Line) -> None:
        self.account = SimpleNamespace(provider=line, poller=_Looks(line), prices=_Prices())

    async def acquire(self, on_wait: object = None) -> None: ...

    def occupy(self) -> None: ...

    def submit_finished(self) -> None: ...

    def release(self, *, full: bool = False) -> None: ...

    async def switch_to(self, intent: Intent) -> SimpleNamespace:
        return self.account


class _Prices:
    async def currency(self) -> str:
        return "CNY"

    async def listed(self, known: Money | None) -> Money | None:
        return known

    def guess(self, known: Money | None) -> Money | None:
        return known

    async def of(self, endpoint: str, payload: Mapping[str, object], known: Money | None) -> Money | None:
        return known


async def _nothing(_: object) -> None: ...


def machines(folder: Path) -> list[Machine]:
    """One whose processes can be seen to be dead, and one of which nothing can be proved."""
    return [Machine(body.__name__, ImmediateSpool(folder / body.__name__), body) for body in (seen, unseen)]

"""One work that a real executor makes in memory: what it does to accounts, storage and outputs is noted in one list."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rh_prefect.client.http_connections import uptime
from rh_prefect.client.wire.task import RemoteOutput, TaskView
from rh_prefect.errors import ApiError, ConfigError, RunningHubError
from rh_prefect.media.store import MediaStore
from rh_prefect.works.checked_request import JobRequest
from rh_prefect.works.events import JobEvent, Silent
from rh_prefect.works.input_identification import Input
from rh_prefect.works.journal.costs_and_budget import Money, SpendTracker, charges_in
from rh_prefect.works.journal.job_records_and_state import JobRecords, Submit
from rh_prefect.works.journal.record_types import Answer, End, Intent, ResultRecord
from rh_prefect.works.journal.scope import FolderScope
from rh_prefect.works.journal.spool import Spool, Spooled
from rh_prefect.works.lifecycle import Policy
from rh_prefect.works.work_in_progress import Work
from rh_prefect.works.work_runner import RunningWork
from tests.support.world.job_records import TASK, intent
from tests.support.world.memory_journal import FiniteJournal, MemoryPlace

REQUEST = JobRequest(model="m", endpoint="m", site="s", payload={"prompt": "x"}, base="x", estimate=Decimal(1))
POLICY = Policy(job="run/job", endpoint="m")
QUEUED = TaskView(task_id=TASK, status="QUEUED")
SUCCESS = TaskView(task_id=TASK, status="SUCCESS", outputs=(RemoteOutput(text="done"),))


def no_progress(*_: object) -> Any:
    """The progress of a task that reports none."""
    return SimpleNamespace(during=lambda _: nullcontext(), runs=lambda: None)


class Done(list[str]):
    """What was done; it ends a work that does the same for ever."""

    def append(self, what: str) -> None:
        assert len(self) < 200, f"for ever: {self[-5:]}"
        super().append(what)


@dataclass(eq=False)
class Account:
    """An account that answers as a test says."""

    name: str
    did: list[str]  # where that is noted
    answers: list[TaskView | Exception]  # to the submissions, in their order; then each is accepted
    view: TaskView = SUCCESS  # the task when it is waited for
    price: Money | None = None  # of each request, where the catalogue has none
    refusal: ApiError | None = None  # of each upload and price, if there is one
    ages: list[float] = field(default_factory=list)  # how old each task was when it was waited for
    sent: list[Mapping[str, object]] = field(default_factory=list)  # the payloads of the submissions
    during: Callable[[], Awaitable[None]] | None = None  # is called at each submission, wait and cancellation
    query_error: RunningHubError | None = None  # of each query, if there is one
    block: str | None = None
    is_bare: bool = False

    @property
    def provider(self) -> Account:
        return self

    poller = provider
    prices = provider
    uploads = provider
    progress = staticmethod(no_progress)

    def is_of(self, intent: Intent) -> bool:
        return self.name == intent.account

    async def submit(self, endpoint: str, payload: Mapping[str, object], *, webhook_url: str | None) -> TaskView:
        await self._note(f"submit to {self.name}")
        answer = self.answers.pop(0) if self.answers else QUEUED
        self.sent.append(payload)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def wait(self, task_id: str, *, age: float, **_: object) -> TaskView:
        assert task_id == TASK
        self.ages.append(age)
        await self._note(f"wait at {self.name}")
        return self.view

    async def cancel(self, task_id: str) -> None:
        await self._note(f"cancel at {self.name}")

    async def query(self, task_id: str) -> TaskView:
        assert task_id == TASK
        self.did.append(f"query at {self.name}")
        if self.query_error is not None:
            raise self.query_error
        return self.view

    async def currency(self) -> str:
        return "CNY"

    async def listed(self, known: Money | None) -> Money | None:
        return known

    def guess(self, known: Money | None) -> Money | None:
        return known

    async def of(self, endpoint: str, payload: Mapping[str, object], known: Money | None) -> Money | None:
        if known is None:
            self._asked("price at")
        return known or self.price

    async def address(self, file: Input, mark: str, *, store: MediaStore) -> str:
        self._asked("upload to")
        return f"https://{self.name}/{mark}"

    async def _note(self, what: str) -> None:
        self.did.append(what)
        if self.during is not None:
            await self.during()

    def _asked(self, what: str) -> None:
        self.did.append(f"{what} {self.name}")
        if self.refusal is not None:
            raise self.refusal


class ImmediateSpool(Spool):
    """One that writes at once: in virtual time nothing waits for a thread."""

    async def save(self, entry: Spooled) -> None:
        self.put(entry)


class ExecutedWork:
    """A work of one run, which the account `main` pays for; see `did`."""

    def __init__(
        self,
        folder: Path,
        *,
        place: MemoryPlace | None = None,
        key: str = "job",
        policy: Policy = POLICY,
        request: JobRequest = REQUEST,
        spending: SpendTracker | None = None,
    ) -> None:
        self.did: list[str] = Done()  # what was done, in order
        self.events: list[JobEvent] = []  # what was reported
        self.pauses: list[float] = []  # how long each pause was, in seconds
        self.after_pause: Callable[[], Awaitable[object]] | None = None  # is called after each pause
        self.spare: list[str] = []  # the accounts that pay if one refuses
        self.accounts = {name: Account(name, self.did, []) for name in ("main", "two")}
        self.journal = FiniteJournal(place or MemoryPlace(), "run")
        scope = FolderScope(self.journal, attempt=policy.attempt)
        self.spending = spending or SpendTracker(partial(charges_in, scope))
        spool = ImmediateSpool(folder / "spool")
        self.work = work_of(
            request,
            scope=scope,
            key=key,
            store=MediaStore(str(folder / "store")),
            observer=self,
            policy=policy,
            lease=Lease(self),
            services=services(spool=spool, stores=self, sleep=self._sleep, clock=self._clock),
            spending=self.spending,
            delivery=self,
        )
        self.records = self.work.records
        self.running = RunningWork(self.work)

    @property
    def seconds(self) -> float:
        return sum(self.pauses)

    @property
    def main(self) -> Account:
        return self.accounts["main"]

    async def finish(self) -> Any:
        return await self.running.complete()

    async def paid_before(self, *, account: str = "main", **facts: Any) -> None:
        """Records a submission of an earlier process that was accepted."""
        claimed = intent(account=account, base=self.work.request.base, **facts)
        assert await self.records.create(1, claimed)
        assert await self.records.create(1, Answer(outcome="ticket", task_id=TASK))

    # -- what its steps call ---------------------------------------------------------------------------------------

    def notify(self, event: JobEvent) -> None:
        self.events.append(event)

    @property
    def heard(self) -> list[tuple[str, str]]:
        """The states that were reported, with their messages."""
        return [(event.state, event.message) for event in self.events]

    async def check(self, store: MediaStore) -> None:
        self.did.append("check the storage")

    def refuse_payment(self, run: object, store: MediaStore, job: str) -> None:
        self.did.append("look for refused outputs")

    shape = ""
    recorded = None

    async def restore(self, work: Work, record: ResultRecord) -> None: ...

    async def publish(self, work: Work, submit: Submit, end: End, *, first_time: bool) -> Submit:
        self.did.append(f"publish {'without' if first_time else 'with'} a search")
        return submit

    async def record(self, work: Work, result: Submit) -> Submit:
        self.did.append("record the result")
        return result

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if self.after_pause is not None:
            await self.after_pause()

    def _clock(self) -> float:
        return 1e6 + self.seconds


class Lease:
    """The slot of a work, which notes what is done with it."""

    def __init__(self, work: ExecutedWork) -> None:
        self._work = work
        self.account = work.main
        self.has_slot = False

    async def acquire(self, on_wait: object = None) -> None:
        self._note("take a slot", has_slot=True)

    def occupy(self) -> None:
        if not self.has_slot:
            self._note("occupy a slot", has_slot=True)

    def release(self, *, full: bool = False) -> None:
        if self.has_slot:
            self._note("release the slot, which was none" if full else "release the slot", has_slot=False)

    def submit_finished(self) -> None:
        self._work.did.append("submitted")

    async def select_account(self) -> None:
        self._work.did.append("select an account")

    async def switch_to(self, intent: Intent) -> Account:
        if intent.account not in self._work.accounts:
            raise ConfigError(f"there is no key of {intent.account}")
        if intent.account != self.account.name:
            self._work.did.append(f"switch to {intent.account}")
        self.account = self._work.accounts[intent.account]
        return self.account

    def after_refusal(self, answer: Answer) -> str | None:
        if not self._work.spare:
            return None
        self.account = self._work.accounts[self._work.spare.pop(0)]
        return f"account {self.account.name} pays"

    def _note(self, what: str, *, has_slot: bool) -> None:
        self._work.did.append(what)
        self.has_slot = has_slot


def with_policy(**options: Any) -> Policy:
    return replace(POLICY, **options)


async def _nothing(_: object) -> None: ...


async def _storing(_run: object, _store: object, _job: object, collecting: Any) -> Any:
    return await collecting


def services(**facts: Any) -> Any:
    made: dict[str, Any] = {
        "spool": Spool(Path("/nowhere")),
        "stores": SimpleNamespace(check=_nothing, refuse_payment=lambda *_: None, storing=_storing),
        "sleep": asyncio.sleep,
        "jitter": lambda: 0.5,
        "submit_timeout": 60.0,
        "clock": uptime,
    }
    return SimpleNamespace(**(made | facts))


def work_of(request: JobRequest, *, scope: Any, key: str, kind: type[Work] = Work, **facts: Any) -> Work:
    records = JobRecords(scope.journal, key)
    made: dict[str, Any] = {
        "store": None,
        "observer": Silent(),
        "policy": Policy(job=records.name, endpoint=request.endpoint),
        "lease": None,
        "services": services(),
        "spending": SpendTracker(partial(charges_in, scope)),
        "delivery": None,
        "callback": None,
        "pipeline": "",
    }
    return kind(request=request, records=records, scope=scope, **(made | facts))


class FileLease:
    """The lease of a job whose task has ended: it gives a provider that only downloads and queries."""

    def __init__(self, download: Any, query: Any) -> None:
        self.switches = 0
        self.account = SimpleNamespace(provider=SimpleNamespace(download=download, query=query, is_bare=False))

    async def switch_to(self, _: object) -> Any:
        self.switches += 1
        return self.account

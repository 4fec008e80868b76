"""From the ticket to the recorded end: which events end a wait."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from rh_prefect.client import RemoteOutput, TaskView
from rh_prefect.errors import ConfigError, JournalError, OutputsPending, TaskNotFound
from rh_prefect.works.accounts.poller import Poller
from rh_prefect.works.completion import await_end, cancel_and_record
from rh_prefect.works.journal.job_records_and_state import JobView, Submit
from rh_prefect.works.journal.record_types import End, Intent
from rh_prefect.works.journal.scope import FolderScope
from rh_prefect.works.run_cancellation import cancel_scope
from tests.support.world.executed_work import REQUEST, no_progress, services, work_of
from tests.support.world.job_records import KEY, TASK, intent, ticket, write
from tests.support.world.memory_journal import MemoryJournal, MemoryPlace
from tests.support.world.virtual_time import clock, now

pytestmark = pytest.mark.virtual_time

QUEUED = TaskView(task_id=TASK, status="QUEUED")
RUNNING = TaskView(task_id=TASK, status="RUNNING")
EMPTY = TaskView(task_id=TASK, status="SUCCESS")
SUCCESS = TaskView(task_id=TASK, status="SUCCESS", outputs=(RemoteOutput(url="https://files/a.png", type="png"),))


class NotifyingMemoryJournal(MemoryJournal):
    """A journal that notifies of ends and counts its reads."""

    notifies = True
    reads = 0
    is_away = False

    async def create(self, key: str, record: Mapping[str, Any]) -> bool:
        if self.is_away:
            raise JournalError("the journal is away")
        return await super().create(key, record)

    async def notify_of_ends(self, poller: Poller) -> None:
        poller.set_receiving(is_on=True)

    async def read(self, key: str) -> Any:
        self.reads += 1
        return await super().read(key)


class RunningHub:
    """A server with one task; after its cancellation, the task is deleted or has the status CANCELLED."""

    def __init__(self, view: TaskView = RUNNING, *, deletes: bool = False) -> None:
        self.view: TaskView | None = view
        self.deletes = deletes
        self.queries = 0

    progress: Any = staticmethod(no_progress)

    async def query(self, task_id: str) -> TaskView:
        self.queries += 1
        if self.view is None:
            raise TaskNotFound("no such task", code="807")
        return self.view

    async def cancel(self, task_id: str) -> None:
        if self.view == RUNNING:
            self.view = None if self.deletes else TaskView(task_id=task_id, status="CANCELLED")

    async def currency(self, *, pace_seconds: float | None = None) -> str | None:
        return None


class WaitingJob:
    """A job with a ticket, a process that waits for it, and another one that monitors its run."""

    def __init__(self, rh: RunningHub, *, webhook: bool = False) -> None:
        self.rh = rh
        self.journal = NotifyingMemoryJournal(MemoryPlace(), "run")
        self.scope = FolderScope(self.journal)
        self.submit = Submit(1, intent(base=KEY, webhook=webhook), answer=ticket())
        self.poller = Poller(rh.query, clock=clock, shortest=2.0, grace=300.0)
        lease = SimpleNamespace(
            account=SimpleNamespace(provider=rh, poller=self.poller),
            release=lambda: None,
            query_error=lambda intent, _task_id, error: ConfigError(f"{intent.account}: {error}"),
        )
        self.work = work_of(REQUEST, scope=self.scope, key=KEY, lease=lease, services=services(clock=clock))

    async def begin(self) -> asyncio.Task[End]:
        await write(self.journal, {"intent-1": self.submit.intent, "answer-1": ticket()})
        await self.journal.notify_of_ends(self.poller)
        return asyncio.create_task(self.end())

    async def end(self, first_view: TaskView | None = None) -> End:
        return await await_end(self.work, self.submit, first_view=first_view, accepted_at=None)

    async def cancel_elsewhere(self) -> None:
        async def client_for(_: Intent) -> Any:
            return self.rh

        await cancel_scope(self.scope, client_for, by="jobs cancel")

    async def ends(self) -> list[End]:
        view = JobView.parse(self.journal, KEY, await self.journal.job(KEY))
        return [submit.end for submit in view.submits if submit.end is not None]


async def test_a_success_without_files_is_not_an_end() -> None:
    """No end is recorded, so that the next run queries the task again and gets its outputs."""
    job = WaitingJob(RunningHub(EMPTY))
    with pytest.raises(OutputsPending, match=f"task {TASK} was paid for.*no file and no text.*run again later"):
        await (await job.begin())
    assert 300 <= now() <= 330
    assert await job.ends() == []
    job.rh.view = SUCCESS
    assert [link.url for link in (await job.end()).links] == ["https://files/a.png"]


async def test_a_success_without_files_at_a_cancellation_is_not_an_end() -> None:
    """Neither for the run nor for the process that cancels it."""
    job = WaitingJob(RunningHub(EMPTY))
    waiting = await job.begin()
    await job.cancel_elsewhere()
    with pytest.raises(OutputsPending):
        await cancel_and_record(job.work, job.submit)
    assert await job.ends() == []
    waiting.cancel()


async def test_an_invalid_link_is_named() -> None:
    for url in ("/files/a.png?token=secret", "http://[::1"):
        job = WaitingJob(RunningHub(TaskView(task_id=TASK, status="SUCCESS", outputs=(RemoteOutput(url=url),))))
        with pytest.raises(OutputsPending, match="which is not a URL") as caught:
            await (await job.begin())
        assert "secret" not in caught.value.message
        assert await job.ends() == []


@pytest.mark.parametrize("url", ["", "/files/b.png", "http://[::1"])
async def test_a_success_with_one_usable_output_is_an_end(url: str) -> None:
    """One invalid link beside it does not keep an output that can be fetched until its own link has expired."""
    outputs = (RemoteOutput(url="https://files/a.png"), RemoteOutput(url=url))
    job = WaitingJob(RunningHub(TaskView(task_id=TASK, status="SUCCESS", outputs=outputs)))
    end = await (await job.begin())
    assert 300 <= now() <= 330
    assert [link.url for link in end.links] == ["https://files/a.png", url]
    assert await job.ends() == [end]


async def test_a_graph_that_is_unknown_after_its_cancellation_is_cancelled() -> None:
    """The recorded end is read before the response "no such task" counts."""
    job = WaitingJob(RunningHub(deletes=True))
    waiting = await job.begin()
    await asyncio.sleep(20)
    await job.cancel_elsewhere()
    assert (await waiting).status == "CANCELLED"
    assert now() < 25


@pytest.mark.parametrize("deletes", [False, True])
async def test_a_cancellation_is_noticed_within_seconds_with_webhooks(deletes: bool) -> None:
    """RunningHub sends no webhook for a cancelled task, so the cancel record of the run is read."""
    job = WaitingJob(RunningHub(deletes=deletes), webhook=True)
    waiting = await job.begin()
    await asyncio.sleep(100.5)
    began = now()
    assert job.rh.queries <= 2, "the webhook reports another end"
    await job.cancel_elsewhere()
    assert (await waiting).status == "CANCELLED"
    assert now() - began <= 2
    assert job.journal.reads <= 43


async def test_a_task_says_how_many_are_before_it_that_it_runs_and_which_node_runs() -> None:
    """ComfyUI's own queue tells it."""
    job, heard = WaitingJob(RunningHub(QUEUED.model_copy(update={"ahead": 3}))), list[tuple[object, ...]]()
    observer = SimpleNamespace(notify=lambda event: heard.append((event.state, event.message, event.is_step)))
    job.work = replace(job.work, observer=observer)
    job.rh.progress = lambda _request, _task_id, report: SimpleNamespace(
        during=lambda _: nullcontext(), runs=lambda: report("KSampler 1/20")
    )
    waiting = await job.begin()
    await asyncio.sleep(20)
    for view in (RUNNING, QUEUED, RUNNING):
        job.rh.view = view
        await asyncio.sleep(30)
    job.rh.view = SUCCESS
    end = await waiting
    assert heard == [
        ("queued", "3 before it in the queue", True),
        ("running", f"task {TASK} runs", False),
        ("running", "KSampler 1/20", True),
    ]
    assert end.queued_seconds is not None and 20 <= end.queued_seconds <= 50
    assert end.run_seconds is not None and 110 <= end.queued_seconds + end.run_seconds <= 140


async def test_a_cancellation_that_is_only_accepted_is_no_recorded_end() -> None:
    """The task may still succeed, and a later run asks for it."""
    job = WaitingJob(RunningHub(QUEUED))
    await write(job.journal, {"intent-1": job.submit.intent, "answer-1": ticket()})
    end = await cancel_and_record(job.work, job.submit)
    assert (end.status, await job.ends()) == ("CANCELLED", [])


async def test_an_end_that_cannot_be_recorded_is_the_end_for_this_run() -> None:
    """Its files are downloaded first, since their links expire; a later run queries the task again."""
    job = WaitingJob(RunningHub(SUCCESS))
    waiting = await job.begin()
    job.journal.is_away = True
    assert (await waiting).status == "SUCCESS"
    assert await job.ends() == []


async def test_only_the_status_of_this_task_in_the_answer_to_a_submission_ends_the_wait() -> None:
    """The submission may have been resolved with another task meanwhile."""
    job, other = WaitingJob(RunningHub(RUNNING)), WaitingJob(RunningHub(RUNNING))
    assert (await job.end(SUCCESS)).status == "SUCCESS"
    waiting = asyncio.create_task(other.end(SUCCESS.model_copy(update={"task_id": "9"})))
    await asyncio.sleep(100)
    assert not waiting.done()
    other.rh.view = SUCCESS
    assert (await waiting).task_id == TASK


async def test_a_job_polls_by_itself_once_the_end_of_its_task_is_recorded_for_another_job() -> None:
    """The poller reports that end to both, and RunningHub sends no second webhook."""
    job, waits = WaitingJob(RunningHub(), webhook=True), list[tuple[bool, bool]]()

    async def wait(task_id: str, *, is_recorded: object, has_webhook: bool, **_: object) -> TaskView | None:
        waits.append((is_recorded is not None, has_webhook))
        return None if len(waits) == 1 else SUCCESS

    job.poller.wait = wait  # type: ignore[method-assign,assignment]
    await job.end()
    assert waits == [(True, True), (False, False)]
    reads = job.journal.reads
    await asyncio.sleep(60)
    assert job.journal.reads == reads, "nothing looks for a cancellation any more"


async def test_a_task_that_its_account_does_not_know_is_an_error_and_no_end() -> None:
    job = WaitingJob(RunningHub())
    job.rh.view = None
    with pytest.raises(ConfigError, match="acc: no such task"):
        await (await job.begin())
    assert await job.ends() == []

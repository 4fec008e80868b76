"""A run that is cancelled while its own process lives: the process itself cancels its tasks, whoever else does."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import runtime
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Cancelling, Paused, Pending, Running

import rh_prefect
from rh_prefect import MediaStorage, generate, generate_many, models
from rh_prefect.emulator import Emulator
from rh_prefect.flow_runs.cancellation import EVERY, cancel_run
from rh_prefect.flow_runs.flow import cancel_remote_jobs
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.recorded_job_collection import recorded_progress
from rh_prefect.flow_runs.resume_or_rerun import create, rerun, resume
from rh_prefect.flow_runs.run_queries_and_scopes import FlowScope, scope_named
from rh_prefect.works.journal.job_records_and_state import jobs_of
from rh_prefect.works.journal.scope import FolderScope
from rh_prefect.works.journal.spool import Spool
from rh_prefect.works.journal.works_journal import WorksJournal
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.run_cancellation import CancelReport
from tests.e2e import flows
from tests.e2e.flows import begin
from tests.support.servers.faulty_proxy import FaultyProxy
from tests.support.servers.prefect_server import PrefectServer
from tests.support.waiting import until
from tests.support.world.pipeline_runs import PipelineRun, ProcessKilled, bury, picture
from tests.support.world.prefect_runs import artifacts_of, set_states, state_of

pytestmark = pytest.mark.prefect

PROMPTS = ["a lighthouse", "a harbour"]


@pytest.fixture
def rh(slow_rh: Emulator) -> Emulator:
    return slow_rh


async def until_paid(rh: Emulator, tasks: int) -> None:
    assert await asyncio.to_thread(rh.recorder.wait, lambda recorder: len(recorder.paid) == tasks)


async def until_cancelled(rh: Emulator, run: asyncio.Future[Any]) -> None:
    """Waits for the cancellation of both tasks, and for the run, which does not wait for what was cancelled."""
    assert await asyncio.to_thread(rh.recorder.wait, lambda recorder: len(recorder.cancelled) == 2)
    await asyncio.wait([run], timeout=300)
    assert run.done()


async def running(rh: Emulator) -> tuple[str, asyncio.Future[Any]]:
    """A run whose two tasks run at RunningHub."""
    run = await begin(flows.many, prompts=PROMPTS)
    task = asyncio.ensure_future(rerun(flows.many, run))
    await until_paid(rh, 2)
    return run, task


@pytest.mark.parametrize("state", [Cancelling(), pytest.param(Cancelled(), marks=pytest.mark.long)])
async def test_without_worker_and_hook_its_tasks_are_cancelled(rh: Emulator, state: State[Any]) -> None:
    run, task = await running(rh)
    await set_states(run, state)
    await until_cancelled(rh, task)
    assert len(rh.recorder.submissions) == 2
    assert task.exception() is not None
    ended = (await set_states(run)).state
    assert ended is not None
    if state.is_cancelling():  # else its message says who has set the state
        assert ended.is_cancelled(), "not for ever being cancelled"
        assert str(ended.message).startswith("The run was cancelled: 0 of 2 jobs done, 2 cancelled, cost ")


async def test_a_child_flow_reports_nothing_because_its_jobs_belong_to_the_root() -> None:
    """Prefect also calls the hook of a child; its report said that nothing was charged."""

    @rh_prefect.flow
    async def child() -> str:
        return str(runtime.flow_run.id)

    @rh_prefect.flow
    async def parent() -> str:
        return await child()

    run = await parent()
    cancelled = await set_states(run, Cancelling())
    assert cancelled.state is not None
    await cancel_remote_jobs(flow=child, flow_run=cancelled, state=cancelled.state)
    assert await artifacts_of(run) == {}
    assert await LOOP.call(FlowRunJournal(run).read("cancel-1")) is None


async def test_the_report_of_a_cancelled_run_opens_its_storage_once(
    rh: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It opened the storage for each job: the hook of a run of 200 jobs took 16 s."""

    @rh_prefect.flow
    async def pictures() -> None:
        await generate_many([models.ZImageTurbo(prompt=prompt) for prompt in PROMPTS], storage="reported")

    await MediaStorage(url=str(tmp_path / "reported")).asave("reported", overwrite=True)
    run = await create(pictures, {})
    task = asyncio.ensure_future(rerun(pictures, run))
    await until_paid(rh, 2)
    rh.clock.advance(3600)
    await task
    read, loaded = PrefectClient.read_block_document_by_name, list[str]()

    async def count(self: PrefectClient, name: str, *given: Any, **more: Any) -> Any:
        loaded.append(name)
        return await read(self, name, *given, **more)

    monkeypatch.setattr(PrefectClient, "read_block_document_by_name", count)
    status = await LOOP.call(recorded_progress(await scope_named(str(run)), CancelReport()))
    assert len(status.files) == 2
    assert loaded == ["reported"] * 2, "for the files, and for the links"


@rh_prefect.flow
def many_by_submit(prompts: list[str]) -> None:
    futures = [generate.submit(models.ZImageTurbo(prompt=prompt)) for prompt in prompts]
    for future in futures:
        future.result()


@pytest.mark.long
async def test_a_resumed_flow_that_is_not_async_does_not_stay_cancelling(rh: Emulator) -> None:
    run = await create(many_by_submit, {"prompts": PROMPTS})
    task = asyncio.ensure_future(asyncio.to_thread(resume, many_by_submit, run))
    await until_paid(rh, 2)
    await set_states(run, Cancelling())
    await until_cancelled(rh, task)
    assert await state_of(run) == "Cancelled"


async def test_a_run_that_is_cancelled_while_it_is_paused_cancels_its_tasks(rh: Emulator) -> None:
    """The process of a paused run lives, unlike that of a suspended one."""
    run, task = await running(rh)
    await set_states(run, Paused(reschedule=False))
    await asyncio.sleep(EVERY + 1)
    assert not rh.recorder.cancelled
    await set_states(run, Cancelling())
    await until_cancelled(rh, task)


async def test_a_cancellation_of_a_run_with_many_attempts_takes_few_requests() -> None:
    run, attempts = await begin(flows.many, prompts=PROMPTS), 300
    async with get_client() as client:
        await LOOP.call(cancel_run(replace(await scope_named(run), attempt=attempts), by="a test"))
        entries = await client.filter_flow_run_input(UUID(run), "rh-log-", 200, set())
    forbidden = [name for entry in entries for name in re.findall(r"cancel-\d+", entry.value)]
    assert (len(forbidden), forbidden[0]) == (attempts, f"cancel-{attempts}"), "a later attempt is a new decision"
    assert len(entries) < 10


async def test_a_cancellation_leaves_an_attempt_that_has_begun_since(rh: Emulator) -> None:
    """Prefect calls the hook with the state from the beginning of the cancellation, and sets `Cancelled` after it."""
    run = await begin(flows.many, prompts=PROMPTS)
    cancelled = await set_states(run, Running())
    await set_states(run, Pending(), Running())
    await cancel_remote_jobs(flow=flows.many, flow_run=cancelled, state=Cancelled())
    records = [await LOOP.call(FlowRunJournal(run).read(f"cancel-{attempt}")) for attempt in (1, 2)]
    assert [record is not None for record in records] == [True, False]


async def test_all_shared_tasks_that_only_their_machine_knows_are_cancelled_if_the_storage_is_slow(
    rh: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their ids were in the spool of the killed process; the tasks ran on, and their submissions counted as unknown."""

    class Slow(WorksJournal):
        async def create(self, key: str, record: Mapping[str, Any]) -> bool:
            await asyncio.sleep("-answer-" in key)
            return await super().create(key, record)

    def be_killed(operation: str) -> None:
        if "-answer-" in operation:
            raise ProcessKilled

    run = PipelineRun(rh.url, rh.key, tmp_path, str(tmp_path / "store"), operation=be_killed)
    for take in range(1, 8):
        with pytest.raises(ProcessKilled):
            await run.one(picture(take=take))
    bury(tmp_path)
    monkeypatch.setenv("RH_STATE_DIR", str(run.settings.state_dir))
    scope = FolderScope(run.another().scope.journal, Slow(run.store.url))
    report = await LOOP.call(cancel_run(scope, by="a test"))
    assert sorted(report.cancelled) == sorted(one.task_id for one in rh.recorder.paid)
    assert (len(report.cancelled), report.failed) == (7, {})
    assert list(Spool(run.settings.state_dir / "spool").entries()) == []


async def test_the_own_tasks_of_a_run_do_not_wait_for_the_storage_of_its_shared_ones(rh: Emulator) -> None:
    """Their cancellation needs only Prefect, and the process is killed 30 seconds after the run's cancellation."""

    class Slow(FlowScope):
        async def works(self) -> WorksJournal | None:
            await until(lambda: len(rh.recorder.cancelled) == 2, seconds=15)
            return None

    name, task = await running(rh)
    journal = FlowRunJournal(name)

    async def are_recorded() -> bool:
        return [view.state async for view in jobs_of(journal)] == ["ticket"] * 2

    await until(are_recorded)
    task.cancel()  # no other code cancels them
    await asyncio.wait([task])
    report = await LOOP.call(cancel_run(Slow(journal, run=name, flow="many", attempt=1), by="a test"))
    assert sorted(report.cancelled) == sorted(one.task_id for one in rh.recorder.paid)


async def test_the_hook_reads_the_run_again_after_a_server_error(rh: Emulator, prefect_server: PrefectServer) -> None:
    """After a kill nothing else cancels the tasks before the next run of `reconcile`."""
    run = await begin(flows.many, prompts=PROMPTS)
    cancelled = await set_states(run, Running(), Cancelling())
    with FaultyProxy(prefect_server.url) as proxy, temporary_settings({PREFECT_API_URL: f"{proxy.url}/api"}):
        fault = proxy.add_fault(rf"^GET \S*/flow_runs/{run} ", "500", times=1)
        await cancel_remote_jobs(flow=flows.many, flow_run=cancelled, state=Cancelling())
    assert fault.happened
    assert await LOOP.call(FlowRunJournal(run).read("cancel-1"))


async def test_the_page_of_a_cancelled_run_shows_what_its_own_process_has_cancelled(
    rh: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """The hook comes second: it said "cancelled 0 task(s)", left the bar as it was, and named a file's task."""
    run = await begin(flows.many_in_order, prompts=PROMPTS)
    task = asyncio.ensure_future(rerun(flows.many_in_order, run))
    await until_paid(rh, 1)
    rh.clock.advance(3600)
    await until_paid(rh, 2)
    await set_states(run, Cancelling())
    await asyncio.wait([task], timeout=300)
    (by_the_process,) = rh.recorder.cancelled
    with caplog.at_level("INFO"):
        await cancel_remote_jobs(flow=flows.many_in_order, flow_run=await set_states(run), state=Cancelling())
    found = await artifacts_of(run)
    assert "cancelled 1 task(s) at RunningHub" in caplog.text
    assert "cancelled 0 task(s)" not in caplog.text
    bar, report = found["many-in-order-progress"], found["many-in-order-report"]
    assert bar.data == 50
    assert str(bar.description).startswith("The run was cancelled: 1 of 2 jobs done, 1 cancelled, cost ")
    assert report.description == bar.description
    rows = [line.split(" | ") for line in str(report.data).splitlines() if "z-image/turbo" in line]
    assert [row[1] for row in rows if len(row) == 5] == ["cancelled", "made"]
    assert f"task {by_the_process} was cancelled" in str(report.data)
    links = [Path(link.partition(">")[0]) for link in str(report.data).split("(<file://")[1:]]
    assert [link.suffix for link in links] == [".png", "", ".png"], "of the result, the folder and the step"
    assert all(link.exists() for link in links)


@pytest.mark.long
async def test_a_run_that_was_cancelled_before_it_ran_can_be_run_later(rh: Emulator) -> None:
    """A worker calls the hook also for a run whose process was still starting."""
    run = await begin(flows.many, prompts=PROMPTS)
    cancelled = await set_states(run)
    await set_states(run, Cancelled())
    assert cancelled.run_count == 0
    await cancel_remote_jobs(flow=flows.many, flow_run=cancelled, state=Cancelled())
    task = asyncio.ensure_future(rerun(flows.many, run))
    await until_paid(rh, 2)
    rh.clock.advance(3600)
    assert len(await task) == 2

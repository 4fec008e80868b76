"""How the driver performs the steps of a job, by the requests to RunningHub and the events of the job."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from rh_prefect import catalog, models
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import ApiError, JobCancelled, ModerationError
from rh_prefect.jobs.accounts.account import member
from rh_prefect.jobs.engine import engine_for
from rh_prefect.jobs.events import JobEvent
from rh_prefect.jobs.job_context import JobCall
from rh_prefect.jobs.journal.budget import spend_tracker_of
from rh_prefect.jobs.journal.record_types import Cancelled
from rh_prefect.jobs.journal.scope import FolderScope
from rh_prefect.jobs.lifecycle import Policy
from rh_prefect.jobs.loop_thread import LOOP
from rh_prefect.jobs.options import Options
from rh_prefect.jobs.outputs.result import Result
from rh_prefect.jobs.step_executor import LIMITER_PAUSES
from rh_prefect.media.store import MediaStore
from tests.support.processes.pooled_run import PooledRun, pictures
from tests.support.samples import media as samples
from tests.support.servers.minimal_api import MinimalApi
from tests.support.world.memory_journal import MemoryPlace
from tests.support.world.simulated_process import Process, machines
from tests.support.world.virtual_time import VirtualLoop


@pytest.fixture
def run(rh: Emulator, tmp_path: Path) -> PooledRun:
    return PooledRun(rh, tmp_path, members=("main",))


async def test_a_finished_job_is_downloaded_once(run: PooledRun) -> None:
    first = await run.all(pictures(1))
    assert isinstance(first[0], Result)
    assert len(run.rh.recorder.downloads) == 1
    assert await run.all(pictures(1)) == first
    assert (len(run.rh.recorder.downloads), len(run.rh.recorder.paid)) == (1, 1)


@pytest.mark.parametrize("budget", [None, 1.0])
async def test_the_price_of_the_catalogue_is_recorded_and_not_requested(run: PooledRun, budget: float | None) -> None:
    await run.all(pictures(1), budget=budget)
    (intent,) = await run.intents()
    assert (intent.estimate, intent.currency) == (Decimal("0.04"), "CNY")
    assert not [one for one in run.rh.recorder.requests if "price-preview" in one.path]


async def test_a_job_reports_each_change_of_its_state(run: PooledRun, tmp_path: Path) -> None:
    photo = str(samples.png(tmp_path / "photo.png"))
    await run.all([models.KlingV26ProImageToVideo(image_url=photo, prompt="waves", duration="5")])
    states = [event.state for event in run.heard if not event.is_step]
    assert [state for state in states if state != "running"] == ["uploading", "submitted", "collecting", "succeeded"]
    (task,) = run.rh.recorder.paid
    submitted = next(event for event in run.heard if event.state == "submitted")
    assert submitted.task_id == task.task_id
    assert run.said("uploading") == ["making 1 input(s) available to RunningHub"]


async def test_a_job_reports_its_end(run: PooledRun) -> None:
    (error,) = await run.all([models.ZImageTurbo(prompt="forbidden")])
    assert isinstance(error, ModerationError)
    assert [event.state for event in run.heard] == ["failed"]
    assert run.said("failed") == [error.message]


async def test_a_refused_upload_ends_the_job_if_no_other_account_can_pay(run: PooledRun, tmp_path: Path) -> None:
    run.rh.faults.add(Fault("upload", number=1, kind="code", code="1014"))
    photo = str(samples.png(tmp_path / "photo.png"))
    (error,) = await run.all([models.KlingV26ProImageToVideo(image_url=photo, prompt="waves", duration="5")])
    assert isinstance(error, ApiError)
    assert error.code == "1014"
    assert run.rh.recorder.submissions == []


async def test_a_cancelled_call_leaves_the_slot_to_another_call_of_its_job(tmp_path: Path) -> None:
    with Emulator(clock="real", factor=0, limit=1, long_side=48) as rh:
        run = PooledRun(rh, tmp_path, members=("main",))

        async def job(name: str, *, key: str) -> Result:
            scope, store = FolderScope(run.journal), MediaStore(str(tmp_path / name))
            engine = engine_for([member(run.key("main"), settings=run.settings)], settings=run.settings, find=run.find)
            return await engine.run(pictures(1, key)[0], JobCall(scope, store, options=Options(key=key), observer=run))

        async def calls() -> list[Result]:
            leaver, stayer = (asyncio.ensure_future(job(name, key="shared")) for name in ("a", "b"))
            while not run.said("submitted"):  # noqa: ASYNC110 - nothing else tells it
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            leaver.cancel()
            await asyncio.gather(leaver, return_exceptions=True)
            other = asyncio.ensure_future(job("b", key="other"))
            await asyncio.sleep(0.3)
            rh.clock.factor = 1000
            return [await stayer, await other]

        assert len(await LOOP.call(calls())) == 2
        assert [one.accepted for one in rh.recorder.submissions] == [True, True], "refused for want of a slot"


async def test_a_cancelled_run_pays_nothing_and_releases_its_budget(run: PooledRun) -> None:
    await run.journal.create("cancel-1", Cancelled(by="a person").model_dump(mode="json"))
    (error,) = await run.all(pictures(1), budget=0.04)
    assert isinstance(error, JobCancelled)
    assert [event.state for event in run.heard] == ["cancelled"]
    assert run.rh.recorder.submissions == []
    (result,) = await replace(run, attempt=2).all(pictures(1, "another"), budget=0.04)
    assert isinstance(result, Result)


def pauses_after(codes: Sequence[str], folder: Path) -> list[float]:
    """Refuses a job's submissions with codes, one after the other; returns how long the job pauses after each."""
    loop, place, hub = VirtualLoop(), MemoryPlace(), MinimalApi()
    on_another_host = machines(folder)[1]
    process = Process("one", on_another_host, 1, loop=loop, place=place, hub=hub, submits=lambda *_: None)

    process.call("job", Policy(job="job", endpoint="m"))
    submitted = list[float]()
    refusals = iter([*codes, "1501"])  # the last one is final
    while not process.is_over:
        for one in list(process.operations):
            if one.name.startswith("submit"):
                submitted.append(loop.time())
                error = hub.refuse("job", len(submitted), next(refusals))
                process.release(one, partial(one.refuse, error))
            else:
                process.release(one, one.deliver)
        if not process.operations:
            loop.run_until_complete(asyncio.sleep(0.1))
    process.crash()
    loop.close()
    return [until - since for since, until in pairwise(submitted)]


SLOT, RATE = "421", "1003"
"""Codes of refusals: one for want of a slot, and one because of too many requests."""


@pytest.mark.parametrize(
    ("codes", "are_paused"),
    [
        ([SLOT] * 4, [False, False, True, True]),
        ([RATE, RATE, SLOT, SLOT, SLOT], [True, True, False, False, True]),
        ([SLOT, RATE, SLOT, RATE, SLOT], [False, True, False, True, True]),
    ],
)
def test_the_first_two_refusals_for_want_of_a_slot_cause_no_pause_of_the_job(
    tmp_path: Path, codes: list[str], are_paused: list[bool]
) -> None:
    assert LIMITER_PAUSES == 2
    assert [pause > 1 for pause in pauses_after(codes, tmp_path)] == are_paused


class Watched(PooledRun):
    """Records the counted budget of the run when a job begins to upload its inputs."""

    def notify(self, event: JobEvent) -> None:
        super().notify(event)
        if event.state == "uploading":
            self.reserved = spend_tracker_of(self.journal).reserved()


async def test_a_call_without_a_budget_counts_before_its_inputs_are_uploaded(rh: Emulator, tmp_path: Path) -> None:
    """An upload of large inputs takes long, and a concurrent budget must count the price of this call."""
    run = Watched(rh, tmp_path, members=("main",))
    photo = str(samples.png(tmp_path / "photo.png"))
    await run.all([models.KlingV26ProImageToVideo(image_url=photo, prompt="waves", duration="5")])
    (task,) = rh.recorder.paid
    assert run.reserved == task.charged > 0


UNPRICED = next(
    model
    for model in catalog.models()
    if model.price is None and {param.name for param in model.params if param.required} == {"prompt"}
)


async def test_a_call_without_a_budget_is_priced_if_its_run_has_a_budget(run: PooledRun) -> None:
    """An unknown price is requested before the submission, so that its record has the price."""
    await run.all(pictures(1), budget=1.0)
    await run.all([models.input_for(UNPRICED)(prompt="a lighthouse")])
    assert len([one for one in run.rh.recorder.requests if "price-preview" in one.path]) == 1
    assert all(intent.estimate for intent in await run.intents())

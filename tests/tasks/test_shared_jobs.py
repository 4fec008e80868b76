"""Calls that share one job at the same time: one payment, and each call keeps its own deadline and storage."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rh_prefect import MediaStorage, flow, models
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import BudgetExceeded, EqualRequest, InputError, JobTimeout
from rh_prefect.tasks import generate
from rh_prefect.works.result import Result
from tests.support.world.as_task import make

POSTER = models.ZImageTurbo(prompt="a poster")


@pytest.fixture
def stopped(rh: Emulator) -> Emulator:
    """An emulator whose tasks run until its clock is `instant`."""
    rh.clock.mode, rh.clock.factor = "real", 0
    return rh


async def run(**options: Any) -> Result:
    return await make(POSTER, **options)


async def begin(rh: Emulator, *, is_later: bool, first: dict[str, Any], second: dict[str, Any]) -> list[Any]:
    """Begins two calls, the second one after the submission of the first one if `is_later`."""
    calls = [asyncio.ensure_future(run(**first))]
    if is_later:
        await asyncio.to_thread(rh.recorder.wait, lambda recorder: len(recorder.paid) == 1)
    return [*calls, asyncio.ensure_future(run(**second))]


@pytest.mark.parametrize("hasty", [0, 1], ids=["the first", "the second"])
@pytest.mark.parametrize("is_later", [False, True], ids=["at once", "once the task runs"])
@pytest.mark.parametrize("shared", [{}, {"reuse": "always"}], ids=["scope", "reuse"])
async def test_a_call_ends_at_its_own_deadline_and_the_other_one_gets_the_result(
    stopped: Emulator, shared: dict[str, Any], is_later: bool, hasty: int
) -> None:
    first, second = ({"deadline": 0.5 if number == hasty else 3600, **shared} for number in range(2))
    calls = await begin(stopped, is_later=is_later, first=first, second=second)
    with pytest.raises(JobTimeout, match=r"has not ended within 0\.5 s.*paid for"):
        await calls.pop(hasty)
    (patient,) = calls
    await asyncio.sleep(0.2)
    assert not patient.done()
    stopped.clock.mode = "instant"
    assert (await patient).first_output
    assert len(stopped.recorder.submissions) == 1
    assert not stopped.recorder.cancelled


@pytest.mark.prefect
async def test_two_equal_calls_of_a_flow_keep_their_deadlines(stopped: Emulator) -> None:
    @flow
    async def posters() -> tuple[Any, Result]:
        hasty, patient = (generate.submit(POSTER, reuse="always", deadline=seconds) for seconds in (0.5, 3600))
        failed = await asyncio.to_thread(hasty.result, raise_on_failure=False)
        stopped.clock.mode = "instant"
        return failed, await asyncio.to_thread(patient.result)

    failed, result = await posters()
    assert isinstance(failed, JobTimeout)
    assert result.first_output
    assert len(stopped.recorder.submissions) == 1


async def test_a_call_alone_ends_at_its_deadline_and_the_next_one_may_have_other_options(stopped: Emulator) -> None:
    """Also where the program keeps the error: no call waits any more, so there is none to agree with."""
    with pytest.raises(JobTimeout, match=r"has not ended within 0\.2 s") as _kept:
        await run(deadline=0.2, budget=1, attempts=1)
    stopped.clock.mode = "instant"
    assert (await run(budget=2, deadline=300)).first_output
    assert len(stopped.recorder.submissions) == 1


@pytest.mark.parametrize("other", [None, 100])
@pytest.mark.parametrize("is_first", [True, False])
async def test_calls_that_share_a_job_have_their_own_budgets(rh: Emulator, other: float | None, is_first: bool) -> None:
    options: list[dict[str, Any]] = [{"budget": 0.01}, {"budget": other}]
    if not is_first:
        options.reverse()
    calls = await begin(rh, is_later=False, first=options[0], second=options[1])
    done = await asyncio.gather(*calls, return_exceptions=True)
    poor, rich = done if is_first else reversed(done)
    assert isinstance(rich, Result)
    assert isinstance(poor, Result | BudgetExceeded), "it may use a task that is paid for already"
    assert len(rh.recorder.paid) == 1


async def test_a_call_does_not_pay_within_the_budget_of_a_call_that_was_cancelled(rh: Emulator) -> None:
    rh.faults.add(Fault("submit", kind="code", code="421", times=1))
    rich = asyncio.ensure_future(run(budget=100))
    await asyncio.to_thread(rh.recorder.wait, lambda recorder: len(recorder.submissions) == 1)
    poor = asyncio.ensure_future(run(budget=0.01))
    await asyncio.sleep(0.2)
    rich.cancel()
    with pytest.raises(BudgetExceeded):
        await poor
    assert not rh.recorder.paid


@pytest.mark.parametrize("other", [{}, {"budget": 100}])
async def test_calls_that_share_a_job_agree_on_what_may_be_paid(stopped: Emulator, other: dict[str, Any]) -> None:
    calls = await begin(stopped, is_later=True, first={"attempts": 1}, second={"attempts": 2, **other})
    with pytest.raises(InputError, match=r"another call is making this job.*attempts=.*give both calls the same value"):
        await calls[1]
    stopped.clock.mode = "instant"
    await calls[0]


@pytest.mark.prefect
async def test_a_second_call_with_other_options_is_told_that_it_is_the_second(stopped: Emulator) -> None:
    """Equal options would not help it."""

    @flow
    async def posters() -> None:
        first = asyncio.ensure_future(generate(POSTER, attempts=1))
        await asyncio.to_thread(stopped.recorder.wait, lambda recorder: len(recorder.paid) == 1)
        with pytest.raises(EqualRequest, match="take=2"):
            await generate(POSTER, attempts=2)
        stopped.clock.mode = "instant"
        await first

    await posters()


async def test_calls_share_the_task_after_one_that_failed(stopped: Emulator) -> None:
    stopped.faults.add(Fault("submit", kind="fail", code="1504", times=1))
    calls = await begin(stopped, is_later=True, first={}, second={"deadline": 300})
    stopped.clock.mode = "instant"
    first, second = await asyncio.gather(*calls)
    assert first == second
    assert len(stopped.recorder.paid) == 2


@pytest.mark.prefect
async def test_a_later_call_gets_the_files_in_its_own_storage(stopped: Emulator, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        await MediaStorage(url=str(folder)).asave(folder.name, overwrite=True)
    first, second = ({"storage": folder.name} for folder in folders)
    calls = await begin(stopped, is_later=True, first=first, second=second)
    await asyncio.sleep(0.5)
    stopped.clock.mode = "instant"
    for folder, result in zip(folders, await asyncio.gather(*calls), strict=True):
        assert Path(result.first_output.uri).is_relative_to(folder)
        assert Path(result.record).is_relative_to(folder)
    assert len(stopped.recorder.submissions) == 1

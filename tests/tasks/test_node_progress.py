"""A job that waits for a graph tells how far it is, where RunningHub offers that; and never depends on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from rh_prefect import generate
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.emulator.comfy.workflows import TEXT_TO_IMAGE
from rh_prefect.flow_runs import progress_observer
from rh_prefect.flow_runs.progress_observer import RunProgress
from rh_prefect.workflow_inputs import WorkflowInput
from rh_prefect.works.events import JobEvent
from rh_prefect.works.result import Result
from tests.support.servers.emulator_env import StartEmulator
from tests.support.waiting import until

QUEUED, RUNNING = 1.0, 100.0


@pytest.fixture
def told() -> Iterator[list[JobEvent]]:
    events: list[JobEvent] = []
    progress_observer.listeners.append(events.append)
    yield events
    progress_observer.listeners.remove(events.append)


@pytest.fixture
def rh(start_rh: StartEmulator) -> Emulator:
    """An emulator whose clock stands still until a test moves it."""
    return start_rh(clock="real", factor=0, durations=lambda model, payload: (QUEUED, RUNNING))


async def running(rh: Emulator, share: float) -> asyncio.Task[Result]:
    """A run that has been rendered to this share; by v1, since it brings its own graph."""
    request = WorkflowInput(id=rh.workflows.id_of("text-to-image"), workflow=TEXT_TO_IMAGE)
    run = asyncio.ensure_future(generate.fn(request, scope="test"))
    await until(lambda: rh.recorder.paid)
    rh.clock.advance(QUEUED + share * RUNNING)
    return run


def steps(told: list[JobEvent]) -> list[str]:
    return [event.message for event in told if event.is_step]


async def test_a_waiting_job_tells_which_node_runs_and_how_far_it_is(
    rh: Emulator, told: list[JobEvent], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    run = await running(rh, 0.6)
    await until(lambda: any(step.startswith("KSampler ") for step in steps(told)))
    board = RunProgress()
    for event in told:
        board.update(event)
    assert board.line.startswith("0 of 1 jobs done; workflow/")
    assert board.line.endswith(steps(told)[-1])
    rh.clock.advance(RUNNING)
    assert (await run).first_output.kind == "image"
    assert steps(told)[0] == "EmptyLatentImage"
    assert {event.state for event in told if event.is_step} == {"running"}
    board.update(told[-1])
    assert board.line == "1 of 1 jobs done"
    # The address holds a ticket of the account.
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"Rh-Comfy-Auth" in data for data in written)
    assert "c_instance" not in caplog.text.replace("/ws/c_instance HTTP", "")
    assert "Rh-Comfy-Auth" not in repr(told)
    logged = [one.getMessage() for one in caplog.records if one.levelno >= logging.INFO]
    assert not any(line.endswith(steps(told)[0]) for line in logged), "it is for the bar"


@pytest.mark.parametrize(
    "fault",
    [
        Fault("outputs", kind="html"),
        Fault("outputs", kind="code", code="807"),
        Fault("progress", kind="drop", at=0.0),
        Fault("outputs", kind="hold", seconds=3),
    ],
)
async def test_a_job_succeeds_where_nothing_can_be_told(rh: Emulator, told: list[JobEvent], fault: Fault) -> None:
    rh.faults.add(fault)
    run = await running(rh, 0.5)
    await until(lambda: fault.kind == "hold" or any(one.path.endswith("/outputs") for one in rh.recorder.requests))
    rh.clock.advance(RUNNING)
    assert (await run).first_output.kind == "image"
    assert steps(told) == []
    assert len(rh.recorder.paid) == 1

"""What Prefect knows of the files of an own flow: who made them, with which model, and what they are."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State, TaskRun, TaskRunResult
from prefect.events.filters import EventFilter, EventNameFilter, EventRelatedFilter
from prefect.events.schemas.events import ReceivedEvent

from rh_prefect import flow, generate, models
from rh_prefect.emulator import Emulator
from rh_prefect.flow_runs.prefect_internals import drain
from rh_prefect.flow_runs.rerun import create, rerun

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server")]


@flow
async def shot(prompt: str) -> str:
    picture = await generate(models.ZImageTurbo(prompt=prompt, aspect_ratio="16:9"), label="picture")
    motion = models.KlingV26ProImageToVideo(image_url=picture, prompt="waves", duration="5", sound="false")
    clip = await generate(motion, label="motion")
    large = await generate(models.RhVideoUpscaler(video_url=clip, target_resolution="1080p"), label="upscale")
    return large.first_output.sha256


async def test_the_steps_of_an_own_flow_are_connected_and_its_files_are_assets(rh: Emulator) -> None:
    """The run had no arrows between its steps, and was an `ivory-hog`."""
    state: State[Any] = await shot("a pier at night", return_state=True)
    film, run = await state.aresult(), state.state_details.flow_run_id
    assert run is not None
    await drain()
    async with get_client() as client:
        flow_run = await client.read_flow_run(run)
        of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run]))
        tasks: list[TaskRun] = []
        while len(tasks) < 3:
            tasks = await client.read_task_runs(flow_run_filter=of_run)
            await asyncio.sleep(0.05)
        related = EventRelatedFilter(id=[f"prefect.flow-run.{run}"])
        wanted = EventFilter(event=EventNameFilter(name=["prefect.asset.materialization.succeeded"]), related=related)
        events: list[ReceivedEvent] = []
        while len(events) < 3:
            events = (await client.read_events(wanted, limit=50)).events
            await asyncio.sleep(0.05)
    assert flow_run.name.startswith("shot: a pier at night, ")
    names = {one.id: one.name.partition(":")[0] for one in tasks}
    arrows = {
        (names[made.id], f"{one.name.partition(':')[0]}: {param}")
        for one in tasks
        for param, inputs in one.task_inputs.items()
        for made in inputs
        if isinstance(made, TaskRunResult)
    }
    assert arrows == {
        ("picture", "motion: request"),
        ("motion", "upscale: request"),
    }
    tags = {one.name.partition(":")[0]: one.tags for one in tasks}
    assert tags["motion"] == ["model:kling-v2.6-pro-image-to-video"]
    assets = {event.payload["model"]: event for event in events}
    assert assets["rh-video-upscaler"].payload["sha256"] == film
    clip = assets["kling-v2.6-pro-image-to-video"]
    assert clip.resource.id.startswith("file:///")
    assert (clip.payload["cost"], clip.payload["kind"]) == ("1.75", "video")
    made_by = {event.resource.id: model for model, event in assets.items()}
    made_from = {
        model: {made_by[one.id] for one in event.related if one.role == "asset"} for model, event in assets.items()
    }
    assert made_from == {
        "z-image/turbo": set(),
        "kling-v2.6-pro-image-to-video": {"z-image/turbo"},
        "rh-video-upscaler": {"kling-v2.6-pro-image-to-video"},
    }


async def test_a_name_that_a_person_gave_is_kept(rh: Emulator) -> None:
    async with get_client() as client:
        run = await create(shot, {"prompt": "a quay"})
        await client.set_flow_run_name(UUID(str(run)), "for-the-customer")
        await rerun(shot, str(run))
        assert (await client.read_flow_run(UUID(str(run)))).name == "for-the-customer"

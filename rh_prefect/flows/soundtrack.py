"""The flow `add_soundtrack`: gives a video a voice and music."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rh_prefect.errors import InputError
from rh_prefect.flow_runs.flow import flow, run_name
from rh_prefect.flows.steps import (
    Blocks,
    Budget,
    MaxAttempts,
    Music,
    expect,
    gather_all,
    music_request,
    price_of,
    speech_request,
    text_to_music,
    text_to_speech,
)
from rh_prefect.tasks.assemble import Film, assemble, check_video


@flow(name="add-soundtrack", flow_run_name=run_name)
async def add_soundtrack(
    video: str,
    narration: Annotated[str, Field(max_length=5000)] | None = None,
    music: Music | None = None,
    budget: Budget | None = None,
    max_attempts: MaxAttempts = 3,
    credentials: str | None = None,
    storage: str | None = None,
) -> Film:
    """Lays speech over ducked music and both under a video.

    Args:
        video: A path, an fsspec URI or a link.
        narration: What is spoken; empty for no voice.
        music: What the music is like; empty for no music.
        budget: What the run may cost, in the account's currency; no job starts that would break it. Empty for no limit.
        max_attempts: How many tasks one job may pay for until the run is run again by hand, failed ones included.
        credentials: Name of a RunningHubCredentials or RunningHubPool block; empty for the worker's RH_API_KEY.
        storage: Name of a MediaStorage block; empty for the worker's RH_STORAGE_URL.
    """
    if not (narration or music):
        raise InputError(
            "add-soundtrack: neither narration nor music is given. What to do: give `narration`, `music`, or both."
        )
    blocks: Blocks = {"credentials": credentials, "storage": storage, "budget": budget, "max_attempts": max_attempts}
    asked = [*([speech_request(narration)] if narration else []), *([music_request(music)] if music else [])]
    await expect([price_of(one) for one in asked], blocks=blocks)
    await check_video(video, storage=storage)
    jobs = {}
    if narration:
        jobs["speech"] = text_to_speech(narration, label="speech", blocks=blocks)
    if music:
        jobs["music"] = text_to_music(music, label="music", blocks=blocks)
    made = dict(zip(jobs, await gather_all(*jobs.values()), strict=True))
    return await assemble(
        [video], name="soundtrack", speech=made.get("speech"), music=made.get("music"), storage=storage
    )

"""The flow `add_soundtrack`: adds speech and music to a video."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rh_prefect.errors import InputError
from rh_prefect.flow_runs.flow import flow, run_name
from rh_prefect.flow_runs.parameter_types import Attempts, Budget, Music
from rh_prefect.flows.common_steps import (
    Blocks,
    expect,
    gather_all,
    make,
    music_request,
    price_of,
    speech_request,
)
from rh_prefect.tasks.assemble import Film, assemble, check_video


@flow(name="add-soundtrack", flow_run_name=run_name)
async def add_soundtrack(
    video: str,
    narration: Annotated[str, Field(max_length=5000)] | None = None,
    music: Music | None = None,
    budget: Budget | None = None,
    attempts: Attempts = 3,
    credentials: str | None = None,
    storage: str | None = None,
) -> Film:
    """Add speech and music to a video; the music is lowered under the speech.

    Args:
        video: A path, an fsspec URI or a link.
        narration: The spoken text; empty for no speech.
        music: Description of the music; empty for no music.
        budget: Maximum cost of the run, in the account's currency; no job that would exceed it starts. Empty: no limit.
        attempts: Tasks that one job may pay for until the run is resumed by hand, failed ones included.
        credentials: Name of a RunningHubCredentials or RunningHubPool block; by default RH_API_KEY.
        storage: Name of a MediaStorage block; by default RH_STORAGE_URL.
    """
    if not (narration or music):
        raise InputError(
            "add-soundtrack: neither narration nor music is given. What to do: give `narration`, `music`, or both."
        )
    blocks: Blocks = {"credentials": credentials, "storage": storage, "budget": budget, "attempts": attempts}
    requests = {"speech": speech_request(narration)} if narration else {}
    if music:
        requests["music"] = music_request(music)
    await expect([price_of(one) for one in requests.values()], blocks=blocks)
    await check_video(video, storage=storage)
    # Several videos of one run may have the same text or music.
    jobs = [make(one, label=label, blocks=blocks, same=True) for label, one in requests.items()]
    results = dict(zip(requests, await gather_all(*jobs), strict=True))
    return await assemble(
        [video], name="soundtrack", speech=results.get("speech"), music=results.get("music"), storage=storage
    )

"""Adds speech and music to a silent video; a model writes the spoken text from the video."""

from __future__ import annotations

import asyncio
from typing import Annotated

from pydantic import Field

from rh_prefect import Media, Result, flow, generate, models
from rh_prefect.flow_runs.flow import run_name
from rh_prefect.flows import assemble
from rh_prefect.pipelines.run.result import PipelineResult


@flow(name="narrate-video", flow_run_name=run_name)
async def narrate_video(
    video: str,
    style: Annotated[str, Field(min_length=1, max_length=500)] = "calm and warm, three short sentences",
    music: Annotated[str, Field(min_length=1, max_length=400)] = "A quiet piano piece without vocals",
    credentials: str | None = None,
    storage: str | None = None,
) -> Media:
    """Lets models write and speak a narration, and adds this narration and music to the video.

    Args:
        video: An MP4 of up to 20 MB: a path, an fsspec URI or a link.
        style: The style of the narration.
        music: A description of the music.
        credentials: Name of a RunningHubCredentials or RunningHubPool block; by default RH_API_KEY.
        storage: Name of a MediaStorage block; by default RH_STORAGE_URL.
    """

    async def narrate() -> Result:
        wish = f"Write what a narrator says over this video: {style}. Answer with the spoken words only."
        watch = models.RhartTextG25FlashVideoToText(video_url=video, prompt=wish)
        words = await generate(watch, label="narration", credentials=credentials, storage=storage)
        text = models.MinimaxSpeech28Hd(text=words.text)
        return await generate(text, label="speech", credentials=credentials, storage=storage)

    piece = models.SunoSingleV55(description=music, make_instrumental="true")
    speech, track = await asyncio.gather(
        narrate(), generate(piece, label="music", credentials=credentials, storage=storage)
    )
    made: PipelineResult = await assemble(clips=[video], speech=speech, music=track, storage=storage)
    return made.output("film", Media)

"""Flows composed in Python with `generate` and `assemble`, which are killed and resumed."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel

from rh_prefect import Media, Result, flow, generate, models
from rh_prefect.flows import assemble

MOVES = ("the camera pushes in slowly", "the camera glides to the right")


class Made(BaseModel):
    film: Media
    contact_sheet: Media
    steps: list[Result]


async def clip_of(image: Result | str, prompt: str, label: str) -> list[Result]:
    motion = models.KlingV26ProImageToVideo(image_url=image, prompt=prompt, duration="5", sound="false")
    clip = await generate(motion, label=f"{label}-motion")
    large = models.RhVideoUpscaler(video_url=clip, target_resolution="720p")
    return [clip, await generate(large, label=label)]


async def shot(number: int, prompt: str) -> list[Result]:
    picture = models.ZImageTurbo(prompt=f"{prompt}, shot {number}", aspect_ratio="16:9")
    made = await generate(picture, label=f"shot-{number}-picture")
    move = MOVES[number % len(MOVES)]
    return [made, *await clip_of(made, f"{prompt}, {move}", f"shot-{number}")]


@flow
async def film(prompt: str, shots: int, narration: str) -> Made:
    music = models.SunoSingleV55(description=f"Calm music for: {prompt}", make_instrumental="true")
    sounds = asyncio.gather(
        generate(models.MinimaxSpeech28Hd(text=narration), label="speech"), generate(music, label="music")
    )
    takes = [shot(number, prompt) for number in range(1, shots + 1)]
    # All are waited for, so that paid results are saved before an error is raised.
    done = await asyncio.gather(sounds, *takes, return_exceptions=True)
    for one in done:
        if isinstance(one, BaseException):
            raise one
    (speech, track), *parts = [one for one in done if not isinstance(one, BaseException)]
    cut = await assemble(clips=[steps[-1] for steps in parts], speech=speech, music=track)
    steps = [*(step for each in parts for step in each), speech, track]
    return Made(film=cut["film"], contact_sheet=cut["contact_sheet"], steps=steps)


@flow
async def upscaled_clip(image: str, prompt: str) -> Result:
    return (await clip_of(image, prompt, "clip"))[-1]

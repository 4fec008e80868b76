"""Flows composed in Python with `generate` and a pipeline of edits, which are killed and resumed."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel

from rh_prefect import Media, Pipeline, Result, flow, generate, models

MOVES = ("the camera pushes in slowly", "the camera glides to the right")

CUT = Pipeline.from_text("""
name: cut
params: {clips: {type: files, of: video}, speech: audio, music: audio}
steps:
  cut: {edit: concat, with: {videos: $(params.clips)}}
  sound: {edit: mix, with: {speech: $(params.speech), music: $(params.music), seconds: $(cut.seconds)}}
  film: {edit: mux, with: {video: $(cut), audio: $(sound)}}
  sheet: {edit: contact_sheet, with: {of: $(params.clips)}}
outputs: {film: $(film), sheet: $(sheet)}
""")


class Made(BaseModel):
    """What a film is made of."""

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
    files = [one.first_output for one in (speech, track, *(steps[-1] for steps in parts))]
    cut = await CUT.run(speech=files[0], music=files[1], clips=files[2:])
    steps = [*(step for each in parts for step in each), speech, track]
    return Made(film=cut["film"], contact_sheet=cut["sheet"], steps=steps)


@flow
async def upscaled_clip(image: str, prompt: str) -> Result:
    return (await clip_of(image, prompt, "clip"))[-1]

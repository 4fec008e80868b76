"""The flow `film`: text -> image -> image-to-video -> upscale -> speech and music -> one finished film."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from rh_prefect.flow_runs.flow import flow, run_name
from rh_prefect.flow_runs.parameter_types import (
    LONGEST_MUSIC,
    Aspect,
    Attempts,
    Budget,
    ClipSeconds,
    Music,
    Resolution,
)
from rh_prefect.flows.common_steps import (
    FRAMINGS,
    MOVES,
    Blocks,
    expect,
    gather_all,
    make,
    motion_request,
    music_request,
    paid_for,
    picture_request,
    price_of,
    speech_request,
    upscale_request,
)
from rh_prefect.media.media import Media
from rh_prefect.tasks.assemble import assemble
from rh_prefect.tasks.generate import check_job
from rh_prefect.works.journal.costs import Costs
from rh_prefect.works.outputs.result import Result

_LATER = "the-file-of-an-earlier-step"
"""Stands for a file that is not made yet, where only the price is looked up."""


class FilmResult(BaseModel):
    """The result of the flow `film`.

    Attributes:
        film: H.264 video with an AAC track.
        contact_sheet: A JPEG with one picture of each shot.
        steps: Every paid job, in the order of the film.
        costs: What the steps cost, by unit, with the tasks that failed before they succeeded.
    """

    model_config = ConfigDict(frozen=True)

    film: Media
    contact_sheet: Media
    steps: tuple[Result, ...]
    costs: Costs


@flow(name="film", flow_run_name=run_name)
async def film(
    prompt: Annotated[str, Field(min_length=1, max_length=1500)],
    shots: Annotated[int, Field(ge=1, le=12)] = 3,
    image: str | None = None,
    narration: Annotated[str, Field(max_length=5000)] | None = None,
    music: Music | None = None,
    aspect: Aspect = "16:9",
    seconds: ClipSeconds = 5,
    resolution: Resolution = "1080p",
    budget: Budget | None = None,
    attempts: Attempts = 3,
    credentials: str | None = None,
    storage: str | None = None,
) -> FilmResult:
    """Make a short film from one sentence, with pictures, motion, upscaling, speech and music.

    Args:
        prompt: What the film shows.
        shots: Number of shots, 1 to 12; they are made in parallel.
        image: A picture that every shot starts from: a path, an fsspec URI or a link. Empty: a picture is generated
            for each shot.
        narration: The spoken text; by default the prompt. What is longer than the film is cut, with a warning.
        music: Description of the music; by default it is derived from the prompt.
        aspect: Aspect ratio of the generated pictures.
        seconds: Length of each shot.
        resolution: Resolution after upscaling.
        budget: Maximum cost of the run, in the account's currency; no job that would exceed it starts. Empty: no limit.
        attempts: Tasks that one job may pay for until the run is resumed by hand, failed ones included.
        credentials: Name of a RunningHubCredentials or RunningHubPool block; by default RH_API_KEY.
        storage: Name of a MediaStorage block; by default RH_STORAGE_URL.
    """
    blocks: Blocks = {"credentials": credentials, "storage": storage, "budget": budget, "attempts": attempts}
    description = music or f"Calm cinematic music, no vocals, for: {prompt}"[:LONGEST_MUSIC]
    shot = _shot_prices(prompt, image, aspect=aspect, seconds=seconds, resolution=resolution)
    sound = [price_of(speech_request(narration or prompt)), price_of(music_request(description))]
    await expect([*shot * shots, *sound], blocks=blocks)
    if image:
        await check_job(
            motion_request(image, f"{prompt}, {MOVES[0]}", seconds), credentials=credentials, storage=storage
        )
    takes = [
        _shot(number, prompt, image, aspect=aspect, seconds=seconds, resolution=resolution, blocks=blocks)
        for number in range(1, shots + 1)
    ]
    # Several films of one run may have the same text or music.
    sounds = gather_all(
        make(speech_request(narration or prompt), label="speech", blocks=blocks, same=True),
        make(music_request(description), label="music", blocks=blocks, same=True),
    )
    (speech, music_track), *shot_steps = await gather_all(sounds, *takes)
    cut = await assemble(
        [steps[-1] for steps in shot_steps],
        speech=speech,
        music=music_track,
        captions=[f"Shot {number}" for number in range(1, shots + 1)],
        storage=storage,
    )
    steps = (*(step for each in shot_steps for step in each), speech, music_track)
    costs = await paid_for(steps)
    return FilmResult(film=cut.film, contact_sheet=cut.contact_sheet, steps=steps, costs=costs)


def _shot_prices(
    prompt: str, image: str | None, *, aspect: Aspect, seconds: ClipSeconds, resolution: Resolution
) -> list[Costs]:
    """Returns the catalogue prices of the steps of one shot."""
    steps = [price_of(motion_request(_LATER, prompt, seconds))]
    steps.append(price_of(upscale_request(_LATER, resolution), seconds=seconds))
    return steps if image else [price_of(picture_request(prompt, aspect)), *steps]


async def _shot(
    number: int,
    prompt: str,
    image: str | None,
    *,
    aspect: Aspect,
    seconds: ClipSeconds,
    resolution: Resolution,
    blocks: Blocks,
) -> list[Result]:
    """Makes one shot, step by step; the last result is the finished clip.

    Each shot is a take: framings and movements return after some shots, so that two shots may make equal requests.
    """
    steps: list[Result] = []
    framing, move = FRAMINGS[(number - 1) % len(FRAMINGS)], MOVES[(number - 1) % len(MOVES)]
    if not image:
        picture = picture_request(f"{prompt}, {framing}", aspect)
        steps.append(await make(picture, label=f"shot-{number}-picture", blocks=blocks, take=number))
    start = image or steps[-1]
    motion = motion_request(start, f"{prompt}, {move}", seconds)
    steps.append(await make(motion, label=f"shot-{number}-motion", blocks=blocks, take=number))
    enlarged = upscale_request(steps[-1], resolution)
    steps.append(await make(enlarged, label=f"shot-{number}", blocks=blocks, take=number))
    return steps

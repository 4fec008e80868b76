"""The composed steps that flows are made of: plain functions, so that a flow that is run again finds its jobs again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Annotated, Literal, TypedDict, TypeVar

from pydantic import Field

from rh_prefect import models
from rh_prefect.errors import jobs_failed
from rh_prefect.jobs.outputs.result import Result
from rh_prefect.tasks.assemble import MediaLike
from rh_prefect.tasks.generate import check_job, generate

T = TypeVar("T")
Aspect = Literal["16:9", "9:16", "1:1"]
Budget = Annotated[float, Field(gt=0)]
"""What all jobs of a run may cost together, in the account's currency."""

MaxAttempts = Annotated[int, Field(ge=1)]
"""How many tasks one job may pay for until the run is run again by hand."""

LONGEST_MUSIC = 400
"""Characters that the music's model takes."""

Music = Annotated[str, Field(max_length=LONGEST_MUSIC)]
"""What music is like."""

Resolution = Literal["720p", "1080p", "2k", "4k"]
ClipSeconds = Literal[5, 10]

FRAMINGS = (
    "wide establishing shot",
    "medium shot at eye level",
    "close-up with shallow depth of field",
    "low angle with a bold silhouette",
    "view from above",
    "detail in macro",
)
"""What makes several shots of one prompt a film."""

MOVES = (
    "the camera pushes in slowly",
    "the camera glides to the right",
    "the camera rises gently",
    "the camera pulls back",
)


class Blocks(TypedDict):
    """What all calls of a flow share: the names of the blocks, and the limits of what they may pay."""

    credentials: str | None
    storage: str | None
    budget: float | None
    max_attempts: int


async def gather_all(*steps: Awaitable[T]) -> list[T]:
    """Waits for several steps, the failed ones included: what was paid for is brought home before an error is raised.

    Args:
        steps: What runs at the same time.

    Returns:
        What they return, in their order.

    Raises:
        JobsFailed: More than one failed: an `ExceptionGroup`.
        Exception: The one that failed.
    """
    done = await asyncio.gather(*steps, return_exceptions=True)
    failed = [one for one in done if isinstance(one, BaseException)]
    errors = [one for one in failed if isinstance(one, Exception)]
    if len(errors) == len(failed) > 1:
        raise jobs_failed(errors, total=len(done), what="steps")
    if len(failed) > 1:
        raise BaseExceptionGroup(f"{len(failed)} of {len(done)} steps failed", failed)
    if failed:
        raise failed[0]
    return [one for one in done if not isinstance(one, BaseException)]


async def text_to_image(prompt: str, *, aspect: Aspect, label: str, blocks: Blocks) -> Result:
    """Makes a picture from a text."""
    return await generate(
        models.ZImageTurbo(prompt=prompt, aspect_ratio=aspect, output_format="png"), label=label, **blocks
    )


async def image_to_video(image: MediaLike, prompt: str, *, seconds: ClipSeconds, label: str, blocks: Blocks) -> Result:
    """Makes a silent video that starts with a picture."""
    return await generate(_motion(image, prompt, seconds), label=label, **blocks)


async def check_animation(image: MediaLike, prompt: str, *, seconds: ClipSeconds, blocks: Blocks) -> None:
    """Checks a picture before the steps beside its own are paid for."""
    asked = _motion(image, prompt, seconds)
    await check_job(asked, credentials=blocks["credentials"], storage=blocks["storage"])


def _motion(image: MediaLike, prompt: str, seconds: ClipSeconds) -> models.ModelInput:
    duration: Literal["5", "10"] = "5" if seconds == 5 else "10"
    return models.KlingV26ProImageToVideo(image_url=image, prompt=prompt, duration=duration, sound="false")


async def upscale_video(video: MediaLike, *, resolution: Resolution, label: str, blocks: Blocks) -> Result:
    """Enlarges a video."""
    return await generate(models.RhVideoUpscaler(video_url=video, target_resolution=resolution), label=label, **blocks)


async def text_to_speech(text: str, *, label: str, blocks: Blocks) -> Result:
    """Speaks a text."""
    return await generate(models.MinimaxSpeech28Hd(text=text), label=label, **blocks)


async def text_to_music(description: str, *, label: str, blocks: Blocks) -> Result:
    """Makes instrumental music."""
    asked = models.SunoSingleV55(description=description, make_instrumental="true")
    return await generate(asked, label=label, **blocks)

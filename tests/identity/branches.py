"""The steps of a branch: an equal first request in all branches, with a take for each, and a next step."""

from __future__ import annotations

import random
import time
from typing import Any

from rh_prefect import generate, models
from rh_prefect.works.outputs.result import Result
from tests.support.processes.program_report import keep, tag


def first(words: str = "a lighthouse") -> models.ModelInput:
    """What all branches ask for alike."""
    return models.ZImageTurbo(prompt=f"{tag()} {words}")


def second(photo: Result | str, branch: object) -> models.ModelInput:
    """What a branch makes of the result that it got."""
    return models.ZImageTurboImageToImage(image_url=photo, prompt=f"{tag()} branch {branch}")


def edited(photo: Result | str) -> models.ModelInput:
    """A step that is given a file, and that all branches ask for alike."""
    return models.ZImageTurboImageToImage(image_url=photo, prompt=f"{tag()} at dusk")


def jitter() -> None:
    """Lets branches overtake each other."""
    time.sleep(random.random() * 0.2)


def made(asked: models.ModelInput, **options: Any) -> Result:
    """One job of a caller that is not async."""
    result: Result = generate.submit(asked, **options).result()
    return result


def branch(number: int) -> list[str]:
    """A branch of a caller that is not async."""
    jitter()
    photo = made(first(), take=number + 1)
    return keep(number, photo, made(second(photo, number)))


async def abranch(number: int) -> list[str]:
    """A branch of an async caller."""
    photo = await generate(first(), take=number + 1)
    return keep(number, photo, await generate(second(photo, number)))

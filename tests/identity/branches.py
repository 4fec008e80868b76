"""The steps of a branch: an equal first request in all branches, and a next step that is each branch's own."""

from __future__ import annotations

import random
import time

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
    """A first step that all branches ask for alike, and that is given a file."""
    return models.ZImageTurboImageToImage(image_url=photo, prompt=f"{tag()} at dusk")


def jitter() -> None:
    """Lets branches overtake each other."""
    time.sleep(random.random() * 0.2)


def made(asked: models.ModelInput) -> Result:
    """One job of a caller that is not async."""
    result: Result = generate.submit(asked).result()
    return result


def branch(name: object) -> list[str]:
    """A branch of a caller that is not async."""
    jitter()
    photo = made(first())
    return keep(name, photo, made(second(photo, name)))


async def abranch(name: object) -> list[str]:
    """A branch of an async caller."""
    photo = await generate(first())
    return keep(name, photo, await generate(second(photo, name)))

"""Flows that suspend themselves until their jobs have ended, as a worker runs them in tests."""

from __future__ import annotations

from rh_prefect import batch, flow, generate_many, models


@flow
async def suspending_pictures(prompts: list[str]) -> list[str]:
    """All of them, suspended until they have ended; what was made."""
    asked = [models.ZImageTurbo(prompt=prompt) for prompt in prompts]
    return [result.outputs[0].uri for result in await generate_many(asked, wait="suspend")]


@flow
async def suspending_batch(prompts: list[str]) -> int:
    """The same as a batch; how many are done."""
    account = await batch([{"prompt": prompt} for prompt in prompts], model="z-image/turbo", wait="suspend")
    return account.done


@flow(retries=1)
async def retried_pictures(prompts: list[str]) -> int:
    """Fails where one of them fails, and is tried again."""
    asked = [models.ZImageTurbo(prompt=prompt) for prompt in prompts]
    return len(await generate_many(asked, wait="suspend"))

"""Flows that a worker runs in tests, deployed by their module's path."""

from __future__ import annotations

import asyncio
import os
import signal

from prefect.flow_runs import asuspend_flow_run

from rh_prefect import RunningHubModel, batch, flow, generate, generate_many, models
from rh_prefect.job_blocks import RunningHubJobRun


@flow
async def pictures(prompts: list[str]) -> list[str]:
    calls = (generate(models.ZImageTurbo(prompt=prompt)) for prompt in prompts)
    return [result.task_id for result in await asyncio.gather(*calls)]


@flow
def blocking_pictures(prompts: list[str]) -> list[str]:
    futures = [generate.submit(models.ZImageTurbo(prompt=prompt)) for prompt in prompts]
    return [future.result().task_id for future in futures]


@flow
async def resting_pictures(prompts: list[str]) -> list[str]:
    runs = [await _started(prompt) for prompt in prompts]
    await asuspend_flow_run(timeout=3600)
    return [(await run.fetch_result_async()).task_id for run in runs]


@flow
async def crashing_pictures(prompts: list[str]) -> None:
    for prompt in prompts:
        await _started(prompt)
    os.kill(os.getpid(), signal.SIGKILL)


async def _started(prompt: str) -> RunningHubJobRun:
    return await RunningHubModel(model="z-image/turbo", params={"prompt": prompt}).trigger_async()


@flow
async def suspending_pictures(prompts: list[str]) -> list[str]:
    """All of them, suspended until they have ended; what was made."""
    asked = [models.ZImageTurbo(prompt=prompt) for prompt in prompts]
    return [result.outputs[0].uri for result in await generate_many(asked, wait="suspend")]


@flow
async def suspending_batch(prompts: list[str]) -> int:
    account = await batch([{"prompt": prompt} for prompt in prompts], model="z-image/turbo", wait="suspend")
    return account.done

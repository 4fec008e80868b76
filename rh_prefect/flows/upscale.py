"""The flow `upscale`: upscales videos, several at a time."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rh_prefect import models
from rh_prefect.flow_runs.flow import flow, run_name
from rh_prefect.flow_runs.parameter_types import Attempts, Budget, Resolution
from rh_prefect.flows.common_steps import Blocks, expect
from rh_prefect.tasks.concurrent import generate_many
from rh_prefect.tasks.generate import check_job
from rh_prefect.works.options import Wait
from rh_prefect.works.outputs.result import Result


@flow(name="upscale", flow_run_name=run_name)
async def upscale(
    videos: Annotated[list[str], Field(min_length=1)],
    resolution: Resolution = "1080p",
    budget: Budget | None = None,
    attempts: Attempts = 3,
    wait: Wait = "poll",
    credentials: str | None = None,
    storage: str | None = None,
) -> list[Result]:
    """Upscale videos.

    Args:
        videos: Paths, fsspec URIs or links; one that is given twice is upscaled once.
        resolution: Resolution of the results.
        budget: Maximum cost of the run, in the account's currency; no job that would exceed it starts. Empty: no limit.
        attempts: Tasks that one job may pay for until the run is resumed by hand, failed ones included.
        wait: `poll` waits in the process; `suspend` suspends the run until the webhook receiver resumes it.
        credentials: Name of a RunningHubCredentials or RunningHubPool block; by default RH_API_KEY.
        storage: Name of a MediaStorage block; by default RH_STORAGE_URL.
    """
    requests = [models.RhVideoUpscaler(video_url=video, target_resolution=resolution) for video in videos]
    blocks: Blocks = {"credentials": credentials, "storage": storage, "budget": budget, "attempts": attempts}
    prices = [await check_job(one, credentials=credentials, storage=storage) for one in requests]
    await expect(prices, blocks=blocks)
    return await generate_many(
        requests,
        wait=wait,
        label="enlarged",
        same=True,
        **blocks,
    )

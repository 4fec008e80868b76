"""The flow `image_to_video`: animates a picture, and upscales the video on request."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rh_prefect.flow_runs.flow import flow, run_name
from rh_prefect.flow_runs.parameter_types import Attempts, Budget, ClipSeconds, Resolution
from rh_prefect.flows import common_steps
from rh_prefect.flows.common_steps import Blocks, upscale_request
from rh_prefect.works.outputs.result import Result


@flow(name="image-to-video", flow_run_name=run_name)
async def image_to_video(
    image: str,
    prompt: Annotated[str, Field(min_length=1, max_length=2000)],
    seconds: ClipSeconds = 5,
    resolution: Resolution | None = None,
    budget: Budget | None = None,
    attempts: Attempts = 3,
    credentials: str | None = None,
    storage: str | None = None,
) -> Result:
    """Turn a picture into a video.

    Args:
        image: The picture: a path, an fsspec URI or a link.
        prompt: What happens in the video.
        seconds: Length of the video.
        resolution: Resolution after upscaling; empty for no upscaling.
        budget: Maximum cost of the run, in the account's currency; no job that would exceed it starts. Empty: no limit.
        attempts: Tasks that one job may pay for until the run is resumed by hand, failed ones included.
        credentials: Name of a RunningHubCredentials or RunningHubPool block; by default RH_API_KEY.
        storage: Name of a MediaStorage block; by default RH_STORAGE_URL.
    """
    blocks: Blocks = {"credentials": credentials, "storage": storage, "budget": budget, "attempts": attempts}
    request = common_steps.motion_request(image, prompt, seconds)
    prices = [common_steps.price_of(request)]
    if resolution is not None:
        prices.append(common_steps.price_of(upscale_request(image, resolution), seconds=seconds))
    await common_steps.expect(prices, blocks=blocks)
    clip = await common_steps.make(request, label="clip", blocks=blocks)
    if resolution is None:
        return clip
    return await common_steps.make(upscale_request(clip, resolution), label="clip-enlarged", blocks=blocks)

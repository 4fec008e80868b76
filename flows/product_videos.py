"""A short video of each product, from its picture."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rh_prefect import Result, flow, generate_many, models
from rh_prefect.flow_runs.flow import run_name


@flow(name="product-videos", flow_run_name=run_name)
async def product_videos(
    pictures: Annotated[list[str], Field(min_length=1)],
    motion: Annotated[str, Field(min_length=1, max_length=2000)] = "the camera circles the product, soft studio light",
    seconds: Literal["5", "10"] = "5",
    credentials: str | None = None,
    storage: str | None = None,
) -> list[Result]:
    """Turns each picture into a video, many at a time.

    Args:
        pictures: The products' pictures: paths, fsspec URIs or links; one that is given twice has one video.
        motion: What happens in each video.
        seconds: Length of each video.
        credentials: Name of a RunningHubCredentials or RunningHubPool block; by default RH_API_KEY.
        storage: Name of a MediaStorage block; by default RH_STORAGE_URL.
    """
    asked = [
        models.KlingV26ProImageToVideo(image_url=picture, prompt=motion, duration=seconds, sound="false")
        for picture in pictures
    ]
    return await generate_many(asked, label="product", same=True, credentials=credentials, storage=storage)

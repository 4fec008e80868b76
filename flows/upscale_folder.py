"""Upscales all videos of a folder; videos that are upscaled already are not paid for again."""

from __future__ import annotations

import asyncio

from prefect.logging import get_run_logger

from rh_prefect import MediaStore, Result, flow, generate_many, models
from rh_prefect.blocks.lookup import load_storage
from rh_prefect.flow_runs.flow import run_name
from rh_prefect.flow_runs.parameter_types import Resolution


@flow(name="upscale-folder", flow_run_name=run_name)
async def upscale_folder(
    folder: str,
    resolution: Resolution = "1080p",
    credentials: str | None = None,
    storage: str | None = None,
) -> list[Result]:
    """Enlarges the MP4 videos of a folder and of the folders in it.

    Args:
        folder: A path or an fsspec URL, as in s3://bucket/prefix.
        resolution: The size that they shall have.
        credentials: Name of a RunningHubCredentials or RunningHubPool block; by default RH_API_KEY.
        storage: Name of a MediaStorage block, whose options open the folder too; by default RH_STORAGE_URL.
    """
    out = await load_storage(storage)
    videos = await asyncio.to_thread(_videos, MediaStore(folder, options=out.options_for(folder)))
    get_run_logger().info("%s: %d video(s)", folder, len(videos))
    asked = [models.RhVideoUpscaler(video_url=video, target_resolution=resolution) for video in videos]
    # `reuse` serves what an earlier night paid for, so the flow may run as often as it likes.
    return await generate_many(asked, label="enlarged", reuse="always", credentials=credentials, storage=storage)


def _videos(folder: MediaStore) -> list[str]:
    return [folder.uri(name) for name in folder.list() if name.lower().endswith(".mp4")]

"""Flows that start a block's job and do something else before they fetch it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from rh_prefect import flow
from rh_prefect.job_blocks import RunningHubModel
from rh_prefect.works.result import Result

MODULE = "tests.job_blocks.flows"


@flow
async def at_once(block: str) -> Result:
    """Names only: the flow's parameters hold no block."""
    saved: RunningHubModel = await RunningHubModel.aload(block)
    run = await saved.trigger_async()
    await run.wait_for_completion_async()
    return await run.fetch_result_async()


@flow
def in_sync(block: str) -> list[Result]:
    saved: Any = RunningHubModel.load(block, _sync=True)  # type: ignore[call-arg]  # of Prefect's own decorator
    wanted = [("one", 1), ("two", 1), ("two", 2)]
    runs = [saved.trigger(params={"prompt": prompt}, take=take) for prompt, take in wanted]
    return [run.fetch_result() for run in runs]


@flow
async def told(marker: str) -> Result:
    """Says which task was triggered, and waits for it."""
    run = await RunningHubModel(model="z-image/turbo", params={"prompt": "a lighthouse"}).trigger_async()
    Path(marker).write_text(run.task_id)
    return await run.fetch_result_async()


@task(cache_policy=NO_CACHE, retries=1)
async def tried_again(block: RunningHubModel, ids: list[str]) -> None:
    run = await block.trigger_async()
    ids.append(run.task_id)
    if len(ids) == 1:
        raise RuntimeError("fails after it has triggered")

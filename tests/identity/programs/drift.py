"""One call in the flow itself, and a task for each branch; the test edits this file between two attempts."""

from __future__ import annotations

from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import wait

from rh_prefect import flow, generate
from rh_prefect.works.outputs.result import Result
from tests.identity.branches import abranch, branch, first, made
from tests.support.processes.program_report import break_off, keep

BRANCHES = 3


@task(cache_policy=NO_CACHE)
def scene(name: int) -> list[str]:
    return branch(name)


@task(cache_policy=NO_CACHE)
async def ascene(name: int) -> list[str]:
    return await abranch(name)


@task(cache_policy=NO_CACHE)
def opening() -> Result:
    return made(first("an intro"))


@task(cache_policy=NO_CACHE)
async def aopening() -> Result:
    return await generate(first("an intro"))


def _scenes(of: Task[..., Any]) -> None:
    futures = [of.submit(name) for name in range(BRANCHES)]
    wait(futures)
    for future in futures:
        future.result()
    break_off()


@flow(name="drift")
def sync_form() -> None:
    intro = made(first("an intro"))
    keep("intro", intro)
    _scenes(scene)


@flow(name="drift")
async def async_form() -> None:
    intro = await generate(first("an intro"))
    keep("intro", intro)
    _scenes(ascene)

"""A task of the caller's own for each branch: by `.submit`, by `.map`, and by `.submit` of `with_options`."""

from __future__ import annotations

from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import wait

from rh_prefect import flow
from tests.identity.branches import abranch, branch
from tests.support.processes.program_report import break_off

BRANCHES = 4


@task(cache_policy=NO_CACHE)
def own(name: int) -> list[str]:
    return branch(name)


@task(cache_policy=NO_CACHE)
async def aown(name: int) -> list[str]:
    return await abranch(name)


def _program(of: Task[..., Any], how: str) -> None:
    names = list(range(BRANCHES))
    if how == "map":
        futures = list(of.map(names))
    elif how == "with_options":
        futures = [of.with_options(retries=1, retry_delay_seconds=0).submit(name) for name in names]
    else:
        futures = [of.submit(name) for name in names]
    wait(futures)
    for future in futures:
        future.result()
    break_off()


@flow(name="own tasks")
def sync_form(how: str) -> None:
    _program(own, how)


@flow(name="own tasks")
async def async_form(how: str) -> None:
    _program(aown, how)

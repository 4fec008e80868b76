"""Tasks in processes of a pool, of the flow itself or of a child flow."""

from __future__ import annotations

import asyncio
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ProcessPoolTaskRunner

from rh_prefect import flow
from tests.identity.branches import abranch
from tests.support.processes.program_report import break_off

BRANCHES = 2


@task(cache_policy=NO_CACHE)
def own(name: int) -> list[str]:
    return asyncio.run(abranch(name))


@task(cache_policy=NO_CACHE)
async def aown(name: int) -> list[str]:
    return await abranch(name)


def _process_pool() -> Any:
    # Prefect types a runner by its own kind of future, and the decorator takes the base class of the futures only.
    return ProcessPoolTaskRunner(max_workers=2)


def _all(of: Task[..., Any]) -> None:
    for future in [of.submit(name) for name in range(BRANCHES)]:
        future.result()


@flow(task_runner=_process_pool())
def child() -> None:
    _all(own)


@flow(task_runner=_process_pool())
async def achild() -> None:
    _all(aown)


@flow(name="pooled", task_runner=_process_pool())
def sync_form(in_a_child: bool) -> None:
    if in_a_child:
        child()
    else:
        _all(own)
    break_off()


@flow(name="pooled", task_runner=_process_pool())
async def async_form(in_a_child: bool) -> None:
    if in_a_child:
        await achild()
    else:
        _all(aown)
    break_off()

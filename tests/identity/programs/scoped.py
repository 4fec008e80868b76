"""Equal calls in named scopes, outside of flows: of a script, of a task that is retried, of a web service."""

from __future__ import annotations

import asyncio

from prefect import task
from prefect.cache_policies import NO_CACHE

from rh_prefect import generate
from rh_prefect.works.outputs.result import Result
from tests.identity.branches import first
from tests.support.processes.program_report import BrokenOff, break_off, keep, tag

_tries: list[int] = []


async def _call(order: int = 0) -> Result:
    # The package's own two retries, sooner.
    return await generate.with_options(retry_delay_seconds=0.1)(first(), scope=f"{tag()}-{order}")


def _fail_once() -> None:
    _tries.append(1)
    if len(_tries) == 1:
        raise BrokenOff("the first try of the task fails")


@task(cache_policy=NO_CACHE, retries=2, retry_delay_seconds=0)
def own() -> Result:
    made = asyncio.run(_call())
    _fail_once()
    return made


@task(cache_policy=NO_CACHE, retries=2, retry_delay_seconds=0)
async def aown() -> Result:
    made = await _call()
    _fail_once()
    return made


def sync_form(in_a_task: bool = False) -> None:
    keep("only", own() if in_a_task else asyncio.run(_call()))
    break_off()


async def async_form(in_a_task: bool = False, orders: int = 0) -> None:
    if orders:  # each client of the service asks twice
        numbers = [*range(orders)] * 2
        for number, photo in zip(numbers, await asyncio.gather(*map(_call, numbers)), strict=True):
            keep(number, photo)
    else:
        keep("only", await (aown() if in_a_task else _call()))
    break_off()

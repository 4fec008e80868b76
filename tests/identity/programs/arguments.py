"""A task for each branch, with an argument that is another one in each attempt."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import httpx
from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import wait

from rh_prefect import flow, generate
from rh_prefect.works.outputs.result import Result
from tests.identity.branches import abranch, branch, edited, first, made, second
from tests.support.processes.program_report import break_off, file, keep

BRANCHES = 4
WORDS = [f"word {number}" for number in range(40)]
"""Enough for a set whose order depends on how it was filled."""


@task(cache_policy=NO_CACHE)
def own(name: int, argument: Any) -> list[str]:
    if isinstance(argument, str | Result):
        photo = made(edited(argument))
        return keep(name, photo, made(second(photo, name)))
    return branch(name)


@task(cache_policy=NO_CACHE)
async def aown(name: int, argument: Any) -> list[str]:
    if isinstance(argument, str | Result):
        photo = await generate(edited(argument))
        return keep(name, photo, await generate(second(photo, name)))
    return await abranch(name)


def _argument(kind: str) -> object:
    match kind:
        case "time stamp":
            return datetime.now(UTC)
        case "client":
            return httpx.Client()
        case "set":
            return set(random.sample(WORDS, len(WORDS)))
        case "mount":
            return file("mount").read_text().strip()
    served: Result = generate.submit(first(), reuse="always").result()
    return served


def _program(of: Task[..., Any], kind: str) -> None:
    futures = [of.submit(name, _argument(kind)) for name in range(BRANCHES)]
    wait(futures)
    for future in futures:
        future.result()
    break_off()


@flow(name="arguments")
def sync_form(kind: str) -> None:
    _program(own, kind)


@flow(name="arguments")
async def async_form(kind: str) -> None:
    _program(aown, kind)

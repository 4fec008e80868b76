"""A link for each branch, which the test serves."""

from __future__ import annotations

import json
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import wait

from rh_prefect import flow, generate
from tests.identity.branches import edited, made, second
from tests.support.processes.program_report import break_off, file, keep


@task(cache_policy=NO_CACHE)
def own(name: int, link: str, source: str) -> list[str]:
    photo = made(edited(link))
    return keep(name, photo, made(second(photo, name)), source=source)


@task(cache_policy=NO_CACHE)
async def aown(name: int, link: str, source: str) -> list[str]:
    photo = await generate(edited(link))
    return keep(name, photo, await generate(second(photo, name)), source=source)


def _program(of: Task[..., Any]) -> None:
    links = json.loads(file("links").read_text())
    futures = [of.submit(name, link, source) for name, (link, source) in enumerate(links)]
    wait(futures)
    for future in futures:
        future.result()
    break_off()


@flow(name="links")
def sync_form() -> None:
    _program(own)


@flow(name="links")
async def async_form() -> None:
    _program(aown)

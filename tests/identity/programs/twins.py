"""Child flows with equal arguments: nothing but their place tells them apart, and the next step is equal too."""

from __future__ import annotations

import asyncio

from rh_prefect import flow, generate
from rh_prefect.works.outputs.result import Result
from tests.identity.branches import edited, first, made
from tests.support.processes.program_report import break_off, keep

BRANCHES = 4


@flow
def child() -> list[Result]:
    photo = made(first())
    return [photo, made(edited(photo))]


@flow
async def achild() -> list[Result]:
    photo = await generate(first())
    return [photo, await generate(edited(photo))]


@flow(name="twins")
def sync_form() -> None:
    for name, steps in enumerate([child() for _ in range(BRANCHES)]):
        keep(name, *steps)
    break_off()


@flow(name="twins")
async def async_form() -> None:
    for name, steps in enumerate(await asyncio.gather(*(achild() for _ in range(BRANCHES)))):
        keep(name, *steps)
    break_off()

"""A child flow for each branch."""

from __future__ import annotations

import asyncio

from rh_prefect import flow
from tests.identity.branches import abranch, branch
from tests.support.processes.program_report import break_off

BRANCHES = 4


@flow
def child(name: int) -> list[str]:
    return branch(name)


@flow
async def achild(name: int) -> list[str]:
    return await abranch(name)


@flow(name="children")
def sync_form() -> None:
    for name in range(BRANCHES):
        child(name)
    break_off()


@flow(name="children")
async def async_form() -> None:
    await asyncio.gather(*(achild(name) for name in range(BRANCHES)))
    break_off()

"""Child flows that run child flows of their own."""

from __future__ import annotations

import asyncio

from rh_prefect import flow
from tests.identity.branches import abranch, branch
from tests.support.processes.program_report import break_off


@flow
def grandchild(number: int) -> list[str]:
    return branch(number)


@flow
async def agrandchild(number: int) -> list[str]:
    return await abranch(number)


@flow
def child(first: int) -> None:
    for number in (first, first + 1):
        grandchild(number)


@flow
async def achild(first: int) -> None:
    await asyncio.gather(*(agrandchild(number) for number in (first, first + 1)))


@flow(name="grandchildren")
def sync_form() -> None:
    for number in (0, 2):
        child(number)
    break_off()


@flow(name="grandchildren")
async def async_form() -> None:
    await asyncio.gather(*(achild(number) for number in (0, 2)))
    break_off()

"""Child flows that run child flows of their own."""

from __future__ import annotations

import asyncio

from rh_prefect import flow
from tests.identity.branches import abranch, branch
from tests.support.processes.program_report import break_off

BRANCHES = 4


@flow
def grandchild(name: str) -> list[str]:
    return branch(name)


@flow
async def agrandchild(name: str) -> list[str]:
    return await abranch(name)


@flow
def child(name: str) -> None:
    for part in "xy":
        grandchild(f"{name}{part}")


@flow
async def achild(name: str) -> None:
    await asyncio.gather(*(agrandchild(f"{name}{part}") for part in "xy"))


@flow(name="grandchildren")
def sync_form() -> None:
    for name in "ab":
        child(name)
    break_off()


@flow(name="grandchildren")
async def async_form() -> None:
    await asyncio.gather(*(achild(name) for name in "ab"))
    break_off()

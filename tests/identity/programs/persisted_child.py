"""A child flow whose result Prefect serves without running it again."""

from __future__ import annotations

import asyncio

from rh_prefect import flow
from tests.identity.branches import abranch, branch
from tests.support.processes.program_report import break_off, keep_again

BRANCHES = 4


@flow(persist_result=True)
def child(name: int) -> list[str]:
    return branch(name)


@flow(persist_result=True)
async def achild(name: int) -> list[str]:
    return await abranch(name)


@flow(name="persisted child")
def sync_form() -> None:
    for name in range(BRANCHES):
        keep_again(name, child(name))
    break_off()


@flow(name="persisted child")
async def async_form() -> None:
    for name, hashes in enumerate(await asyncio.gather(*(achild(name) for name in range(BRANCHES)))):
        keep_again(name, hashes)
    break_off()

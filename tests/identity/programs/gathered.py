"""Plain calls from threads and coroutines of the caller's own."""

from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor

from rh_prefect import flow
from tests.identity.branches import abranch, branch
from tests.support.processes.program_report import break_off

BRANCHES = 4


@flow(name="gathered")
def sync_form() -> None:
    with ThreadPoolExecutor(BRANCHES) as pool:
        runs = [pool.submit(contextvars.copy_context().run, branch, name) for name in range(BRANCHES)]
    for run in runs:
        run.result()
    break_off()


@flow(name="gathered")
async def async_form() -> None:
    await asyncio.gather(*(abranch(name) for name in range(BRANCHES)))
    break_off()

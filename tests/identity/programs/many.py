"""`generate_many` with several takes, then `generate_many` of what came."""

from __future__ import annotations

import asyncio

from rh_prefect import flow, generate_many
from tests.identity.branches import first, second
from tests.support.processes.program_report import break_off, keep

BRANCHES = 6


async def _program() -> None:
    photos = await generate_many([first()], takes=BRANCHES)
    clips = await generate_many([second(photo, n) for n, photo in enumerate(photos)])
    for n, (photo, clip) in enumerate(zip(photos, clips, strict=True)):
        keep(n, photo, clip)
    break_off()


@flow(name="many")
def sync_form() -> None:
    asyncio.run(_program())


@flow(name="many")
async def async_form() -> None:
    await _program()

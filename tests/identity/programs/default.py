"""A request that leaves a parameter to the catalogue's default."""

from __future__ import annotations

from rh_prefect import flow, generate
from tests.identity.branches import first, made, second
from tests.support.processes.program_report import break_off, keep


@flow(name="default")
def sync_form() -> None:
    photo = made(first())
    keep("only", photo, made(second(photo, "only")))
    break_off()


@flow(name="default")
async def async_form() -> None:
    photo = await generate(first())
    keep("only", photo, await generate(second(photo, "only")))
    break_off()
